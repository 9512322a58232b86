"""Captions asked of several runs: means over seeds and images; what was asked is kept."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import experiments.caption as script
from experiments.evaluation.caption import asking as caption_asking
from experiments.evaluation.caption.asking import CaptionAsking
from experiments.evaluation.caption.evaluate import caption
from experiments.evaluation.caption.likelihood import nats_of_own, nats_of_pairs
from experiments.evaluation.caption.means import Bits, Retrieval, Retrieved, Told, found
from experiments.evaluation.caption.result import CaptionResult
from experiments.evaluation.intervals import crossed_interval, mean_interval
from experiments.evaluation.kept import WRITE_EVERY, Kept, keep_arrays, read_arrays
from experiments.evaluation.recognition.paths import PathMakers
from experiments.evaluation.seeds import check_one_kind
from experiments.runs import Run
from experiments.training.build import build
from experiments.training.config import TrainConfig
from experiments.training.lock import locked_in_turn
from foveate.data.subwords import Subwords
from foveate.model.tracks import NOTHING
from tests.experiments.test_caption import colored

ASKED = {"fixations": (0, 2), "orders": ("random",), "retrieval_limit": 6, "examples": 1}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Runs of one kind in memory, whose weights and subwords differ."""
    pytest.importorskip("tokenizers")
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    colored(tmp_path / "colors.parquet")
    sizes = {"patch_size": 2, "embed_dim": 16, "depth": 1, "num_heads": 2, "decoder_depth": 1}
    words = {"recipe": "caption", "num_subwords": 300, "max_subwords": 8, "caption_column": "told"}
    found = []
    for seed, sentence in enumerate(("all red", "the green one")):
        torch.manual_seed(seed)
        config = TrainConfig().replace(
            data=str(tmp_path / "colors.parquet"),
            out=tmp_path / f"run_{seed}",
            seed=seed,
            budget=3,
            periphery=1,
            **sizes,
            **words,
        )
        subwords = Subwords.learned([sentence] * 2, 300)
        model, policy = build(config, (3, 8, 8), subwords.vocabulary, 8, subwords.merges)
        torch.nn.init.normal_(policy.score.weight)
        config.run.out.mkdir()
        found.append(
            Run(config.run.out, config, model.eval(), policy.eval(), config.total_iterations)
        )
    return found


class Passes:
    """What models were asked, by name; after so many, the asking is stopped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.most = math.inf
        for name in ("nats_of_own", "nats_of_pairs"):
            ask = partial(self.count, name, getattr(caption_asking, name))
            monkeypatch.setattr(caption_asking, name, ask)

    def count(self, name: str, ask: Callable[..., torch.Tensor], *args: object) -> torch.Tensor:
        if len(self.asked) >= self.most:
            raise KeyboardInterrupt
        self.asked.append(name)
        return ask(*args)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    return Passes(monkeypatch)


# --- means


def planted(bits: list[float], lead: float, cut: int) -> Told:
    policy, right = np.array(bits), np.array([1.0, 0.5, 0.0])
    return Told(
        orders={"policy": {2: policy}, "random": {2: policy + lead}},
        whole=policy - 1,
        alone=policy + lead,
        shuffled=policy,
        retrieved=Retrieved({1: right * lead}, {1: right}, 10 + cut),
        cut=cut,
    )


def test_means_are_over_seeds_and_images_and_differences_of_the_same_run() -> None:
    told = [planted([4, 5, 9], 0.25, 2), planted([5, 5, 5], 0.75, 5)]
    means = found(told, ({1: 0.1}, {1: 0.2}))
    values = np.array([[4, 5, 9], [5, 5, 5]], float)
    policy, random = means["orders"]["policy"][2], means["orders"]["random"][2]
    assert policy.bits_per_word == pytest.approx(5.5)
    assert policy.bits_per_word_ci95 == pytest.approx(crossed_interval(values))
    assert policy.per_seed == {"bits_per_word": (6, 5)}
    assert (policy.minus_policy, policy.minus_policy_ci95) == (None, None)
    assert random.minus_policy == pytest.approx(0.5)
    assert random.per_seed["minus_policy"] == pytest.approx((0.25, 0.75))
    assert means["alone"].per_seed["minus_policy"] == pytest.approx((1.25, 1.75))
    assert means["shuffled"].minus_policy == pytest.approx(1)
    assert means["image_nats_per_word"] == pytest.approx(1.5 * math.log(2))
    nats = means["per_seed"]["image_nats_per_word"]
    assert nats == pytest.approx((1.25 * math.log(2), 1.75 * math.log(2)))
    assert (means["cut"], means["per_seed"]["cut"]) == (5, (2, 5))
    assert means["image_to_text"].recall == {1: pytest.approx(0.25)}
    assert means["image_to_text"].per_seed == {1: pytest.approx((0.125, 0.375))}
    assert means["text_to_image"].chance == {1: 0.2}
    assert means["retrieval_pairs"] == round(13.5)


def test_of_one_run_intervals_are_over_images() -> None:
    means = found([planted([4, 5, 9], 0.25, 2)], ({1: 0.1}, {1: 0.2}))
    policy = means["orders"]["policy"][2]
    expected = mean_interval(np.array([4.0, 5, 9]))
    assert (policy.bits_per_word, policy.bits_per_word_ci95) == expected
    assert policy.per_seed == means["per_seed"] == means["image_to_text"].per_seed == {}
    none = found([replace(planted([4, 5, 9], 0.25, 2), retrieved=None)], None)
    assert (none["image_to_text"], none["retrieval_pairs"]) == (None, 0)


def test_recall_stays_a_share() -> None:
    hits = [{1: np.array([1.0, 1, 1, 0])}, {1: np.array([1.0, 1, 1, 1])}]
    low, high = Retrieval.of(hits, {1: 0.5}).recall_ci95[1] or (0, 0)
    assert 0 <= low < high == 1


def test_results_of_before_there_were_seeds_are_read(tmp_path: Path) -> None:
    bits = {"bits_per_word": 5.0, "bits_per_word_ci95": [4.0, 6.0]}
    bits |= {"minus_policy": None, "minus_policy_ci95": None}
    of_k = {"1": 0.25, "5": 0.5, "10": 0.75}
    recall = {"recall": of_k, "recall_ci95": dict.fromkeys(of_k), "chance": of_k}
    content = {
        **{"kind": "caption", "orders": {"policy": {"0": bits}}, "whole": bits, "alone": bits},
        **{"shuffled": bits, "image_nats_per_word": 0.1, "image_nats_per_word_ci95": None},
        **{"image_to_text": recall, "text_to_image": recall, "retrieval_images": 9},
        **{"retrieval_captions": 20, "written": [], "captions": 20, "without_captions": 0},
        **{"cut": 3, "test_images": 9, "train_seconds": None, "data": "old", "seed": 2},
        **{"budget": 4, "num_patches": 16, "commit": "abc", "options": {}, "iteration": 3},
    }
    result = CaptionResult.from_content(content, tmp_path / "caption.json")
    assert (result.seed, result.seeds, result.per_seed, result.commits) == (2, (), {}, ())
    assert "seed 2, trained" in result.to_text()
    assert "Of 3 captions, which are too long" in result.to_text()


# --- runs


def test_several_runs_are_asked_as_each_alone(runs: list[Run], tmp_path: Path) -> None:
    both, examples = caption(runs, **ASKED)  # type: ignore[arg-type]
    alone = [caption(run, **ASKED) for run in runs]  # type: ignore[arg-type]
    results = [result for result, _ in alone]
    assert [torch.equal(examples[0].order, each[0].order) for _, each in alone] == [True, False]
    assert both.written == results[0].written

    def bits(result: CaptionResult) -> list[Bits]:
        rows = [row[k] for row in result.orders.values() for k in (0, 2)]
        return [*rows, result.whole, result.alone, result.shuffled]

    for several, *single in zip(bits(both), *map(bits, results), strict=True):
        assert several.per_seed["bits_per_word"] == tuple(each.bits_per_word for each in single)
    for way in ("image_to_text", "text_to_image"):
        mean: Retrieval = getattr(both, way)
        for k, each in mean.per_seed.items():
            assert each == tuple(getattr(result, way).recall[k] for result in results)
    told = tuple(each.image_nats_per_word for each in results)
    assert both.per_seed["image_nats_per_word"] == told
    assert both.per_seed["cut"] == tuple(each.cut for each in results)
    assert both.cut == max(each.cut for each in results) > min(each.cut for each in results)
    assert (both.seeds, both.seed, both.options["seeds"]) == ((0, 1), None, [0, 1])
    assert (results[1].seeds, results[1].seed) == ((1,), 1)
    assert both.tables()[-1].columns == ("by seed", "0", "1")
    assert "mean of seeds 0, 1, each trained" in both.to_text()
    assert f"by seed {results[0].cut}, {results[1].cut}" in both.to_text()
    both.write(tmp_path / "caption.json")
    assert CaptionResult.read(tmp_path / "caption.json") == both


def test_runs_of_other_kinds_or_other_test_images_are_refused(
    runs: list[Run], tmp_path: Path
) -> None:
    one, two = runs
    with pytest.raises(ValueError, match="have budget 3 and 2; compare each kind by itself"):
        caption([one, replace(two, config=two.config.replace(budget=2))])
    with pytest.raises(ValueError, match=r"seeds of their own, got \[0, 0\]"):
        caption([one, one])
    with pytest.raises(ValueError, match="one or more runs, got none"):
        caption([])
    other = tmp_path / "other"
    other.mkdir()
    colored(other / "colors.parquet", 40)
    moved = replace(two, config=two.config.replace(data=str(other / "colors.parquet")))
    with pytest.raises(ValueError, match=r"the same test images, .*run_0 and .*run_1"):
        caption([one, moved])


def test_a_run_that_each_takes_may_be_of_its_own_seed(run: Run) -> None:
    def taking(seed: int, start: str | None, reference: str) -> Run:
        options = {"start_from": start, "reward": "reducible", "reward_reference": reference}
        return replace(run, config=run.config.replace(seed=seed, **options))

    first = taking(0, "/runs/start_0", "/runs/held_out_0")
    check_one_kind([first, taking(1, "/runs/start_1", "/runs/held_out_1")])
    with pytest.raises(ValueError, match="have reward_reference /runs/held_out_0 and average"):
        check_one_kind([first, taking(1, "/runs/start_1", "average")])
    for start in (None, "cue"):
        with pytest.raises(ValueError, match=f"have start_from /runs/start_0 and {start}"):
            check_one_kind([first, taking(1, start, "/runs/held_out_1")])


def test_another_runs_policy_is_an_order(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/captions.md has it."""
    page = (Path(__file__).parents[2] / "docs" / "captions.md").read_text()
    own = page.split("```python\n")[1].split("```")[0]
    (tmp_path / "my_orders.py").write_text(own)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("experiments.runs.load_run", lambda _: runs[1])
    asked = {**ASKED, "orders": ("my_orders:paid_for_pixels",)}
    result = caption(runs[0], **asked)[0]  # type: ignore[arg-type]
    images = CaptionAsking.of(runs[1], 9).test.images
    paths = PathMakers.of(runs[1], ()).scans["policy"](images)
    alone = CaptionAsking.of(runs[0], 9).told({"policy": paths}, (2,), 0, 0, 0).orders["policy"][2]
    found = result.orders["my_orders:paid_for_pixels"][2]
    assert found.bits_per_word == pytest.approx(alone.mean())
    assert found.minus_policy not in (None, 0)


def test_the_command_takes_several_runs(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    by_folder = {run.directory: run for run in runs}
    monkeypatch.setattr("experiments.runs.load_run", lambda folder, *_: by_folder[folder])
    options = {**ASKED, "orders": ("center_out",), "threads": 1}
    script.main(script.CaptionConfig(run=tuple(by_folder), **options))  # type: ignore[arg-type]
    result = CaptionResult.read(runs[0].directory / "caption.json")
    assert result.seeds == (0, 1)
    files = [sorted(each.name for each in folder.iterdir()) for folder in by_folder]
    assert files == [["caption.json", "caption.npz", "caption.png"], ["caption.npz"]]
    with pytest.raises(ValueError, match="run takes one or more run folders"):
        script.CaptionConfig(run=())


# --- what is kept


def test_every_answer_is_what_the_model_says_of_what_is_visible(runs: list[Run]) -> None:
    """Even where other patches, or none, are visible behind the same ranks."""
    asking = CaptionAsking.of(runs[0], 9)
    model, images, texts = asking.run.model, asking.test.images, asking.texts
    rank = torch.full((len(images), 16), 3)
    rank[:, :3] = torch.arange(3)
    other = rank.roll(1, 1)
    whose = torch.arange(len(images)).flip(0)
    for image in (None, whose):
        for each in (rank, other):
            for steps in (NOTHING, 0, 1, 3, 4, 16):
                seen = images if image is None else images[image]
                expected = nats_of_own(model, seen, texts, each, steps)
                torch.testing.assert_close(asking.own(each, steps, image), expected)
    own = texts.owner == torch.arange(len(images)).unsqueeze(1)
    for steps in (3, 16):
        expected = nats_of_pairs(model, images, texts, rank, steps, ~own)
        torch.testing.assert_close(asking.pairs(rank, steps, ~own), expected)


def test_what_a_run_was_asked_is_not_asked_again(
    runs: list[Run], passes: Passes, capsys: pytest.CaptureFixture[str]
) -> None:
    run, asked = runs[0], {**ASKED, "candidates": 0}
    first = caption(run, **asked)[0]  # type: ignore[arg-type]
    assert "were kept" not in capsys.readouterr().out
    # Two orders after two fixations, and one answer before the first; whole, alone and shuffled.
    assert passes.asked == ["nats_of_own"] * 6 + ["nats_of_pairs"]
    passes.asked.clear()
    assert caption(run, **asked)[0] == first  # type: ignore[arg-type]
    assert passes.asked == []
    assert "run_0/caption.npz: 7 of 7 answers were kept\n" in capsys.readouterr().out
    more = {**asked, "orders": ("random", "center_out"), "fixations": (0, 2, 3)}
    again = caption(run, **more)[0]  # type: ignore[arg-type]
    assert again.orders["random"][2] == first.orders["random"][2]
    assert passes.asked == ["nats_of_own"] * 4, "after 3 fixations, and 2 of the new order"


def test_more_images_cost_the_new_ones_alone(
    runs: list[Run], passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of the test images has no caption."""
    monkeypatch.setattr(caption_asking, "ASKED_AT_ONCE", 2)
    monkeypatch.setattr(caption_asking, "PAIRED_AT_ONCE", 2)
    options = {**ASKED, "orders": ("center_out",), "candidates": 0, "retrieval_limit": 4}
    caption(runs[0], **options, limit=5)  # type: ignore[arg-type]
    # Two orders after two fixations, and one answer before the first; whole, alone and shuffled.
    assert passes.asked == ["nats_of_own"] * 12 + ["nats_of_pairs"] * 2
    passes.asked = []
    more = caption(runs[0], **options, limit=7)[0]  # type: ignore[arg-type]
    # Other images' captions are asked of others by now, which may look like their own; retrieval
    # asks about the same four.
    assert set(passes.asked) == {"nats_of_own"}
    assert 5 <= len(passes.asked) <= 5 + 3
    elsewhere = replace(runs[0], directory=runs[1].directory)
    assert caption(elsewhere, **options, limit=7)[0] == more  # type: ignore[arg-type]


def test_what_is_new_in_a_model_throws_no_answer_away(runs: list[Run]) -> None:
    """At its default; at another value the model is another."""
    kept, values = CaptionAsking.of(runs[0], 9).kept, np.arange(3.0)
    subject = json.loads(kept.subject)
    del subject["model"]["words_prefix"]
    keep_arrays(kept.path, json.dumps(subject), a=values, commits=json.dumps({"a": "before"}))
    again = CaptionAsking.of(runs[0], 9).kept
    np.testing.assert_array_equal(again.answer("a", lambda: values + 1), values)
    subject["model"]["words_prefix"] = "causal"
    keep_arrays(kept.path, json.dumps(subject), a=values, commits=json.dumps({"a": "before"}))
    again = CaptionAsking.of(runs[0], 9).kept
    np.testing.assert_array_equal(again.answer("a", lambda: values + 1), values + 1)


def test_two_commands_keep_each_others_answers(tmp_path: Path) -> None:
    path, values = tmp_path / "kept.npz", np.arange(3.0)
    first, second = Kept(path, "model"), Kept(path, "model")
    first.answer("a", lambda: values)
    with locked_in_turn(path):
        thread = threading.Thread(target=second.answer, args=("b", lambda: values))
        thread.start()
        time.sleep(0.1)
        assert "b" not in (read_arrays(path) or {}), "it waits for its turn"
    thread.join()
    assert {"a", "b"} <= (read_arrays(path) or {}).keys()
    assert [each.name for each in tmp_path.iterdir()] == ["kept.npz"]


def test_whatever_stops_the_asking_it_goes_on_from_there(
    runs: list[Run], passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption_asking, "PAIRED_AT_ONCE", 2)
    run, asked = runs[0], {**ASKED, "candidates": 0}
    elsewhere = replace(run, directory=runs[1].directory)
    whole = caption(elsewhere, **asked)[0]  # type: ignore[arg-type]
    every, passes.asked = passes.asked, []
    assert every == ["nats_of_own"] * 6 + ["nats_of_pairs"] * 3
    for passes.most in (2, 7):
        with pytest.raises(KeyboardInterrupt):
            caption(run, **asked)  # type: ignore[arg-type]
    passes.most = math.inf
    assert caption(run, **asked)[0] == whole  # type: ignore[arg-type]
    assert passes.asked == every, "nothing is asked twice"


def test_what_was_kept_of_other_weights_or_images_is_no_answer(
    runs: list[Run], passes: Passes, capsys: pytest.CaptureFixture[str]
) -> None:
    run, asked = runs[0], {**ASKED, "retrieval_limit": 0}
    first = caption(run, **asked)[0]  # type: ignore[arg-type]
    every, passes.asked = passes.asked, []
    table = pq.read_table(run.config.data.data)
    told = [[f"{text} !" for text in own] for own in table["told"].to_pylist()]
    at = table.column_names.index("told")
    pq.write_table(table.set_column(at, "told", pa.array(told)), run.config.data.data)
    assert caption(run, **asked)[0].whole != first.whole  # type: ignore[arg-type]
    assert passes.asked == every, "other captions"
    pq.write_table(table, run.config.data.data)
    passes.asked = []
    assert caption(run, **asked)[0] == first  # type: ignore[arg-type]
    assert passes.asked == [], "the former are still there"
    assert "replaced" not in capsys.readouterr().out
    for weight in run.model.parameters():
        weight.data.mul_(1.1)
    assert caption(run, **asked)[0].whole != first.whole  # type: ignore[arg-type]
    assert passes.asked == every, "other weights"
    assert "caption.npz is of another checkpoint, or damaged" in capsys.readouterr().out


def test_answers_of_another_commit_are_kept_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, values = tmp_path / "kept.npz", np.arange(3.0)
    monkeypatch.setattr("experiments.evaluation.kept.git_commit", lambda: "before")
    Kept(path, "model").answer("a", lambda: values)
    monkeypatch.setattr("experiments.evaluation.kept.git_commit", lambda: "now")
    kept = Kept(path, "model")
    np.testing.assert_array_equal(kept.answer("a", lambda: values + 1), values)
    np.testing.assert_array_equal(kept.answer("b", lambda: values + 2), values + 2)
    assert kept.commits == {"before", "now"}
    kept.say()
    line = "kept.npz: 1 of 2 answers were kept, some of commit before; this is now"
    assert line in capsys.readouterr().out
    monkeypatch.setattr("experiments.evaluation.kept.git_commit", lambda: "now-dirty")
    for _ in range(2):
        kept = Kept(path, "model")
        kept.answer("c", lambda: values)
        kept.say()
    said = capsys.readouterr().out
    assert "1 of 1 answers were kept\nanswers of commit now-dirty may be of other changes" in said
    path.write_bytes(path.read_bytes()[:200])
    np.testing.assert_array_equal(Kept(path, "model").answer("a", lambda: values + 1), values + 1)


def test_whichever_byte_of_what_was_kept_is_damaged_it_is_no_answer(tmp_path: Path) -> None:
    """But where nothing reads it, such as the time of a file in an archive."""
    path, values = tmp_path / "kept.npz", np.arange(20.0)
    keep_arrays(path, "model", a=values)
    whole = path.read_bytes()
    damaged = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        found = read_arrays(path, "model")
        damaged += found is None
        if found is not None and "a" in found:
            np.testing.assert_array_equal(found["a"], values)
    assert damaged > len(whole) / 2


def test_many_answers_are_written_a_few_times_and_all_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writing writes them all."""
    path, ticks, written = tmp_path / "kept.npz", count(), []

    def watched(*of: Any, **arrays: Any) -> None:
        written.append(len(arrays))
        keep_arrays(*of, **arrays)

    # An answer takes about as long as writing.
    monkeypatch.setattr("experiments.evaluation.kept.time.monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr("experiments.evaluation.kept.keep_arrays", watched)

    def ask_until_stopped() -> None:
        with Kept(path, "model") as kept:
            for number in range(100):
                kept.answer(str(number), lambda: np.arange(3.0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask_until_stopped()
    assert 3 <= len(written) <= 100 / WRITE_EVERY + 3
    assert {str(number) for number in range(100)} <= (read_arrays(path) or {}).keys()

"""Comparisons at any size: who is compared, at what cost, in what memory, and what is concluded."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from agents import baselines
from agents.baselines import GreedyOracleAgent, error_after
from agents.policies import Agent
from envs.episode import Episode
from experiments.compare import CompareConfig
from experiments.evaluation import progress, scanpaths
from experiments.evaluation.compare import contenders
from experiments.evaluation.compare.contenders import ALWAYS, Scanners, compared, measure
from experiments.evaluation.compare.diagnostics import Diagnostics, mean_saccade, visited_entropy
from experiments.evaluation.compare.evaluate import compare
from experiments.evaluation.compare.findings import judge_with_cost, nearly_collapsed
from experiments.evaluation.compare.result import SHOWN, Comparison, OrderErrors
from experiments.evaluation.curves import error_curves_of
from experiments.evaluation.options import LEAST_MEMORY
from experiments.evaluation.probe.result import ProbeResult
from experiments.evaluation.progress import unheard
from experiments.evaluation.recognition.result import Recognized
from experiments.evaluation.scanpaths import AGENTS
from experiments.pages import area_of, short_table
from experiments.runs import Run
from experiments.tables import write_json
from experiments.training.log import RunLog
from experiments.training.policy_learner import most_entropy
from experiments.training.presets import PRESETS
from foveate.model import AnyOrderTransformer
from foveate.model.scanning import Scan
from foveate.orders import ORDERINGS, order_to_rank
from foveate.orders.semantic import SEMANTIC
from foveate.probes.seen import encode_after

ROOT = Path(__file__).parents[2]


# --- the same numbers at less cost


def test_curves_of_many_scanpaths_are_those_of_each_alone(
    model: AnyOrderTransformer, images: torch.Tensor
) -> None:
    generator = torch.Generator().manual_seed(2)
    drawn = torch.rand(5, 12, generator=generator).argsort(1)[:, :4]
    segments = torch.tensor([[[3, 4], [0, -1], [-1, -1]]]).expand(5, -1, -1)
    orders = {
        "drawn": drawn[:, :3],
        "few": drawn[:2, :3],
        "as_drawn_at_first": torch.cat([drawn[:, :2], drawn[:, 3:]], dim=1),
        "segments": segments,
    }
    for memory in (10**9, 1):
        curves = error_curves_of(model, images, orders, memory=memory)
        for name, order in orders.items():
            alone = model.error_curve(images[: len(order)], order).numpy()
            np.testing.assert_allclose(curves[name], alone, atol=1e-5, err_msg=name)


def test_what_scanpaths_have_in_common_is_predicted_once(
    model: AnyOrderTransformer, images: torch.Tensor
) -> None:
    first, second = torch.tensor([[0, 1, 2]] * 5), torch.tensor([[0, 1, 3]] * 5)
    rows: list[int] = []
    predict = Scan.predict

    def counted(scan: Scan, positions: torch.Tensor | None = None) -> Any:
        rows.append(len(scan.content))
        return predict(scan, positions)

    with mock.patch.object(Scan, "predict", counted):
        error_curves_of(model, images, {"first": first, "second": second, "again": first})
    assert rows == [5, 5, 5, 10]


def test_tries_in_any_number_of_parts_leave_the_same_errors(
    model: AnyOrderTransformer, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    episode = Episode(model, images, budget=2)
    episode.step(torch.arange(5))
    every = torch.arange(12).expand(5, -1)
    whole = error_after(episode, every)
    monkeypatch.setattr(baselines, "TRIED_BYTES", 1)
    torch.testing.assert_close(error_after(episode, every), whole)
    assert torch.equal(whole.isinf(), ~episode.unseen)
    for patch in (7, 11):
        order = torch.stack([torch.arange(5), torch.full((5,), patch)], dim=1)
        curve = model.error_curve(images, order)
        torch.testing.assert_close(whole[:, patch], curve[:, 2], atol=1e-5, rtol=0)


def test_numbers_do_not_depend_on_the_memory(run: Run) -> None:
    scanners = Scanners.of(run.model, ("raster", "oracle", "random_blobs", "hierarchical"), ())
    images, seen = run.split("test", 6).images, run.split("val", 6).images
    wide, narrow = (
        measure(
            *(run, scanners, images, seen),
            **{"judge": run.model, "oracle_limit": 4, "memory": memory, "advance": unheard},
        )
        for memory in (10**9, 1)
    )
    for name, area in wide.area.items():
        np.testing.assert_allclose(narrow.area[name], area, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("memory", [0, 0.05, math.nan])
def test_a_bound_that_would_not_hold_is_refused(run: Run, memory: float) -> None:
    assert LEAST_MEMORY * 1e9 == baselines.TRIED_BYTES
    with pytest.raises(ValueError, match=rf"number of GB from 0\.064 on, got {memory}"):
        compare(run, memory=memory)
    with pytest.raises(ValueError, match="memory must be a number of GB"):
        CompareConfig(run=Path(), memory=memory)


PEAK = """
import resource, torch
from agents.baselines import GreedyOracleAgent, UncertaintyAgent
from experiments.evaluation.curves import error_curves_of
from experiments.evaluation.scanpaths import scanned_in_chunks
from foveate.config import ModelConfig
from foveate.model import AnyOrderTransformer

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

torch.set_num_threads(1)
config = ModelConfig(image_size=(384, 384), in_chans=3, patch_size=32, embed_dim=8, depth=1,
                     num_heads=1, decoder_depth=1)
model = AnyOrderTransformer(config).eval()
images = torch.zeros(24, 3, 384, 384, dtype=torch.uint8)
scanned_in_chunks(GreedyOracleAgent(2), model, images[:1], 1)  # What torch itself loads.
bound, before = 2 * 10**8, peak()
order = scanned_in_chunks(UncertaintyAgent(), model, images, 1, memory=bound).order
scanned_in_chunks(GreedyOracleAgent(), model, images[:1], 1, model.num_patches, memory=bound)
error_curves_of(model, images, {"a": order, "b": 143 - order}, memory=bound)
print(peak() - before)
"""
"""144 patches of 32 x 32 pixels: predicted for all tries of one image they are 0.25 GB, and as much
again for their errors."""


@pytest.mark.slow
def test_memory_is_bounded_within_an_image_too() -> None:
    command = [sys.executable, "-c", PEAK]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2.5e8


def drawing_agent() -> Agent:
    def drawn(episode: Episode, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.rand(episode.unseen.shape, generator=generator)
        return noise.masked_fill(~episode.unseen, -1.0).argmax(1)

    return drawn


def test_whatever_draws_draws_the_same_whatever_the_memory(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that has not learned, an oracle that tries some fixations, and one's own agent."""
    monkeypatch.setattr(scanpaths, "LEAST_MEMORY", 1e-5)
    images = torch.rand(40, 1, 8, 8)
    own = scanpaths.make_agent(f"{__name__}:drawing_agent")
    for agent in (replace(run, iteration=0).agent, GreedyOracleAgent(2), own, drawing_agent()):
        orders = [
            scanpaths.scanned_in_chunks(agent, run.model, images, 3, memory=memory).order
            for memory in (10**4, 10**9)
        ]
        assert torch.equal(*orders), agent


def test_a_scan_that_revisits_is_read_as_one_that_opens_nothing_there(run: Run) -> None:
    images = torch.rand(2, 1, 8, 8)

    class Stays:
        def __call__(self, episode: Episode, generator: torch.Generator | None = None) -> Tensor:
            return torch.full((len(episode.order),), 5)

    order = scanpaths.scanned_in_chunks(Stays(), run.model, images, 3).order
    assert order.squeeze(2).tolist() == [[5, -1, -1]] * 2
    _, by_rank, seen = encode_after(run.model, images, order, (1, 3))
    assert by_rank[:, 0].tolist() == [5, 5]
    assert seen.tolist() == [[1, 1]] * 2


def test_scores_of_a_policy_that_are_not_finite_are_refused(run: Run) -> None:
    for parameter in run.policy.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"the policy in .* scores fixations by numbers"):
        compare(run, orders=("raster",), limit=6)


# --- who is compared


def test_the_usual_orders_are_those_that_records_show() -> None:
    assert {*compared((), (), 64)} == {*SHOWN}
    assert {*compared((), (), 256)} == {*SHOWN} - {"oracle"}
    stand = {*ALWAYS, "saliency", "uncertainty", "uncertainty_near"}
    assert {*compared(("oracle", "hilbert"), (), 256)} == stand | {"oracle", "hilbert"}
    assert {*compared(("mine:order",), (), 64)} == {*SHOWN, "mine:order"}
    assert {*compared(("mine:order", "raster"), (), 64)} == stand | {"raster", "mine:order"}
    assert {*compared(("all",), (), 64)} == {*SHOWN, *ORDERINGS, *SEMANTIC}
    assert {*compared(("raster",), ("raster", "saliency"), 64)} == stand - {"saliency"}
    with pytest.raises(ValueError, match="unknown order 'rastr'; did you mean 'raster'"):
        compared(("rastr",), (), 64)
    with pytest.raises(ValueError, match="random_subset says which patches are hidden"):
        compared(("random_subset",), (), 64)
    with pytest.raises(ValueError, match="'salency'; did you mean 'saliency'"):
        compared((), ("salency",), 64)
    with pytest.raises(ValueError, match="random stands in every comparison"):
        compared((), ("random",), 64)


def test_without_oracles_there_is_no_gap(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    result = compare(run, orders=("raster",), without=("saliency",), limit=6, oracle_limit=4)
    assert {*result.orders} == {*ALWAYS, "uncertainty", "raster"}
    said = capsys.readouterr().err
    assert said == "comparing 6 orders and agents on 6 test images\n"
    assert (result.gap_closed, result.gap_closed_oracle_16) == (None, None)
    run.directory.mkdir()
    result.write(run.directory / "compare.json")
    read = Comparison.read(run.directory / "compare.json")
    assert "closes" not in read.to_text()
    assert "raster" in read.summary("trained").to_markdown()
    write_json(run.directory / "manifest.json", {"train_seconds": 1, "threads": 1})
    assert "oracle" not in short_table(run.directory).to_markdown()
    assert short_table(run.directory).columns[-1].startswith("area")
    cell = Recognized(attentive=0.625, attentive_ci95=(0.5, 0.75))
    known = {"policy": {run.budget: cell}, "other": {1: Recognized()}}
    probed = ProbeResult(
        fixations=known, commit="", dataset="", train_images=9, test_images=9, pooling="", seed=0
    )
    probed.write(run.directory / "probe.json")
    table = short_table(run.directory)
    assert table.columns[-1] == f"recognized after {run.budget} fixations"
    assert {row[0]: row[-1] for row in table.rows}["**policy**"] == "0.625 [0.500, 0.750]"
    assert {row[0]: row[-1] for row in table.rows}["random"] == "-"
    assert area_of(read, "raster") == pytest.approx(read.orders["raster"].auc)
    by_16 = compare(run, orders=("oracle_16",), limit=6, oracle_limit=4)
    assert by_16.gap_closed is None
    assert by_16.gap_closed_oracle_16 is not None
    assert "of the gap from random to the oracle over 16 random patches;" in by_16.to_text()


def test_nothing_is_said_of_a_policy_that_never_learned(run: Run) -> None:
    learned = compare(run, orders=("raster",), limit=6)
    assert learned.without_policy is None
    costly = replace(run, config=run.config.replace(saccade_cost=0.1), iteration=0)
    result = compare(costly, orders=("raster",), limit=6)
    assert result.not_better_than is None
    assert len(result.tables()) == 1
    text = result.to_text()
    assert "Nothing is said of a policy: no policy has learned in run" in text
    assert not any(word in text for word in ("COLLAPSED", "BEHIND", "closes", "not judged"))


def test_an_order_of_ones_own_that_fails_does_so_before_anything_is_scanned(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_failing.py").write_text("def fails(grid): return lambda *_, **__: 1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(contenders, "scanned_in_chunks", None)
    with pytest.raises(ValueError, match="order 'own_failing:fails': ZeroDivisionError"):
        compare(run, orders=("own_failing:fails",), limit=6)


# --- what is concluded


def errors(minus_policy: float, half: float = 0.001) -> OrderErrors:
    """An order that is worse than the policy by so much."""
    interval = (minus_policy - half, minus_policy + half)
    return OrderErrors(
        auc=0.5 + minus_policy,
        auc_ci95=None,
        final_error=0.5,
        minus_random=0.0,
        minus_random_ci95=None,
        minus_policy=minus_policy,
        minus_policy_ci95=interval,
        images=40,
        curve=(1.0, 0.5),
    )


def signs(percentile: float) -> Diagnostics:
    return Diagnostics(
        fixation_entropy_nats=(0.5,),
        distinct_orders=6,
        images=40,
        own_minus_other=-0.005,
        own_minus_other_ci95=(-0.006, -0.004),
        chosen_percentile=percentile,
    )


@pytest.mark.parametrize(
    ("gap", "percentile", "other", "found"),
    [
        (-0.1, 0.48, 0.005, ("gap_closed", "chosen_percentile", "own_share")),
        (0.5, 0.75, 0.005, ("own_share",)),
        (0.5, 0.54, 0.05, ("chosen_percentile",)),
        (0.09, 0.75, 0.05, ("gap_closed",)),
        (None, 0.75, 0.05, ()),
        (0.5, 0.75, 0.05, ()),
    ],
)
def test_near_collapse_is_judged_by_size(
    gap: float | None, percentile: float, other: float, found: tuple[str, ...], run: Run
) -> None:
    rows = {"policy": errors(0.0), "random": errors(0.1), "other_image": errors(other)}
    assert nearly_collapsed(rows, gap, signs(percentile)) == found
    comparison = replace(
        compare(run, orders=("raster",), limit=4, oracle_limit=4),
        orders=rows,
        not_better_than=(),
        gap_closed=gap,
        diagnostics=signs(percentile),
        nearly_collapsed=found,
        level_with_rules=(),
        behind_rules=(),
    )
    text = " ".join(comparison.to_text().split())
    assert ("NEARLY COLLAPSED" in text) == bool(found)
    for name, number in (
        ("gap_closed", f"gap closed {gap or 0:.1%}"),
        ("chosen_percentile", f"percentile of the chosen patch {percentile:.2f}"),
        ("own_share", f"another image's path loses {other / 0.1:.1%}"),
    ):
        assert (name in found) == (bool(found) and number in text.split("NEARLY")[1]), name
    assert "NEARLY" not in replace(comparison, not_better_than=("best_fixed",)).to_text()


def test_a_policy_behind_or_level_with_a_rule_is_reported(run: Run) -> None:
    base = compare(run, orders=("raster",), limit=4, oracle_limit=4)
    rows = {**base.orders, "uncertainty": errors(-0.009, 0.004)}
    behind = replace(base, orders=rows, behind_rules=("uncertainty",), level_with_rules=())
    text = " ".join(behind.to_text().split())
    assert "BEHIND THE RULE: the policy is worse than uncertainty," in text
    assert "by 0.0090 [0.0050, 0.0130]" in text
    rows["uncertainty"] = errors(0.0005)
    level = replace(base, orders=rows, behind_rules=(), level_with_rules=("uncertainty",))
    text = " ".join(level.to_text().split())
    assert "no better than uncertainty, which does not learn where to look" in text
    assert "+0.0005 [-0.0005, +0.0015]" in text
    assert "BEHIND" not in text


def test_an_agent_that_is_better_than_the_policy_leaves_it_behind(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(AGENTS, "uncertainty", baselines.GreedyOracleAgent)
        found = compare(run, orders=("raster",), limit=40, oracle_limit=4)
    assert (found.behind_rules, found.level_with_rules) == (("uncertainty",), ())
    assert "BEHIND THE RULE" in found.summary("trained").to_markdown()
    none = compare(run, orders=("raster",), without=("uncertainty",), limit=6, oracle_limit=4)
    assert (none.behind_rules, none.level_with_rules) == (None, None)
    assert {"gap_closed", "behind_rules"} <= {*(none.not_judged or ())}
    text = " ".join(none.to_text().split())
    assert "not judged: the gap closed, as no oracle scanned" in text
    assert "better, as none scanned." in text
    assert "not judged" not in replace(none, not_judged=None).to_text()
    same = compare(run, orders=("raster",), limit=40, oracle_limit=4)
    assert same.orders["uncertainty"].minus_policy == 0
    assert (same.behind_rules, same.level_with_rules) == ((), ("uncertainty",))


def test_where_saccades_cost_something_they_are_judged_with_the_error(run: Run) -> None:
    # The policy pays with error for short ways; the others see more, and jump about.
    policy, jumping = torch.tensor([[0, 1, 2]] * 6), torch.tensor([[0, 11, 0]] * 6)
    area = {
        "policy": np.full(6, 0.5),
        "best_fixed": np.full(6, 0.4),
        "uncertainty": np.full(3, 0.4),
    }
    order = {"policy": policy, "best_fixed": jumping, "uncertainty": jumping[:3]}
    paid = judge_with_cost(area, order, (3, 4), 0.3)
    way = 2 * math.hypot(2, 3)
    assert paid.orders["policy"].area_and_cost == pytest.approx(0.5 + 0.3 * 2 / 3)
    assert paid.orders["best_fixed"].minus_policy == pytest.approx(0.1 * (way - 2) - 0.1)
    assert next(iter(paid.orders)) == "policy"
    assert (paid.not_better_than, paid.behind_rules, paid.level_with_rules) == ((), (), ())
    free = judge_with_cost(area, order, (3, 4), 0.0)
    assert (free.not_better_than, free.behind_rules) == (("best_fixed",), ("uncertainty",))

    costly = replace(run, config=run.config.replace(saccade_cost=0.3))
    costly.directory.mkdir()
    compare(costly, orders=("raster",), limit=4, oracle_limit=4).write(run.directory / "a.json")
    read = Comparison.read(run.directory / "a.json")
    assert "area + cost = area + 0.3 x path length / fixations" in read.to_text()
    assert "The policy is no better by area + cost than" in " ".join(read.to_text().split())
    assert "area + 0.3 x path length / fixations" in read.summary("trained").columns
    other = replace(run, config=run.config.replace(saccade_cost=0.3, reward="gain"))
    assert compare(other, limit=4, oracle_limit=4, orders=("raster",)).with_saccade_cost is None


def test_the_entropy_of_the_visited_map_of_known_paths() -> None:
    blob = torch.tensor([[0, 1], [1, 0], [0, 1]])
    assert visited_entropy(order_to_rank(blob, 4), 2) == 0
    halves = torch.tensor([[0, 1], [2, 3]])
    assert visited_entropy(order_to_rank(halves, 4), 2) == pytest.approx(1)
    # Patch 0 in all, 1 and 2 in half of the images: two of the four bits that there can be.
    partly = torch.tensor([[0, 1], [2, 0]])
    assert visited_entropy(order_to_rank(partly, 4), 2) == pytest.approx(0.5)
    everything = torch.tensor([[0, 1, 2, 3]])
    assert visited_entropy(order_to_rank(everything, 4), 4) == 0


def test_the_length_of_known_paths() -> None:
    # Along the first row and down to the opposite corner; two steps to the right.
    paths = torch.tensor([[0, 3, 8], [0, 1, 2]])
    mean = (3 + math.hypot(2, 3) + 1 + 1) / 4
    assert mean_saccade(paths, (3, 4)) == pytest.approx(mean, abs=1e-4)
    assert mean_saccade(torch.tensor([[5]]), (3, 4)) is None
    # Middles: between 0 and 1, then 6; of the other path's second fixation there is none.
    segments = torch.tensor([[[0, 1], [6, -1]], [[0, 1], [-1, -1]]])
    assert mean_saccade(segments, (3, 4)) == pytest.approx(math.hypot(1, 1.5), abs=1e-4)


# --- how far it is


def test_progress_is_a_line_every_ten_seconds_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 4.0, 12.0, 13.0, 30.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(now))
    with progress.Progress("compare", 100) as bar:
        for done in (10, 20, 10, 40):
            bar.advance(done)
    assert capsys.readouterr().err.splitlines() == [
        "compare: 30% after 12 s, about 28 s left",
        "compare: 80% after 30 s, about 8 s left",
    ]


@pytest.mark.parametrize("judged", [False, True])
def test_progress_ends_at_its_total(
    run: Run, monkeypatch: pytest.MonkeyPatch, judged: bool
) -> None:
    made: list[progress.Progress] = []
    enter = progress.Progress.__enter__

    def entered(bar: progress.Progress) -> progress.Progress:
        made.append(bar)
        return enter(bar)

    monkeypatch.setattr(progress.Progress, "__enter__", entered)
    judge = replace(run, model=copy.deepcopy(run.model)) if judged else None
    compare(run, judge=judge, orders=("raster", "oracle_16"), limit=6, oracle_limit=4)
    assert made[0].done == made[0].total


def test_the_entropy_in_training_stands_beside_its_maximum(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = PRESETS["smoke"][1].replace(out=tmp_path, budget=2)
    assert most_entropy(config, 4) == pytest.approx((math.log(4) + math.log(3)) / 2)
    assert most_entropy(config.replace(num_candidates=2), 3) == pytest.approx(math.log(2))
    with RunLog(config, 0, 0.0, writes=True, entropy_max=1.25) as log:
        log.advance(1, {"loss": 0.5}, {}, is_last=False)
        log.advance(5, {"loss": 0.5, "entropy": 0.75}, {}, is_last=False)
    first, second = capsys.readouterr().err.splitlines()
    assert "entropy_max" not in first
    assert "entropy 0.750, entropy_max 1.250" in second

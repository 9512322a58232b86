"""Evaluations: on the images that a run was trained on, of questions that have an answer."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from agents.baselines import UncertaintyAgent
from experiments import record, runs
from experiments.evaluation.compare.contenders import Scanners
from experiments.evaluation.compare.evaluate import compare
from experiments.evaluation.compare.result import Comparison
from experiments.evaluation.draw import draw
from experiments.evaluation.intervals import gap_interval, half_width, mean_interval
from experiments.evaluation.probe.evaluate import probe
from experiments.evaluation.questions import NoLabels, Questions
from experiments.evaluation.report import present
from experiments.runs import Run, load_run
from experiments.tables import read_object, set_aside, write_json, written_whole
from experiments.training.build import build
from experiments.training.config import TrainConfig
from experiments.training.weights import load_weights
from foveate.data import ImageSet
from foveate.data.splits import Fingerprint
from foveate.probes import knn_probes, linear_probe

SIZES = {"patch_size": 2, "embed_dim": 16, "depth": 1, "num_heads": 2, "decoder_depth": 1}
FORMER = {"train": Fingerprint(30, 90, "a"), "test": Fingerprint(9, 27, "b")}


def image_set(labels: list[int]) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (len(labels), 1, 8, 8), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.tensor(labels), ("a", "b", "c", "d"), "mine")


def images_are(monkeypatch: pytest.MonkeyPatch, **splits: list[int]) -> None:
    sets = {split: image_set(labels) for split, labels in splits.items()}
    monkeypatch.setattr(runs, "load_split", lambda _, split, limit=None: sets[split])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    torch.manual_seed(0)
    config = TrainConfig().replace(data="cue", budget=3, out=tmp_path, **SIZES)
    model, policy = build(config, (1, 8, 8))
    return Run(tmp_path, config, model.eval(), policy.eval(), config.total_iterations)


def test_the_rule_with_the_cost_is_compared_where_saccades_cost_something(run: Run) -> None:
    assert run.saccade_cost == 0
    assert "uncertainty_near" not in Scanners.of(run.model, (), (), (), run.saccade_cost).agents
    costly = replace(run, config=run.config.replace(saccade_cost=0.25))
    agents = Scanners.of(run.model, (), (), (), costly.saccade_cost).agents
    assert agents["uncertainty_near"] == UncertaintyAgent(0.25)
    assert "uncertainty" in agents
    for named in ({"orders": ("uncertainty_near",)}, {"without": ("uncertainty_near",)}):
        with pytest.raises(ValueError, match="this run has no saccade cost"):
            compare(run, **named)
    result = compare(run, orders=("raster",), limit=4, oracle_limit=4)
    assert "saccade" not in result.to_text()
    assert "saccade, patches" in replace(result, saccade_cost=0.25).to_text()
    alone = replace(run, config=run.config.replace(iterations=0, budget=12))
    assert alone.saccade_cost == 0


# --- which images


def test_images_that_changed_are_refused_or_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = {name: vars(each) for name, each in FORMER.items()}
    write_json(run.directory / "manifest.json", {"splits": stored})
    now = {**FORMER, "train": Fingerprint(31, 93, "c")}
    images = replace(image_set([0, 1]), fingerprints=now)
    monkeypatch.setattr(runs, "load_split", lambda *_: images)
    with pytest.raises(ValueError, match=r"train .*30.*31.*--data-changed-ok"):
        run.split("test")
    allowed = replace(run, data_changed_ok=True)
    allowed.split("test")
    allowed.split("train")
    assert capsys.readouterr().err.count("warning") == 1, "said once"
    (change,) = allowed.data_options["data_changes"]
    assert change.startswith("train ")
    images = replace(images, fingerprints=FORMER)
    run.split("test")
    assert run.data_options == {}


def test_images_that_are_gone_or_of_another_shape_are_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = replace(run, config=run.config.replace(data=str(tmp_path / "gone")))
    with pytest.raises(ValueError, match=r"not at .*gone any more; .* --data"):
        gone.split("test")
    images_are(monkeypatch, test=[0, 1])
    replace(gone, moved_to=str(tmp_path)).split("test")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    replace(run, config=run.config.replace(data="here")).split("test")
    assert "does not say in which folder here lay" in capsys.readouterr().err
    with pytest.raises(ValueError, match="cannot have moved"):
        replace(run, moved_to="elsewhere").split("test")
    larger = replace(image_set([0]), images=torch.zeros(1, 1, 8, 16, dtype=torch.uint8))
    monkeypatch.setattr(runs, "load_split", lambda *_: larger)
    with pytest.raises(ValueError, match=r"are 1 x 8 x 16, the model .* reads 1 x 8 x 8"):
        run.split("test")


def test_weights_that_are_not_finite_are_not_evaluated(run: Run) -> None:
    state = {"model": run.model.state_dict(), "policy": dict(run.policy.state_dict())}
    name, values = next(iter(state["policy"].items()))
    state["policy"][name] = values * torch.nan
    model, policy = copy.deepcopy((run.model, run.policy))
    with pytest.raises(ValueError, match="weight that is not finite, policy"):
        load_weights(model, policy, state, run.directory)


# --- questions without an answer


@pytest.mark.parametrize(
    ("train", "test", "notes"),
    [
        ([0, 1] * 15, [2, 2], {"linear": "lacks all classes", "knn": r"2 test images \(c\)"}),
        ([0] * 30, [0, 0], {"linear": "of class 0", "knn": "of one class"}),
        ([0, 1] * 15 + [2], [0, 1], {"linear": "class 2 has a single"}),
        ([0, 1] * 6, [0, 1], {"knn": "less than 20 training images, 12"}),
        ([0, 1] * 15, [0, 2], {"classes": "1 of 2 test images .*c", "interval": "single"}),
        ([0, 1] * 15 + [-1], [0, 1, -1], {"train": "1 of 31 train", "test": "1 of 3 test"}),
        ([0, 1] * 15, [0, 1], {}),
    ],
)
def test_what_images_cannot_answer_is_said(
    train: list[int], test: list[int], notes: dict[str, str]
) -> None:
    found = Questions.of(image_set(train), image_set(test), ["linear", "knn"], seed=0)
    assert {*found.notes} == {*notes}
    for name, pattern in notes.items():
        assert len(found.notes[name].splitlines()) == 1
        assert re.search(pattern, found.notes[name])
    assert int(found.train.labels.min()) >= 0


def test_a_probe_keeps_what_it_can_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    images_are(monkeypatch, train=[0, 1] * 15 + [2], test=[0])
    result = probe(run)
    present(result, run.directory / "probe.json")
    stored = read_object(run.directory / "probe.json")
    assert stored["linear"] is None
    assert stored["knn"]["pixels"]["ci95"] is None
    assert "single training image" in stored["notes"]["linear"]
    text = result.to_text()
    assert "no number of linear: class 2" in text
    assert text.splitlines()[1].split()[1] == "-"
    images_are(monkeypatch, train=[-1] * 4, test=[-1])
    with pytest.raises(NoLabels, match="has no labels"):
        probe(run)


def test_a_single_image_is_compared_without_intervals(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    images_are(monkeypatch, val=[0], test=[0])
    result = compare(run)
    assert "other_image" not in result.orders
    assert result.diagnostics.own_minus_other is None
    assert {row.auc_ci95 for row in result.orders.values()} == {None}
    result.write(run.directory / "compare.json")
    assert Comparison.read(run.directory / "compare.json").to_text() == result.to_text()
    assert "[-]" in result.to_text()
    assert "no other image" in result.summary("trained").to_markdown()
    assert "significantly better" not in result.to_text(), "nothing is significant of one image"


def test_no_gap_has_no_share() -> None:
    same = np.ones(24)
    assert gap_interval(same, same, same) == (None, None)
    assert gap_interval(same, same - 0.1, same + 0.1) == (None, None), "an oracle that is worse"
    sometimes = np.array([1.0] * 23 + [0.5])
    share, interval = gap_interval(same, same, sometimes)
    assert (share, interval) == (0.0, None)
    assert mean_interval(np.array([2.0])) == (2.0, None)


def test_features_and_neighbors_must_be_there() -> None:
    y, x = np.array([0, 1] * 15), np.zeros((30, 2), dtype=np.float32)
    with pytest.raises(ValueError, match=r"neighbors must lie in 1\.\.30"):
        knn_probes(x, y, x, y, neighbors=(31,))
    broken = x.copy()
    broken[3] = np.nan
    for measure in (
        lambda: knn_probes(x, y, broken, y),
        lambda: linear_probe(broken, y, x, y, seed=0),
    ):
        with pytest.raises(ValueError, match=r"features of 1 of 30 .* not finite"):
            measure()


# --- files


def test_a_result_is_valid_json_and_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"a": [float("nan"), {"b": float("inf")}], "c": 1.5, 2: Path("x")})
    assert json.loads(path.read_text()) == {"a": [None, {"b": None}], "c": 1.5, "2": "x"}
    with contextlib.suppress(ValueError), written_whole(path) as partial:
        partial.write_text("{")
        raise OSError("full")
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"]
    for content in ("{", "[]", "[" * 100_000, "\x00"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"result\.json (holds|is damaged)"):
            read_object(path)


def test_pictures_of_other_options_are_kept(run: Run) -> None:
    names = {"scanpaths.json", "scanpaths.png", "scanpaths.gif", "fixations.png"}
    for _ in range(2):
        draw(run, index=(0,), heatmap_limit=2)
    assert {each.name for each in run.directory.iterdir()} == names
    draw(run, index=(1,), heatmap_limit=2)
    kept = {name.replace(".", "_1.") for name in names}
    assert {each.name for each in run.directory.iterdir()} == names | kept


def test_a_damaged_result_is_kept_beside_the_new_one(run: Run) -> None:
    (run.directory / "compare.json").write_text('{"kind": ')
    result = compare(run, limit=2, oracle_limit=2)
    present(result, run.directory / "compare.json")
    assert (run.directory / "compare_1.json").read_text() == '{"kind": '
    (run.directory / "compare.png").write_text("")
    set_aside(run.directory / "compare.json", [run.directory / "compare.png"])
    assert (run.directory / "compare_2.png").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"manifest.json": None}, "has no manifest"),
        ({"manifest.json": "{}"}, "not finished"),
        (
            {"config.json": '{"warmup_iterations": 1, "iterations": 2}'},
            r"stopped after 2 of 3 iterations; finish it with --resume",
        ),
        ({"compare.json": '{"iteration": 1}'}, "is of iteration 1 of 2; run: .*compare --run"),
        ({"compare.json": "[]"}, "holds a list"),
        ({"compare.json": "{"}, "holds no JSON"),
        ({"compare.json": "{}"}, "no compare result"),
    ],
)
def test_a_run_that_cannot_be_recorded_says_why(
    damage: dict[str, str | None], message: str, tmp_path: Path
) -> None:
    facts = {"date": "", "parameters": {"model": 1}, "train_seconds": 1, "threads": 1, "commit": ""}
    write_json(tmp_path / "manifest.json", {**facts, "iterations": 2})
    write_json(tmp_path / "config.json", {"warmup_iterations": 1, "iterations": 1})
    write_json(tmp_path / "compare.json", {})
    for name, content in damage.items():
        (tmp_path / name).unlink()
        if content is not None:
            (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        record.check_recordable(tmp_path)


def test_a_model_that_cannot_be_scanned_is_refused_before_it_is_asked(run: Run) -> None:
    config = run.config.replace(
        recipe="igpt", decoder_depth=None, iterations=0, prefix_share=0.0, budget=12, periphery=0
    )
    model, policy = build(config, (1, 8, 8))
    other = replace(run, config=config, model=model.eval(), policy=policy)
    for ask in (lambda: compare(other), lambda: draw(other), lambda: compare(run, judge=other)):
        with pytest.raises(ValueError, match="can scan; this model has"):
            ask()


def test_a_wrong_name_does_not_wait_for_the_images(run: Run) -> None:
    with pytest.raises(ValueError, match="unknown order"):
        compare(replace(run, moved_to="nowhere"), orders=("rastr",))
    with pytest.raises(ValueError, match="no run folder"):
        load_run(run.directory / "nowhere")


def test_the_interval_that_is_drawn_is_that_of_a_sample() -> None:
    curve = np.array([[1.0, 0.0], [1.0, 0.4]])
    half = half_width(curve)
    assert half is not None
    np.testing.assert_allclose(half, 1.96 * stats.sem(curve), atol=1e-12)
    assert half_width(curve[:1]) is None

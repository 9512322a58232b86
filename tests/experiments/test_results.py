"""Results of comparison and probe: what is measured, written, read back, and shown."""

from __future__ import annotations

import copy
import inspect
import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.baselines import GreedyOracleAgent, error_after, scan_with
from envs.episode import Episode
from envs.toy import cue_set
from experiments.caption import CaptionConfig
from experiments.compare import CompareConfig
from experiments.decode import DecodeConfig
from experiments.evaluation.caption.evaluate import caption
from experiments.evaluation.compare.contenders import ContenderCurves
from experiments.evaluation.compare.diagnostics import (
    Diagnostics,
    chosen_percentiles,
    fixation_entropies,
)
from experiments.evaluation.compare.evaluate import compare, draw_comparison
from experiments.evaluation.compare.result import SHOWN, Comparison, OrderErrors
from experiments.evaluation.decode import decode
from experiments.evaluation.draw import draw
from experiments.evaluation.intervals import (
    gap_interval,
    mean_interval,
    seed_interval,
    share_interval,
)
from experiments.evaluation.options import EvaluationOptions
from experiments.evaluation.probe.evaluate import probe
from experiments.evaluation.probe.result import FineTuned, ProbeResult
from experiments.evaluation.read import read
from experiments.evaluation.report import present_comparison
from experiments.evaluation.run_result import training_facts
from experiments.evaluation.scanpaths import (
    best_fixed,
    first_fixations,
    make_agent,
    of_another_image,
    scanned_in_chunks,
)
from experiments.probe import ProbeConfig
from experiments.read import ReadConfig
from experiments.runs import Run
from experiments.scanpaths import ScanpathConfig
from experiments.training.build import build
from foveate.checkpoint import load_model
from foveate.orders import order_to_rank
from foveate.orders.segments import Fixations
from foveate.probes import Accuracy, LinearAccuracy
from foveate.probes.heads import HeadAccuracy

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "experiments" / "records"
CROSS = """
import torch

class Cross:
    def __call__(self, episode, generator=None):
        rows, cols = episode.scan.model.grid
        step = episode.num_steps % min(rows - 2, cols - 2) + 1
        center = step * cols + step
        patches = center.unsqueeze(1) + torch.tensor([0, -cols, cols, -1, 1])
        return patches.masked_fill(~episode.unseen.gather(1, patches), -1)
"""
"""An agent that opens a patch and its neighbors, as far as they are unseen, down the diagonal."""


def errors(area: float, **changes: Any) -> OrderErrors:
    row = OrderErrors(
        auc=area,
        auc_ci95=(area - 0.1, area + 0.1),
        final_error=area / 2,
        minus_random=area - 0.9,
        minus_random_ci95=(area - 0.95, area - 0.85),
        minus_policy=area - 0.5,
        minus_policy_ci95=(area - 0.55, area - 0.45),
        images=40,
        curve=(1.0, 0.75, 0.25),
        curve_half_width=(0.0, 0.125, 0.0625),
    )
    return replace(row, **changes)


@pytest.fixture
def comparison() -> Comparison:
    areas = {"oracle": 0.25, "oracle_16": 0.375, "policy": 0.5, "mine:order": 0.625, "random": 0.9}
    orders = {name: errors(area) for name, area in areas.items()}
    orders["oracle"] = replace(orders["oracle"], images=12)
    orders |= {name: errors(0.75) for name in SHOWN if name not in orders}
    return Comparison(
        orders=orders,
        gap_closed=0.5,
        gap_closed_ci95=(0.25, 0.75),
        gap_closed_oracle_16=0.625,
        gap_closed_oracle_16_ci95=(0.5, 0.875),
        diagnostics=Diagnostics(
            fixation_entropy_nats=(0.0, 1.25),
            distinct_orders=3,
            images=40,
            own_minus_other=-0.25,
            own_minus_other_ci95=(-0.5, -0.125),
            chosen_percentile=0.75,
        ),
        not_better_than=(),
        dataset="scenes",
        split="test",
        seed=7,
        budget=2,
        num_patches=64,
        periphery=2,
        judge="own",
        test_images=40,
        commit="0123456789abcdef",
        iteration=60,
        options={"judge": None, "orders": ["mine:order"], "limit": 40},
    )


@pytest.fixture
def probed() -> ProbeResult:
    def line(accuracy: float, validation: float) -> LinearAccuracy:
        return LinearAccuracy(accuracy, (accuracy - 0.125, accuracy + 0.125), validation, 1.0)

    near = Accuracy(0.5, (0.25, 0.75))
    names = ("layer_1", "causal_layer_1", "random_weights_layer_1", "pixels")
    return ProbeResult(
        linear={name: line(0.625, 0.5) for name in names},
        attentive={"layer_1": HeadAccuracy(0.75, (0.5, 0.875), 0.75, 0.01)},
        knn=dict.fromkeys(names, near),
        best={"layer": "layer_1", "linear": 0.625},
        best_attentive={"layer": "layer_1", "attentive": 0.75},
        finetune={
            "full": FineTuned(0.75, (0.5, 1.0), 0.75, 1e-3, epochs=2, order_options={"size": 2}),
            "causal": FineTuned(0.25, (0.125, 0.375), 0.25, 1e-3, attention="causal"),
        },
        dataset="scenes",
        train_images=400,
        test_images=200,
        pooling="mean over patches",
        seed=0,
        commit="0123456789abcdef",
        token_megabytes=(4.0, 2.0),
        commonest_class=0.25,
    )


# --- written and read back


def test_what_is_read_back_is_what_was_written(
    comparison: Comparison, probed: ProbeResult, tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    comparison.write(path)
    assert Comparison.read(path) == comparison
    probed.write(path)
    assert ProbeResult.read(path) == probed
    with pytest.raises(ValueError, match=r"result\.json is no compare result of this version: "):
        Comparison.read(path)
    with pytest.raises(ValueError, match="no result at "):
        Comparison.read(tmp_path / "none.json")


@pytest.mark.parametrize(("name", "kind"), [("compare", Comparison), ("probe", ProbeResult)])
def test_every_record_can_be_read(name: str, kind: type[Comparison | ProbeResult]) -> None:
    paths = sorted(RECORDS.glob(f"*/{name}.json"))
    assert len(paths) >= 7
    for path in paths:
        stored, result = json.loads(path.read_text()), kind.read(path)
        read = json.loads(json.dumps(result.content()))
        assert {key: read[key] for key in stored if key not in ("orders", "kind")} == {
            key: stored[key] for key in stored if key not in ("orders", "kind")
        }, path
        for order, row in stored.get("orders", {}).items():
            assert {key: read["orders"][order][key] for key in row} == row, path
        assert result.to_text()


def test_records_are_shown_as_results_show_them() -> None:
    newest = {
        path.parent.name.split("_", 1)[1]: path.parent
        for path in sorted(RECORDS.glob("*/compare.json"))
    }
    assert {"demo", "cifar10", "fashion_mnist"} <= {*newest}
    results = (ROOT / "RESULTS.md").read_text()
    for folder in newest.values():
        manifest, config = (
            json.loads((folder / f"{name}.json").read_text()) for name in ("manifest", "config")
        )
        table = Comparison.read(folder / "compare.json").summary(training_facts(manifest, config))
        text = f"{table.to_markdown()}\n\n"
        text += ProbeResult.read(folder / "probe.json").summary().to_markdown()
        assert text in results, folder


# --- shown


def test_the_cells_of_a_comparison(comparison: Comparison) -> None:
    (table,) = comparison.tables()
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows)[:3] == ["oracle", "oracle_16", "**policy**"]
    assert rows["oracle"] == (
        "0.2500",
        "0.1250",
        "-0.6500 [-0.7000, -0.6000]",
        "-0.2500 [-0.3000, -0.2000]",
        "12",
    )
    assert rows["**policy**"] == ("0.5000", "0.2500", "-0.4000 [-0.4500, -0.3500]", "", "40")
    assert rows["random"] == ("0.9000", "0.4500", "", "+0.4000 [+0.3500, +0.4500]", "40")
    assert "mine:order" in rows
    assert table.caption.startswith("scenes: 2 of 64 patches")
    text = table.to_text()
    for fact in (
        "closes 50.0% [25.0%, 75.0%] of the gap",
        "and 62.5% [50.0%, 87.5%] of that",
        "scan the first 12 images",
        "another image's: -0.2500 [-0.5000, -0.1250];",
        "3 distinct orders on 40 images; percentile of the chosen patch by true reward 0.75.",
        "0.00 to 1.25 nats",
    ):
        assert fact in text
    assert "COLLAPSED" not in text
    collapsed = replace(comparison, not_better_than=("best_fixed", "other_image"))
    assert "not better than best_fixed and other_image," in collapsed.to_text()


def test_a_record_shows_some_orders_in_an_order_of_its_own(comparison: Comparison) -> None:
    table = comparison.summary("0.28 M parameters, trained")
    assert tuple(row[0].strip("*") for row in table.rows) == SHOWN
    assert table.caption == (
        "2 of 64 patches, periphery, seed 7, 0.28 M parameters, trained, compared at `0123456789`."
    )
    assert "blind" in replace(comparison, periphery=0).summary("").caption
    assert len(table.notes) == 1
    manifest = {"parameters": {"model": 284_000}, "train_seconds": 90, "threads": 2, "commit": "c"}
    assert training_facts(manifest, {"warmup_iterations": 3, "iterations": 4}) == (
        "0.28 M parameters, trained 1.5 minutes on 2 CPU threads (3 + 4 iterations), commit `c`"
    )


def test_the_cells_of_a_probe(probed: ProbeResult) -> None:
    frozen, tuned = probed.tables()
    assert frozen.columns == ("accuracy, 95% interval", "linear", "attentive", "k-NN")
    assert frozen.rows[0] == (
        "layer_1",
        "0.625 [0.500, 0.750]",
        "0.750 [0.500, 0.875]",
        "0.500 [0.250, 0.750]",
    )
    assert frozen.rows[-1] == ("pixels", "0.625 [0.500, 0.750]", "", "0.500 [0.250, 0.750]")
    assert frozen.notes == (
        "best layer by held-out training images: layer_1, linear accuracy 0.625 on 200 test images",
        "best layer by held-out training images: layer_1, attentive accuracy 0.750 on 200 test "
        "images",
        "tokens of a layer in float16: 4 MB of train, 2 MB of test; above 2147 MB they are "
        "recomputed per batch",
    )
    assert tuned.rows == (("full", "0.750 [0.500, 1.000]"), ("causal", "0.250 [0.125, 0.375]"))
    (note,) = tuned.notes
    assert note.startswith("causal: no better than the commonest class alone (0.250)")
    assert len(replace(probed, finetune=None).tables()) == 1
    summary = probed.summary()
    assert summary.rows[2] == (
        "untrained weights, their best (layer 1)",
        "0.625 [0.500, 0.750]",
        "0.500",
    )
    with pytest.raises(ValueError, match="probe both"):
        replace(probed, knn=None).summary()


# --- measured


def test_libraries_measure_alone_and_write_nothing(run: Run) -> None:
    result = compare(run, limit=6, oracle_limit=4)
    again = compare(run, judge=run, limit=6, oracle_limit=4)
    assert (result.judge, again.judge) == ("own", "run")
    assert again.orders == result.orders
    assert result.orders["oracle"].images == 4
    probe_result = probe(run, probes=("knn",), train_limit=40, test_limit=20)
    assert probe_result.knn is not None
    assert {*probe_result.knn} >= {"layer_1", "causal_layer_1", "pixels"}
    assert probe_result.linear is None
    assert not run.directory.exists()
    with pytest.raises(ValueError, match="two or more images"):
        compare(run, limit=6, oracle_limit=1)
    with pytest.raises(ValueError, match="finetune_epochs has no effect"):
        probe(run, finetune_epochs=3)


def test_a_judge_must_read_the_images_of_the_run(run: Run) -> None:
    config = run.config.replace(patch_size=4)
    model, policy = build(config, (1, 8, 8))
    judge = Run(run.directory, config, model, policy, config.total_iterations)
    with pytest.raises(ValueError, match=r"on a \(2, 2\) grid, the run .* on \(4, 4\)"):
        compare(run, judge=judge, limit=6, oracle_limit=4)


def test_a_comparison_of_other_options_is_kept(
    comparison: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    present_comparison(comparison, tmp_path)
    present_comparison(comparison, tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {"compare.json", "compare.png"}
    other = replace(comparison, options={**comparison.options, "judge": "runs/x"}, judge="x")
    present_comparison(other, tmp_path)
    present_comparison(replace(comparison, iteration=61), tmp_path)
    assert {each.name for each in tmp_path.glob("*.json")} == {
        "compare.json",
        "compare_1.json",
        "compare_judged_by_x.json",
    }
    assert Comparison.read(tmp_path / "compare_1.json").iteration == 60
    assert comparison.to_text() in capsys.readouterr().out


def test_old_comparisons_are_drawn_without_their_intervals(
    comparison: Comparison, tmp_path: Path
) -> None:
    old = {name: replace(row, curve_half_width=None) for name, row in comparison.orders.items()}
    for name, each in (("new", comparison), ("old", replace(comparison, orders=old))):
        draw_comparison(each, tmp_path / f"{name}.png")
    assert (tmp_path / "old.png").read_bytes() != (tmp_path / "new.png").read_bytes()


@pytest.mark.parametrize(
    ("script", "library"),
    [
        (CompareConfig, compare),
        (ProbeConfig, probe),
        (ScanpathConfig, draw),
        (ReadConfig, read),
        (DecodeConfig, decode),
        (CaptionConfig, caption),
    ],
)
def test_scripts_and_libraries_have_the_same_defaults(script: type, library: Any) -> None:
    parameters = dict(inspect.signature(library).parameters)
    parameters.pop("run")
    shared = {each.name for each in fields(EvaluationOptions)}
    options = {each.name: each.default for each in fields(script) if each.name not in shared}
    assert {name: each.default for name, each in parameters.items()} == options


def test_segments_are_compared_as_patches_are(run: Run) -> None:
    by_squares = replace(run, config=run.config.replace(budget=2, fixation_size=2))
    result = compare(by_squares, limit=6, oracle_limit=4)
    assert result.fixation_patches == 4
    assert result.tables()[0].caption.startswith("cue: 2 fixations of 4 among 16 patches")
    assert all(len(row.curve) == 3 for row in result.orders.values())
    images = run.split("test", 6).batch(torch.arange(6))
    upper = torch.tensor([[0, 1, 4, 5], [2, 3, 6, 7]]).expand(6, -1, -1)
    curve = run.model.error_curve(images, upper).mean(0)
    assert result.orders["raster"].curve == pytest.approx(curve.tolist(), abs=1e-5)
    signs = result.diagnostics
    assert max(signs.fixation_entropy_nats) <= math.log(4)
    order = scanned_in_chunks(run.agent, run.model, images, 2, fixations=by_squares.fixations).order
    few = result.percentile_images
    judged = chosen_percentiles(run.model, images[:few], order[:few], by_squares.fixations)
    assert signs.chosen_percentile == pytest.approx(float(judged.mean()))
    minus_random = result.orders["oracle"].minus_random
    assert minus_random is not None
    assert minus_random < 0


def test_the_oracle_chooses_at_the_first_percentile(run: Run) -> None:
    images = run.split("test", 6).batch(torch.arange(6))
    for fixations in (None, Fixations.squares(run.model.grid, 2)):
        agent = GreedyOracleAgent()
        order = scanned_in_chunks(agent, run.model, images, 2, fixations=fixations).order
        best = chosen_percentiles(run.model, images, order, fixations)
        assert torch.equal(best, torch.ones(12))
    # All four squares: the last one has no alternative, and does not count.
    order = scanned_in_chunks(agent, run.model, images, 4, fixations=fixations).order
    assert torch.equal(chosen_percentiles(run.model, images, order, fixations), torch.ones(18))


def test_the_worst_fixation_is_at_percentile_zero_and_random_ones_are_in_the_middle(
    run: Run,
) -> None:
    images = run.split("test", 6).batch(torch.arange(6))
    every = torch.arange(16).expand(6, -1)
    worst = error_after(Episode(run.model, images, budget=1), every).argmax(1, keepdim=True)
    assert torch.equal(chosen_percentiles(run.model, images, worst), torch.zeros(6))
    draws = torch.rand(60, 16, generator=torch.Generator().manual_seed(0)).argsort(1)[:, :2]
    share = chosen_percentiles(run.model, images.repeat(10, 1, 1, 1), draws)
    assert float(share.mean()) == pytest.approx(0.5, abs=0.1)


def test_the_best_fixed_order_is_the_mean_rank_of_all_scanpaths() -> None:
    """Here it is that of no image."""
    order = torch.tensor([[0, 1], [2, 1], [1, 2]])
    assert best_fixed(order, 3, 2, Fixations.single(3)).tolist() == [[1, 2]]


def test_a_path_of_ones_own_is_better_where_its_area_is_smaller() -> None:
    curves = {"policy": [9.0, 1.0, 2.0], "other_image": [9.0, 2.0, 4.0]}
    measured = ContenderCurves({}, {name: np.array([curve]) for name, curve in curves.items()})
    difference = measured.own_minus_other
    assert difference is not None
    assert difference.tolist() == [-1.5]


def test_errors_are_those_of_the_judge(run: Run) -> None:
    torch.manual_seed(1)
    other = replace(run, model=copy.deepcopy(run.model))
    with torch.no_grad():
        for weight in other.model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    result = compare(run, judge=other, limit=6, oracle_limit=4, orders=("raster",))
    images = run.split("test", 6).batch(torch.arange(6))
    path = torch.arange(run.budget).expand(6, -1)
    expected, own = (each.model.error_curve(images, path).mean(0).tolist() for each in (other, run))
    assert result.orders["raster"].curve == pytest.approx(expected, abs=1e-5)
    assert result.orders["raster"].curve != pytest.approx(own, abs=1e-3)


def test_an_agent_that_opens_a_cross_is_compared(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_cross.py").write_text(CROSS)
    monkeypatch.syspath_prepend(tmp_path)
    rows = compare(run, agents=("my_cross:Cross",), limit=6, oracle_limit=4).orders
    images = run.split("test", 6).batch(torch.arange(6))
    crosses = torch.tensor([[5, 1, 9, 4, 6], [10, -1, 14, -1, 11]]).expand(6, -1, -1)
    curve = run.model.error_curve(images, crosses).mean(0)
    assert rows["my_cross:Cross"].curve[:3] == pytest.approx(curve.tolist(), abs=1e-5)


# --- intervals and scanpaths


def test_an_order_of_segments_makes_each_at_its_earliest_patch() -> None:
    rank = torch.tensor([[3, 2, 1, 0, 5, 5]])
    assert first_fixations(rank, 3, Fixations.single(6)).tolist() == [[3, 2, 1]]
    pairs = Fixations(torch.tensor([[0, 1], [2, 4], [3, 5]]), 6)
    assert first_fixations(rank, 2, pairs).tolist() == [[[3, 5], [2, 4]]]


def test_intervals_of_known_samples() -> None:
    assert mean_interval(np.full(5, 0.25)) == (0.25, (0.25, 0.25))
    mean, (low, high) = mean_interval(np.array([0.0, 1.0] * 50))
    # The normal interval of a share of one half among 100: half of it is 0.098.
    assert mean == 0.5
    assert (low, high) == pytest.approx((0.402, 0.598), abs=0.02)
    random, oracle = np.linspace(0.8, 1.0, 20), np.linspace(0.2, 0.3, 20)
    policy = random - 0.25 * (random - oracle)
    share, interval = gap_interval(random, policy, oracle)
    assert (share, *interval) == pytest.approx((0.25, 0.25, 0.25))
    two = np.array([0.2, 0.4])
    assert mean_interval(two) == (pytest.approx(0.3), seed_interval(two.tolist()))
    assert gap_interval(two + 1, two, two) == (pytest.approx(1.0), pytest.approx((1.0, 1.0)))
    assert share_interval([0.0, 0.9]) == (0.0, 1.0)
    # Student's t of two: 12.706 standard errors to either side.
    assert seed_interval([1.0, 3.0]) == pytest.approx((2 - 12.706, 2 + 12.706), abs=1e-3)


@pytest.mark.parametrize("number", [3, 5, 19])
def test_intervals_of_few_images_cover_the_truth(number: int) -> None:
    """A bootstrap of so few would cover 76, 83 and 93 of 100."""
    draws, others = np.random.default_rng(0).normal(size=(2, 600, number))
    means = [mean_interval(each)[1] for each in draws]
    gaps, oracle = 1 + 0.1 * draws, np.zeros(number)
    left = 0.5 * gaps + 0.1 * others  # Half of the gap is closed.
    shares = [gap_interval(*each, oracle)[1] for each in zip(gaps, left, strict=True)]
    for truth, found in ((0.0, means), (0.5, shares)):
        assert None not in found
        covered = np.mean([low <= truth <= high for low, high in filter(None, found)])
        assert covered == pytest.approx(0.95, abs=0.025)


def test_entropy_is_of_what_a_fixation_shows() -> None:
    order = torch.tensor([[0, 1], [0, 2], [0, 3], [0, 3]])
    entropy = fixation_entropies(order_to_rank(order, 5), 2)
    assert entropy == pytest.approx([0.0, 1.5 * math.log(2)])
    # Segments: two patches at a step, the same in three images of four.
    rank = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [1, 0, 0, 1]])
    expected = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert fixation_entropies(rank, 2) == pytest.approx([expected] * 2)


def test_every_image_gets_the_scanpath_of_another() -> None:
    order = torch.arange(14).view(7, 2)
    other = of_another_image(order, seed=0)
    assert torch.equal(other.sort(0).values, order)
    assert bool((other != order).all())
    assert torch.equal(other, of_another_image(order, seed=0))
    segments = torch.arange(28).view(7, 2, 2)
    assert torch.equal(of_another_image(segments, seed=0)[:, :, 0], 2 * other)


def test_an_agent_of_ones_own_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_agents.py").write_text(
        "class Failing:\n"
        "    def __call__(self, episode, generator=None):\n"
        "        return [][1]\n"
        "class Short:\n"
        "    def __call__(self, episode, generator=None):\n"
        "        return episode.num_steps[:1]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = load_model("cue")
    images = cue_set("test").batch(torch.arange(3))
    with pytest.raises(ValueError, match="agent 'my_agents:Failing': IndexError"):
        scan_with(make_agent("my_agents:Failing"), model, images, 2)
    with pytest.raises(ValueError, match="must return int64 patches of shape"):
        scan_with(make_agent("my_agents:Short"), model, images, 2)

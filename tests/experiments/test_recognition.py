"""Recognition after k fixations: paired with the policy, controlled, and refused in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from telling import TELLING, telling_set
from torch import Tensor

from experiments import runs
from experiments.evaluation.compare import contenders
from experiments.evaluation.probe.evaluate import probe
from experiments.evaluation.probe.options import ProbeOptions
from experiments.evaluation.probe.result import ProbeResult
from experiments.evaluation.probe.views import Probing
from experiments.evaluation.progress import unheard
from experiments.evaluation.questions import NoLabels
from experiments.evaluation.recognition.asking import RecognitionAsking
from experiments.evaluation.recognition.evaluate import Answered, recognize
from experiments.evaluation.recognition.paths import PathMakers, Scanpaths, scan_of
from experiments.evaluation.recognition.probes import balanced_share
from experiments.probe import ProbeConfig, main
from experiments.runs import Run
from experiments.training.build import build
from experiments.training.config import TrainConfig
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.orders import SUBSETS, fixed_ordering
from foveate.probes import attentive as probe_attentive
from foveate.probes import fit_linear


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(probe_attentive, "ATTENTIVE_RATES", (0.01,))
    torch.manual_seed(0)
    config = TrainConfig().replace(
        data="cue", patch_size=2, embed_dim=16, depth=2, num_heads=2, decoder_depth=1, budget=4
    )
    model, policy = build(config, (1, 8, 8))
    return Run(tmp_path, config, model.eval(), policy.eval(), config.total_iterations)


def backward(grid: tuple[int, int]) -> Any:
    """From the last patch to the first: an order of one's own."""
    last = grid[0] * grid[1] - 1
    return lambda images, generator=None: (last - torch.arange(last + 1)).repeat(len(images), 1)


class FirstUnseen:
    """An agent of one's own, made by a call without arguments."""

    def __call__(self, episode: Any, generator: torch.Generator | None = None) -> Tensor:
        first: Tensor = episode.selectable.int().argmax(1)
        return first


def test_numbers_are_those_of_the_answers(run: Run) -> None:
    known = recognize(
        run,
        after=(3, 1),
        orders=("random", "policy"),
        read_outs=("queries", "attentive", "seen"),
        label_shares=(0.4,),
        train_limit=60,
        test_limit=30,
    )
    assert list(known.fixations) == ["random", "policy"]
    assert list(known.fixations["policy"]) == [1, 3]
    cell = known.fixations["random"][3]
    right, theirs = (
        known.correct[Answered(order, 3, "queries", "linear")] for order in ("random", "policy")
    )
    assert right.dtype == bool
    assert right.shape == known.labels.shape == (30,)
    assert cell.linear == cell.read_outs["queries"].linear == right.mean()
    assert cell.minus_policy == pytest.approx(right.mean() - theirs.mean())
    attentive = known.correct[Answered("random", 3, "attentive", "attentive")]
    assert cell.attentive == cell.read_outs["attentive"].attentive == attentive.mean()
    assert list(cell.read_outs) == ["queries", "seen", "attentive"]
    assert known.fixations["policy"][1].minus_policy is None
    assert {*known.controls} == {"path_only", "distinct_pixels", "untrained_encoder"}
    assert [*known.controls["path_only"]] == [1, 3]
    assert [*known.controls["untrained_encoder"][1].read_outs] == list(cell.read_outs)
    assert known.all_patches.linear is not None
    assert run.model.config.periphery
    assert known.periphery_alone is not None
    assert list(known.periphery_alone.read_outs) == list(cell.read_outs)
    fewer = known.label_shares["random"]["0.4"][3]
    right = known.correct[Answered("random", 3, "seen", "knn", 0.4)]
    assert fewer.read_outs["seen"].knn == right.mean()


def telling_second(grid: tuple[int, int]) -> Any:
    """Open the telling patch at the second of all steps."""
    rest = [patch for patch in range(grid[0] * grid[1]) if patch not in (0, TELLING)]
    return fixed_ordering([0, TELLING, *rest])


def test_the_class_is_known_from_the_fixation_on_that_shows_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, _ = build(run.config.replace(periphery=0), (1, 8, 8))
    blind = replace(run, config=run.config.replace(periphery=0), model=model.eval())
    monkeypatch.setattr(
        Run, "split", lambda self, split, limit=None: telling_set(200, len(split), height=8)
    )
    known = recognize(
        blind,
        after=(1, 2, 4),
        orders=(f"{__name__}:telling_second",),
        read_outs=("seen", "last", "attentive"),
        controls=False,
    )
    (row,) = known.fixations.values()
    for measure in ("linear", "attentive"):
        accuracy = {k: getattr(cell, measure) for k, cell in row.items()}
        assert accuracy[1] < 0.65, "before it is seen there is nothing to go by"
        assert min(accuracy[2], accuracy[4]) > 0.9
    newest = {k: cell.read_outs["last"].linear or 0.0 for k, cell in row.items()}
    assert newest[2] > 0.9


def test_the_untrained_control_has_weights_of_its_own(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that training starts from, at the seed, whatever the run has learned."""
    with torch.no_grad():
        for weight in run.model.parameters():
            weight += 0.1
    torch.manual_seed(3)
    fresh = build(run.config, (1, 8, 8))[0].state_dict()
    scanned: list[AnyOrderTransformer] = []
    both = RecognitionAsking.both

    def noted(self: RecognitionAsking, model: AnyOrderTransformer, *rest: Any) -> Any:
        scanned.append(model)
        return both(self, model, *rest)

    monkeypatch.setattr(RecognitionAsking, "both", noted)
    options: dict[str, Any] = {"orders": ("raster",), "read_outs": ("seen",), "seed": 3}
    recognize(run, after=(1,), train_limit=60, test_limit=20, **options)
    (untrained,) = [model for model in scanned if model is not run.model]
    few = run.split("train", 4)
    probed = Probing(ProbeOptions(seed=3), run, few, few, [], []).variants()[-1]
    for model in (untrained, probed.model):
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, fresh[name]), name


def test_what_few_labels_cannot_answer_gets_a_note(run: Run) -> None:
    known = recognize(
        run,
        after=(1,),
        orders=("raster",),
        read_outs=("last",),
        label_shares=(0.1, 1.0),
        controls=False,
        train_limit=60,
        test_limit=10,
    )
    assert known.controls == {}
    assert known.label_shares == {}
    assert {*known.notes} == {"linear_of_0.1", "knn_of_0.1"}
    used = "13.3% of the labels (8 of 60), asked for 10%"
    assert known.notes["linear_of_0.1"].startswith(f"{used}, no number of linear: 8 ")
    assert known.label_images == {"0.1": 8}
    assert known.fixations["raster"][1].minus_policy is None


def test_classes_without_a_training_image_get_a_note_and_no_number(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = Run.split

    def apart(self: Run, name: str, limit: int | None = None) -> ImageSet:
        images = split(self, name, limit)
        return images.take((images.labels == (name == "train")).nonzero().flatten())

    monkeypatch.setattr(Run, "split", apart)
    known = recognize(run, after=(1,), train_limit=60, test_limit=30)
    assert known.fixations == known.correct == {}
    assert known.all_patches.linear is None
    assert known.notes["classes"].startswith("training lacks all classes of the")


def test_what_has_no_number_at_all_is_refused(run: Run) -> None:
    with pytest.raises(NoLabels, match=r"probed: class . has a single"):
        probe(run, probes=("linear", "knn"), fixations=(1,), train_limit=8, test_limit=5)


def test_a_single_class_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    split = Run.split

    def of_one(self: Run, name: str, limit: int | None = None) -> ImageSet:
        images = split(self, name, limit)
        return images.take((images.labels == 1).nonzero().flatten())

    monkeypatch.setattr(Run, "split", of_one)
    for fixations in ((), (1,)):
        with pytest.raises(NoLabels, match="all 15 training images are of class 1"):
            probe(run, fixations=fixations, train_limit=60, test_limit=30)


@pytest.mark.parametrize(
    ("probes", "read_outs", "measured"),
    [
        (("knn",), None, {"seen": ["knn"], "queries_2x2": ["knn"]}),
        (("linear", "attentive"), None, {"seen": ["linear"], "attentive": ["attentive"]}),
        (("attentive",), None, {"attentive": ["attentive"]}),
        (("knn",), ("attentive",), {"attentive": ["attentive"]}),
    ],
)
def test_only_what_is_asked_for_is_probed(
    run: Run, probes: Any, read_outs: Any, measured: dict[str, list[str]]
) -> None:
    options = {"orders": ("policy", "raster"), "train_limit": 60, "test_limit": 10}
    found = probe(run, probes=probes, read_outs=read_outs, fixations=(1,), **options)
    assert found.fixations is not None
    cells = found.fixations["raster"][1].read_outs
    kinds = ("linear", "knn", "attentive")
    known = {
        name: [kind for kind in kinds if getattr(cell, kind) is not None]
        for name, cell in cells.items()
    }
    assert measured.items() <= known.items()
    assert ("attentive" in known) == ("attentive" in measured)
    assert all(cell.minus_policy is not None for cell in cells.values())
    assert found.to_text().count("minus policy") == len(known)
    path = [each for each in found.tables() if each.columns[0].startswith("the policy's path")]
    assert path
    assert all("-" not in row for table in path for row in table.rows)


def test_shared_probes_are_trained_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    fit = "experiments.evaluation.recognition.probes.fit_linear"
    monkeypatch.setattr(fit, lambda x, y, c: asked.append(len(x)) or fit_linear(x, y, c))
    known = recognize(
        run,
        after=(1, 2, 4),
        orders=("raster", "center_out"),
        read_outs=("seen",),
        probe="shared",
        controls=False,
        train_limit=60,
        test_limit=20,
    )
    assert len(asked) == 3, "one for all orders, one for all patches, one for the periphery"
    assert [*known.fixations["center_out"]] == [1, 2, 4]


def test_a_share_is_balanced_over_classes() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 4)
    chosen = balanced_share(labels, 0.25, seed=0)
    assert labels[chosen].bincount().tolist() == [7, 7, 4]
    assert torch.equal(balanced_share(labels, 1.0, seed=0), torch.arange(84))
    assert not torch.equal(chosen, balanced_share(labels, 0.25, seed=1))


def test_the_script_writes_numbers_table_and_picture(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "load_run", lambda *_: run)
    own = f"{__name__}:backward", f"{__name__}:FirstUnseen"
    orders = ("policy", "other_image", "best_fixed", "uncertainty", *own)
    config = ProbeConfig(
        run=run.directory,
        attention=("full",),
        fixations=(1, 4),
        orders=orders,
        read_outs=("seen",),
        label_shares=(0.5,),
        train_limit=50,
        test_limit=20,
    )
    main(config)
    path = run.directory / "probe_linear_knn.json"
    content = json.loads(path.read_text())
    assert [*content["fixations"]] == [*orders]
    cell = content["fixations"]["other_image"]["4"]
    assert {"linear", "linear_ci95", "knn", "knn_ci95", "minus_policy"} <= {*cell}
    assert content["controls"]["path_only"]["4"]["linear"] is not None
    assert content["linear"]["layer_1"]["accuracy"] > 0
    shown = capsys.readouterr().out
    assert "seen, linear, after" in shown
    assert "seen, knn, after" in shown
    assert "without the model, knn, after" in shown
    assert "48% of the labels (24 of 50), asked for 50%" in shown
    assert content["label_images"] == {"0.5": 24}
    assert ProbeResult.read(path).to_text() in shown
    picture = run.directory / "probe_linear_knn_fixations.png"
    assert picture.stat().st_size > 5000
    main(replace(config, fixations=(), orders=None, read_outs=None, label_shares=(1.0,)))
    assert not picture.exists(), "it shows what the former result says"
    assert picture.with_stem(f"{picture.stem}_1").is_file()


def test_each_order_scans_its_own_way(run: Run) -> None:
    train, test = run.split("train", 6), run.split("test", 4)
    own = f"{__name__}:backward", f"{__name__}:FirstUnseen"
    makers = PathMakers.of(run, ("raster", "other_image", "best_fixed", *own))
    policy = makers.policy(train, test)
    found = {name: makers.paths(name, train, test, policy) for name in makers.asked}
    assert found["raster"].test.tolist() == [[0, 1, 2, 3]] * 4
    assert found[own[0]].train.tolist() == [[15, 14, 13, 12]] * 6
    assert found[own[1]].test.tolist() == [[0, 1, 2, 3]] * 4
    each = torch.arange(16).view(4, 4)
    planted = Scanpaths(torch.cat([each, each[:2].flip(1)]), each)
    other = makers.paths("other_image", train, test, planted)
    for before, after in ((planted.train, other.train), (planted.test, other.test)):
        assert sorted(after.tolist()) == sorted(before.tolist())
        assert (after != before).any(1).all(), "no image keeps its own path"
    assert len(found["best_fixed"].train.unique(dim=0)) == 1


def test_a_random_order_draws_the_same_paths_whatever_it_scanned_before(run: Run) -> None:
    test, few, more = run.split("test", 4), run.split("train", 2), run.split("train", 6)
    makers = PathMakers.of(run, ("random",))
    found = [
        makers.paths("random", train, test, makers.policy(train, test)).test
        for train in (few, more, more)
    ]
    compared = contenders.measure(
        *(run, contenders.Scanners.of(run.model, ("random",), ()), test.images, few.images),
        **{"judge": run.model, "oracle_limit": 1, "memory": 10**9, "advance": unheard},
    )
    for path in found:
        assert torch.equal(path, compared.order["random"])


def test_no_path_of_chance_tells_a_test_image_from_the_training_image_beside_it(run: Run) -> None:
    both = run.split("test", 40)
    makers = PathMakers.of(run, ("random",))
    found = makers.paths("random", both, both, makers.policy(both, both))
    assert (found.train != found.test).any(1).float().mean() > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"orders": ("raster",)}, "orders has no effect without fixations"),
        ({"label_shares": (0.1,)}, "label_shares has no effect without fixations"),
        (
            {"probes": ("finetune",), "fixations": (1,), "label_shares": (0.1,)},
            "label_shares has no effect without a probe of frozen features",
        ),
        (
            {"fixations": (1,), "read_outs": ("queries",), "fixations_layer": 1},
            "fixations_layer has no effect without read-out seen, last, attentive",
        ),
        ({"fixations": (1,), "label_shares": (2.0,)}, "label_shares must lie above 0 .* got 2.0"),
        ({"fixations": (1,), "orders": ()}, "orders needs at least one choice"),
        ({"fixations": (1,), "read_outs": ("sen",)}, "unknown read-out 'sen'; .* 'seen'"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProbeConfig(run=Path("run"), **options)


@pytest.mark.parametrize("name", ["rastr", "nowhere_to_be_found:spiral"])
def test_the_script_refuses_an_order_before_it_loads_the_run(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"order.*{name}"):
        main(ProbeConfig(run=tmp_path / "no_such_run", fixations=(1,), orders=("policy", name)))


@pytest.mark.parametrize("name", SUBSETS)
def test_what_says_only_which_patches_are_hidden_is_no_scan(run: Run, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} says which patches are hidden"):
        scan_of(run, name)


def test_what_cannot_be_recognized_is_refused_first(run: Run) -> None:
    for after, got in (((0, 1), "0 1"), ((2, 5), "2 5")):
        with pytest.raises(ValueError, match=rf"must lie in 1\.\.4, the budget .* got {got}"):
            recognize(run, after=after)
    with pytest.raises(ValueError, match="unknown order 'rastr'; did you mean 'raster'"):
        recognize(run, after=(1,), orders=("rastr",))
    with pytest.raises(ValueError, match=r"fixations_layer must lie in 1\.\.2, got 3"):
        recognize(run, after=(1,), layer=3)
    run.model.config = replace(run.model.config, queries="own", decoder_depth=0)
    with pytest.raises(ValueError, match="can scan"):
        recognize(run, after=(1,))


def test_a_path_of_another_image_that_there_is_not_is_refused_before_anything_is_probed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.evaluation.probe.evaluate.probe_frozen", None)
    with pytest.raises(ValueError, match="other_image needs two or more"):
        probe(run, fixations=(1,), train_limit=60, test_limit=1)

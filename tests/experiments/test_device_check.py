"""The check of a device, on the processor: there every comparison must come out equal."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from looks import looks
from torch._C._autograd import DeviceType
from torch._inductor.exc import InductorError, InvalidCxxCompiler

from experiments import bench
from experiments.bench import BenchConfig
from experiments.benchmarks import (
    agreement,
    device,
    device_measures,
    device_runs,
    device_speed,
    graphs,
)
from experiments.benchmarks.agreement import (
    compare_flex,
    compare_outputs,
    compare_recipe,
    compare_scans,
    compare_tied,
)
from experiments.benchmarks.checking import (
    BROKE,
    FAIL,
    MEASURED,
    PASS,
    SKIPPED,
    Compared,
    NotPossible,
    judged,
)
from experiments.benchmarks.device import bench_device
from experiments.benchmarks.device_measures import MeasuredSpeed, measure_step, own_times
from experiments.benchmarks.device_speed import (
    SIZES,
    WITH_GOAL,
    Measurement,
    measured_rows,
    measurements,
    step_config,
)
from experiments.benchmarks.graphs import compare_graphs
from experiments.benchmarks.timing import BenchResult
from experiments.benchmarks.waiting import (
    ALLOWED_WAITS,
    RefuseWaiting,
    environment_step,
    never_waits,
    refusing_to_wait,
    scan,
    training_step,
    waiting_trainer,
)
from experiments.training.policy_learner import GroupRelativeLearner
from experiments.training.presets import PRESETS
from foveate.devices import send
from foveate.model.cache import KeyValueCache
from foveate.recipes import RECIPES

DEVICES = [
    "meta",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    ),
]


# --- lines


def test_a_line_passes_within_its_tolerance_alone() -> None:
    found = {"": Compared(0.5, 0.5), "more": Compared(0.6, 0.5), "nan": Compared(math.nan, 1)}
    lines = judged("it", lambda: found)
    assert [line[:2] for line in lines] == [("it", PASS), ("it: more", FAIL), ("it: nan", FAIL)]
    assert lines[1][2:] == ("0.6", "0.5")


def test_what_raises_is_a_line_that_fails() -> None:
    def skips() -> dict[str, Compared]:
        raise NotPossible("no card")

    assert judged("it", lambda: {"": Compared(1 / 0, 1)}) == [
        ("it", FAIL, "ZeroDivisionError: division by zero", "")
    ]
    assert judged("it", skips) == [("it", SKIPPED, "no card", "")]


def test_what_does_not_fit_is_skipped_and_what_breaks_stops_no_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fills() -> MeasuredSpeed:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def breaks() -> MeasuredSpeed:
        raise RuntimeError("out of memory\nat all")

    def lacks() -> MeasuredSpeed:
        raise NotPossible("no compiler")

    def todo() -> Iterator[Measurement]:
        yield Measurement("long", lambda: MeasuredSpeed("never", {"never": 1.0}), 1000)
        yield Measurement("large", breaks, 0)
        yield Measurement("odd", lambda: MeasuredSpeed("", {"never": 1 / 0}), 0)
        yield Measurement("lacking", lacks, 0)
        yield Measurement("filling", fills, 0)
        yield Measurement("short", lambda: MeasuredSpeed("1 image/s", {"speed": 1.0}, "2"), 0)

    found = list(measured_rows(todo(), time.monotonic() + 10))
    rows = [row for row, _ in found]
    assert rows[0][:2] == ("long", SKIPPED)
    assert rows[0][2].startswith("takes about 1000 s, ")
    assert rows[1] == ("large", BROKE, "RuntimeError: out of memory", "")
    assert rows[2] == ("odd", BROKE, "ZeroDivisionError: division by zero", "")
    assert rows[3] == ("lacking", SKIPPED, "no compiler", "")
    assert rows[4] == ("filling", SKIPPED, "needs more memory than the device has", "")
    assert rows[5] == ("short", "measured", "1 image/s", "2")
    assert [numbers for _, numbers in found] == [{}] * 5 + [{"speed": 1.0}]
    assert "in breaks" in capsys.readouterr().err, "where an error comes from"


def test_everything_that_is_measured_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At tiny sizes, on the processor; graphs are CUDA's alone, and nothing is compiled."""
    tiny = {"embed_dim": 16, "num_heads": 1, "depth": 1, "image_size": 16, "patch_size": 8}
    sizes = {name: (recipe, {**own, **tiny}) for name, (recipe, own) in SIZES.items()}
    monkeypatch.setattr(device_speed, "SIZES", sizes)
    monkeypatch.setattr(device_speed, "ROWS", (1, 2))
    monkeypatch.setattr(device_speed, "SCANNED", (1,))
    monkeypatch.setattr(device_measures, "PEAK_SIDE_CPU", 64)
    title, preset = PRESETS["cifar10"]
    smaller = {"cifar10": (title, preset.replace(embed_dim=16, depth=1, num_heads=1))}
    monkeypatch.setattr(device_measures, "PRESETS", PRESETS | smaller)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: None)
    found = {
        row[0]: (row, numbers)
        for row, numbers in measured_rows(measurements("cpu", tmp_path, 1), math.inf)
    }
    not_here = {"scans as CUDA graphs, 1 images"}
    assert {name for name, (row, _) in found.items() if row[1] != MEASURED} == not_here
    assert all(found[name][0][1] == SKIPPED for name in not_here)
    for name in SIZES:
        for line in (f"training step, {name}, fp32", f"training step, {name}, fp32, compiled"):
            assert "of the peak" in found[line][0][2]
    row, numbers = found[f"training step, {WITH_GOAL}, fp32"]
    assert numbers["share_of_peak_vit_b_16"] > 0
    assert row[3] == "at least 40%"
    assert found["joint step, fp32"][1]["joint_over_random_step_here"] > 0
    assert found["environment, 2 rows"][1]["env_steps_per_s_2_rows"] > 0


def test_a_step_without_a_peak_or_a_compiler_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = step_config("mae, 32 px, patch 4", "cpu", tmp_path, "fp32").replace(
        embed_dim=16, num_heads=1, depth=1
    )
    with pytest.raises(NotPossible, match="the peak was not measured"):
        measure_step(config, 1, {}, False, "")
    for inner, told in (
        (InvalidCxxCompiler(), pytest.raises(NotPossible, match=r"needs a C\+\+ compiler")),
        (AssertionError("a bug"), pytest.raises(InductorError, match="a bug")),
    ):

        def breaks(self: torch.nn.Module, inner: Exception = inner) -> None:
            def forward(*_: object, **__: object) -> None:
                raise InductorError(inner, None)

            monkeypatch.setattr(self, "forward", forward)

        monkeypatch.setattr(torch.nn.Module, "compile", breaks)
        with told:
            measure_step(config, 1, {"fp32": 1.0}, True, "")


def test_of_a_gpu_kernels_alone_are_counted() -> None:
    """Not the operations that start them, nor the regions around these, whose time is the same."""
    seen = [
        SimpleNamespace(
            key=key,
            device_type=place,
            is_user_annotation=is_region,
            self_device_time_total=3.0,
            self_cpu_time_total=5.0,
        )
        for key, place, is_region in (
            ("aten::mm", DeviceType.CPU, False),
            ("gemm", DeviceType.CUDA, False),
            ("Optimizer.step", DeviceType.CUDA, True),
        )
    ]
    assert own_times(seen, on_gpu=True) == {"gemm": 3.0}
    assert set(own_times(seen, on_gpu=False)) == {each.key for each in seen}


# --- what is computed


def passes(found: Any) -> bool:
    assert found, "something must be compared"
    return all(each.passes for each in found.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_recipe_agrees_with_the_processor(precision: str, tmp_path: Path) -> None:
    """In bfloat16 the two differ, by less than is allowed."""
    try:
        found = compare_recipe("saim", precision, "cpu", tmp_path)
    except NotPossible as reason:
        pytest.skip(str(reason))
    assert set(found) == {"loss", "gradient", "predictions"}
    assert passes(found)
    assert all((each.difference > 0) == (precision == "bf16") for each in found.values())


def test_a_planted_fault_makes_a_recipe_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of the two models, that on the device, starts a little differently."""
    made: list[int] = []
    plain = agreement.tiny_trainer

    def faulty(*arguments: Any) -> Any:
        trainer = plain(*arguments)
        if made:
            with torch.no_grad():
                trainer.model.decoder.head.weight.mul_(1.01)
        made.append(1)
        return trainer

    monkeypatch.setattr(agreement, "tiny_trainer", faulty)
    lines = judged("mae", lambda: compare_recipe("mae", "fp32", "cpu", tmp_path))
    assert {line[1] for line in lines} == {FAIL}


def test_ties_scans_and_environments_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert passes(compare_tied("cpu", 4))
    assert passes(compare_flex("cpu"))
    assert passes(compare_scans("cpu"))
    assert passes(compare_outputs("cpu"))
    plain = KeyValueCache.write

    def forgetful(self: KeyValueCache, at: Any, pairs: torch.Tensor) -> None:
        plain(self, at, pairs * (1 if pairs.shape[3] > 1 else 0.99))

    monkeypatch.setattr(KeyValueCache, "write", forgetful)
    assert not passes(compare_scans("cpu"))


def test_a_graph_must_take_new_images(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(NotPossible, match="CUDA alone"):
            compare_graphs("cpu")

    def stale(scan_of: graphs.ScanOf, *captured: torch.Tensor) -> graphs.ScanOf:
        first = scan_of(*captured)
        return lambda *_: first

    monkeypatch.setattr(graphs, "as_graph", lambda scan_of, *_: scan_of)
    assert passes(compare_graphs("cpu"))
    assert set(graphs.seconds_of_scans(1, "cpu", 1)) == {"steps", "graph"}
    monkeypatch.setattr(graphs, "as_graph", stale)
    assert not passes(compare_graphs("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_graph_sees_what_steps_see() -> None:
    assert passes(compare_graphs("cuda"))


def test_every_recipe_is_checked(tmp_path: Path) -> None:
    names = agreement.agreement_checks("cpu", tmp_path)
    for recipe in RECIPES:
        assert {f"recipe {recipe}, fp32", f"recipe {recipe}, bf16"} <= set(names)


# --- who waits


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("step", [training_step, scan, environment_step])
def test_the_host_never_waits(step: Any, device: str) -> None:
    assert passes(never_waits(step, device))


@pytest.mark.parametrize("what", list(ALLOWED_WAITS))
def test_an_iteration_looks_no_more_often_than_is_said(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = waiting_trainer(what, "cpu", tmp_path)
    # Optimizers count their steps on the processor, wherever the weights are.
    optimizers = [*trainer.model_learner.optimizers]
    if isinstance(learner := trainer.policy_learner, GroupRelativeLearner):
        optimizers.append(learner.optimizer)
    for each in optimizers:
        monkeypatch.setattr(each, "step", lambda: None)
    with looks() as counted:
        trainer.step()
    assert 1 < counted.looks <= ALLOWED_WAITS[what]


def test_numbers_made_on_a_device_are_refused() -> None:
    there = torch.ones(3, device="meta")
    with refusing_to_wait("meta"):
        for wait in (
            lambda: torch.tensor([1.0], device="meta"),
            lambda: torch.as_tensor(1.0, device="meta"),
            lambda: torch.asarray([1.0], device="meta"),
            lambda: torch.scalar_tensor(1.0, device="meta"),
            lambda: there.new_tensor([1.0]),
            lambda: there.new_tensor(data=[1.0]),
        ):
            with pytest.raises(RuntimeError, match="makes the host wait"):
                wait()
        assert torch.tensor([1.0]).is_cpu
        assert there.new_zeros(2).is_meta


def test_what_many_read_can_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinned memory takes the strides of what is pinned, and one place cannot be written twice."""
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "is_cpu", True, raising=False)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *_, **__: self)
    send(torch.ones(1).expand(3), "cuda")
    assert pinned[0].stride() == (1,)


def test_who_waits_is_refused() -> None:
    there = torch.ones(3, device="meta")
    with RefuseWaiting():
        send(torch.ones(3), "meta")
        for wait in (
            lambda: torch.ones(3).to("meta"),
            lambda: there[there > 0],
            lambda: there.copy_(torch.ones(3)),
        ):
            with pytest.raises(RuntimeError, match="makes the host wait"):
                wait()
        for mixed in (
            lambda: there[torch.tensor([0])],
            lambda: there.gather(0, torch.tensor([0])),
            lambda: there @ torch.ones(3),
        ):
            with pytest.raises(RuntimeError, match="tensors of two places"):
                mixed()
        assert (there * torch.tensor(2.0)).shape == (3,)
        with pytest.raises(RuntimeError):
            there.sum().item()
        with pytest.raises((RuntimeError, NotImplementedError)):
            there.nonzero()


# --- the command


def some_checks(*names: str) -> Any:
    """Return a stand-in for all checks, of which some fail."""
    lines = {
        "good": lambda: {"": Compared(0, 1)},
        "bad": lambda: {"": Compared(2, 1)},
    }
    return lambda *_: {name: lines[name] for name in names}


@pytest.mark.parametrize("fails", [False, True])
def test_the_command_fails_where_a_line_does(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "checks_of", some_checks("good", *["bad"] * fails))
    out = tmp_path / "bench.json"
    config = BenchConfig(what="device", device="cpu", minutes=0, repeats=1, out=out)
    written: list[int] = []
    plain = BenchResult.write

    def write(self: BenchResult, path: Path) -> None:
        plain(self, path)
        written.append(len(json.loads(path.read_text())["rows"]))

    monkeypatch.setattr(BenchResult, "write", write)
    if fails:
        with pytest.raises(SystemExit) as ended:
            bench.main(config)
        assert ended.value.code == 1
    else:
        bench.main(config)
    assert written == [*range(1, written[-1] + 1), written[-1]], "anew after every line"
    result = json.loads(out.read_text())
    assert result["failed"] == ["bad"] * fails
    assert (result["checks_passed"], result["checks_failed"]) == (1, int(fails))
    assert {row[1] for row in result["rows"]} == {PASS, SKIPPED} | ({FAIL} if fails else set())


@pytest.mark.slow
def test_the_processor_does_what_the_processor_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """All lines, but for torchrun, which fails here by its name; speed has no time."""

    def no_torchrun(*_: object) -> list[float]:
        raise ValueError("no torchrun here\nat all")

    monkeypatch.setattr(device_runs, "losses_under_torchrun", no_torchrun)
    result = bench_device(device="cpu", minutes=0, repeats=1)
    assert result.failed == ("torchrun with one process against none",)
    rows = {row[0]: row[1:] for row in result.rows}
    assert rows["torchrun with one process against none"][1] == "ValueError: no torchrun here"
    for line in ("run against the CPU's", "checkpoint of the CPU goes on here"):
        assert rows[f"{line}: last loss"][:2] == (PASS, "0")
    assert rows["training step, ViT-B/16, fp32"][0] == SKIPPED
    assert len(rows) == len(result.rows)


@pytest.mark.parametrize(("only", "verdict"), [("checks", PASS), ("speed", SKIPPED)])
def test_one_of_the_two_parts_can_be_asked_alone(
    only: Any, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "checks_of", some_checks("good"))
    result = bench_device(device="cpu", minutes=0, only=only, repeats=1)
    assert {row[1] for row in result.rows} == {verdict}


def test_one_gpu_of_several_is_chosen_before_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "check_device", lambda _: None)
    with pytest.raises(ValueError, match="take --device cuda, and CUDA_VISIBLE_DEVICES=1 for"):
        bench_device(device="cuda:1")


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be used here"):
        bench_device(device="toaster")
    with pytest.raises(ValueError, match="minutes must be at least 0"):
        BenchConfig(what="device", minutes=-1)

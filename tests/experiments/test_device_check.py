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
from torch._C._autograd import DeviceType

from experiments import bench
from experiments.bench import BenchConfig
from experiments.benchmarks import agreement, device_runs, graphs
from experiments.benchmarks.agreement import (
    compare_flex,
    compare_outputs,
    compare_recipe,
    compare_scans,
    compare_tied,
)
from experiments.benchmarks.checking import FAIL, PASS, SKIPPED, Compared, NotPossible, judged
from experiments.benchmarks.device import bench_device
from experiments.benchmarks.device_speed import MeasuredSpeed, Measurement, measured_rows, own_times
from experiments.benchmarks.graphs import compare_graphs
from experiments.benchmarks.waiting import (
    RefuseWaiting,
    environment_step,
    never_waits,
    scan,
    training_step,
)
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
    def breaks() -> MeasuredSpeed:
        raise RuntimeError("out of memory\nat all")

    def lacks() -> MeasuredSpeed:
        raise NotPossible("no compiler")

    def todo() -> Iterator[Measurement]:
        yield Measurement("long", lambda: MeasuredSpeed("never", {"never": 1.0}), 1000)
        yield Measurement("large", breaks, 0)
        yield Measurement("odd", lambda: MeasuredSpeed("", {"never": 1 / 0}), 0)
        yield Measurement("lacking", lacks, 0)
        yield Measurement("short", lambda: MeasuredSpeed("1 image/s", {"speed": 1.0}, "2"), 0)

    rows, numbers = measured_rows(todo(), time.monotonic() + 10)
    assert rows[0][:2] == ("long", SKIPPED)
    assert rows[0][2].startswith("takes about 1000 s, ")
    assert rows[1] == ("large", SKIPPED, "RuntimeError: out of memory", "")
    assert rows[2] == ("odd", SKIPPED, "ZeroDivisionError: division by zero", "")
    assert rows[3] == ("lacking", SKIPPED, "no compiler", "")
    assert rows[4] == ("short", "measured", "1 image/s", "2")
    assert numbers == {"speed": 1.0}
    # Who ends the command early has what it found.
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  ".join(filter(None, r)) for r in rows[1:]
    ]


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


def only(*names: str) -> Any:
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
    for module, names in (("agreement", ["good", *["bad"] * fails]), ("waiting", []), ("run", [])):
        monkeypatch.setattr(f"experiments.benchmarks.device.{module}_checks", only(*names))
    out = tmp_path / "bench.json"
    config = BenchConfig(what="device", device="cpu", minutes=0, repeats=1, out=out)
    if fails:
        with pytest.raises(SystemExit) as ended:
            bench.main(config)
        assert ended.value.code == 1
    else:
        bench.main(config)
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


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be used here"):
        bench_device(device="toaster")
    with pytest.raises(ValueError, match="minutes must be at least 0"):
        BenchConfig(what="device", minutes=-1)

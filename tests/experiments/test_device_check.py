"""The check of a device, on the processor: there every comparison must come out equal."""

from __future__ import annotations

import pytest

from experiments.benchmarks import device
from experiments.benchmarks.device import bench_device, number, outcome


@pytest.mark.slow
def test_the_processor_does_what_the_processor_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing check is reported as failed, and the rest go on."""

    def no_torchrun(*_: object) -> list[float]:
        raise ValueError("no torchrun here\nat all")

    monkeypatch.setattr(device, "losses_under_torchrun", no_torchrun)
    result = bench_device(device="cpu", sizes=("demo",), repeats=1)
    numbers, rows = result.numbers, dict(result.rows)
    for heads in (4, 8):
        for what in ("loss", "gradient"):
            name = f"tied_{what}_away_from_the_processors_with_{heads}_heads"
            assert numbers[name] == pytest.approx(0, abs=1e-6)
    plain = numbers["last_loss_plain"]
    assert plain is not None
    assert rows["last loss plain"] == f"{plain:.4g}"
    for name in ("on", "begun_on", "continued_on"):
        assert numbers[f"last_loss_{name}_the_processor"] == plain
    for name in ("squares", "maskable_ppo", "streamed"):
        other = numbers[f"last_loss_{name}"]
        assert other is not None
        assert 0 < other != plain
    share, speed = (numbers[f"{each}_demo_fp32"] for each in ("share_of_peak", "images_per_s"))
    assert share is not None
    assert 0 < share < 1.5, "the peak varies on busy cores"
    said = str(rows["training step, demo, fp32"])
    assert said.startswith(f"{speed:.0f} images/s, ")
    assert said.endswith(f", {share:.2%} of the peak")
    assert numbers["last_loss_torchrun"] is None
    assert rows["last loss torchrun"] == "failed: ValueError: no torchrun here"
    assert len(rows) == len(result.rows)


def test_a_failing_check_is_reported() -> None:
    assert outcome("one", number("one", lambda: 0.5)) == ({"one": 0.5}, "0.5")
    assert outcome("none", number("none", lambda: 1 / 0)) == (
        {"none": None},
        "failed: ZeroDivisionError: division by zero",
    )


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be used here"):
        bench_device(device="toaster")

"""The check of a device, on the processor: there every comparison must come out equal."""

from __future__ import annotations

import pytest

from experiments.benchmarks import device
from experiments.benchmarks.device import bench_device, outcome


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
            name = f"tied_order_with_{heads}_heads_away_from_the_processors_{what}"
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
    step = "training_step_demo_fp32"
    assert 0 < (numbers[f"{step}_share_of_peak"] or 0) < 1.5, "the peak varies on busy cores"
    assert rows[step.replace("_", " ")].endswith(" share of peak")
    assert numbers["last_loss_torchrun"] is None
    assert rows["last loss torchrun"] == "failed: ValueError: no torchrun here"
    assert len(rows) == len(result.rows)


def test_a_failing_check_is_reported() -> None:
    assert outcome("one", lambda: {"": 0.5}) == ({"one": 0.5}, "0.5")
    two = outcome("two", lambda: {"loss_px": 1.0, "share": 0.25})
    assert two == ({"two_loss_px": 1.0, "two_share": 0.25}, "1 loss px, 0.25 share")
    assert outcome("none", lambda: {"": 1 / 0}) == (
        {"none": None},
        "failed: ZeroDivisionError: division by zero",
    )


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be used here"):
        bench_device(device="toaster")

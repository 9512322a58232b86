"""Benchmarks that start processes: none waits for one that will never answer."""

from __future__ import annotations

import sys

import pytest

from experiments.benchmarks import seeds
from experiments.benchmarks.seeds import bench_seeds, seconds_of_processes
from experiments.benchmarks.torchrun import ended


def test_a_command_that_does_not_end_is_ended() -> None:
    assert ended(60, [sys.executable, "-c", "raise SystemExit('no')"]) == (1, "no\n")
    with pytest.raises(ValueError, match="did not end within 0 s"):
        ended(0.1, [sys.executable, "-c", "import time; time.sleep(60)"])


@pytest.mark.slow
def test_a_process_that_fails_is_not_waited_for() -> None:
    with pytest.raises(ValueError, match="one of 1 processes at once failed"):
        seconds_of_processes(1, "toaster", 1)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_batched_model_has_the_gradients_of_its_seeds(
    wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds, "seconds_of_processes", lambda *_: 1.0)
    if wrong:
        right = seeds.batched_gradients
        monkeypatch.setattr(
            seeds, "batched_gradients", lambda *given: lambda: 1.01 * right(*given)()
        )
    result = bench_seeds(device="cpu", seeds=2, repeats=1)
    assert result.failed == ("gradients of the batched model",) * wrong
    assert [row[0] for row in result.rows] == [
        "one batched model",
        "one by one",
        "processes at once",
    ]

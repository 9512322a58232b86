"""How far an evaluation is: plain lines where there is no terminal."""

from __future__ import annotations

import pytest

from experiments.evaluation import progress as telling
from experiments.evaluation.progress import progress


def test_lines_at_intervals_say_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 4.0, 12.0, 13.0, 24.0])
    monkeypatch.setattr(telling.time, "perf_counter", lambda: next(now))
    assert list(progress("abcd", "probing", "layer")) == ["a", "b", "c", "d"]
    assert capsys.readouterr().err.splitlines() == [
        "probing: 50% after 12 s, about 12 s left",
        "probing: 100% after 24 s, about 0 s left",
    ]

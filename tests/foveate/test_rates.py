"""Rates of each step, worked out by hand."""

from __future__ import annotations

import pytest
import torch

from foveate.optim import CosineDecay, set_rate


def test_a_rate_rises_along_a_line_and_falls_along_a_cosine_to_its_floor() -> None:
    rate = CosineDecay(peak=2.0, start=10, end=20, floor=0.1, ramp_start=5, ramp=5)
    by_hand = {4: 0.0, 5: 0.4, 7: 1.2, 9: 2.0, 10: 2.0, 15: 1.0, 20: 0.2}
    assert {step: rate(step) for step in by_hand} == pytest.approx(by_hand)


def test_a_floor_of_one_keeps_the_peak() -> None:
    rate = CosineDecay(peak=3.0, end=5, floor=1.0)
    assert [rate(step) for step in range(6)] == [3.0] * 6


def test_a_rate_is_set_for_all_that_is_updated() -> None:
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    both = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:2]}], lr=1.0)
    one = torch.optim.SGD(weights[2:], lr=1.0)
    set_rate([both, one], 0.25)
    assert [group["lr"] for each in (both, one) for group in each.param_groups] == [0.25] * 3

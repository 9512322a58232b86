"""Saccades: distances between the middles of successive fixations, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from foveate.orders.saccades import centers_of, check_saccade_cost, distances, path_length


def test_path_lengths_by_hand() -> None:
    """On a grid of 3 x 3: along a side and down, across and back, and nowhere."""
    order = torch.tensor([[0, 2, 8], [4, 0, 8], [5, 5, 5]])
    expected = torch.tensor([4.0, 3 * math.sqrt(2), 0.0])
    torch.testing.assert_close(path_length(order, (3, 3)), expected)
    assert path_length(order[:, :1], (3, 3)).tolist() == [0.0] * 3, "the first fixation is free"


def test_a_segment_is_looked_at_in_its_middle() -> None:
    """From (0, 0.5) to (2, 2); a fixation of no patch is nowhere."""
    order = torch.tensor([[[0, 1], [8, -1]], [[0, 1], [-1, -1]]])
    assert path_length(order, (3, 3)).tolist() == [2.5, 0.0]
    assert centers_of(order, (3, 3))[0].tolist() == [[0.0, 0.5], [2.0, 2.0]]


def test_distances_broadcast_over_candidates() -> None:
    """On 2 x 4 patches from patch 5 to all, and from nowhere."""
    every = centers_of(torch.arange(8).unsqueeze(1), (2, 4))
    gaze = centers_of(torch.tensor([[5], [-1]]), (2, 4))
    away = distances(gaze.unsqueeze(1), every)
    root = math.sqrt(2)
    expected = torch.tensor([[root, 1, root, math.sqrt(5), 1, 0, 1, 2], [0.0] * 8])
    torch.testing.assert_close(away, expected)


@pytest.mark.parametrize("cost", [-0.1, math.inf, math.nan, "a", None])
def test_a_cost_is_a_number_finite_and_not_negative(cost: object) -> None:
    with pytest.raises(ValueError, match="saccade_cost must be a finite number of at least 0"):
        check_saccade_cost(cost)

"""Collapsed features are told from others, whatever follows from the place alone."""

from __future__ import annotations

import math

import torch

from foveate.model.collapse import effective_rank, feature_std


def test_features_that_follow_from_the_place_alone_have_no_spread_and_no_rank() -> None:
    place = torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(0)).expand(6, -1, -1)
    assert feature_std(place) < 1e-6
    assert effective_rank(place) < 1.01


def test_the_rank_is_the_number_of_equally_strong_directions() -> None:
    """Two images that differ by +-1 in one feature at each place, in another at every place."""
    features = torch.stack([torch.eye(3, 5), -torch.eye(3, 5)])
    assert abs(effective_rank(features) - 3) < 1e-6
    assert abs(feature_std(features) - 3 / 15) < 1e-6
    one = features[..., :1].expand(-1, -1, 5)
    assert abs(effective_rank(one) - 1) < 1e-6


def test_features_that_are_not_finite_have_no_rank() -> None:
    assert math.isnan(effective_rank(torch.full((2, 3, 4), torch.nan)))

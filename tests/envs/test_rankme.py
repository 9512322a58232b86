"""The reward of directions that a scan adds: by hand, in episodes, and where it has no meaning."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from envs.episode import Episode
from envs.fixation import Fixation
from envs.rankme import directions, directions_added, rankme
from foveate.model import AnyOrderTransformer
from foveate.probes import rank_me

X, Y, Z = torch.eye(3)
TWO_OF_THREE = 1.97063
"""Directions of X, X, Y: the singular values are sqrt(2) and 1, their shares .586 and .414."""


def added(*rows: Tensor, group: int = 1) -> list[float]:
    return directions_added(torch.stack(rows), group).tolist()


def test_it_counts_directions_as_the_probe_does() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 7, 4)
    expected = [rank_me(each.numpy().astype(np.float64)) for each in features]
    assert directions(features).tolist() == pytest.approx(expected, rel=1e-5)
    assert directions(torch.zeros(3, 2)).item() == pytest.approx(1, abs=1e-4)


def test_features_that_are_not_finite_pay_no_number() -> None:
    features = torch.randn(4, 8)
    features[0] = torch.nan
    assert directions(features).isnan().all()


def test_a_new_direction_adds_one_and_a_known_one_nothing() -> None:
    assert added(X, Y) == pytest.approx([1, 1], abs=1e-4)
    assert added(X, X) == pytest.approx([0, 0], abs=1e-4)
    # One more of X makes X and Y uneven, which is less than two directions.
    expected = [TWO_OF_THREE - 2, TWO_OF_THREE - 1, TWO_OF_THREE - 2]
    assert added(X, Y, X) == pytest.approx(expected, abs=1e-4)


def test_other_scans_of_the_same_image_say_nothing() -> None:
    """Of two images with two scans each, the first image's are alike, or are not."""
    expected = [TWO_OF_THREE - 1] * 2
    assert added(X, X, Y, Y, group=2)[:2] == pytest.approx(expected, abs=1e-4)
    assert added(X, Z, Y, Y, group=2)[:2] == pytest.approx(expected, abs=1e-4)
    assert added(X, Y, Y, Y, group=2)[:2] == pytest.approx([TWO_OF_THREE - 1, 0], abs=1e-4)


def test_each_of_three_images_is_set_against_the_other_two() -> None:
    torch.manual_seed(1)
    features = torch.randn(6, 5)
    found = directions_added(features, 2)
    for row in range(6):
        others = torch.stack([features[other] for other in range(6) if other // 2 != row // 2])
        whole = torch.cat([others, features[row : row + 1]])
        expected = directions(whole) - directions(others)
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)


def test_a_fixation_is_paid_the_rise_and_a_scan_the_last(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    features: list[Tensor] = []

    def watched(fixation: Fixation) -> Tensor:
        assert fixation.group == 2
        known = fixation.known_before, fixation.known_after
        features[:] = [*(features or [known[0].mean_content]), known[1].mean_content]
        return rankme(fixation)

    torch.manual_seed(0)
    episode = Episode(model, images, budget=3, reward=watched, group=2)
    order = torch.stack([torch.randperm(12)[:3] for _ in range(10)])
    paid = torch.stack([episode.step(order[:, t]) for t in range(3)], 1)
    first, last = (directions_added(each, 2) for each in (features[0], features[-1]))
    torch.testing.assert_close(paid.sum(1), last - first, atol=1e-4, rtol=1e-4)
    assert paid.std() > 1e-3


@pytest.mark.parametrize("make", [partial(envs.ImageScanVectorEnv, 2), envs.ImageScanEnv])
def test_the_rows_of_an_environment_are_not_set_against_one_another(
    make: Any, model: AnyOrderTransformer, images: Tensor
) -> None:
    pixels = (images * 255).round().to(torch.uint8)
    with pytest.raises(ValueError, match="reward 'rankme' sets the images of a batch against"):
        make(model=model, data=pixels, budget=3, reward="rankme")


def test_scans_of_one_image_are_refused(model: AnyOrderTransformer, images: Tensor) -> None:
    episode = Episode(model, images[:1], budget=3, reward=rankme, group=4)
    with pytest.raises(ValueError, match="reward 'rankme': it needs scans of two images or more"):
        episode.step(torch.arange(4))

"""RankMe and LiDAR: of features whose rank is known, and of what a model makes of half an image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foveate.config import ModelConfig
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.probes import lidar, rank_me, views_of
from foveate.smooth_rank import smooth_rank


def test_rank_me_is_the_number_of_equally_strong_directions() -> None:
    assert rank_me(np.eye(5, 4)[:3]) == pytest.approx(3, abs=1e-4)
    # exp(H) of 3/4 and 1/4; the mean is not subtracted.
    assert rank_me(np.diag([3.0, 1.0])) == pytest.approx(4 / 3**0.75, abs=1e-4)
    assert rank_me(np.ones((6, 4))) == pytest.approx(1, abs=1e-4)
    assert rank_me(np.zeros((6, 4))) == 1
    assert np.isnan(rank_me(np.full((6, 4), np.nan)))
    assert smooth_rank(torch.tensor([1.0, torch.nan])).isnan(), "not the 1 of no direction"


def planted(noise: tuple[float, float], images: float = 1.0) -> np.ndarray:
    """4 images at +-1 along two directions, 4 views of each at +- noise along these."""
    means = images * np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    around = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]) * noise
    return means[:, None] + around


def test_lidar_counts_directions_in_units_of_what_differs_between_views() -> None:
    """Between images both directions have variance 2/3; within them noise^2 * 2/3."""
    assert lidar(planted((0.5, 0.5))) == pytest.approx(2, abs=1e-4)
    # Along the second the views differ twice as much: eigenvalues 1e4 and 2500, shares 4/5 and 1/5.
    expected = 0.8**-0.8 * 0.2**-0.2
    assert lidar(planted((1.0, 2.0), images=100)) == pytest.approx(expected, abs=1e-3)
    # RankMe of the same features sees no difference between the directions.
    flat = planted((1.0, 2.0), images=100).reshape(-1, 2)
    assert rank_me(flat) == pytest.approx(2, abs=1e-3)


def test_lidar_needs_two_images_and_two_views() -> None:
    for shape in ((1, 5, 3), (5, 1, 3)):
        with pytest.raises(ValueError, match=f"got {shape[0]} and {shape[1]}"):
            lidar(np.ones(shape))


@pytest.mark.parametrize("attention", ["full", "causal"])
def test_views_are_of_half_the_patches(attention: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig(image_size=(8, 8), patch_size=2, embed_dim=16, depth=2, num_heads=2)
    model = AnyOrderTransformer(config)
    labels = torch.zeros(3, dtype=torch.int64)
    images = ImageSet(torch.randint(0, 256, (3, 1, 8, 8)).to(torch.uint8), labels, (), "i")
    first, again = (views_of(model, images, num_views=4, attention=attention) for _ in range(2))
    assert list(first) == [0, 1]
    assert first[1].shape == (3, 4, 16)
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.allclose(first[1][:, 0], first[1][:, 1])

"""The vector environment: gymnasium's contract, and row by row the same world as a single scan."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.vector import ImageScanVectorEnv
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer


@pytest.fixture
def data() -> ImageSet:
    pixels = torch.randint(
        0, 256, (9, 2, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return ImageSet(pixels, torch.zeros(9, dtype=torch.long), ("a",), "toy")


def test_observations_lie_in_their_space_until_the_budget_ends(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    env = ImageScanVectorEnv(model, data, num_envs=3, budget=4)
    env.action_space.seed(0)
    observation, info = env.reset(seed=0)
    for step in range(4):
        assert observation in env.observation_space
        assert info["action_mask"].sum() == 3 * (12 - step)
        action = env.action_space.sample(tuple(info["action_mask"]))
        observation, reward, terminated, truncated, info = env.step(action)
        assert reward.shape == (3,)
        np.testing.assert_allclose(reward, -info["error"])
        assert terminated.tolist() == [step == 3] * 3
        assert not truncated.any()
    with pytest.raises(ValueError, match="is spent"):
        env.step(action)


def test_the_seed_fixes_the_images(model: AnyOrderTransformer, data: ImageSet) -> None:
    env = ImageScanVectorEnv(model, data, num_envs=5, budget=2)
    first, again, other = (env.reset(seed=seed)[1]["index"].tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_a_row_equals_the_same_scan_alone(model: AnyOrderTransformer, data: ImageSet) -> None:
    together = ImageScanVectorEnv(model, data, num_envs=3, budget=3)
    alone = ImageScanVectorEnv(model, data, num_envs=1, budget=3)
    together.reset(options={"index": [2, 7, 4]})
    alone.reset(options={"index": [7]})
    for patch in (5, 0, 9):
        many = together.step(np.array([1 + patch, patch, patch // 2]))
        one = alone.step(np.array([patch]))
        np.testing.assert_allclose(many[1][1], one[1][0], atol=1e-5)
        for name, value in one[0].items():
            np.testing.assert_allclose(many[0][name][1], value[0], atol=1e-5)


def test_mistakes_are_named(model: AnyOrderTransformer, data: ImageSet) -> None:
    env = ImageScanVectorEnv(model, data, num_envs=2, budget=2)
    with pytest.raises(ValueError, match="reset"):
        env.step(np.array([0, 1]))
    with pytest.raises(ValueError, match=r"2 image numbers in 0\.\.8"):
        env.reset(options={"index": [0, 9]})
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"must lie in 0\.\.11"):
        env.step(np.array([0, 12]))

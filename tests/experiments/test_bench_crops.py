"""ap_gym as a contender of the benchmark: on the same images, or said to be absent."""

from __future__ import annotations

import pytest
import torch

from experiments.benchmarks import crops, env
from experiments.benchmarks.env import BenchEnvResult, steps_per_cpu_s
from foveate.data import ImageSet

IMAGES = ImageSet(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.arange(6) % 2, ("a", "b"), "n")


def table_of(steps: dict[str, float]) -> str:
    result = BenchEnvResult(
        steps_per_s={"2": {"vector": 1.0}},
        vector_over_dummy_env_steps={"2": 1.0},
        vector_over_uncached={"2": 1.0},
        steps_per_cpu_s=steps,
        budget=4,
        num_patches=16,
        threads=1,
        repeats=1,
        commit="abc",
    )
    return result.to_markdown()


def test_without_ap_gym_its_rows_are_left_out_and_the_table_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crops, "is_installed", lambda: False)
    monkeypatch.setattr(env, "alternate", lambda episodes, *_: dict.fromkeys(episodes, 0.5))
    steps = steps_per_cpu_s(lambda: None, lambda: None, IMAGES, 3, budget=4, repeats=1)
    assert steps == {"single environment": 8.0, "batch of 3": 24.0}
    assert "pip install -e '.[bench]'" in table_of(steps)


@pytest.mark.parametrize("num_rows", [None, 3])
def test_ap_gym_plays_an_episode_on_the_images(num_rows: int | None) -> None:
    pytest.importorskip("ap_gym")
    crops.crops_episode(IMAGES, num_rows, 4)()
    assert "has no model" in table_of({"ap_gym, batch of 3": 1.0})

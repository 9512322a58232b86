"""Whatever mode torch is in, and whatever a client does with what it is told: the same episode."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import RescaleAction
from unchecked import unchecked

from agents.sb3 import ScanVecEnv
from envs.episode import Episode
from envs.fixation import Fixation
from envs.vector import ImageScanVectorEnv

CUE = "foveate.ids:foveate/CueScan-v0"
ROOT = Path(__file__).parents[2]
FORKED = f"""
import gymnasium, numpy
if __name__ == "__main__":
    env = gymnasium.make_vec({CUE!r}, num_envs=2, vectorization_mode="async")
    env.reset(seed=0)
    print(env.step(numpy.array([0, 1]))[1].shape)
    env.close()
"""


@pytest.mark.slow
def test_forked_workers_do_not_wait_for_threads_of_their_parent() -> None:
    """Tests themselves run with one thread, of which nobody waits for another."""
    threads = {**os.environ, "OMP_NUM_THREADS": "4"}
    done = subprocess.run(
        [sys.executable, "-c", FORKED],
        cwd=ROOT,
        env=threads,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "(2,)\n", done.stderr


def batch(**options: Any) -> ImageScanVectorEnv:
    return ImageScanVectorEnv(2, model="cue", data="cue", budget=4, **options)


@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_steps_may_be_within_inference_mode_and_outside(output: str) -> None:
    env, same = batch(output=output), batch(output=output)
    for each in (env, same):
        each.reset(seed=0)
    for step in range(9):
        with torch.inference_mode(step % 2 == 0):
            told = env.step(np.array([step % 4, 3]))
        expected = same.step(np.array([step % 4, 3]))
        for name, values in told[0].items():
            assert np.array_equal(values, expected[0][name]), (step, name)


@pytest.mark.parametrize("obs", ["latent", "canvas", "retina"])
def test_observations_lie_in_their_space_with_another_default_dtype(obs: str) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        env = gym.make(CUE, obs=obs, disable_env_checker=True)
        first, _ = env.reset(seed=0)
        then, _, _, _, info = env.step(3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert env.observation_space.contains(first)
    assert env.observation_space.contains(then)
    assert not np.shares_memory(info["error"], info["error_before"])


def test_autocast_changes_nothing() -> None:
    env = batch()
    plain = env.reset(seed=0)[0], env.step(np.array([1, 2]))[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen, paid = env.reset(seed=0)[0], env.step(np.array([1, 2]))[1]
    assert all(np.array_equal(seen[name], values) for name, values in plain[0].items())
    assert np.array_equal(paid, plain[1])


def test_whether_gradients_are_recorded_stays_as_it_is() -> None:
    seen: list[bool] = []

    def looking(fixation: Fixation) -> torch.Tensor:
        seen.append(torch.is_grad_enabled())
        return -fixation.after

    env = batch(reward=looking)
    env.reset(seed=0)
    seen.clear()
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            env.step(np.array([0, 1]))
    assert seen == [True, False, False]


def test_what_is_told_may_be_written_into() -> None:
    env, same = batch(saccade_cost=0.1), batch(saccade_cost=0.1)
    for each in (env, same):
        each.reset(seed=0)
    for patch in (5, 6, 2):
        told = env.step(np.array([patch, 9]))  # The other row revisits.
        expected = same.step(np.array([patch, 9]))
        assert np.array_equal(told[1], expected[1])
        assert np.array_equal(told[4]["scanpath"], expected[4]["scanpath"])
        for name, values in expected[0].items():
            np.testing.assert_array_equal(told[0][name], values, err_msg=name)
        for name, values in told[4].items():
            if not name.startswith("_") and values.flags.writeable:
                values[:] = 0
        for values in told[0].values():
            values[:] = 0


def test_a_reward_may_write_into_the_errors_that_it_is_given() -> None:
    def written(fixation: Fixation) -> torch.Tensor:
        reward = fixation.after
        reward[:] = 2.0
        return reward + fixation.before.mul_(0)

    env, same = batch(reward=written), batch()
    for each in (env, same):
        each.reset(seed=0)
    for patch in (3, 3, 7):
        told, expected = (each.step(np.full(2, patch)) for each in (env, same))
        assert told[1].tolist() == [2.0, 2.0] or patch == 3
        assert np.array_equal(told[4]["error"], expected[4]["error"])
        assert np.array_equal(told[4]["error_before"], expected[4]["error_before"])


@pytest.mark.parametrize("name", ["CueScan", "ScenesScan", "CueRecognition"])
def test_making_an_environment_draws_none_of_the_callers_numbers(name: str) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    gym.make(f"foveate.ids:foveate/{name}-v0", disable_env_checker=True).reset(seed=3)
    assert torch.equal(torch.rand(3), expected)


def test_actions_of_rows_that_begin_may_be_anything() -> None:
    env = batch(autoreset="next_step")
    env.reset(seed=0)
    for step in range(4):
        env.step(np.full(2, step))
    assert env.step(np.array([-1, 99]))[1].tolist() == [0, 0]
    guessing = gym.make_vec("foveate.ids:foveate/CueGuess-v0", 2, autoreset="next_step")
    guessing.reset(seed=0)
    logits = np.zeros((2, guessing.single_action_space["prediction"].shape[0]), np.float32)
    for step in range(4):
        guessing.step({"action": np.full(2, step), "prediction": logits})
    placeholder = {"action": np.array([-1, 99]), "prediction": np.full_like(logits, np.nan)}
    assert guessing.step(placeholder)[1].tolist() == [0, 0]
    with pytest.raises(ValueError, match="a fixation must lie in 0"):
        env.step(np.array([-1, 0]))


def test_a_gaze_may_be_rounded_at_its_bounds() -> None:
    env = RescaleAction(gym.make(CUE, action="gaze"), np.float32(0.1), np.float32(0.3))
    env.reset(seed=0)
    env.step(env.action_space.low)
    env.step(env.action_space.high)
    with pytest.raises(ValueError, match=r"a gaze point must lie in \[-1, 1\], got 1\.0002"):
        env.unwrapped.step(np.array([0.0, 1.0002], np.float32))
    flat = gym.make("foveate.ids:foveate/CueGuess-v0", action="gaze", flat=True)
    flat = RescaleAction(flat, np.float32(50), np.float32(51))
    flat.reset(seed=0)
    flat.step(flat.action_space.low)


def test_a_fixation_counts_if_its_reward_raises() -> None:
    failing: list[bool] = []

    def reward(fixation: Fixation) -> torch.Tensor:
        if failing:
            raise KeyError("once")
        return -fixation.after

    env, same = batch(reward=reward), batch()
    for each in (env, same):
        each.reset(seed=0)
    failing.append(True)
    with pytest.raises(ValueError, match="once"):
        env.step(np.array([3, 4]))
    failing.clear()
    same.step(np.array([3, 4]))
    for patch in (5, 6, 7):
        told, expected = env.step(np.full(2, patch)), same.step(np.full(2, patch))
        assert np.array_equal(told[2], expected[2])
        assert np.array_equal(told[0]["remaining"], expected[0]["remaining"])
    assert told[2].all()


@pytest.mark.parametrize("kind", [torch.int32, torch.int8])
def test_patches_may_be_whole_numbers_of_any_size(kind: torch.dtype) -> None:
    env = batch()
    episode = Episode(env.model, env.images.batch(torch.arange(2)), budget=4)
    episode.step(torch.tensor([3, 5], dtype=kind))
    assert episode.order[:, 0].tolist() == [3, 5]
    # As whoever has no shapes checked.
    with unchecked():
        for wrong in (torch.tensor(3), [3, 5], torch.tensor([3.0, 5.0])):
            with pytest.raises(ValueError, match="as a tensor of integers, got"):
                episode.step(wrong)  # type: ignore[arg-type]


def test_methods_that_do_not_answer_by_row_answer_each() -> None:
    env = ScanVecEnv(batch(render_mode="rgb_array"))
    env.reset()
    masks = env.env_method("action_masks", indices=[1])
    assert [each.shape for each in masks] == [(16,)]
    assert len(env.env_method("render")) == 2
    with pytest.raises(ValueError, match=r"call reset\(\) of the adapter itself"):
        env.env_method("reset")
    assert env.env_method("close") == [None, None]

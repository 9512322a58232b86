"""With ``output="torch"`` an environment hands out its own tensors, and never looks at them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from looks import looks
from torch import Tensor

import envs
from agents.sb3 import ScanVecEnv
from envs.forms import ALL_OBSERVERS
from foveate.model import AnyOrderTransformer

ACTIONS = ([3, 1, 4], [3, 5, 9], [2, 6, 5])


def make(model: AnyOrderTransformer, **options: Any) -> envs.ImageScanVectorEnv:
    data = torch.rand(6, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    return envs.ImageScanVectorEnv(3, model=model, data=data, budget=2, **options)


def compare(tensors: Any, arrays: Any) -> None:
    """Say that tensors hold what arrays do, in the same structure."""
    if isinstance(arrays, dict):
        assert set(tensors) == set(arrays)
        for name in arrays:
            compare(tensors[name], arrays[name])
        return
    if arrays.dtype == object:  # Rows one by one, None where the episode goes on.
        for row, last in enumerate(arrays):
            if last is not None:
                compare(
                    {name: each[row] for name, each in tensors.items()}
                    if isinstance(last, dict)
                    else tensors[row],
                    last,
                )
        return
    assert isinstance(tensors, Tensor)
    assert not tensors.requires_grad
    np.testing.assert_allclose(tensors.numpy(), arrays, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("obs", sorted(ALL_OBSERVERS))
@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_tensors_hold_what_arrays_hold(obs: str, mode: str, model: AnyOrderTransformer) -> None:
    """Also where episodes end, and where a row begins with another."""
    arrays, tensors = (
        make(model, obs=obs, autoreset=mode, output=form) for form in ("numpy", "torch")
    )
    for ours, theirs in zip(tensors.reset(seed=0), arrays.reset(seed=0), strict=True):
        compare(ours, theirs)
    for number, chosen in enumerate(ACTIONS):
        given = torch.tensor(chosen) if number else np.array(chosen)
        told, expected = tensors.step(given), arrays.step(np.array(chosen))
        for ours, theirs in zip(told, expected, strict=True):
            compare(ours, theirs)
        assert told[1].dtype == torch.float32
    assert torch.equal(tensors.action_masks(), torch.from_numpy(arrays.action_masks()))


def test_a_step_hands_out_what_the_episode_holds(model: AnyOrderTransformer) -> None:
    """Without a copy; DLPack gives the same memory to others."""
    env = make(model, output="torch")
    env.reset(seed=0)
    observation = env.step(torch.tensor([0, 1, 2]))[0]
    assert env.episode is not None
    states = observation["query_states"]
    assert states.data_ptr() == env.episode.prediction.states.data_ptr()
    shared = np.from_dlpack(states)
    assert shared.ctypes.data == states.data_ptr()


def test_a_step_looks_at_no_value(model: AnyOrderTransformer, monkeypatch: Any) -> None:
    """But for the finite rewards of the CPU, whose values are at hand."""
    monkeypatch.setattr("envs.vector.check_paid", lambda *_: None)
    env = make(model, output="torch", saccade_cost=0.1)
    env.reset(seed=0)
    with looks() as counted:
        for chosen in ACTIONS:
            env.step(torch.tensor(chosen))
    assert counted.looks == 0


def test_a_row_restarts_by_its_mask(model: AnyOrderTransformer) -> None:
    env = make(model, output="torch", autoreset="disabled")
    env.reset(seed=0)
    env.step(torch.tensor([0, 1, 2]))
    assert env.step(torch.tensor([3, 4, 5]))[2].all()
    with pytest.raises(ValueError, match=r"budget of 2 fixations is spent \(row 0\)"):
        env.step(torch.tensor([0, 1, 2]))
    _, info = env.reset(options={"reset_mask": np.array([False, True, False])})
    assert (info["error"] == 1).tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"spent \(row 0\)"):
        env.step(torch.tensor([0, 1, 2]))


def test_what_takes_arrays_alone_refuses_tensors(model: AnyOrderTransformer) -> None:
    with pytest.raises(ValueError, match="stable-baselines3 takes arrays"):
        ScanVecEnv(make(model, output="torch"))
    with pytest.raises(ValueError, match="guesses are judged on the CPU"):
        gym.make_vec("foveate/CueGuess-v0", num_envs=2, output="torch")
    with pytest.raises(ValueError, match=r"unknown output 'jax'.*known: numpy, torch"):
        make(model, output="jax")


def test_actions_on_a_device_are_known_by_shape_and_kind() -> None:
    """Their values are not looked at: ``meta`` has none."""
    from envs.actions import Actions, checked_actions

    space = Actions(4, None).space
    given = torch.zeros(3, dtype=torch.long, device="meta")
    assert checked_actions(given, space, (3,)).device.type == "meta"
    for wrong in (given[:2], given.float(), given.bool()):
        with pytest.raises(ValueError, match=r"shape \(3,\) with fixations as integers"):
            checked_actions(wrong, space, (3,))


def test_a_tensor_of_actions_is_copied_as_it_may_be_filled_again() -> None:
    from envs.actions import Actions

    given = torch.tensor([2, 1])
    taken = Actions(4, None).fixations(given, torch.ones(2, 4, dtype=torch.bool))
    given.fill_(0)
    assert taken.tolist() == [2, 1]

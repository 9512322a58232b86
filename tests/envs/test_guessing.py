"""The guess as an action: paid is the fall of its cross-entropy, in batches as in single rows."""

from __future__ import annotations

import math
import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import envs  # registers
from envs.guessing import GuessScanEnv, GuessScanVectorEnv

ID = "foveate/CueGuess-v0"
LOG4 = math.log(4)


def sure(labels: NDArray[Any], odds: float) -> NDArray[np.float32]:
    """Logits by which the label is so many times as likely as each other of four classes."""
    return (math.log(odds) * np.eye(4)[labels]).astype(np.float32)


def test_the_reward_is_the_fall_of_the_cross_entropy() -> None:
    """Of four classes odds 5 give the label 5/8, and odds 1/5 give it 1/16: by hand."""
    env = gym.make(ID).unwrapped
    _, info = env.reset(seed=0)
    label = int(info["label"])
    assert (info["guess"], float(info["guess_loss"]), bool(info["is_right"])) == (-1, LOG4, False)
    expected = [(5.0, math.log(8 / 5), True), (0.2, math.log(16), False), (1.0, LOG4, None)]
    before = LOG4
    for step, (odds, loss, is_right) in enumerate(expected):
        action = {"action": step, "prediction": sure(np.array(label), odds)}
        _, reward, _, _, info = env.step(action)
        assert reward == pytest.approx(before - loss, abs=1e-6)
        assert float(info["guess_loss"]) == pytest.approx(loss, abs=1e-6)
        if is_right is not None:
            assert bool(info["is_right"]) is is_right
            assert (int(info["guess"]) == label) is is_right
        before = loss


def test_prices_are_taken_beside_and_another_reward_is_added() -> None:
    env = GuessScanEnv(model="cue", data="cue", budget=3, saccade_cost=0.5, revisit_penalty=0.2)
    env.reset(seed=0)
    even = np.zeros(4)
    paid = [env.step({"action": patch, "prediction": even})[1] for patch in (0, 0, 2)]
    np.testing.assert_allclose(paid, [0.0, -0.2, -1.0], atol=1e-6)
    both = GuessScanEnv(model="cue", data="cue", budget=3, reward="gain")
    alone = envs.ImageScanEnv(model="cue", data="cue", budget=3, reward="gain")
    for env in (both, alone):
        env.reset(options={"index": 3})
    guess = both.step({"action": 0, "prediction": even})[1]
    assert guess == pytest.approx(alone.step(0)[1], abs=1e-6)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step", "disabled"])
def test_a_row_equals_the_single_environment_and_forgets_with_a_new_image(autoreset: str) -> None:
    many = gym.make_vec(ID, num_envs=3, budget=2, autoreset=autoreset)
    _, info = many.reset(seed=[7, 8, 9])
    one = gym.make(ID, budget=2).unwrapped
    one.reset(seed=8)
    random = np.random.default_rng(0)
    for step in range(2):
        action = {"action": np.array([step, 5, 3 + step]), "prediction": random.normal(size=(3, 4))}
        if step:
            action["action"][1] = 6
        _, reward, terminated, _, info = many.step(action)
        single = {name: part[1] for name, part in action.items()}
        _, alone, _, _, told = one.step(single)
        assert reward[1] == pytest.approx(alone, abs=1e-6)
        last = info["final_info"] if autoreset == "same_step" and step else info
        for name in ("guess", "guess_loss", "is_right"):
            assert last[name][1] == pytest.approx(told[name])
    assert terminated.all()
    if autoreset == "next_step":
        _, reward, _, _, info = many.step(action)
        assert reward.tolist() == [0, 0, 0]
    elif autoreset == "disabled":
        rows = np.array([True, False, True])
        _, info = many.reset(options={"reset_mask": rows})
        assert info["guess"][1] >= 0
        info = {name: told[rows] for name, told in info.items()}
    assert (info["guess"] == -1).all()
    np.testing.assert_allclose(info["guess_loss"], LOG4)


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (3, "a dict of 'action'"),
        ({"action": 3}, "a dict of 'action'"),
        ({"action": 3, "prediction": np.zeros(3)}, r"shape \(4,\)"),
        ({"action": 3, "prediction": [0, 0, 0, np.nan]}, "finite numbers; got nan"),
        ({"action": 3, "prediction": [0, 0, 0, np.inf]}, "finite numbers; got inf"),
        ({"action": 3.0, "prediction": np.zeros(4)}, "fixations as integers"),
        ({"action": 16, "prediction": np.zeros(4)}, r"0\.\.15"),
    ],
)
def test_what_is_no_action_is_refused_and_nothing_moves(action: Any, says: str) -> None:
    env = gym.make(ID).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=says):
        env.step(action)
    assert env.guesses.named[0] == -1
    assert env.step({"action": 0, "prediction": np.zeros(4)})[1] == pytest.approx(0)


def test_a_spent_budget_leaves_the_guesses_as_they_were() -> None:
    env = GuessScanVectorEnv(2, model="cue", data="cue", budget=1, autoreset="disabled")
    env.reset(seed=0)
    env.step({"action": np.zeros(2, int), "prediction": np.zeros((2, 4))})
    with pytest.raises(ValueError, match="is spent"):
        env.step({"action": np.ones(2, int), "prediction": np.eye(4)[:2]})
    np.testing.assert_allclose(env.guesses.loss, LOG4)


def test_images_without_a_label_pay_nothing_and_one_class_is_refused() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    env = GuessScanEnv(model="cue", data=(images, np.array([-1, 0, 1, 1])), budget=2)
    env.reset(options={"index": 0})
    _, reward, _, _, info = env.step({"action": 0, "prediction": np.array([3.0, 0.0])})
    assert reward == 0
    assert not info["is_right"]
    assert float(info["guess_loss"]) == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match=r"a guess needs labels of two .*; give other data$"):
        GuessScanEnv(model="cue", data=(images, np.zeros(4, int)), budget=2)


def test_a_split_that_lacks_a_class_can_have_the_space_of_all() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    options: dict[str, Any] = {"model": "cue", "data": (images, np.array([0, 1, 0, 1]))}
    for kind in (GuessScanEnv, GuessScanVectorEnv):
        env = kind(num_classes=3, **options)
        assert env.action_space["prediction"].shape[-1] == 3
        assert env.reset(seed=0)[1]["guess_loss"] == pytest.approx(math.log(3))
        with pytest.raises(ValueError, match="at least the 2 classes of data, got 1"):
            kind(num_classes=1, **options)


def test_flat_actions_are_gaze_and_logits_in_one_box() -> None:
    """The same action in both forms is paid the same; clients of boxes take the flat one."""
    flat = gym.make(ID, action="gaze", flat=True).unwrapped
    rich = gym.make(ID, action="gaze").unwrapped
    assert flat.action_space.shape == (6,)
    for env in (flat, rich):
        env.reset(options={"index": 5})
    gaze, logits = np.array([0.9, -0.9], np.float32), np.array([1, 2, 3, 4], np.float32)
    paid = flat.step(np.concatenate([gaze, logits]))[1]
    assert paid == pytest.approx(rich.step({"action": gaze, "prediction": logits})[1])
    with pytest.raises(ValueError, match=r"\[-10, 10\], got 11"):
        flat.step(np.array([0, 0, 0, 0, 0, 11], np.float32))
    with pytest.raises(ValueError, match="add action='gaze'"):
        gym.make(ID, flat=True)


@pytest.mark.parametrize("options", [{}, {"action": "gaze"}, {"action": "gaze", "flat": True}])
def test_the_checkers_pass(options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        # They warn of boxes without bounds, which logits and states have.
        warnings.simplefilter("ignore", UserWarning)
        env = gym.make(ID, **options)
        check_env(env.unwrapped, skip_render_check=True)
        if options.get("flat"):
            check_env_for_sb3(env.unwrapped)
    env.reset(seed=0)
    again = pickle.loads(pickle.dumps(env.unwrapped))
    action = env.action_space.sample()
    assert again.step(action)[1] == env.step(action)[1]


def test_samples_of_a_batch_can_be_stepped() -> None:
    env = gym.make_vec(ID, num_envs=3)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(5):
        assert env.step(env.action_space.sample())[1].shape == (3,)


def test_logits_may_be_a_tensor_that_is_learned_through() -> None:
    env = gym.make(ID)
    _, info = env.reset(seed=0)
    logits = torch.from_numpy(sure(info["label"], 5.0)).requires_grad_()
    reward = env.step({"action": torch.tensor(0), "prediction": logits})[1]
    assert reward == pytest.approx(LOG4 - math.log(8 / 5), abs=1e-6)

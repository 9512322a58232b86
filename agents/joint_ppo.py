"""MaskablePPO beside a transformer that learns: the policy's half of joint training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Int
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from agents.policies import PointerPolicy, PolicyConfig, check_same_cost
from agents.sb3 import PointerActorCriticPolicy, ScanVecEnv
from envs.vector import ImageScanVectorEnv
from foveate.devices import device_of
from foveate.finite import NotFinite
from foveate.orders.segments import Fixations

Learn = Callable[[Int[Tensor, "B"], Int[Tensor, "B T *S"]], None]
"""Takes the numbers of the images and the scanpaths on them."""


class AfterRollout(BaseCallback):
    """Hand the images and scanpaths of a rollout on before the policy's update.

    This is how the transformer learns between rollouts. A rollout must be one whole episode. The
    next one begins after ``learn``: what the model said before it has learned would be stale.

    Args:
        learn: takes the image numbers and the scanpaths.
        begins_anew: False = who calls resets the environment before the next rollout.

    Raises:
        ValueError: when learning starts, the environment is no batch, ``n_steps`` is not the
            budget, episodes end before it, or actions are no numbers of fixations.
    """

    def __init__(self, learn: Learn, *, begins_anew: bool = True) -> None:
        super().__init__()
        self.learn, self.begins_anew = learn, begins_anew
        self.errors: list[float] = []
        self.index = np.empty(0, np.int64)

    def _on_training_start(self) -> None:
        if not isinstance(self.training_env.unwrapped, ScanVecEnv):
            raise ValueError("AfterRollout needs a batch: ScanVecEnv(gym.make_vec(...))")
        if not isinstance(self.training_env.action_space, gym.spaces.Discrete):
            raise ValueError("AfterRollout needs numbers of fixations; leave out action='gaze'")
        (budget, *_), (most, *_) = map(self.training_env.get_attr, ("budget", "max_episode_steps"))
        num_steps = cast(MaskablePPO, self.model).n_steps
        if num_steps != budget or most is not None:
            raise ValueError(
                f"a rollout must be one whole episode: give n_steps={budget}, the budget, got "
                f"{num_steps}, and an environment without max_episode_steps, got {most}"
            )

    def _on_rollout_start(self) -> None:
        # The last step of the rollout already begins the next episode, with other images.
        self.index = self.training_env.get_attr("index")[0].copy()
        self.errors = []

    def _on_step(self) -> bool:
        self.errors.append(float(np.mean([info["error"] for info in self.locals["infos"]])))
        return True

    def _on_rollout_end(self) -> None:
        actions = torch.from_numpy(self.locals["rollout_buffer"].actions[..., 0])
        fixations: Fixations = self.training_env.get_attr("fixations")[0]
        order = fixations.scanpath(actions.long().T.contiguous())
        self.learn(torch.from_numpy(self.index), order)
        if self.begins_anew:
            learner = cast(MaskablePPO, self.model)
            learner._last_obs = self.training_env.reset()  # type: ignore[assignment]  # no tuple
            learner._last_episode_starts[:] = True  # type: ignore[index]  # a rollout has been made


class JointPPO:
    """MaskablePPO as one of two learners: the model learns between its rollout and its update.

    A rollout is one whole episode of every row. Clipping 0.2 and GAE 0.95 are sb3-contrib's
    defaults; 4 epochs of about 4 minibatches are ours, since the model moves between rollouts.

    Raises:
        ValueError: policy and environment differ in their ``saccade_cost``, or a rollout is a
            single step.
    """

    def __init__(
        self, env: ImageScanVectorEnv, *, discount: float, policy: PolicyConfig, seed: int
    ):
        check_same_cost(policy.saccade_cost, env.saccade_cost)
        self.seed = seed
        self.ppo = MaskablePPO(
            PointerActorCriticPolicy,
            ScanVecEnv(env),
            n_steps=env.budget,
            batch_size=minibatch_size(env.num_envs * env.budget),
            n_epochs=4,
            gamma=discount,
            gae_lambda=0.95,
            policy_kwargs=asdict(policy),
            seed=seed,
            device=device_of(env.model),
        )
        # Else every rollout makes a new logger, and a folder of its own in the temporary ones.
        self.ppo.set_logger(Logger(folder=None, output_formats=[]))
        # The update lies within sb3-contrib: its optimizer is the place to stop before.
        self.optimizer.register_step_pre_hook(lambda *_: self._check_gradient())

    @property
    def pointer(self) -> PointerPolicy:
        """The policy that learns."""
        return cast(PointerPolicy, self.ppo.policy.mlp_extractor.pointer)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of policy and critic."""
        return self.ppo.policy.optimizer

    def step(
        self,
        at: int,
        learn: Learn,
        *,
        learning_rate: float,
        entropy_weight: float,
    ) -> dict[str, float]:
        """Collect one rollout, call ``learn``, and update the policy.

        Args:
            at: number of the iteration, which with the seed decides all randomness.
            learn: called with the images' numbers and the scanpaths on them.
            learning_rate: of this update.
            entropy_weight: of this update.

        Returns:
            Mean error after a fixation (auc) and reward of a scan (return), and entropy, nats.

        Raises:
            NotFinite: a reward or a gradient is not finite; no step is taken with it.
        """
        # stable-baselines3 draws from the global generators: seeded anew for every iteration, a
        # resumed run goes on as if it had never stopped.
        self.ppo.set_random_seed((self.seed * 1_000_003 + at) % 2**32)
        self.ppo.ent_coef = entropy_weight
        self.ppo.lr_schedule = lambda _: learning_rate
        self.ppo._last_obs = None  # Observations of the model as it was before its update.
        after = self.after = AfterRollout(learn, begins_anew=False)
        num_steps = self.ppo.n_steps * self.ppo.n_envs
        # An interval never reached: the measurements stay in the logger, to be read below.
        self.ppo.learn(num_steps, callback=after, log_interval=2**62, reset_num_timesteps=False)
        return {
            "auc": float(np.mean(after.errors)),
            "return": float(self.ppo.rollout_buffer.rewards.sum(0).mean()),
            "entropy": -float(self.ppo.logger.name_to_value["train/entropy_loss"]),
        }

    def _check_gradient(self) -> None:
        gradients = [p.grad for p in self.ppo.policy.parameters() if p.grad is not None]
        length = float(nn.utils.get_total_norm(gradients))
        if not math.isfinite(length):
            images = [torch.from_numpy(self.after.index)]
            raise NotFinite(f"the policy's gradient is {length}", images, cause="policy")

    def state_dict(self) -> dict[str, Any]:
        """Return the weights of policy and critic."""
        return self.ppo.policy.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from weights."""
        self.ppo.policy.load_state_dict(state)


def minibatch_size(num_steps: int) -> int:
    """Return a quarter of a rollout's steps or, where it has none, the next larger divisor.

    Minibatches then are equally large: what is averaged over them is averaged over steps.

    Raises:
        ValueError: advantages are scaled by their standard deviation, which a single one has not.
    """
    if num_steps < 2:
        raise ValueError("a rollout of one step has no advantage to scale; give 2 rows or more")
    return next(
        size for size in range(max(2, num_steps // 4), num_steps + 1) if num_steps % size == 0
    )

"""The image-scanning environment for one image: row 0 of the batched one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray

from envs.actions import checked_actions
from envs.images import Data
from envs.length import TellsItsLength
from envs.options import with_known_options
from envs.rewards import REVISIT_PENALTY, Reward
from envs.starts import checked_seed
from envs.vector import ImageScanVectorEnv
from foveate.data.decoding import ImageSize
from foveate.model import AnyOrderTransformer


class ImageScanEnv(TellsItsLength, gym.Env[Any, Any]):
    """Scan one image, one fixation per step.

    Spaces, rewards, termination and arguments are those of :class:`envs.vector.ImageScanVectorEnv`,
    whose row this is; a test holds the two together. ``info`` holds what ``envs.info`` lists, as
    arrays: single numbers are arrays of shape ().

    ## Version History
    - v0: first registered version.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012

    @with_known_options
    def __init__(
        self,
        *,
        model: str | Path | AnyOrderTransformer = "scenes",
        data: Data | None = None,
        split: str = "train",
        image_size: ImageSize | None = None,
        limit: int | None = None,
        budget: int | None = None,
        reward: str | Reward = "auc",
        reward_options: Mapping[str, Any] | None = None,
        revisit_penalty: float = REVISIT_PENALTY,
        saccade_cost: float = 0.0,
        fixation_size: int | None = None,
        obs: str = "latent",
        action: str = "patch",
        device: str | torch.device | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Set up the world; arguments and errors are those of the batched environment."""
        self.batch = ImageScanVectorEnv(
            1,
            model=model,
            data=data,
            split=split,
            image_size=image_size,
            limit=limit,
            budget=budget,
            reward=reward,
            reward_options=reward_options,
            revisit_penalty=revisit_penalty,
            saccade_cost=saccade_cost,
            fixation_size=fixation_size,
            obs=obs,
            action=action,
            autoreset="disabled",
            device=device,
            render_mode=render_mode,
        )
        self.render_mode, self.budget = render_mode, self.batch.budget
        self.observation_space = self.batch.single_observation_space
        self.action_space = self.batch.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start a scan; ``options`` choose the image, see the batched environment."""
        self.batch.starts.asked(options)  # Refused, if at all, before a seed takes effect.
        super().reset(seed=checked_seed(seed))
        # One source of randomness: this environment's, lent to the batch.
        self.batch.np_random = self.np_random
        observation, info = self.batch.reset(options=options)
        return self._only(observation), self._info(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Make one fixation; raise ValueError, as the batch does, unless there is such a one."""
        action = checked_actions(action, self.batch.actions.space, ())
        observation, reward, terminated, _, info = self.batch.step(action[None])
        return (
            self._only(observation),
            float(reward[0]),
            bool(terminated[0]),
            False,
            self._info(info),
        )

    def action_masks(self) -> NDArray[np.bool_]:
        """Which fixations are unvisited, (A,); the convention of sb3-contrib."""
        only: NDArray[np.bool_] = self.batch.action_masks()[0]
        return only

    def render(self) -> Any:
        """Draw the image with its fixations, what has been seen, and the reconstruction."""
        return None if self.render_mode is None else self.batch.render()[0]

    def _only(self, observation: Any) -> Any:
        return next(iter(iterate(self.batch.observation_space, observation)))

    @staticmethod
    def _info(info: dict[str, Any]) -> dict[str, Any]:
        # As arrays, also what is a single number: what reads one reads all.
        return {name: told[0, ...] for name, told in info.items() if not name.startswith("_")}

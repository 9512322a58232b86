"""The image-scanning environment for one image: row 0 of the batched one."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray

from envs.vector import ImageScanVectorEnv
from foveate.data import ImageSet
from foveate.data.decoding import ImageSize
from foveate.model import AnyOrderTransformer


class ImageScanEnv(gym.Env[Any, Any]):
    """Scan one image, one fixation per step.

    Spaces, rewards, termination and arguments are those of :class:`envs.vector.ImageScanVectorEnv`,
    whose row this is; a test holds the two together. ``info`` holds ``action_mask`` (int8),
    ``error`` and ``index``.

    ## Version History
    - v0: first registered version.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012

    def __init__(
        self,
        *,
        model: str | AnyOrderTransformer = "scenes",
        data: str | ImageSet = "scenes",
        split: str = "train",
        image_size: ImageSize | None = None,
        limit: int | None = None,
        budget: int = 12,
        reward: str = "auc",
        saccade_cost: float = 0.0,
        fixation_size: int = 1,
        obs: str = "latent",
        action: str = "patch",
        device: str = "cpu",
        render_mode: str | None = None,
    ) -> None:
        """Set up the world; the arguments are those of the batched environment."""
        self.batch = ImageScanVectorEnv(
            1,
            model=model,
            data=data,
            split=split,
            image_size=image_size,
            limit=limit,
            budget=budget,
            reward=reward,
            saccade_cost=saccade_cost,
            fixation_size=fixation_size,
            obs=obs,
            action=action,
            autoreset="disabled",
            device=device,
            render_mode=render_mode,
        )
        self.render_mode = render_mode
        self.observation_space = self.batch.single_observation_space
        self.action_space = self.batch.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start a scan; ``options={"index": i}`` chooses the image."""
        super().reset(seed=seed)
        # One source of randomness: this environment's, lent to the batch.
        self.batch.np_random = self.np_random
        observation, info = self.batch.reset(options=options)
        return self._only(observation), self._info(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Make one fixation."""
        observation, reward, terminated, _, info = self.batch.step(np.asarray(action)[None])
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
        return {
            "action_mask": info["action_mask"][0],
            "error": float(info["error"][0]),
            "index": int(info["index"][0]),
        }

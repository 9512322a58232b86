"""Batched image scanning: a gymnasium VectorEnv whose step is one batched transformer forward."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Float, Int
from numpy.typing import NDArray

from envs.episode import Episode
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer


class ImageScanVectorEnv(VectorEnv[dict[str, NDArray[Any]], NDArray[np.int64], NDArray[Any]]):
    """Scan ``num_envs`` images at once, one fixation per step.

    ## Action Space
    ``Discrete(N)`` per row: the next patch. Visited patches are not selectable:
    ``info["action_mask"]`` (int8, 1 = selectable) names those that are, and choosing
    another raises ValueError.

    ## Observation Space
    A dict per row: ``query_states`` (N, D), the decoder state of every patch; ``content_state``
    (D,), the encoder state of the patch seen last; ``log_error`` (N,), the error that the model
    expects; ``selectable`` (N,), 1 = unvisited; ``remaining`` (1,), the share of the budget left.
    Nothing depends on an unseen patch, unless the model has a periphery.

    ## Rewards
    By name, from the raw-pixel error of what is still unseen; see ``envs.episode.REWARDS``. The
    first glance is free.

    ## Starting State
    Images drawn at random with the environment's seed, or ``options={"index": array of num_envs}``.

    ## Episode Termination
    After ``budget`` fixations, for all rows at once. The budget is part of the task, so this
    is no truncation.

    ## Episode Truncation
    Never.

    ## Version History
    - v0: before registration; autoreset is disabled: call ``reset`` after the last step.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(
        self,
        model: AnyOrderTransformer,
        images: ImageSet,
        *,
        num_envs: int,
        budget: int,
        reward: str = "auc",
    ) -> None:
        if images.image_shape != (model.config.in_chans, *model.config.image_size):
            raise ValueError(
                "the model reads images of shape "
                f"{(model.config.in_chans, *model.config.image_size)}, "
                f"the data holds {images.image_shape}"
            )
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        self.model, self.images, self.budget, self.reward = model, images, budget, reward
        num_patches, width = model.num_patches, model.config.embed_dim
        self.num_envs = num_envs
        self.single_action_space = gym.spaces.Discrete(num_patches)
        self.single_observation_space = gym.spaces.Dict(
            {
                "query_states": gym.spaces.Box(-np.inf, np.inf, (num_patches, width), np.float32),
                "content_state": gym.spaces.Box(-np.inf, np.inf, (width,), np.float32),
                "log_error": gym.spaces.Box(-np.inf, np.inf, (num_patches,), np.float32),
                "selectable": gym.spaces.MultiBinary(num_patches),
                "remaining": gym.spaces.Box(0, 1, (1,), np.float32),
            }
        )
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.episode: Episode | None = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Start a batch of scans.

        Raises:
            ValueError: ``options["index"]`` is not one image number per row.
        """
        super().reset(seed=seed[0] if isinstance(seed, list) else seed)
        drawn = self.np_random.integers(len(self.images), size=self.num_envs)
        index = np.asarray((options or {}).get("index", drawn))
        if index.shape != (self.num_envs,) or index.min() < 0 or index.max() >= len(self.images):
            raise ValueError(
                f"options['index'] takes {self.num_envs} image numbers in 0..{len(self.images) - 1}"
            )
        batch = self.images.batch(
            torch.from_numpy(index), device=next(self.model.parameters()).device
        )
        self.episode = Episode(self.model, batch, budget=self.budget, reward=self.reward)
        observation = self._observation(self.episode)
        return observation, {"index": index, "action_mask": observation["selectable"]}

    def step(
        self, actions: Int[np.ndarray, " B"]
    ) -> tuple[
        dict[str, NDArray[Any]],
        Float[np.ndarray, " B"],
        NDArray[np.bool_],
        NDArray[np.bool_],
        dict[str, Any],
    ]:
        """Fixate one patch per row.

        Raises:
            ValueError: not reset yet, the budget is spent, or there is no such patch.
        """
        if self.episode is None:
            raise ValueError("call reset() before step()")
        patch = torch.as_tensor(np.asarray(actions), device=self.episode.selectable.device).long()
        reward = self.episode.step(patch)
        observation = self._observation(self.episode)
        terminated = self.episode.done.cpu().numpy()
        info = {
            "action_mask": observation["selectable"],
            "error": self.episode.error.cpu().numpy(),
        }
        return observation, reward.cpu().numpy(), terminated, np.zeros_like(terminated), info

    def _observation(self, episode: Episode) -> dict[str, NDArray[Any]]:
        seen = episode.observe()
        return {
            "query_states": seen.query_states.cpu().numpy(),
            "content_state": seen.content_state.cpu().numpy(),
            "log_error": seen.log_error.cpu().numpy(),
            "selectable": seen.selectable.cpu().numpy().astype(np.int8),
            "remaining": seen.remaining.unsqueeze(1).cpu().numpy(),
        }

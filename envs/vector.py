"""The batched image-scanning environment: each step is one batched transformer forward."""

from __future__ import annotations

from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate
from numpy.typing import NDArray

from envs.episode import Episode
from envs.observations import OBSERVERS, points_of
from envs.rendering import draw_episode
from envs.rewards import REWARDS_OF_CLASSES
from envs.world import check_world, load, trained_probe
from foveate.checkpoint import load_model
from foveate.choices import check_choice
from foveate.data import ImageSet
from foveate.data.decoding import ImageSize
from foveate.finite import check_finite
from foveate.model import AnyOrderTransformer
from foveate.orders.saccades import check_saccade_cost
from foveate.orders.segments import Fixations

Observations: TypeAlias = NDArray[Any] | dict[str, NDArray[Any]]


class ImageScanVectorEnv(VectorEnv[Observations, NDArray[Any], NDArray[Any]]):
    """Scan ``num_envs`` images at once, one fixation per step.

    ## Action Space
    ``action="patch"``: ``Discrete(A)`` per row, the next fixation: a patch, or with
    ``fixation_size=K`` a square of K x K patches, in raster order. ``action="gaze"``: ``Box(-1, 1,
    (2,))``, a point (x, y) that is snapped to the nearest unvisited one. ``info["action_mask"]``
    (int8, 1 = selectable) and :meth:`action_masks` (bool) name the unvisited ones. A visited one
    never raises: it spends the step, shows nothing, and costs ``envs.rewards.REVISIT_PENALTY``. As
    the budget is below the number of fixations, some fixation is always selectable.

    ## Observation Space
    ``obs="latent"``, ``"canvas"`` or ``"retina"``: see ``envs.observations``.

    ## Rewards
    By name, from the error of what is still unseen, or from the class; see ``envs.rewards``. The
    first glance is free. With ``saccade_cost=C`` C is taken from it per patch of distance between
    the middles of this fixation and the one before; the first one is free.

    ## Starting State
    Images drawn at random with the environment's seed, or ``options={"index": image numbers}``: one
    for all rows, or one each.

    ## Episode Termination
    After ``budget`` fixations. The budget is part of the task and of every observation, so this is
    no truncation.

    ## Episode Truncation
    Never.

    ## Autoreset
    ``autoreset="same_step"`` (default): the step that ends an episode returns the first observation
    of the next, and the last one in ``info["final_obs"]`` with ``info["final_info"]``.
    ``"disabled"``: call ``reset``, for chosen rows with ``options={"reset_mask": bool array}``.

    ## Arguments
    Plain values that ``gymnasium.make_vec`` can store in a spec, or objects of ours.

    - num_envs: rows.
    - model: a packaged model, a run folder or a checkpoint file, as ``load_model`` takes it.
    - data: what ``foveate.data.load_data`` takes, or ``"cue"``, the world of ``envs.toy``.
    - split: train, val or test.
    - image_size: resize to this side, or to (height, width), pixels; ``"192x256"`` is such a pair
      as well; None = as they are.
    - limit: use only the first so many images; None = all.
    - budget: fixations per episode, below the number that there are to choose from.
    - reward: a key of ``envs.rewards.REWARDS``; ``recognition``, with a model that is the folder of
      a run that was trained with it; or your own, ``MODULE:NAME``.
    - saccade_cost: taken from the reward per patch of distance that the gaze moves.
    - fixation_size: side of the square that a fixation opens, patches.
    - obs: observation mode.
    - action: patch numbers or gaze points.
    - autoreset: what happens after an episode.
    - device: torch device of the model.
    - render_mode: None or rgb_array.

    ## Version History
    - v0: first registered version.
    """

    metadata = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": 2,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
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
        autoreset: str = "same_step",
        device: str = "cpu",
        render_mode: str | None = None,
    ) -> None:
        """Set up the world.

        Raises:
            ValueError: a name or number outside what is allowed, or images that the model does not
                read.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        check_choice("obs", obs, OBSERVERS)
        check_choice("action", action, ("patch", "gaze"))
        check_choice("autoreset", autoreset, ("same_step", "disabled"))
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.model = load_model(model, device) if isinstance(model, str) else model
        self.probe = trained_probe(model, device) if reward in REWARDS_OF_CLASSES else None
        self.images = data if isinstance(data, ImageSet) else load(data, split, image_size, limit)
        self.fixations = Fixations.squares(self.model.grid, fixation_size)
        num_fixations = len(self.fixations)
        if not 1 <= budget < num_fixations:
            raise ValueError(f"budget must lie in 1..{num_fixations - 1} fixations, got {budget}")
        check_world(self.model, self.images, reward, self.probe)
        self.num_envs, self.budget, self.reward = num_envs, budget, reward
        self.saccade_cost = check_saccade_cost(saccade_cost)
        self.autoreset, self.render_mode = autoreset, render_mode
        mode = AutoresetMode.SAME_STEP if autoreset == "same_step" else AutoresetMode.DISABLED
        self.metadata = {**self.metadata, "autoreset_mode": mode}
        self.observer = OBSERVERS[obs](self.model, num_fixations, saccade_cost)
        points = points_of(self.fixations.patches, self.model.grid)
        self.points = points if action == "gaze" else None
        self.single_observation_space = self.observer.space
        self.single_action_space = (
            gym.spaces.Discrete(num_fixations)
            if action == "patch"
            else gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        )
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.episode: Episode | None = None
        self.index = np.zeros(num_envs, np.int64)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Start scans, in all rows or those of ``options["reset_mask"]``.

        Raises:
            ValueError: ``options`` has an unknown key, ``index`` is no image number for every row,
                or ``reset_mask`` is no bool array with a True.
        """
        super().reset(seed=seed[0] if isinstance(seed, list) else seed)
        options = dict(options or {})
        chosen = options.pop("index", None)
        rows = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, np.bool_)))
        if options:
            raise ValueError(
                f"options takes 'index' and 'reset_mask', got {', '.join(sorted(options))}"
            )
        if rows.shape != (self.num_envs,) or rows.dtype != np.bool_ or not rows.any():
            raise ValueError(
                f"reset_mask takes {self.num_envs} bools, at least one of them True; "
                f"got {rows.dtype} {rows.shape}"
            )
        self._begin(rows, chosen)
        return self._observe(), self._info()

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Observations, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Make one fixation per row.

        Raises:
            ValueError: not reset yet, a row's budget is spent, there is no such fixation, or the
                reward is not finite.
        """
        episode = self._under_way()
        reward = episode.step(self._patches(np.asarray(actions)))
        index = torch.from_numpy(self.index)
        check_finite(f"the reward {self.reward!r}", reward, index, cause="reward")
        terminated = episode.done.cpu().numpy()
        observation, info = self._observe(), self._info()
        if self.autoreset == "same_step" and terminated.any():
            final_obs = np.full(self.num_envs, None, dtype=object)
            for row, seen in enumerate(iterate(self.observation_space, observation)):
                if terminated[row]:
                    final_obs[row] = seen
            last = info
            self._begin(terminated, None)
            observation, info = self._observe(), self._info()
            info["final_obs"], info["_final_obs"] = final_obs, terminated.copy()
            info["final_info"], info["_final_info"] = last, terminated.copy()
        # Returned as float64, as gymnasium's own vector environments do.
        rewards = reward.double().cpu().numpy()
        return observation, rewards, terminated, np.zeros_like(terminated), info

    def action_masks(self) -> NDArray[np.bool_]:
        """Which fixations are unvisited, (num_envs, A); the convention of sb3-contrib."""
        selectable: NDArray[np.bool_] = self._under_way().selectable.cpu().numpy().copy()
        return selectable

    def render(self) -> tuple[NDArray[np.uint8], ...]:
        """Draw each row: the image with its fixations, what has been seen, the reconstruction."""
        return draw_episode(self._under_way())

    def _under_way(self) -> Episode:
        if self.episode is None:
            raise ValueError("call reset() first")
        return self.episode

    def _begin(self, rows: NDArray[np.bool_], chosen: Any) -> None:
        """Start new episodes in the rows that are True, with the images chosen or drawn ones."""
        number = int(rows.sum())
        drawn = self.np_random.integers(len(self.images), size=self.num_envs)[rows]
        index = drawn if chosen is None else np.asarray(chosen)
        if index.ndim == 0:
            index = np.full(number, index)
        elif chosen is not None and index.shape == (self.num_envs,):
            index = index[rows]
        allowed = index.shape == (number,) and np.issubdtype(index.dtype, np.integer)
        if not allowed or index.min() < 0 or index.max() >= len(self.images):
            raise ValueError(
                f"options['index'] takes one image number in 0..{len(self.images) - 1}, "
                f"or {self.num_envs} of them"
            )
        device = next(self.model.parameters()).device
        batch = self.images.batch(torch.from_numpy(index), device=device)
        labels = self.images.labels[torch.from_numpy(index)]
        if self.episode is None and not rows.all():
            raise ValueError("the first reset() starts all rows; leave out reset_mask")
        if self.episode is None or rows.all():
            self.episode = Episode(
                self.model,
                batch,
                budget=self.budget,
                reward=self.reward,
                fixations=self.fixations,
                saccade_cost=self.saccade_cost,
                labels=labels,
                probe=self.probe,
            )
        else:
            self.episode.restart(torch.from_numpy(rows).to(device), batch, labels)
        self.index[rows] = index

    def _patches(self, actions: NDArray[Any]) -> torch.Tensor:
        """Turn actions into the patches that they open."""
        episode = self._under_way()
        selectable = episode.selectable
        if self.points is None:
            chosen = torch.as_tensor(actions, device=selectable.device).long()
        else:
            gaze = torch.as_tensor(actions, dtype=torch.float32, device=selectable.device)
            offset = gaze.unsqueeze(1) - self.points.to(selectable.device)
            chosen = offset.square().sum(-1).masked_fill(~selectable, torch.inf).argmin(1)
        if bool(((chosen < 0) | (chosen >= len(self.fixations))).any()):
            raise ValueError(
                f"a fixation must lie in 0..{len(self.fixations) - 1}, got {chosen.tolist()}"
            )
        return episode.opens(chosen)

    def _observe(self) -> Observations:
        return self.observer(self._under_way())

    def _info(self) -> dict[str, Any]:
        episode, every = self._under_way(), np.ones(self.num_envs, np.bool_)
        facts = {
            "action_mask": episode.selectable.cpu().numpy().astype(np.int8),
            "error": episode.error.double().cpu().numpy(),
            "index": self.index.copy(),
        }
        return {**facts, **{f"_{name}": every.copy() for name in facts}}

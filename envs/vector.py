"""The batched image-scanning environment: each step is one batched transformer forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.actions import Actions, checked_actions
from envs.checks import check_form, check_paid
from envs.episode import Episode
from envs.forms import ALL_OBSERVERS
from envs.images import Data
from envs.info import facts_of
from envs.length import TellsItsLength, autoreset_named
from envs.modes import in_own_mode
from envs.observations import points_of
from envs.opening import check_not_spent
from envs.options import with_known_options
from envs.output import PAID_IN, Given, Observations, Told, ended_info, handed_out
from envs.rendering import draw_episode
from envs.rewards import REVISIT_PENALTY, Reward, reward_with_options
from envs.starts import Starts, Wanted, are_seeds, checked_seed
from envs.world import World
from foveate.data.decoding import ImageSize
from foveate.devices import send
from foveate.finite import check_price
from foveate.model import AnyOrderTransformer
from foveate.orders.saccades import check_saccade_cost


class ImageScanVectorEnv(TellsItsLength, VectorEnv[Observations, Any, NDArray[Any]]):
    """Scan ``num_envs`` images at once, one fixation per step.

    ## Action Space
    ``action="patch"``: ``Discrete(A)`` per row, the next fixation: a patch, or with
    ``fixation_size=K`` a square of K x K patches, in raster order. ``action="gaze"``: ``Box(-1, 1,
    (2,))``, a point (x, y) that is snapped to the nearest unvisited one. ``info["action_mask"]``
    (int8, 1 = selectable) and :meth:`action_masks` (bool) name the unvisited ones. A visited one
    never raises: it spends the step, shows nothing, and costs ``revisit_penalty``. As the budget is
    below the number of fixations, some fixation is always selectable. An array of another shape or
    kind, a number outside the space and NaN raise ValueError, and nothing has moved then.

    ## Observation Space
    ``obs``: latent, canvas or retina, see ``envs.observations``, or a form of ``envs.forms``.

    ## Rewards
    By name, from the error of what is still unseen, or from the class; see ``envs.rewards``. The
    first glance is free. With ``saccade_cost=C`` C is taken from it per patch of distance between
    the middles of this fixation and the one before; the first one is free.

    ## Starting State
    Images drawn at random, by one stream of random numbers with ``reset(seed=number)``, or with
    ``reset(seed=[...])`` by one for each row, which is then a single environment of that seed.
    ``options={"index": image numbers}`` chooses them: one for all rows, or one each, None = drawn.
    ``options={"in_turn": True}`` takes images 0, 1, ... in turn, at later resets as well, until
    ``{"in_turn": False}``: every image comes once while ``info["lap"]`` is 0.

    ## Episode Termination
    After ``budget`` fixations. The budget is part of the task and of every observation, so this is
    no truncation.

    ## Episode Truncation
    Never, unless ``max_episode_steps`` is below the budget.

    ## Autoreset
    ``autoreset="same_step"`` (default): the step that ends an episode returns the first observation
    of the next, and the last one in ``info["final_obs"]`` with ``info["final_info"]``.
    ``"next_step"``, the mode of gymnasium's own environments and of most of its wrappers: the step
    after that ignores the row's action, begins the next episode and pays 0. ``"disabled"``: call
    ``reset``, for chosen rows with ``options={"reset_mask": bool array}``.

    ## Arguments
    - num_envs: rows.
    - model: one that ships, a run folder, a checkpoint file, or a model.
    - data: what ``foveate.data.load_data`` takes, or ``"cue"``, the world of ``envs.toy``; or an
      ImageSet, an array or tensor of images, or a pair of images and labels; None = those that the
      run of the model learned from, or scenes.
    - split: train, val or test.
    - image_size: resize to this side, or to (height, width) or ``"192x256"``, pixels; None = as the
      run of the model had them, or as they are.
    - limit: use only the first so many images; None = all.
    - budget: fixations per episode, below the number that there are to choose from; None = as in
      the run of the model, or 12.
    - reward: a key of ``envs.rewards.REWARDS``; ``recognition``, of labeled images; ``caption``,
      with the folder of a run that writes captions; or your own, ``MODULE:NAME`` or a function of
      a Fixation.
    - reward_options: arguments of a reward of your own; ``reference`` of progress and reducible.
    - revisit_penalty: taken from any reward if the fixation shows nothing new.
    - saccade_cost: taken from the reward per patch of distance that the gaze moves.
    - fixation_size: side of the square that a fixation opens, patches; None = as in the run, or 1.
    - obs, action, autoreset: see above.
    - device: torch device of the model; None = the CPU, or where a given model lies.
    - render_mode: None or rgb_array; in ``make_vec`` also human.
    - max_episode_steps: truncate after so many steps; None = never.
    - output: ``numpy``, arrays; ``torch``, tensors where the model lies, see ``envs.output``.

    ## Version History
    - v0: first registered version.
    """

    metadata = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": 2,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    @with_known_options
    def __init__(
        self,
        num_envs: int = 1,
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
        autoreset: str | AutoresetMode = "same_step",
        device: str | torch.device | None = None,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        output: str = "numpy",
    ) -> None:
        """Set up the world; raise ValueError for what the class does not name, or other images."""
        check_form(num_envs, max_episode_steps, obs, action, output, render_mode)
        self.autoreset_mode = autoreset_named(autoreset)
        self.reward = reward_with_options(reward, reward_options)
        self.saccade_cost = check_saccade_cost(saccade_cost)
        self.revisit_penalty = check_price("revisit_penalty", revisit_penalty)
        self.world = World.of(
            model,
            data,
            split=split,
            image_size=image_size,
            limit=limit,
            budget=budget,
            fixation_size=fixation_size,
            reward=self.reward,
            device=device,
        )
        self.world = self.world.beside_model() if output == "torch" else self.world
        self.model, self.images, self.output = self.world.model, self.world.images, output
        self.fixations, self.budget = self.world.fixations, self.world.budget
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        self.autoreset, self.render_mode = self.autoreset_mode.name.lower(), render_mode
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self._make_rows(obs, action)

    def _make_rows(self, obs: str, action: str) -> None:
        self.observer = ALL_OBSERVERS[obs](self.model, len(self.fixations), self.saccade_cost)
        grid = self.model.grid
        points = points_of(self.fixations.patches, grid) if action == "gaze" else None
        self.actions = Actions(len(self.fixations), points, grid)
        self.single_observation_space = self.observer.space
        self.single_action_space = self.actions.space
        self.observation_space = batch_space(self.observer.space, self.num_envs)
        self.action_space = batch_space(self.actions.space, self.num_envs)
        self.episode: Episode | None = None
        self.starts = Starts(self.num_envs, len(self.images))
        self.num_steps = np.zeros(self.num_envs, np.int64)
        self.has_ended = np.zeros(self.num_envs, np.bool_)

    has_ended: NDArray[np.bool_]
    """Rows whose episode is over, and that the next step begins anew with ``next_step``."""
    num_steps: NDArray[np.int64]
    """Steps of each row's episode, counted here so that no one need ask a GPU."""

    @property
    def index(self) -> NDArray[np.int64]:
        """Number of each row's image."""
        return self.starts.index

    @in_own_mode
    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observations, dict[str, Any]]:
        """Start scans, all or those of reset_mask; raise ValueError for a wrong seed or option."""
        asked, wanted = self.starts.asked(options)  # Before a seed takes effect.
        if self.episode is None and not asked.rows.all():
            raise ValueError("the first reset() starts all rows; leave out reset_mask")
        if are_seeds(seed):
            self.starts.seed(list(seed), asked.rows)
        elif seed is not None:
            super().reset(seed=checked_seed(seed))
            self.starts.seed(None, asked.rows)
        if asked.in_turn is not None:
            self.starts.next = 0 if asked.in_turn else None
        self._begin(asked.rows, wanted)
        return cast("tuple[Observations, dict[str, Any]]", self._handed_out(self._seen_and_info()))

    @in_own_mode
    def step(self, actions: Any) -> Told:
        """Make one fixation per row.

        Raises:
            ValueError: not reset yet, a row's budget is spent, the actions are none, or the reward
                is not finite.
        """
        episode, begins = self._under_way(), self._rows_that_begin()
        checked = checked_actions(actions, self.actions.space, (self.num_envs,), begins)
        if begins.all():
            self._begin(begins)
            nothing = torch.zeros(self.num_envs, dtype=PAID_IN[self.output])
            return self._told(nothing, ~begins, ~begins)
        if begins.any():
            # All rows step at once: those that only begin now look at their old image once more.
            again = send(torch.from_numpy(begins.nonzero()[0]), episode.images.device)
            words = None if episode.words is None else episode.words[again]
            old = episode.images[again], episode.labels[again], words
            episode.restart(torch.from_numpy(begins), *old)
        check_not_spent(np.where(begins, 0, self.num_steps), self.budget)
        known, before = episode.known, episode.error.double()
        opens = episode.opens(self.actions.fixations(checked, episode.selectable))
        try:
            reward = episode.step(opens)
        finally:
            # A fixation that is made counts, whatever it pays, or if its reward raises.
            if episode.known is not known:
                self.error_before, self.num_steps = before, self.num_steps + 1
        if self.output == "numpy" or reward.is_cpu:
            check_paid(self.reward, reward, torch.from_numpy(self.index))
        paid = reward.to(PAID_IN[self.output])
        if begins.any():
            paid = paid.masked_fill(send(torch.from_numpy(begins), paid.device), 0.0)
            self._begin(begins)
        terminated = (self.num_steps >= self.budget) & ~begins
        is_too_long = self.num_steps >= (self.max_episode_steps or self.budget)
        truncated = is_too_long & ~terminated & ~begins
        self.has_ended = terminated | truncated
        return self._told(paid, terminated, truncated)

    def _told(
        self, reward: Given, terminated: NDArray[np.bool_], truncated: NDArray[np.bool_]
    ) -> Told:
        """Return what a step returns; rows that have ended begin at once, if they are to."""
        observation, info = self._seen_and_info()
        if self.autoreset == "same_step" and self.has_ended.any():
            ended, last = self.has_ended.copy(), self._handed_out((observation, info))
            self._begin(ended)
            observation, info = self._seen_and_info()
            info |= ended_info(last[0], last[1], ended, self.observation_space)
        return cast(Told, self._handed_out((observation, reward, terminated, truncated, info)))

    def action_masks(self) -> Given:
        """Which fixations are unvisited, (num_envs, A); the convention of sb3-contrib."""
        return self._handed_out(self._under_way().selectable.clone())

    def render(self) -> tuple[NDArray[np.uint8], ...]:
        """Draw each row: the image with its fixations, what has been seen, the reconstruction."""
        return draw_episode(self._under_way())

    def _rows_that_begin(self) -> NDArray[np.bool_]:
        return self.has_ended & (self.autoreset == "next_step")

    def _under_way(self) -> Episode:
        if self.episode is None:
            raise ValueError("call reset() first")
        return self.episode

    def _begin(self, rows: NDArray[np.bool_], wanted: Wanted | None = None) -> None:
        """Start new episodes in the rows that are True, with the images wanted or found."""
        self.starts.begin(rows, self.np_random, wanted)
        index, again = torch.from_numpy(self.index[rows]), torch.from_numpy(rows)
        if self.episode is None or rows.all():
            prices = {"revisit_penalty": self.revisit_penalty, "saccade_cost": self.saccade_cost}
            static = self.output == "torch"
            self.episode = self.world.episode(index, reward=self.reward, **prices, static=static)
            self.error_before = self.episode.error.double()  # Of what was normalized: 1.
        else:
            self.episode.restart(again, *self.world.batch(index), self.world.words(index))
            again = send(again, self.error_before.device)
            self.error_before = self.error_before.masked_fill(again, 1.0)
        self.num_steps, self.has_ended = np.where(rows, 0, self.num_steps), self.has_ended & ~rows

    def _handed_out(self, values: Given) -> Given:
        return handed_out(values, self.output, self._under_way().images.device)

    def _seen_and_info(self) -> tuple[Given, dict[str, Any]]:
        return self.observer(self._under_way()), self._info()

    def _info(self) -> dict[str, Any]:
        return facts_of(self._under_way(), self.starts, self.error_before)

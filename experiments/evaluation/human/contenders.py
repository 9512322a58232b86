"""Who is compared with human viewers: how they score the viewers' next fixations, and their own.

Scores follow the viewer's history; scanpaths are what each chooses on its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64, Int, Int64, Num
from torch import Tensor

from agents.baselines import GreedyOracleAgent, SaliencyAgent
from agents.policies import Agent, PolicyAgent, may_draw
from envs.episode import Episode
from experiments.evaluation.compare.contenders import Scanners
from experiments.evaluation.human.means import UNTRAINED
from experiments.evaluation.human.scores import (
    ScoringOracle,
    Viewed,
    cells_opened,
    forced_scores_of,
    image_scores,
    order_scores,
    ranks_of,
)
from experiments.evaluation.progress import Advance, unheard
from experiments.evaluation.scanpaths import MEMORY, of_another_image, scanned_in_chunks
from experiments.runs import Run
from foveate.human.cells import center_cell
from foveate.orders import Ordering, fixed_ordering, mean_rank_order, order_to_rank


@dataclass(frozen=True)
class Gaze:
    """What is known of one contender."""

    train: Float64[np.ndarray, "E N"]
    """Scores of the cells at the scored fixations of the first training images."""
    test: Float64[np.ndarray, "F N"]
    """The same of the test images."""
    path: Int64[np.ndarray, "M T"]
    """Cells of the scanpath that it chooses on each test image, the first ones."""


@dataclass(frozen=True)
class Started:
    """An agent whose first fixation is given, as that of viewers is by instruction."""

    agent: Agent
    cell: int

    @property
    def samples(self) -> bool:
        """Whether the agent may draw."""
        return may_draw(self.agent)

    def __call__(
        self, episode: Episode, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B *S"]:
        """Return the given cell first, and then what the agent opens next."""
        if bool((episode.num_steps > 0).all()):
            return self.agent(episode, generator)
        given = torch.full((len(episode.unseen),), self.cell, device=episode.unseen.device)
        return episode.opens(given)


@dataclass(frozen=True)
class Contest:
    """A run, and the viewers that it is compared with.

    Args:
        run: the model and the policy.
        train: what the best fixed order is made from.
        test: what is asked.
        fit_limit: of the training images those that are scored, the first ones; None = all.
        memory: bound on what is computed at once, bytes.
        advance: told of the predictions as they are done.
    """

    run: Run
    train: Viewed
    test: Viewed
    fit_limit: int | None = None
    memory: int = MEMORY
    advance: Advance = unheard

    @property
    def scored(self) -> tuple[Viewed, Viewed]:
        """What is scored of training and test."""
        return self.train.first(self.fit_limit or len(self.train.images)), self.test

    def gazes(self, scanners: Scanners, oracle_limit: int) -> Iterator[tuple[str, Gaze]]:
        """Let all score the viewers' next fixations, and scan the test images themselves.

        The policy comes first, then the same as it began. They and the other agents look at the
        same episodes.

        ``best_fixed`` is the policy's mean rank on the training images. ``other_image`` is the
        policy that sees another image, and is forced through the viewer's scanpath there.

        Args:
            scanners: who is compared with the policy.
            oracle_limit: images of training and test on which the oracles score.
        """
        agent = self.run.agent
        # One that never learned is no other than it was.
        began = {UNTRAINED: PolicyAgent(self.run.untrained_policy())} if agent.greedy else {}
        together = self.of_agents({"policy": agent, **began, **scanners.agents})
        yield from together.items()
        for name, order in scanners.orders.items():
            yield name, self.of_order(order)
        yield "best_fixed", self.of_order(self.best_fixed())
        if min(len(each.images) for each in self.scored) > 1:
            yield "other_image", self.of_other_images(together["policy"].path)
        for name, number in scanners.oracles.items():
            oracle = ScoringOracle() if number is None else GreedyOracleAgent(number)
            train, test = (each.first(oracle_limit) for each in (self.train, self.test))
            few = replace(self, train=train, test=test)
            (found,) = few.of_agents({name: oracle}, number or len(self.run.fixations)).values()
            yield name, found

    def of_agents(self, agents: Mapping[str, Agent], tried: int = 1) -> dict[str, Gaze]:
        """Return what agents score and choose; they try so many fixations at every step."""
        train, test = (self.forced(list(agents.values()), each, tried) for each in self.scored)
        paths = (self.scanpaths(agent, self.test.images, tried) for agent in agents.values())
        return {name: Gaze(*found) for name, *found in zip(agents, train, test, paths, strict=True)}

    def of_order(self, order: Ordering) -> Gaze:
        """Return the scores and scanpaths of an order; what is given comes first in the latter."""
        ranks = [ranks_of(order, self.run, each.images) for each in self.scored]
        train, test = (
            order_scores(rank, each.paths.steps)
            for rank, each in zip(ranks, self.scored, strict=True)
        )
        if self.given is not None:
            # The viewers' own beginnings are their history: they change no score.
            ranks[1][:, self.given] = -1.0
        path = ranks[1].argsort(axis=1, kind="stable")[:, : self.run.budget]
        return Gaze(train, test, path)

    def of_other_images(self, path: Int64[np.ndarray, "M T"]) -> Gaze:
        """Return the policy's scores on a random other image, and its scanpath ``path`` there."""
        scores = []
        for each in self.scored:
            other = of_another_image(torch.arange(len(each.images)), self.run.seed)
            strange = Viewed(each.images[other], each.paths)
            scores += self.forced([self.run.agent], strange)
        train, test = scores
        return Gaze(train, test, of_another_image(torch.from_numpy(path), self.run.seed).numpy())

    def best_fixed(self) -> Ordering:
        """Return the order of cells by the policy's mean rank on the training images."""
        order = self._scan(self.run.agent, self.train.images)
        rank = order_to_rank(order, self.run.model.num_patches)
        return fixed_ordering(mean_rank_order(rank).tolist())

    @property
    def given(self) -> int | None:
        """The cell at which every scanpath begins; None = each begins where it likes."""
        paths = self.test.paths
        return center_cell(paths.grid) if paths.num_given else None

    def forced(
        self, agents: Sequence[Agent], viewed: Viewed, tried: int = 1
    ) -> list[Float64[np.ndarray, "F N"]]:
        """Return each agent's scores, see :func:`forced_scores_of`."""
        follow = [agent for agent in agents if not isinstance(agent, SaliencyAgent)]
        given = self.run, viewed
        forced = iter(
            forced_scores_of(follow, *given, tried=tried, memory=self.memory, advance=self.advance)
        )
        return [
            image_scores(agent, *given, self.memory)
            if isinstance(agent, SaliencyAgent)
            else next(forced)
            for agent in agents
        ]

    def scanpaths(
        self, agent: Agent, images: Num[Tensor, "M C H W"], tried: int = 1
    ) -> Int64[np.ndarray, "M T"]:
        """Return the cells that an agent chooses."""
        order, fixations = self._scan(agent, images, tried), self.run.fixations
        opened = order.flatten(0, 1)
        return cells_opened(opened, fixations).view(order.shape[:2]).cpu().numpy()

    def _scan(
        self, agent: Agent, images: Num[Tensor, "M C H W"], tried: int = 1
    ) -> Int[Tensor, "M T *S"]:
        if self.given is not None:
            agent = Started(agent, self.given)
        return scanned_in_chunks(
            agent,
            self.run.model,
            images,
            self.run.budget,
            tried,
            self.run.fixations,
            memory=self.memory,
            advance=self.advance,
        ).order

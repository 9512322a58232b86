"""Who scans what: the policy, its controls, other agents and all orders, on the same images.

Everything goes a chunk of images at a time, so that memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from agents.baselines import GreedyOracleAgent, SaliencyAgent, UncertaintyAgent, scan_with
from agents.policies import Agent
from envs.episode import Episode
from experiments.runs import Run
from foveate.choices import blaming, lookup, told
from foveate.model import AnyOrderTransformer
from foveate.orders import ORDERINGS, Ordering, order_to_rank
from foveate.orders.segments import Fixations
from foveate.orders.semantic import SEMANTIC, model_ordering

AGENTS: dict[str, Callable[[], Agent]] = {
    "saliency": SaliencyAgent,
    "uncertainty": UncertaintyAgent,
}
"""Agents that are compared with the policy, beside the oracles."""
ORACLES: dict[str, int | None] = {"oracle_16": 16, "oracle": None}
"""Greedy oracles by the patches that they try at every step; None = all."""
IMAGE_INDEPENDENT = ("best_fixed", "other_image")
"""Controls that know nothing of the image; a policy that looks at it must beat them."""
MAX_PREDICTIONS = 200_000
"""Patches predicted in one pass, so that memory does not grow with the grid."""


def split_rows(rows: Tensor, predictions_per_row: int) -> tuple[Tensor, ...]:
    """Split rows into chunks of at most MAX_PREDICTIONS predictions."""
    return rows.split(max(1, MAX_PREDICTIONS // predictions_per_row))


def error_curves_of(
    model: AnyOrderTransformer, images: Float[Tensor, "B C H W"], order: Int[Tensor, "R T *S"]
) -> Float[np.ndarray, "R S"]:
    """Compute the error curves of R scanpaths, those of the first R images."""
    each = model.num_patches * (order.shape[1] + 1)
    pairs = zip(split_rows(images[: len(order)], each), split_rows(order, each), strict=True)
    return torch.cat([model.error_curve(*pair) for pair in pairs]).cpu().numpy()


def scan_in_chunks(
    agent: Agent,
    model: AnyOrderTransformer,
    images: Float[Tensor, "B C H W"],
    budget: int,
    num_candidates: int = 1,
    fixations: Fixations | None = None,
) -> Int[Tensor, "B T ..."]:
    """Let an agent scan many images, with a fixed seed.

    Args:
        agent: who scans.
        model: the world.
        images: pixels in [0, 1].
        budget: fixations.
        num_candidates: fixations that the agent tries at every step.
        fixations: what it chooses from; None = each fixation opens one patch.
    """
    generator = torch.Generator().manual_seed(0)
    chunks = split_rows(images, model.num_patches * num_candidates)
    return torch.cat(
        [scan_with(agent, model, part, budget, generator, fixations) for part in chunks]
    )


def first_fixations(
    rank: Num[Tensor, "B N"], budget: int, fixations: Fixations
) -> Int[Tensor, "B T *S"]:
    """Return the first fixations of an order.

    A fixation is made at the earliest rank among its patches; ties by its number.
    """
    fixations = fixations.to(rank.device)
    return fixations.scanpath(fixations.earliest(rank).argsort(dim=1, stable=True)[:, :budget])


def make_agent(name: str) -> Agent:
    """Make an agent of AGENTS, or one of the user's own, ``MODULE:NAME``."""
    make = lookup("agent", name, AGENTS)
    with blaming("agent", name, ", called without arguments"):
        agent = make()
    if not callable(agent):
        raise ValueError(f"agent {name!r} must return a function of episodes, got {told(agent)}")
    return OwnAgent(name, agent) if ":" in name else agent


@dataclass(frozen=True)
class OwnAgent:
    """An agent of the user's own, whose errors say whose they are."""

    name: str
    agent: Agent

    def __call__(
        self, episode: Episode, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B *K"]:
        """Return what each row opens next.

        Raises:
            ValueError: the agent raises, or returns no whole numbers, one or more per row.
        """
        with blaming("agent", self.name):
            patches = self.agent(episode, generator)
        rows = len(episode.unseen)
        if (
            not isinstance(patches, Tensor)
            or patches.dtype != torch.int64
            or patches.ndim not in (1, 2)
            or len(patches) != rows
        ):
            raise ValueError(
                f"agent {self.name!r} must return int64 patches of shape ({rows},) or ({rows}, K), "
                f"got {told(patches)}"
            )
        return patches


def ordered_in_chunks(
    order: Ordering,
    model: AnyOrderTransformer,
    images: Float[Tensor, "B C H W"],
    budget: int,
    generator: torch.Generator,
    fixations: Fixations | None = None,
) -> Int[Tensor, "B T *S"]:
    """Return the first fixations of an order on many images."""
    ranks = [order(part, generator=generator) for part in split_rows(images, model.num_patches)]
    fixations = fixations or Fixations.single(model.num_patches)
    return first_fixations(torch.cat(ranks), budget, fixations)


def of_another_image(order: Int[Tensor, "B T ..."], seed: int) -> Int[Tensor, "B T ..."]:
    """Give every image the scanpath of a random other one.

    Not simply of the next image: where classes take turns, that one is of another class.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(order), generator=generator).to(order.device)
    other = torch.empty_like(order)
    other[shuffled] = order[shuffled.roll(1)]
    return other


@dataclass(frozen=True)
class Scanners:
    """All who scan beside the policy, by name.

    They are made before any image is read, as a name may be wrong.
    """

    orders: dict[str, Ordering]
    agents: dict[str, Agent]

    @classmethod
    def of(
        cls,
        model: AnyOrderTransformer,
        orders: tuple[str, ...],
        agents: tuple[str, ...],
        saccade_cost: float = 0.0,
    ) -> Self:
        """Make those that there are, and further ones by name.

        Where saccades cost something, ``uncertainty_near`` is the rule that subtracts the cost.

        Raises:
            ValueError: there is no such order or agent.
        """
        near = {"uncertainty_near": UncertaintyAgent(saccade_cost)} if saccade_cost else {}
        return cls(
            {name: model_ordering(name, model) for name in (*ORDERINGS, *SEMANTIC, *orders)},
            {**near, **{name: make_agent(name) for name in (*AGENTS, *agents)}},
        )


def scanpaths(
    run: Run,
    images: Float[Tensor, "B C H W"],
    validation: Float[Tensor, "V C H W"],
    *,
    oracle_limit: int,
    scanners: Scanners,
) -> dict[str, Int[Tensor, "R T *S"]]:
    """Let every order and agent scan the images.

    ``best_fixed`` is the mean rank of the policy on validation images. ``other_image`` gives each
    image the scanpath that the policy chose on a random other one, if there is one.

    Args:
        run: the model and the policy.
        images: pixels in [0, 1].
        validation: images that the best fixed order is made from.
        oracle_limit: the oracles scan only so many images, the first ones.
        scanners: orders and agents.
    """
    model, budget = run.model, run.budget
    fixations = run.fixations
    generator = torch.Generator().manual_seed(run.seed)
    paths = {
        name: ordered_in_chunks(order, model, images, budget, generator, fixations)
        for name, order in scanners.orders.items()
    }

    def scan(
        agent: Agent, images: Float[Tensor, "R C H W"], num_candidates: int = 1
    ) -> Int[Tensor, "R T *S"]:
        return scan_in_chunks(agent, model, images, budget, num_candidates, fixations)

    paths["policy"] = scan(run.agent, images)
    if len(images) > 1:
        paths["other_image"] = of_another_image(paths["policy"], run.seed)
    rank = order_to_rank(scan(run.agent, validation), model.num_patches)
    fixed = first_fixations(rank.double().mean(0, keepdim=True), budget, fixations)
    paths["best_fixed"] = fixed.expand(len(images), *fixed.shape[1:])
    for name, agent in scanners.agents.items():
        paths[name] = scan(agent, images)
    for name, candidates in ORACLES.items():
        number = candidates or model.num_patches
        paths[name] = scan(GreedyOracleAgent(candidates), images[:oracle_limit], number)
    return paths

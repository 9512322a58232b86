"""Agents that learn nothing: given orders, saliency, model uncertainty, and the greedy oracle.

Given orders are fixed ones, random ones, and the paths chosen on another image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import kornia.filters
import torch
from jaxtyping import Float, Int
from torch import Tensor

from agents.policies import Agent
from envs.episode import Episode
from foveate.devices import send
from foveate.errors import unseen_error
from foveate.model import AnyOrderTransformer
from foveate.model.scanning import bytes_per_row
from foveate.orders import order_to_rank
from foveate.orders.segments import Fixations, patches_in

TRIED_BYTES = 64 * 10**6
"""Memory for the fixations that are tried at once, at least one of them."""


@dataclass(frozen=True)
class OrderAgent:
    """Follow scanpaths that are given: a fixed order, a random one, another image's.

    Args:
        order: the patch of each step, (B, T), or its segment, (B, T, S), padded with -1. A single
            row serves all.
    """

    samples: ClassVar[bool] = False
    order: Int[Tensor, "B T *S"]

    def __call__(
        self, episode: Episode, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B *S"]:
        """Return the next patch, or segment, of each scanpath.

        Raises:
            ValueError: there are neither as many rows as the episode has nor one for all, or fewer
                steps than its budget.
        """
        given, needed = self.order.shape[:2], (len(episode.num_steps), episode.budget)
        if given[0] not in (1, needed[0]) or given[1] < needed[1]:
            raise ValueError(
                f"the order is of {given[0]} rows and {given[1]} steps, but the episode of "
                f"{needed[0]} rows and {needed[1]} steps; give one scanpath for each row"
            )
        rows = torch.arange(needed[0], device=self.order.device)
        order = self.order.expand(needed[0], *self.order.shape[1:])
        return order[rows, episode.num_steps]


@dataclass(frozen=True)
class UncertaintyAgent:
    """Fixate where the model expects its own error to be largest.

    This is active exploration without learning. With a cost of saccades it fixates where the
    expected gain in the rewards ``auc`` to come, less the cost of the way, is largest: an error
    that is taken away now is missing from all errors that follow.

    Args:
        saccade_cost: per patch of distance.

    Reference: the analogue of attention-map entropy (AME, Pardyl et al. 2023, apardyl/AME).
    Differs: uncertainty is the predicted error, not the entropy of attention.
    """

    samples: ClassVar[bool] = False

    saccade_cost: float = 0.0

    def __call__(
        self, episode: Episode, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B *S"]:
        """Return the patch, or segment, of the candidate with the largest expected error."""
        return episode.patch_of(self.scores(episode).argmax(-1))

    def scores(self, episode: Episode) -> Float[Tensor, "B K"]:
        """Return each candidate's expected log error, or its expected gain less the cost."""
        observation = episode.observe()
        value = observation.log_error
        if self.saccade_cost:
            gain, distance = observation.expected_gain, observation.distance
            assert gain is not None, "an episode always tells"
            assert distance is not None, "an episode always tells"
            value = gain - self.saccade_cost * distance
        return value.masked_fill(~observation.selectable, -torch.inf)


class SaliencyAgent:
    """Fixate where the Sobel gradients, summed over unseen patches, are strongest.

    It sees the whole image: no blind scanner could. This is plain bottom-up saliency. Classical
    models add center bias and scale, which image sets this small lack.
    """

    samples: ClassVar[bool] = False

    def __call__(
        self, episode: Episode, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B *S"]:
        """Return the patch, or segment, with the strongest edges."""
        return episode.opens(self.scores(episode).argmax(-1))

    def scores(self, episode: Episode) -> Float[Tensor, "B A"]:
        """Return the strength of the unseen edges that each fixation would open."""
        edges = kornia.filters.sobel(episode.images)
        saliency = episode.of_fixations(episode.scan.model.patchify(edges).mean(-1))
        return saliency.masked_fill(~episode.selectable, -torch.inf)


def error_after(episode: Episode, fixations: Int[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Error of what would still be unseen, were each of these fixations made next.

    It is normalized as the rewards are, and looks at the truth. Of fixations that would show
    nothing new it is ``inf``.

    Args:
        episode: scans under way, which stay as they are.
        fixations: numbers of K fixations of each row.
    """
    num_rows, num_tried = fixations.shape
    patches = episode.fixations.opened_by(fixations).flatten(0, 1)
    row = torch.arange(num_rows, device=fixations.device).repeat_interleave(num_tried)
    model, room = episode.scan.model, episode.scan.capacity + patches.shape[1]
    at_once = max(1, TRIED_BYTES // bytes_per_row(model, room))
    parts = zip(row.split(at_once), patches.split(at_once), strict=True)
    error = torch.cat([_error_left(episode, *part) for part in parts])
    after = error.view(num_rows, num_tried) / episode.initial_error.unsqueeze(-1)
    return after.masked_fill(~episode.selectable.gather(1, fixations), torch.inf)


def _error_left(
    episode: Episode, row: Int[Tensor, "R"], patches: Int[Tensor, "R S"]
) -> Float[Tensor, "R"]:
    """Error of what would still be unseen of each row, were its patches opened."""
    unseen, present = episode.unseen[row], None
    if not episode.fixations.is_single:
        present = (patches >= 0) & unseen.gather(1, patches.clamp_min(0))
    scan = episode.scan.take(row)
    scan.make_room(patches.shape[1])
    scan.reveal(patches.clamp_min(0), present)
    left = unseen & ~patches_in(patches, unseen.shape[1])
    values, targets = scan.predict().values, episode.targets.index_select(0, row)
    return unseen_error(scan.model.target, values, targets, left).sum(-1)


@dataclass(frozen=True)
class GreedyOracleAgent:
    """Make the fixation that truly lowers the error most, one step ahead.

    It sees the image: trying all fixations, no agent does better in one step.

    Args:
        num_candidates: random selectable fixations tried per step; None = all of them.

    Raises:
        ValueError: fewer than one is to be tried.
    """

    num_candidates: int | None = None

    @property
    def samples(self) -> bool:
        """Whether it draws what it tries."""
        return self.num_candidates is not None

    def __post_init__(self) -> None:
        if self.num_candidates is not None and self.num_candidates < 1:
            raise ValueError(
                f"the oracle tries at least 1 candidate per step, got {self.num_candidates}"
            )

    def __call__(
        self, episode: Episode, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B *S"]:
        """Return the patch, or segment, that the best candidate opens."""
        selectable = episode.selectable
        most = max(1, int(selectable.sum(1).max()))
        # Those that may be chosen come first, so that no other need be tried.
        if self.num_candidates is None:
            candidates = selectable.byte().argsort(stable=True, dim=1, descending=True)[:, :most]
        else:
            noise = send(torch.rand(selectable.shape, generator=generator), selectable.device)
            noise = noise.masked_fill(~selectable, -1.0)
            candidates = noise.topk(min(self.num_candidates, most), 1).indices
        best = error_after(episode, candidates).argmin(1, keepdim=True)
        return episode.opens(candidates.gather(1, best).squeeze(1))


def scan_to_end(
    agent: Agent, episode: Episode, generator: torch.Generator | None = None
) -> Float[Tensor, "B U"]:
    """Let an agent make all fixations of an episode, U - 1, of which none is made yet.

    Returns:
        The normalized error of each image before the first fixation and after each.
    """
    errors = [episode.error]
    for _ in range(episode.budget):
        episode.step(agent(episode, generator))
        errors.append(episode.error)
    return torch.stack(errors, dim=1)


def scan_with(
    agent: Agent,
    model: AnyOrderTransformer,
    images: Float[Tensor, "B C H W"],
    budget: int,
    generator: torch.Generator | None = None,
    fixations: Fixations | None = None,
) -> Int[Tensor, "B T *S"]:
    """Let an agent scan the images and return its scanpaths.

    Args:
        agent: who scans.
        model: the world.
        images: pixels in [0, 1].
        budget: fixations, T.
        generator: randomness of the agent, on the CPU.
        fixations: what it chooses from; None = each fixation opens one patch.

    Returns:
        The patch of each step; of an agent that opens several at once its segments, padded with -1.
    """
    episode = Episode(model, images, budget=budget, fixations=fixations)
    scan_to_end(agent, episode, generator)
    return episode.order


@dataclass(frozen=True)
class AgentOrdering:
    """An agent in the interface of every other order: ``rank = ordering(images)``.

    Unvisited patches tie last. Arguments are those of :func:`scan_with`.
    """

    agent: Agent
    model: AnyOrderTransformer
    budget: int
    fixations: Fixations | None = None

    def __call__(
        self, images: Float[Tensor, "B C H W"], *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B N"]:
        """Scan the images and return the ranks."""
        order = scan_with(self.agent, self.model, images, self.budget, generator, self.fixations)
        return order_to_rank(order, self.model.num_patches, check=False)

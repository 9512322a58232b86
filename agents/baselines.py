"""Agents that learn nothing: given orders, saliency, model uncertainty, and the greedy oracle.

Given orders are fixed ones, random ones, and the paths chosen on another image.
"""

from __future__ import annotations

from dataclasses import dataclass

import kornia.filters
import torch
from jaxtyping import Float, Int
from torch import Tensor

from agents.policies import Agent
from envs.episode import Episode
from foveate.model import AnyOrderTransformer
from foveate.orders import order_to_rank


@dataclass(frozen=True)
class OrderAgent:
    """Follow scanpaths that are given: a fixed order, a random one, another image's."""

    order: Int[Tensor, "B T"]

    def __call__(
        self, episode: Episode, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B"]:
        """Return the next patch of each scanpath."""
        return self.order.gather(1, episode.num_steps.unsqueeze(1)).squeeze(1)


class UncertaintyAgent:
    """Fixate where the model expects its own squared error to be largest.

    This is active exploration without learning.

    Reference: the analogue of attention-map entropy (AME, Pardyl et al. 2023, apardyl/AME).
    Differs: uncertainty is the predicted error, not the entropy of attention.
    """

    def __call__(
        self, episode: Episode, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B"]:
        """Return the selectable patch of largest expected error."""
        observation = episode.observe()
        expected = observation.log_error.masked_fill(~observation.selectable, -torch.inf)
        return episode.patch_of(expected.argmax(-1))


class SaliencyAgent:
    """Fixate patches by their mean Sobel gradient, strongest first.

    It sees the whole image: no blind scanner could. A plain bottom-up saliency; the classical
    models add center bias and scale, which image sets this small lack.
    """

    def __call__(
        self, episode: Episode, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B"]:
        """Return the selectable patch with the strongest edges."""
        model = episode.scan.model
        edges = kornia.filters.sobel(model.unpatchify(episode.targets))
        saliency = model.patchify(edges).mean(-1)
        return saliency.masked_fill(~episode.selectable, -torch.inf).argmax(-1)


def error_after(episode: Episode, candidates: Int[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Error of what would still be unseen, were each candidate fixated next.

    Normalized as the rewards are. Looks at the true pixels. ``inf`` for candidates that
    have been visited.
    """
    num_candidates = candidates.shape[1]
    scan = episode.scan.repeat(num_candidates)
    scan.reveal(candidates.flatten().unsqueeze(1))
    pixels = scan.predict().values.unflatten(0, (-1, num_candidates))
    error = (pixels - episode.targets.unsqueeze(1)).square().mean(-1)
    unseen = episode.selectable.unsqueeze(1).repeat(1, num_candidates, 1)
    unseen.scatter_(2, candidates.unsqueeze(-1), False)
    after = (error * unseen).sum(-1) / episode.initial_error.unsqueeze(-1)
    return after.masked_fill(~episode.selectable.gather(1, candidates), torch.inf)


@dataclass(frozen=True)
class GreedyOracleAgent:
    """Fixate the patch that truly lowers the error most, one step ahead.

    It sees the image: trying all candidates, no agent does better in one step.

    Args:
        num_candidates: random unvisited patches tried per step; None = all of them.
    """

    num_candidates: int | None = None

    def __call__(
        self, episode: Episode, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B"]:
        """Return the best candidate."""
        noise = torch.rand(episode.selectable.shape, generator=generator).to(
            episode.selectable.device
        )
        noise = noise.masked_fill(~episode.selectable, -1.0)
        num_patches = noise.shape[1]
        candidates = noise.topk(min(self.num_candidates or num_patches, num_patches), 1).indices
        best = error_after(episode, candidates).argmin(1, keepdim=True)
        return candidates.gather(1, best).squeeze(1)


def scan_with(
    agent: Agent,
    model: AnyOrderTransformer,
    images: Float[Tensor, "B C H W"],
    budget: int,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "B T"]:
    """Let an agent scan the images and return its scanpaths."""
    episode = Episode(model, images, budget=budget)
    for _ in range(budget):
        episode.step(agent(episode, generator))
    return episode.order


@dataclass(frozen=True)
class AgentOrdering:
    """An agent in the interface of every other order: ``rank = ordering(images)``.

    Unvisited patches tie last.
    """

    agent: Agent
    model: AnyOrderTransformer
    budget: int

    def __call__(
        self, images: Float[Tensor, "B C H W"], *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B N"]:
        """Scan the images and return the ranks."""
        order = scan_with(self.agent, self.model, images, self.budget, generator)
        return order_to_rank(order, self.model.num_patches)

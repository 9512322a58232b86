"""Signs of collapse: does the policy look at the image at all?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from agents.baselines import OrderAgent, error_after
from envs.episode import Episode
from experiments.evaluation.intervals import Interval, mean_interval
from experiments.evaluation.progress import Advance, unheard
from experiments.evaluation.scanpaths import MEMORY, pixels_of, split_rows
from foveate.model import AnyOrderTransformer
from foveate.model.scanning import bytes_per_row
from foveate.orders import order_to_rank
from foveate.orders.paths import Grid
from foveate.orders.ranks import as_segments
from foveate.orders.saccades import centers_of
from foveate.orders.segments import Fixations, patches_in


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """What a policy's scanpaths say of its use of the image."""

    fixation_entropy_nats: tuple[float, ...]
    """Entropy over images of what is fixated at each step; 0 = the same for all."""
    distinct_orders: int
    """Different scanpaths over the images."""
    images: int
    """Images that were scanned."""
    own_minus_other: float | None
    """Area of the policy's path minus that of another image's; below 0 = it uses the image; None =
    there is no other image."""
    own_minus_other_ci95: Interval | None
    """Over images: a bootstrap, Student's t of less than 20."""
    chosen_percentile: float
    """Where the chosen fixation stands among the selectable ones by true one-step reward.

    1 = best, 0.5 = random, and where there was never a choice.
    """


def fixation_entropies(rank: Int[Tensor, "B N"], num_steps: int) -> list[float]:
    """Entropy over images of the patches that each step shows, nats."""
    entropies = []
    for step in range(num_steps):
        counts = torch.unique(rank == step, dim=0, return_counts=True)[1]
        entropies.append(float(torch.special.entr(counts / len(rank)).sum()))
    return entropies


def visited_entropy(rank: Int[Tensor, "B N"], num_steps: int) -> float:
    """Entropy of the map of visited patches over images, by patch, as a share of its maximum.

    A policy that chooses its most probable fixation has one path for each image. All that its paths
    tell of the image is then their entropy over images, here without the order of fixations and
    with patches taken as independent: ``sum_n h(p_n)``, ``p_n`` the share of images in which
    patch n is visited. It is at most ``N h(mean p)``, since h, the entropy of yes or no, is
    concave. Paths over one central blob have 0, in whatever order they visit it.
    """
    visited = (rank < num_steps).double().mean(0)
    most = float(_entropy_of_share(visited.mean())) * len(visited)
    return float(_entropy_of_share(visited).sum()) / most if most else 0.0


def _entropy_of_share(share: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Entropy of yes or no, nats."""
    return torch.special.entr(share) + torch.special.entr(1 - share)


def mean_saccade(order: Int[Tensor, "B T *S"], grid: Grid) -> float | None:
    """Mean distance between the middles of successive fixations, in patches.

    None = there is a single fixation. A fixation that opened nothing counts for nothing.
    """
    segments = as_segments(order)
    length = centers_of(segments, grid).diff(dim=1).norm(dim=-1).nanmean()
    return round(float(length), 4) if order.shape[1] > 1 else None


@torch.no_grad()
def chosen_percentiles(
    model: AnyOrderTransformer,
    images: Num[Tensor, "B C H W"],
    order: Int[Tensor, "B T *S"],
    fixations: Fixations | None = None,
    *,
    memory: int = MEMORY,
    advance: Advance = unheard,
) -> Float[Tensor, " M"]:
    """Percentile of every fixation of the scanpaths by true one-step reward.

    Without those that had no alternative, which say nothing.
    """
    percentiles = []
    each, budget = model.num_patches**2, order.shape[1]
    room = bytes_per_row(model, order[0].numel())
    for part, path in zip(
        split_rows(images, each, room, memory), split_rows(order, each, room, memory), strict=True
    ):
        pixels = pixels_of(part, order.device)
        episode = Episode(model, pixels, budget=budget, fixations=fixations)
        every = torch.arange(len(episode.fixations), device=order.device).expand(len(part), -1)
        agent, rank = OrderAgent(path), order_to_rank(path, model.num_patches)
        patches = patches_in(episode.fixations.patches, model.num_patches)
        for step in range(budget):
            after = error_after(episode, every)
            is_made = patches & episode.unseen.unsqueeze(1) == (rank == step).unsqueeze(1)
            number = is_made.all(2).to(torch.uint8).argmax(1, keepdim=True)
            chosen, selectable = after.gather(1, number), episode.selectable
            others = selectable.sum(1) - 1
            worse = ((after > chosen) & selectable).sum(1)
            equal = ((after == chosen) & selectable).sum(1) - 1
            percentiles.append(((worse + 0.5 * equal) / others)[others > 0])
            episode.step(agent(episode))
        advance(len(part) * model.num_patches * (1 + budget * len(episode.fixations)))
    return torch.cat(percentiles)


def diagnose(
    model: AnyOrderTransformer,
    images: Num[Tensor, "R C H W"],
    order: Int[Tensor, "B T ..."],
    own_minus_other: Float[np.ndarray, " B"] | None,
    fixations: Fixations | None = None,
    *,
    memory: int = MEMORY,
    advance: Advance = unheard,
) -> Diagnostics:
    """Diagnose a policy from its scanpaths.

    Args:
        model: the world.
        images: the first R of the images; the percentile is measured on these.
        order: the policy's scanpath of every image.
        own_minus_other: area under the error curve of each image's scanpath minus the area of
            another image's; None = there is no other image.
        fixations: what the policy chose from; None = each fixation opens one patch.
        memory: bound on what is computed at once, bytes.
        advance: told of the predictions as they are done.
    """
    rank = order_to_rank(order, model.num_patches)
    mean, interval = (None, None) if own_minus_other is None else mean_interval(own_minus_other)
    percentiles = chosen_percentiles(
        model, images, order[: len(images)], fixations, memory=memory, advance=advance
    )
    return Diagnostics(
        fixation_entropy_nats=tuple(
            round(entropy, 4) for entropy in fixation_entropies(rank, order.shape[1])
        ),
        distinct_orders=len(torch.unique(rank, dim=0)),
        images=len(order),
        own_minus_other=mean,
        own_minus_other_ci95=interval,
        chosen_percentile=float(percentiles.mean()) if len(percentiles) else 0.5,
    )

"""Scans of many images by agents and orders, a chunk at a time.

Memory is bounded: it grows neither with the number of images, nor with grid and patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from torch import Tensor

from agents.baselines import SaliencyAgent, UncertaintyAgent, scan_to_end
from agents.policies import Agent, ScoringAgent, may_draw
from envs.episode import Episode
from envs.opening import check_opening, checked_segments
from experiments.evaluation.options import LEAST_MEMORY
from experiments.evaluation.progress import Advance, unheard
from foveate.choices import blaming, lookup, told
from foveate.devices import device_of
from foveate.model import AnyOrderTransformer
from foveate.model.scanning import bytes_per_row
from foveate.orders import SUBSETS, Ordering, order_to_rank
from foveate.orders.segments import Fixations
from foveate.orders.semantic import model_ordering

AGENTS: dict[str, Callable[[], Agent]] = {
    "saliency": SaliencyAgent,
    "uncertainty": UncertaintyAgent,
}
"""Agents that are compared with the policy, beside the oracles."""
NEAR = "uncertainty_near"
"""The rule that knows what a saccade costs."""
MAX_PREDICTIONS = 200_000
"""Patches predicted in one pass."""
MEMORY = 10**9
"""Bytes that are computed at once, where nothing else is asked for."""
MOST_OF_VALIDATION = 2000
"""Validation images that the best fixed order is made from."""


def check_scans(name: str) -> None:
    """Raise ValueError if a name says only which patches are hidden, of which no scan can come."""
    if name in SUBSETS:
        raise ValueError(
            f"{name} says which patches are hidden, not in which order the others are seen; "
            "nothing can scan in it; take random"
        )


def scan_ordering(name: str, model: AnyOrderTransformer) -> Ordering:
    """Return an order by its name to scan in.

    Raises:
        ValueError: there is no such order, or it says only which patches are hidden.
    """
    check_scans(name)
    return model_ordering(name, model)


def split_rows(
    rows: Tensor, predictions_per_row: int, room_per_row: int = 1, memory: int = MEMORY
) -> tuple[Tensor, ...]:
    """Split rows into chunks of at most MAX_PREDICTIONS predictions and ``memory`` bytes."""
    at_once = min(MAX_PREDICTIONS // predictions_per_row, memory // room_per_row)
    return rows.split(max(1, at_once))


def pixels_of(images: Tensor, device: torch.device | str) -> Float[Tensor, "B C H W"]:
    """Return images in [0, 1] on a device; those that come as bytes take a quarter of the room."""
    moved = images.to(device)
    return moved if moved.is_floating_point() else moved.float() / 255


@dataclass(frozen=True)
class Scanned:
    """What an agent opened, and what the model that it scanned with still got wrong."""

    order: Int[Tensor, "B T ..."]
    errors: Float[Tensor, "B L"]
    """Error before the first fixation and after each, over that before the first."""


def rows_memory(agents: Iterable[Agent], memory: int) -> int:
    """Return the bound on chunks of rows that agents look at, bytes.

    What is drawn goes chunk by chunk. So their size is always the same, but of who draws nothing.
    """
    return min(memory, int(LEAST_MEMORY * 1e9)) if any(map(may_draw, agents)) else memory


def scanned_in_chunks(
    agent: Agent,
    model: AnyOrderTransformer,
    images: Num[Tensor, "B C H W"],
    budget: int,
    num_candidates: int = 1,
    fixations: Fixations | None = None,
    *,
    memory: int = MEMORY,
    advance: Advance = unheard,
) -> Scanned:
    """Let an agent scan many images, with a fixed seed.

    Args:
        agent: who scans.
        model: the world.
        images: pixels in [0, 1], or bytes.
        budget: fixations.
        num_candidates: fixations that the agent tries at every step.
        fixations: what it chooses from; None = each fixation opens one patch.
        memory: bound on what is computed at once, bytes.
        advance: told of the predictions as they are done.
    """
    generator = torch.Generator().manual_seed(0)
    device = device_of(model)
    each = bytes_per_row(model, budget * (1 if fixations is None else fixations.size))
    opened, errors = [], []
    at_once = rows_memory((agent,), memory)
    for part in split_rows(images, model.num_patches * num_candidates, each, at_once):
        episode = Episode(model, pixels_of(part, device), budget=budget, fixations=fixations)
        errors.append(scan_to_end(agent, episode, generator))
        opened.append(episode.opened)
        advance(len(part) * model.num_patches * (1 + budget * num_candidates))
    size = max(each.shape[2] for each in opened)
    order = torch.cat([F.pad(each, (0, size - each.shape[2]), value=-1) for each in opened])
    # A step that revisits opens nothing, which only an order of segments can say.
    single = size == 1 and bool((order >= 0).all())
    return Scanned(order.squeeze(2) if single else order, torch.cat(errors))


def first_fixations(
    rank: Num[Tensor, "B N"], budget: int, fixations: Fixations
) -> Int[Tensor, "B T *S"]:
    """Return the first fixations of an order.

    A fixation is made at the earliest rank among its patches; ties by its number. So of unequal
    ones a random order tends to make the larger earlier.
    """
    fixations = fixations.to(rank.device)
    return fixations.scanpath(fixations.earliest(rank).argsort(dim=1, stable=True)[:, :budget])


def best_fixed(
    order: Int[Tensor, "V L *S"], num_patches: int, budget: int, fixations: Fixations
) -> Int[Tensor, "1 T *S"]:
    """Return the first fixations of one order for all images: the mean rank in these scanpaths."""
    rank = order_to_rank(order, num_patches).double()
    return first_fixations(rank.mean(0, keepdim=True), budget, fixations)


def make_agent(name: str, saccade_cost: float = 0.0) -> Agent:
    """Make an agent of AGENTS, ``uncertainty_near``, or one of the user's own, ``MODULE:NAME``.

    Args:
        name: of the agent.
        saccade_cost: what ``uncertainty_near`` subtracts per patch of distance.

    Raises:
        ValueError: the user's own cannot be made, or ``uncertainty_near`` is named though saccades
            cost nothing.
    """
    if name == NEAR:
        check_near((name,), saccade_cost)
        return UncertaintyAgent(saccade_cost)
    make = lookup("agent", name, AGENTS)
    with blaming("agent", name, ", called without arguments"):
        agent = make()
    if not callable(agent):
        raise ValueError(f"agent {name!r} must return a function of episodes, got {told(agent)}")
    if ":" not in name:
        return agent
    if isinstance(agent, ScoringAgent):
        return OwnScoringAgent(name, agent)
    return OwnAgent(name, agent)


def check_near(names: Iterable[str], saccade_cost: float) -> None:
    """Raise ValueError if ``uncertainty_near`` is named though saccades cost nothing."""
    if saccade_cost == 0 and NEAR in names:
        raise ValueError(
            f"{NEAR} is the rule that knows the cost of saccades, and this run has no saccade "
            "cost; do not name it"
        )


@dataclass(frozen=True)
class OwnAgent:
    """An agent of the user's own, whose errors say whose they are."""

    name: str
    agent: Agent

    @property
    def samples(self) -> bool:
        """Whether it may draw."""
        return may_draw(self.agent)

    def __call__(
        self, episode: Episode, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B *K"]:
        """Return what each row opens next.

        Raises:
            ValueError: the agent raises, or returns no whole numbers, one or more per row, or what
                is no patch of the image.
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
        with blaming("agent", self.name):
            check_opening(
                checked_segments(patches), episode.unseen.shape[1], episode.done, episode.budget
            )
        return patches


@dataclass(frozen=True)
class OwnScoringAgent(OwnAgent):
    """An agent of the user's own that also tells its scores."""

    agent: ScoringAgent

    def scores(self, episode: Episode) -> Float[Tensor, "B A"]:
        """Return its score of each fixation; of those that show nothing new it does not count.

        Raises:
            ValueError: the agent raises, or returns no numbers of this shape, or one of something
                new that is not finite.
        """
        with blaming("agent", self.name, ", asked for scores"):
            scores = self.agent.scores(episode)
        new = episode.selectable
        if not isinstance(scores, Tensor) or scores.shape != new.shape or scores.is_complex():
            raise ValueError(
                f"agent {self.name!r} must return a tensor of scores of shape {tuple(new.shape)}, "
                f"one for each fixation, got {told(scores)}"
            )
        if not scores.to(new.device)[new].isfinite().all():
            raise ValueError(
                f"agent {self.name!r} gives fixations of something new scores that are not finite; "
                "give finite ones"
            )
        return scores.float()


def ordered_in_chunks(
    order: Ordering,
    model: AnyOrderTransformer,
    images: Num[Tensor, "B C H W"],
    budget: int,
    generator: torch.Generator,
    fixations: Fixations | None = None,
) -> Int[Tensor, "B T *S"]:
    """Return the first fixations of an order on many images.

    Orders that are drawn depend on how the images are split. That follows from the model alone,
    within the least memory that may be asked for, so that they are the same in any other.
    """
    device = device_of(model)
    each = bytes_per_row(model, model.num_patches)
    ranks = [
        order(pixels_of(part, device), generator=generator)
        for part in split_rows(images, model.num_patches, each, int(LEAST_MEMORY * 1e9))
    ]
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

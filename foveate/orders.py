"""Orders as ranks: ``rank[b, n]`` is the step at which patch n of image b is decoded.

Patches of equal rank are decoded in parallel. Every order, whatever it depends on, is a function
from images to ranks: ``rank = ordering(images)``. Fixed curves are computed once per grid; random
families draw anew for every image.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Num, Shaped
from torch import Tensor

from foveate.choices import lookup
from foveate.paths import PATHS, Grid, grid_cells


@runtime_checkable
class Ordering(Protocol):
    """A function from images to ranks."""

    def __call__(
        self, images: Float[Tensor, "B C H W"], *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B N"]:
        """Return the decoding step of every patch, from 0."""
        ...


# --- ranks and orders


def check_rank(rank: Shaped[Tensor, "..."], num_patches: int) -> None:
    """Raise ValueError unless rank holds a step from 0 on for each of N patches."""
    if rank.ndim != 2 or rank.shape[1] != num_patches:
        raise ValueError(f"rank must have shape (B, {num_patches}), got {tuple(rank.shape)}")
    if rank.dtype != torch.int64:
        raise ValueError(f"rank must be int64, got {rank.dtype}")
    if bool((rank < 0).any()):
        raise ValueError(f"rank must not be negative; row {int((rank < 0).any(1).nonzero()[0])} is")


def check_order(order: Int[Tensor, "B T"], num_patches: int) -> None:
    """Raise ValueError unless every row of order holds distinct patches 0..N-1."""
    if order.ndim != 2 or order.shape[1] > num_patches:
        raise ValueError(
            f"order must have shape (B, T) with T <= {num_patches}, got {tuple(order.shape)}"
        )
    outside = ((order < 0) | (order >= num_patches)).any(1)
    if bool(outside.any()):
        raise ValueError(
            f"order must hold patches 0..{num_patches - 1}; "
            f"row {int(outside.nonzero()[0])} does not"
        )
    repeats = order.sort(dim=1).values.diff(dim=1) == 0
    if bool(repeats.any()):
        row, place = (int(i) for i in repeats.nonzero()[0])
        raise ValueError(
            "an order visits a patch once; "
            f"row {row} repeats {int(order[row].sort().values[place])}"
        )


def rank_to_order(rank: Int[Tensor, "B N"]) -> Int[Tensor, "B N"]:
    """Patches in decoding order; ties by patch index."""
    return rank.argsort(dim=1, stable=True)


def ranked(key: Num[Tensor, "B N"], generator: torch.Generator | None) -> Int[Tensor, "B N"]:
    """Rank patches by their key, ascending; equal ones at random."""
    shuffle = torch.rand(key.shape, generator=generator).argsort(1).to(key.device)
    order = shuffle.gather(1, key.gather(1, shuffle).argsort(dim=1, stable=True))
    return rank_to_order(order)


def order_to_rank(order: Int[Tensor, "B T"], num_patches: int) -> Int[Tensor, "B N"]:
    """Step of every patch; patches that a scanpath of T < N fixations leaves out tie at rank T."""
    check_order(order, num_patches)
    num_steps = order.shape[1]
    rank = order.new_full((len(order), num_patches), num_steps)
    return rank.scatter(1, order, torch.arange(num_steps, device=order.device).expand_as(order))


def tie_prefix(rank: Int[Tensor, "B N"], size: int) -> Int[Tensor, "B N"]:
    """Reveal the first ``size`` patches at once, at rank 0; the rest follow from rank 1.

    Patches that tie with the last of them are revealed with it, so that segments stay whole.

    Reference: the prefix attention of AIM (El-Nouby et al. 2024, arXiv 2401.08541, Sec. 3.2).
    """
    if not 0 <= size <= rank.shape[1]:
        raise ValueError(f"a prefix holds 0..{rank.shape[1]} patches, got {size}")
    if size == 0:
        return rank
    last = rank.sort(dim=1).values[:, size - 1 : size]
    return (rank - last).clamp_(min=0)


def mean_rank_order(rank: Int[Tensor, "B N"]) -> Int[Tensor, " N"]:
    """The best fixed order in the mean: patches by their mean rank over images."""
    return rank.double().mean(0).argsort(stable=True)


# --- fixed orders


def fixed_ordering(path: list[int]) -> Ordering:
    """Turn a list of all patches in visiting order into an ordering, the same for every image."""
    step = order_to_rank(torch.tensor([path]), len(path))

    def order(
        images: Float[Tensor, "B C H W"], *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B N"]:
        return step.to(images.device).repeat(len(images), 1)

    return order


# --- random orders: each builder returns a function from (images in the batch, generator) to ranks


Draw = Callable[[int, torch.Generator | None], Tensor]


def _shuffled_segments(
    segment: Int[Tensor, "B N"], generator: torch.Generator | None
) -> Int[Tensor, "B N"]:
    """Give the segments of each image random consecutive ranks; the patches of a segment tie."""
    num_segments = int(segment.max()) + 1
    place = torch.rand(len(segment), num_segments, generator=generator).argsort(1)
    present = torch.zeros_like(place).scatter_(1, segment, 1)
    # An empty segment must not leave a gap in the ranks.
    before = present.gather(1, place.argsort(1)).cumsum(1) - 1
    return before.gather(1, place).gather(1, segment)


def _squares(grid: Grid, side: int) -> Int[Tensor, " N"]:
    row, col = torch.tensor(grid_cells(grid)).T
    return row // side * math.ceil(grid[1] / side) + col // side


def _parts(grid: Grid, per_side: int) -> Int[Tensor, " N"]:
    """Cut the grid into ``per_side`` x ``per_side`` parts whose sides differ by a patch at most."""
    row, col = torch.tensor(grid_cells(grid)).T
    return row * per_side // grid[0] * per_side + col * per_side // grid[1]


def _random(grid: Grid) -> Draw:
    """A uniformly random permutation per image."""
    return lambda size, generator: torch.rand(size, grid[0] * grid[1], generator=generator).argsort(
        1
    )


def _random_squares(grid: Grid, side: int | None = None) -> Draw:
    """Squares of ``side`` x ``side`` patches (None = 2) in random order.

    Where ``side`` does not divide the grid, those at the far edges are narrower.

    Reference: RandSAC (Hua et al. 2023, arXiv 2203.12054), square segments.
    """
    side = min(2, max(grid)) if side is None else side
    if not 1 <= side <= max(grid):
        raise ValueError(
            f"side must lie in 1..{max(grid)} patches for a {grid[0]}x{grid[1]} grid, got {side}"
        )
    segment = _squares(grid, side)
    return lambda size, generator: _shuffled_segments(segment.repeat(size, 1), generator)


def _num_blobs(grid: Grid, blobs: int | None) -> int:
    """Return ``blobs``; None = 7, or fewer on a tiny grid."""
    number = min(7, grid[0] * grid[1]) if blobs is None else blobs
    if not 1 <= number <= grid[0] * grid[1]:
        raise ValueError(f"blobs must lie in 1..{grid[0] * grid[1]}, got {number}")
    return number


def _draw_blobs(
    grid: Grid, number: int, size: int, generator: torch.Generator | None
) -> tuple[Int[Tensor, "B N"], Float[Tensor, "B K 2"]]:
    """Draw which of K random Gaussians claims each patch, and their means.

    A patch belongs to the nearest blob in standard deviations.

    Reference: RandSAC, blob segments. Differs: axis-aligned Gaussians, standard deviations uniform
    in 0.5..1.5 of a blob's fair share, since the paper's appendix was not found.
    """
    cells = torch.tensor(grid_cells(grid), dtype=torch.float32)
    extent = torch.tensor(grid, dtype=torch.float32)
    mean = torch.rand(size, number, 1, 2, generator=generator) * extent - 0.5
    deviation = (
        (0.5 + torch.rand(size, number, 1, 2, generator=generator)) * extent / math.sqrt(number)
    )
    distance = ((cells - mean) / deviation).square().sum(-1)
    return distance.argmin(1), mean.squeeze(2)


def _random_blobs(grid: Grid, blobs: int | None = None) -> Draw:
    """Patches claimed by ``blobs`` random Gaussians (None = 7), blob after blob in random order.

    Reference: RandSAC (Hua et al. 2023, arXiv 2203.12054), blob segments.
    """
    number = _num_blobs(grid, blobs)
    return lambda size, generator: _shuffled_segments(
        _draw_blobs(grid, number, size, generator)[0], generator
    )


def _random_quadrants(grid: Grid) -> Draw:
    """The four quarters of the grid in random order.

    Reference: the clusters of D-iGPT (Ren et al. 2024, arXiv 2312.02147), 7 x 7 patches each.
    """
    segment = _parts(grid, 2)
    return lambda size, generator: _shuffled_segments(segment.repeat(size, 1), generator)


def _hierarchical(grid: Grid, per_side: int = 4, partitions: int = 2) -> Draw:
    """``per_side`` squares along each side of the grid, in ``partitions`` x ``partitions`` groups.

    Groups come in random order, and so do the squares within each. Where the grid cannot be cut
    evenly, the sides of the squares differ by a patch.

    Reference: RandSAC, hierarchical serialization of squares, 16 to 4.
    """
    if partitions < 1 or per_side < 1 or per_side % partitions:
        raise ValueError(
            "per_side must be a multiple of partitions, both at least 1, "
            f"got {per_side} and {partitions}"
        )
    fine, coarse = _parts(grid, per_side), _parts(grid, partitions)

    def draw(size: int, generator: torch.Generator | None) -> Tensor:
        inner = _shuffled_segments(fine.repeat(size, 1), generator)
        return _nested(_shuffled_segments(coarse.repeat(size, 1), generator), inner)

    return draw


def _hierarchical_blobs(
    grid: Grid, blobs: int | None = None, partitions: int | None = None
) -> Draw:
    """Random blobs (None = 7) in groups of near ones: groups in random order, blobs within each.

    A blob belongs to the nearest of the first ``partitions`` blobs (None = 3).

    Reference: RandSAC, hierarchical serialization of blobs (7 to 3). Differs: how blobs are grouped
    was not found.
    """
    number = _num_blobs(grid, blobs)
    groups = min(3, number) if partitions is None else partitions
    if not 1 <= groups <= number:
        raise ValueError(f"partitions must lie in 1..{number} blobs, got {groups}")

    def draw(size: int, generator: torch.Generator | None) -> Tensor:
        blob, mean = _draw_blobs(grid, number, size, generator)
        nearest = torch.cdist(mean, mean[:, :groups]).argmin(2)
        outer = _shuffled_segments(nearest.gather(1, blob), generator)
        return _nested(outer, _shuffled_segments(blob, generator))

    return draw


def _nested(outer: Int[Tensor, "B N"], inner: Int[Tensor, "B N"]) -> Int[Tensor, "B N"]:
    """Rank by ``outer``, within it by ``inner``; patches that tie in both tie."""
    ascending, place = (outer * (int(inner.max()) + 1) + inner).sort(1)
    step = (ascending.diff(dim=1, prepend=ascending[:, :1]) > 0).long().cumsum(1)
    return step.gather(1, place.argsort(1))


def _hide(count: Int[Tensor, "B"], num_patches: int, generator: torch.Generator | None) -> Tensor:
    """Rank 1 for ``count`` random patches of each image, 0 for the others."""
    place = torch.rand(len(count), num_patches, generator=generator).argsort(1)
    return (place < count.unsqueeze(1)).long()


def _random_subset(grid: Grid, visible: float = 0.25) -> Draw:
    """A random share of the patches at rank 0, all others at rank 1; both hold at least one.

    Reference: MAE (He et al. 2022, arXiv 2111.06377): a quarter is visible.
    """
    num_patches = grid[0] * grid[1]
    if not 0 < visible < 1 or num_patches < 2:
        raise ValueError(f"visible must lie in (0, 1), on a grid of 2 or more, got {visible}")
    hidden = num_patches - min(max(round(visible * num_patches), 1), num_patches - 1)
    return lambda size, generator: _hide(torch.full((size,), hidden), num_patches, generator)


def _beta_subset(grid: Grid, a: float = 12.0, b: float = 3.0) -> Draw:
    """Hide a share ~ Beta(a, b) of the patches (rank 1), drawn anew for each image; at least one.

    Reference: AutoNAT (Ni et al. 2024), LeapLabTHU/ImprovedNAT libs/nat_misc.py: Beta(12, 3).
    """
    if a <= 0 or b <= 0:
        raise ValueError(f"a and b of a Beta distribution must be above 0, got {a} and {b}")
    num_patches = grid[0] * grid[1]

    def draw(size: int, generator: torch.Generator | None) -> Tensor:
        # By numpy, since torch's Beta takes no generator.
        seed = int(torch.randint(2**62, (), generator=generator))
        share = torch.from_numpy(np.random.default_rng(seed).beta(a, b, size))
        return _hide((share * num_patches).round().long().clamp_min(1), num_patches, generator)

    return draw


def _bernoulli_subset(grid: Grid, hidden: float = 0.15) -> Draw:
    """Hide every patch with the same probability (rank 1), at least one in each image.

    Reference: the BERT objective of iGPT (Chen et al. 2020), Sec. 2.1: 15%.
    """
    if not 0 < hidden < 1:
        raise ValueError(f"hidden must lie in (0, 1), got {hidden}")

    def draw(size: int, generator: torch.Generator | None) -> Tensor:
        noise = torch.rand(size, grid[0] * grid[1], generator=generator)
        return ((noise < hidden) | (noise == noise.amin(1, keepdim=True))).long()

    return draw


RANDOM: dict[str, Callable[..., Draw]] = {
    "random": _random,
    "random_squares": _random_squares,
    "random_blobs": _random_blobs,
    "random_quadrants": _random_quadrants,
    "hierarchical": _hierarchical,
    "hierarchical_blobs": _hierarchical_blobs,
}


def random_ordering(draw: Draw) -> Ordering:
    """Turn a function that draws ranks into an ordering; drawn on the CPU, moved to the images."""

    def order(
        images: Float[Tensor, "B C H W"], *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B N"]:
        return draw(len(images), generator).to(images.device)

    return order


# --- by name


Builder = Callable[..., Ordering]


def _fixed(build: Callable[[Grid], list[int]]) -> Builder:
    return lambda grid: fixed_ordering(build(grid))


def _drawn(build: Callable[..., Draw]) -> Builder:
    @functools.wraps(build)
    def built(grid: Grid, **options: int | float) -> Ordering:
        return random_ordering(build(grid, **options))

    return built


SUBSETS: dict[str, Builder] = {
    "random_subset": _drawn(_random_subset),
    "beta_subset": _drawn(_beta_subset),
    "bernoulli_subset": _drawn(_bernoulli_subset),
}
"""Two ranks alone, visible (0) and hidden (1), for masked modelling: no order to scan in."""
ORDERINGS: dict[str, Builder] = {
    **{name: _fixed(build) for name, build in PATHS.items()},
    **{name: _drawn(build) for name, build in RANDOM.items()},
}
"""Builders by name, called with grid and options. Add your own: ``ORDERINGS["mine"] = build``."""


def ordering(name: str, grid: Grid, **options: int | float) -> Ordering:
    """Build an order by name for a grid of (rows, columns).

    Args:
        name: of ORDERINGS or SUBSETS, or a builder of your own, ``MODULE:NAME``. Those that look
            at a model's features are built by :func:`foveate.semantic_orders.model_ordering`.
        grid: rows and columns of patches.
        options: of the builder.

    Raises:
        ValueError: unknown name, or an option that the order does not take.
    """
    build = lookup("order", name, {**ORDERINGS, **SUBSETS})
    built = build(grid, **checked_options(name, build, grid, options))
    if not isinstance(built, Ordering):
        raise ValueError(f"order {name!r} must return a function of images, got {built!r}")
    return built


def checked_options(
    name: str, build: Builder, grid: Grid, options: Mapping[str, int | float]
) -> dict[str, int | float]:
    """Return a builder's options, those that count something as whole numbers.

    Raises:
        ValueError: the builder takes no such options, or not this number.
    """
    signature = inspect.signature(build)
    try:
        signature.bind(grid, **options)
    except TypeError as reason:
        known = ", ".join(list(signature.parameters)[1:])
        raise ValueError(
            f"order {name!r}, called with a grid and its options: {reason}; "
            f"the options are {known or 'none'}"
        ) from reason
    checked = dict(options)
    for option, value in options.items():
        each = signature.parameters.get(option)
        if each is not None and each.annotation in ("int", "int | None", int):
            if not float(value).is_integer():
                raise ValueError(f"{option} of order {name!r} must be a whole number, got {value}")
            checked[option] = int(value)
    return checked

"""Random orders, drawn anew for every image.

Each builder returns a function from the number of images and a generator to ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from foveate.devices import send
from foveate.orders.paths import Grid, grid_cells
from foveate.orders.ranks import Ordering

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

    What is no whole patch stays hidden, as in MAE: a quarter of 63 patches are 15.

    Reference: MAE (He et al. 2022, arXiv 2111.06377): a quarter is visible.
    """
    num_patches = grid[0] * grid[1]
    if not 0 < visible < 1 or num_patches < 2:
        raise ValueError(f"visible must lie in (0, 1), on a grid of 2 or more, got {visible}")
    # 0.29 of 100 are 29, which floating point puts a hair below.
    whole = math.floor(visible * num_patches + 1e-9)
    hidden = num_patches - min(max(whole, 1), num_patches - 1)
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
"""Families of random orders by name."""
RANDOM_SUBSETS: dict[str, Callable[..., Draw]] = {
    "random_subset": _random_subset,
    "beta_subset": _beta_subset,
    "bernoulli_subset": _bernoulli_subset,
}
"""Two ranks alone, visible (0) and hidden (1), by name."""


def random_ordering(draw: Draw) -> Ordering:
    """Turn a function that draws ranks into an ordering; drawn on the CPU, moved to the images."""

    def order(
        images: Float[Tensor, "B C H W"], *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B N"]:
        return send(draw(len(images), generator), images.device)

    return order

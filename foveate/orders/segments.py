"""What one fixation opens: a patch, or a segment of patches that become visible together.

A scanpath of segments is an order of sets: ``order[b, t]`` holds the patches of step t, padded with
-1. As ranks it needs nothing new: the patches of a segment tie.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Num, Shaped
from torch import Tensor

from foveate.choices import told
from foveate.devices import send
from foveate.finite import is_whole
from foveate.orders.paths import Grid, grid_cells
from foveate.orders.ranks import check_order, ranked


@dataclass(frozen=True)
class Fixations:
    """The fixations that a policy chooses from, and the patches that each of them opens.

    Raises:
        ValueError: a fixation opens no patch, one patch twice, or one outside 0..N-1.
    """

    patches: Int[Tensor, "A S"]
    """Patches of every fixation; -1 = padding."""
    num_patches: int
    """Patches of an image, N."""

    def __post_init__(self) -> None:
        check_order(self.patches.unsqueeze(1), self.num_patches)
        opens_none = (self.patches < 0).all(1)
        if bool(opens_none.any()):
            raise ValueError(
                f"every fixation must open a patch; row {int(opens_none.nonzero()[0])} is padding "
                "alone"
            )

    def __len__(self) -> int:
        """Return the number of fixations, A."""
        return len(self.patches)

    @property
    def size(self) -> int:
        """Patches of the largest fixation, S."""
        return self.patches.shape[1]

    @cached_property
    def is_partition(self) -> bool:
        """Whether every patch is in one fixation, and all fixations are equally large.

        Then a fixation that was not made before opens nothing but unseen patches.
        """
        patches = self.patches.flatten().sort().values.cpu()
        return torch.equal(patches, torch.arange(self.num_patches))

    @cached_property
    def is_single(self) -> bool:
        """Whether fixation a opens patch a alone."""
        every = torch.arange(self.num_patches).unsqueeze(1)
        return torch.equal(self.patches.cpu(), every)

    @classmethod
    def single(cls, num_patches: int) -> Fixations:
        """Return the fixations of one patch each."""
        return cls(torch.arange(num_patches).unsqueeze(1), num_patches)

    @classmethod
    def squares(cls, grid: Grid, side: int) -> Fixations:
        """Cut the grid into squares of ``side`` x ``side`` patches, in raster order.

        Where ``side`` does not divide the grid, those at the far edges are narrower.

        Raises:
            ValueError: the side is no whole number of at least 1, or one square covers the whole
                grid.
        """
        if not is_whole(side) or (side != 1 and not 1 < side < max(grid)):
            raise ValueError(
                f"fixation_size must lie in 1..{max(grid) - 1} patches on a {grid[0]}x{grid[1]} "
                f"grid, a whole number, got {told(side)}"
            )
        squares: dict[tuple[int, int], list[int]] = {}
        for patch, (row, col) in enumerate(grid_cells(grid)):
            squares.setdefault((row // side, col // side), []).append(patch)
        size = max(map(len, squares.values()))
        rows = [square + [-1] * (size - len(square)) for square in squares.values()]
        return cls(torch.tensor(rows), grid[0] * grid[1])

    def to(self, device: torch.device | str) -> Fixations:
        """Return these with their table on a device.

        What is known of the table goes along: to look at it there, the host would wait for a GPU.
        """
        patches = send(self.patches, device)
        if patches is self.patches:
            return self
        moved = copy(self)
        known = {"is_partition": self.is_partition, "is_single": self.is_single}
        moved.__dict__.update(patches=patches, **known)
        return moved

    def opened_by(self, fixation: Int[Tensor, "*B"]) -> Int[Tensor, "*B S"]:
        """Return the patches that fixations open; -1 = padding."""
        return fixation.unsqueeze(-1) if self.is_single else self.patches[fixation]

    def scanpath(self, fixation: Int[Tensor, "*B"]) -> Int[Tensor, "*B *S"]:
        """Return the patches as scanpaths hold them: without S where each is a single one."""
        return fixation if self.is_single else self.patches[fixation]

    def any(self, of_patches: Bool[Tensor, "B N"]) -> Bool[Tensor, "B A"]:
        """Whether something is true of any patch of each fixation."""
        return of_patches if self.is_single else self._members(of_patches).any(2)

    def sum(self, of_patches: Float[Tensor, "B N"]) -> Float[Tensor, "B A"]:
        """Sum a value over the patches of each fixation."""
        return of_patches if self.is_single else self._members(of_patches).sum(2)

    def earliest(self, rank: Num[Tensor, "B N"]) -> Float[Tensor, "B A"]:
        """Return the lowest rank among the patches of each fixation."""
        patches = send(self.patches, rank.device)
        members = rank.double()[:, patches.clamp_min(0)]
        return members.masked_fill(patches < 0, torch.inf).amin(2)

    def merged(self, rank: Int[Tensor, "B N"]) -> Int[Tensor, "B N"]:
        """Open whole fixations: each at the step at which the order comes to its first patch.

        Every patch must be in one fixation. A random order becomes a random order of fixations, in
        which of unequal ones the larger tend to come earlier.
        """
        if self.is_single:
            return rank
        first, place = self.earliest(rank).sort(dim=1)
        # Steps without gaps; fixations whose first patches tie are opened together.
        later = F.pad((first.diff(dim=1) > 0).cumsum(1), (1, 0))
        step = torch.empty_like(place).scatter_(1, place, later)
        return step[:, send(self.fixation_of, rank.device)]

    def reversed(
        self, rank: Int[Tensor, "B N"], generator: torch.Generator | None
    ) -> Int[Tensor, "B N"]:
        """Decode last what was decoded first; fixations of equal rank come in random order.

        So of a scan what it left out comes first, at random, and its first fixation last. As with
        :meth:`merged`, every patch must be in one fixation.
        """
        return self.merged(ranked(-rank, generator))

    @cached_property
    def fixation_of(self) -> Int[Tensor, " N"]:
        """The fixation that each patch is in, on the CPU; every patch must be in one."""
        patches = self.patches.cpu()
        fixation = torch.arange(len(self)).unsqueeze(1).expand_as(patches)
        inside = patches >= 0
        empty = torch.zeros(self.num_patches, dtype=torch.long)
        return empty.index_put_((patches[inside],), fixation[inside])

    def _members(self, of_patches: Shaped[Tensor, "B N"]) -> Shaped[Tensor, "B A S"]:
        """Lay what belongs to patches out by fixation; 0 or False at the padding."""
        return of_patches[:, self.patches.clamp_min(0)].masked_fill(self.patches < 0, 0)


def patches_in(segments: Int[Tensor, "*B S"], num_patches: int) -> Bool[Tensor, "*B N"]:
    """Return which patches each segment holds; its padding (-1) is none of them."""
    # One more place takes the padding.
    place = segments.masked_fill(segments < 0, num_patches)
    held = segments.new_zeros((*segments.shape[:-1], num_patches + 1), dtype=torch.bool)
    return held.scatter(-1, place, True)[..., :num_patches]


def borders(segment: list[int], grid: Grid) -> dict[int, tuple[bool, bool, bool, bool]]:
    """Say of each patch of a segment which sides are at its border: top, bottom, left, right."""
    rows_cols = {divmod(patch, grid[1]) for patch in segment}

    def is_outside(row: int, col: int) -> bool:
        return (row, col) not in rows_cols

    return {
        row * grid[1] + col: (
            is_outside(row - 1, col),
            is_outside(row + 1, col),
            is_outside(row, col - 1),
            is_outside(row, col + 1),
        )
        for row, col in rows_cols
    }

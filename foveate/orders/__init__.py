"""Orders as ranks: ``rank[b, n]`` is the step at which patch n of image b is decoded.

Patches of equal rank are decoded in parallel. Every order, whatever it depends on, is a function
from images to ranks: ``rank = ordering(images)``. Fixed curves are computed once per grid; random
families draw anew for every image.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foveate.choices import blaming, lookup, told
from foveate.finite import is_whole
from foveate.orders.paths import PATHS, Grid
from foveate.orders.random import RANDOM, RANDOM_SUBSETS, Draw, random_ordering
from foveate.orders.ranks import (
    Ordering,
    check_order,
    check_rank,
    fixed_ordering,
    mean_rank_order,
    order_to_rank,
    rank_to_order,
    ranked,
    tie_prefix,
)

__all__ = [
    "ORDERINGS",
    "SUBSETS",
    "Builder",
    "Ordering",
    "StatedOrdering",
    "check_order",
    "check_rank",
    "checked_options",
    "fixed_ordering",
    "may_tie",
    "mean_rank_order",
    "order_to_rank",
    "ordering",
    "rank_to_order",
    "ranked",
    "tie_prefix",
]


Builder = Callable[..., Ordering]


@dataclass(frozen=True)
class StatedOrdering:
    """An ordering that says whether patches may tie, so that nobody has to look."""

    order: Ordering
    ties: bool

    def __call__(
        self, images: Float[Tensor, "B C H W"], *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B N"]:
        """Return the decoding step of every patch, from 0."""
        return self.order(images, generator=generator)


@dataclass(frozen=True)
class OwnOrdering:
    """An order of the user's own, whose errors say whose they are."""

    name: str
    order: Ordering
    num_patches: int

    @property
    def ties(self) -> bool | None:
        """Whether patches may tie, as the order states it; None = unknown."""
        return may_tie(self.order)

    def __call__(
        self, images: Float[Tensor, "B C H W"], *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B N"]:
        """Return the decoding step of every patch, from 0.

        Raises:
            ValueError: the order raises, or returns no step for each patch of each image.
        """
        with blaming("order", self.name):
            # A copy: the model is to see the images as they are, whatever the order does to them.
            rank = self.order(images.clone(), generator=generator)
        shape = (len(images), self.num_patches)
        if not isinstance(rank, Tensor) or rank.shape != shape or rank.device != images.device:
            raise ValueError(
                f"order {self.name!r} must return ranks of shape {shape} on {images.device}, "
                f"got {told(rank)}"
            )
        with blaming("order", self.name):
            check_rank(rank, self.num_patches)
        return rank


def may_tie(order: Ordering) -> bool | None:
    """Return whether patches may tie, as the order states it (``order.ties``); None = unknown."""
    ties: bool | None = getattr(order, "ties", None)
    return ties


def _fixed(build: Callable[[Grid], list[int]]) -> Builder:
    return lambda grid: StatedOrdering(fixed_ordering(build(grid)), ties=False)


def _drawn(build: Callable[..., Draw], ties: bool) -> Builder:
    @functools.wraps(build)
    def built(grid: Grid, **options: int | float) -> Ordering:
        return StatedOrdering(random_ordering(build(grid, **options)), ties)

    return built


SUBSETS: dict[str, Builder] = {name: _drawn(build, True) for name, build in RANDOM_SUBSETS.items()}
"""Two ranks alone, visible (0) and hidden (1), for masked modelling: no order to scan in."""


ORDERINGS: dict[str, Builder] = {
    **{name: _fixed(build) for name, build in PATHS.items()},
    **{name: _drawn(build, ties=name != "random") for name, build in RANDOM.items()},
}
"""Builders by name, called with grid and options. Add your own: ``ORDERINGS["mine"] = build``."""


def is_row_count(number: object) -> bool:
    """Whether there may be so many rows, or columns."""
    return is_whole(number) and number >= 1


def ordering(name: str, grid: Grid, **options: int | float) -> Ordering:
    """Build an order by name for a grid of (rows, columns).

    Args:
        name: of ORDERINGS or SUBSETS, or a builder of your own, ``MODULE:NAME``. Those that look
            at a model's features are built by :func:`foveate.orders.semantic.model_ordering`.
        grid: rows and columns of patches.
        options: of the builder.

    Raises:
        ValueError: unknown name, or an option that the order does not take.
    """
    if not isinstance(grid, Sequence) or len(grid) != 2 or not all(map(is_row_count, grid)):
        raise ValueError(f"a grid is rows and columns of patches, 1 or more, got {told(grid)}")
    build = lookup("order", name, {**ORDERINGS, **SUBSETS})
    checked = checked_options(name, build, grid, options)
    # Often the order itself is given, which takes images.
    what = f" called with the grid {tuple(grid)}, to return a function of images"
    with blaming("order", name, what):
        built = build(grid, **checked)
    if not isinstance(built, Ordering):
        raise ValueError(f"order {name!r} must return a function of images, got {told(built)}")
    return OwnOrdering(name, built, grid[0] * grid[1]) if ":" in name else built


def counts(annotation: object) -> bool:
    """Whether an option is a whole number, or none: by a type, or its name as in the source."""
    if isinstance(annotation, str):
        return annotation in ("int", "int | None", "Optional[int]")
    return annotation is int or set(get_args(annotation)) == {int, type(None)}


def checked_options(
    name: str, build: Builder, grid: Grid, options: Mapping[str, int | float]
) -> dict[str, int | float]:
    """Return a builder's options, those that count something as whole numbers.

    Raises:
        ValueError: the builder takes no such options, or not this number.
    """
    with blaming("order", name, ", whose options are asked for"):
        signature = inspect.signature(build)
    try:
        signature.bind(grid, **options)
    except TypeError as reason:
        if not signature.parameters:
            raise ValueError(
                f"order {name!r} takes no grid; an agent, which is made without arguments, is "
                "named where agents are"
            ) from reason
        known = ", ".join(list(signature.parameters)[1:])
        raise ValueError(
            f"order {name!r}, called with a grid and its options: {reason}; "
            f"the options are {known or 'none'}"
        ) from reason
    checked = dict(options)
    for option, value in options.items():
        if option in signature.parameters and counts(signature.parameters[option].annotation):
            if not float(value).is_integer():
                raise ValueError(f"{option} of order {name!r} must be a whole number, got {value}")
            checked[option] = int(value)
    return checked

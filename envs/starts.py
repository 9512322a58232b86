"""Which image each row of an environment begins with: a drawn one, a chosen one, or the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from gymnasium.utils.seeding import np_random
from numpy.typing import NDArray
from torch import Tensor

from foveate.choices import check_choice, told
from foveate.finite import is_whole

Wanted: TypeAlias = NDArray[np.object_]
"""The chosen image of every row; None = not chosen."""


@dataclass(frozen=True)
class ResetOptions:
    """What ``reset(options=...)`` asks for."""

    rows: NDArray[np.bool_]
    """Rows that begin anew."""
    chosen: object
    """Image numbers; None = none are chosen."""
    in_turn: bool | None
    """Whether images come in turn from here on; None = as before."""

    @classmethod
    def of(cls, options: object, num_rows: int) -> ResetOptions:
        """Read options.

        Raises:
            ValueError: no mapping, an unknown key, ``reset_mask`` is no bool array with a True, or
                ``in_turn`` is no bool.
        """
        if not isinstance(options, Mapping | None):
            raise ValueError(
                f"options must be a mapping, such as {{'index': 3}}, got {told(options)}"
            )
        given = dict(options or {})
        chosen, in_turn = given.pop("index", None), given.pop("in_turn", None)
        rows = np.asarray(on_cpu(given.pop("reset_mask", np.ones(num_rows, np.bool_))))
        for name in given:
            check_choice("option", name, ("index", "reset_mask", "in_turn"))
        if rows.shape != (num_rows,) or rows.dtype != np.bool_ or not rows.any():
            raise ValueError(
                f"reset_mask takes {num_rows} bools, at least one of them True; "
                f"got {rows.dtype} {rows.shape}"
            )
        if in_turn is not None and not isinstance(in_turn, bool):
            raise ValueError(f"in_turn takes True or False, got {told(in_turn)}")
        return cls(rows, on_cpu(chosen), in_turn)


def on_cpu(given: object) -> object:
    """Bring a tensor to where NumPy reads it; whatever else is given stays as it is."""
    return given.cpu() if isinstance(given, Tensor) else given


def are_seeds(seed: object) -> TypeGuard[Sequence[int | None] | NDArray[Any]]:
    """Whether seeds of rows are given, one each: a list or an array, but no words."""
    if isinstance(seed, np.ndarray):
        return seed.ndim > 0
    return isinstance(seed, Sequence) and not isinstance(seed, str | bytes)


def checked_seed(seed: object) -> int | None:
    """Return the seed of all rows: an integer of at least 0, or None.

    Raises:
        ValueError: it is neither.
    """
    if seed is None:
        return None
    if is_whole(seed) and seed >= 0:
        return int(seed)
    raise ValueError(f"seed must be an integer of at least 0, or None, got {told(seed)}")


class Starts:
    """The images of the rows, and how the next ones are found.

    Rows draw from one stream of random numbers together, or each from its own.

    Args:
        num_rows: rows.
        num_images: what there is to begin with.
    """

    def __init__(self, num_rows: int, num_images: int) -> None:
        self.num_images = num_images
        self.index = np.zeros(num_rows, np.int64)
        self.lap = np.zeros(num_rows, np.int64)
        self.streams: list[np.random.Generator | None] = [None] * num_rows
        self.next: int | None = None

    index: NDArray[np.int64]
    """Number of each row's image."""
    lap: NDArray[np.int64]
    """How often the row's image was begun with before, since images come in turn; else 0."""
    streams: list[np.random.Generator | None]
    """Random numbers of each row; None = those of all."""
    next: int | None
    """Images that were begun with in turn; None = they are drawn."""

    def asked(self, options: object) -> tuple[ResetOptions, Wanted]:
        """Read the options of a reset, and the chosen image of every row; nothing changes yet.

        Raises:
            ValueError: as by :meth:`ResetOptions.of` and :meth:`wanted`.
        """
        read = ResetOptions.of(options, len(self.index))
        return read, self.wanted(read.chosen, read.rows)

    def seed(self, seeds: Sequence[int | None] | None, rows: NDArray[np.bool_]) -> None:
        """Give rows streams of their own, by their seeds, or the one of all (None).

        A row that is False, or whose seed is None, goes on with what it has.

        Raises:
            ValueError: not one seed for every row, or no seed.
        """
        if seeds is None:
            self.streams = [
                None if begins else kept for begins, kept in zip(rows, self.streams, strict=True)
            ]
            return
        fit = all(each is None or (is_whole(each) and each >= 0) for each in seeds)
        if len(seeds) != len(self.index) or not fit:
            raise ValueError(
                f"seed takes an integer of at least 0, or {len(self.index)} of them, one per row "
                f"(None = go on as before); got {told(seeds)}"
            )
        for row in map(int, rows.nonzero()[0]):
            if (each := seeds[row]) is not None:
                self.streams[row] = np_random(int(each))[0]

    def begin(
        self, rows: NDArray[np.bool_], shared: np.random.Generator, wanted: Wanted | None = None
    ) -> None:
        """Find the images of the rows that are True.

        Args:
            rows: which rows begin.
            shared: random numbers of the rows without a stream of their own.
            wanted: the image of every row, as of :meth:`wanted`; None = none is chosen.
        """
        number = len(self.index)
        if wanted is None:
            wanted = np.full(number, None, dtype=object)
        if self.next is None:
            # For all rows, so that what some rows do leaves the others' images as they were.
            found, lap = shared.integers(self.num_images, size=number), np.zeros(number, np.int64)
            for row in rows.nonzero()[0]:
                if (stream := self.streams[row]) is not None:
                    found[row] = stream.integers(self.num_images, size=1)[0]
        else:
            is_dealt = rows & np.array([each is None for each in wanted])
            position = self.next + np.cumsum(is_dealt) - 1
            lap, found = np.divmod(position, self.num_images)
            self.next += int(is_dealt.sum())
        for row in rows.nonzero()[0]:
            is_chosen = wanted[row] is not None
            self.index[row] = wanted[row] if is_chosen else found[row]
            self.lap[row] = 0 if is_chosen else lap[row]

    def wanted(self, given: object, rows: NDArray[np.bool_]) -> Wanted:
        """Return the chosen image of every row; None = not chosen.

        Args:
            given: an image number for all rows, or one for each, of all or of those that begin;
                None in place of a number = not chosen.
            rows: which rows begin.

        Raises:
            ValueError: ``given`` names no images.
        """
        listed = np.asarray(given, dtype=object)
        chosen = np.full(len(rows), None, dtype=object)
        fits = listed.shape in ((), (len(rows),), (int(rows.sum()),))
        if fits:
            whole = listed.shape == (len(rows),)
            chosen[rows] = listed[rows] if whole else listed
        last = self.num_images - 1
        are_numbers = all(each is None or (is_whole(each) and 0 <= each <= last) for each in chosen)
        if not fits or not are_numbers:
            raise ValueError(
                f"options['index'] takes one image number in 0..{last}, "
                f"or {len(rows)} of them; got {told(given)}"
            )
        return chosen

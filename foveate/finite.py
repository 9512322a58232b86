"""Numbers that are not finite: where they are, and the error by which a step is left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import SupportsFloat, TypeGuard

import torch
from jaxtyping import Int, Num
from torch import Tensor

MOST_NAMED = 256
"""Images that an error names, at most."""


class NotFinite(ValueError):
    """A number of a training step, or the reward of a fixation, is not finite.

    Args:
        what: the number, and what it is, as in ``the loss is nan``.
        images: numbers of the images that it was computed from.
        cause: whose number it is: ``model``, ``policy`` or ``reward``.
    """

    def __init__(self, what: str, images: Iterable[Int[Tensor, "B"]], *, cause: str) -> None:
        self.what, self.cause = what, cause
        self.images = [number for index in images for number in index.tolist()]
        super().__init__(f"{what} {on_images(self.images)}")


def on_images(images: Iterable[int]) -> str:
    """Name images by their numbers; those of a stream (-1) have none."""
    names = sorted(set(images))
    if not names or names[0] < 0:
        return "on streamed images"
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"on image {', '.join(map(str, names[:MOST_NAMED]))}{more}"


def check_finite(
    what: str, values: Num[Tensor, "B"], images: Int[Tensor, "B"], *, cause: str
) -> None:
    """Raise NotFinite unless every value is finite.

    Args:
        what: the values are.
        values: one of each image.
        images: numbers of the images, to be named.
        cause: as of NotFinite.
    """
    wrong = ~values.isfinite()
    if bool(wrong.any()):
        first = float(values[wrong][0])
        raise NotFinite(f"{what} is {first}", [images[wrong.to(images.device)]], cause=cause)


def not_finite(content: object) -> str | None:
    """Return the place of the first number that is not finite; None without one.

    Args:
        content: numbers and tensors in dicts and lists, such as a checkpoint. Of a tensor that is
            sharded only the part of this process is looked at.

    >>> not_finite({"policy": {"weight": torch.tensor([1.0, torch.nan])}, "rates": [0.1]})
    'policy.weight'
    """
    for place, number in _numbers(content, ()):
        if isinstance(number, float):
            is_finite = math.isfinite(number)
        else:
            part = getattr(number, "to_local", lambda whole=number: whole)()
            is_finite = bool(torch.isfinite(part).all())
        if not is_finite:
            return ".".join(place)
    return None


def _numbers(
    content: object, place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Tensor | float]]:
    if isinstance(content, Mapping):
        items: Iterable[tuple[object, object]] = content.items()
    elif isinstance(content, list | tuple):
        items = enumerate(content)
    else:
        if isinstance(content, float | Tensor):
            yield place, content
        return
    for key, value in items:
        yield from _numbers(value, (*place, str(key)))


def is_whole(number: object) -> TypeGuard[int]:
    """Whether something is a whole number, of Python's or NumPy's; True and False are none."""
    return isinstance(number, Integral) and not isinstance(number, bool)


def check_price(name: str, price: object) -> float:
    """Return what is taken from a reward; raise ValueError unless it is finite and at least 0."""
    if not isinstance(price, SupportsFloat) or not 0 <= float(price) < math.inf:
        raise ValueError(f"{name} must be a finite number of at least 0, got {price!r}")
    return float(price)

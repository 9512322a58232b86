"""Ranks and orders: ``rank[b, n]`` is the step at which patch n of image b is decoded.

Patches of equal rank are decoded in parallel.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Num, Shaped
from torch import Tensor

from foveate.choices import told
from foveate.devices import send


@runtime_checkable
class Ordering(Protocol):
    """A function from images to ranks."""

    def __call__(
        self, images: Float[Tensor, "B C H W"], *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B N"]:
        """Return the decoding step of every patch, from 0."""
        ...


def check_rank(rank: Shaped[Tensor, "..."], num_patches: int) -> None:
    """Raise ValueError unless rank holds a step from 0 on for each of N patches."""
    if not isinstance(rank, Tensor):
        raise ValueError(f"rank must be a tensor of int64, got {told(rank)}")
    if rank.ndim != 2 or rank.shape[1] != num_patches:
        raise ValueError(f"rank must have shape (B, {num_patches}), got {tuple(rank.shape)}")
    if rank.dtype != torch.int64:
        raise ValueError(f"rank must be int64, got {rank.dtype}")
    if bool((rank < 0).any()):
        raise ValueError(f"rank must not be negative; row {int((rank < 0).any(1).nonzero()[0])} is")


def check_steps(rank: Int[Tensor, "B N"]) -> None:
    """Raise ValueError if an order that is to be learned leaves a step out.

    In a loss each step of a gap would weigh, and cost, as much as others. The first step alone may
    show nothing, as where a subset to be seen is empty.
    """
    ascending = rank.sort(dim=1).values
    gaps = (ascending[:, 0] > 1) | (ascending.diff(dim=1) > 1).any(1)
    if bool(gaps.any()):
        row = int(gaps.nonzero()[0])
        raise ValueError(
            f"rank must count the steps from 0 and leave none out, row {row} does not; "
            "torch.unique(values, return_inverse=True)[1] makes a rank of any values"
        )


def first_repeat(patches: Int[Tensor, "B K"]) -> tuple[int, int] | None:
    """Return the first row that holds a patch twice, and the patch; None without one.

    Padding (-1) may repeat.
    """
    ascending = patches.sort(dim=1).values
    repeats = (ascending.diff(dim=1) == 0) & (ascending[:, 1:] >= 0)
    if not bool(repeats.any()):
        return None
    row, place = (int(i) for i in repeats.nonzero()[0])
    return row, int(ascending[row, place])


def as_segments(order: Int[Tensor, "B T *K"]) -> Int[Tensor, "B T K"]:
    """Return a scanpath of patches as one of segments, whose padding -1 shows nothing new."""
    return order if order.ndim == 3 else order.unsqueeze(-1)


def check_order(order: Int[Tensor, "B T *S"], num_patches: int) -> None:
    """Raise ValueError unless every row of order holds distinct patches 0..N-1.

    An order of segments, (B, T, S), may hold -1 as padding.
    """
    if order.is_floating_point() or order.is_complex() or order.dtype == torch.bool:
        raise ValueError(f"order must hold whole numbers, got {order.dtype}; give order.long()")
    if order.ndim not in (2, 3) or (order.ndim == 2 and order.shape[1] > num_patches):
        raise ValueError(
            f"order must have shape (B, T) with T <= {num_patches}, or (B, T, S) of segments, "
            f"got {tuple(order.shape)}"
        )
    least = 0 if order.ndim == 2 else -1
    patches = order.flatten(1)
    outside = ((patches < least) | (patches >= num_patches)).any(1)
    if bool(outside.any()):
        raise ValueError(
            f"order must hold patches 0..{num_patches - 1}; "
            f"row {int(outside.nonzero()[0])} does not"
        )
    if (repeat := first_repeat(patches)) is not None:
        raise ValueError(f"an order visits a patch once; row {repeat[0]} repeats {repeat[1]}")


def rank_to_order(rank: Int[Tensor, "B N"]) -> Int[Tensor, "B N"]:
    """Patches in decoding order; ties by patch index."""
    return rank.argsort(dim=1, stable=True)


def ranked(key: Num[Tensor, "B N"], generator: torch.Generator | None) -> Int[Tensor, "B N"]:
    """Rank patches by their key, ascending; equal ones at random."""
    shuffle = send(torch.rand(key.shape, generator=generator).argsort(1), key.device)
    order = shuffle.gather(1, key.gather(1, shuffle).argsort(dim=1, stable=True))
    return rank_to_order(order)


def order_to_rank(
    order: Int[Tensor, "B T *S"], num_patches: int, *, check: bool = True
) -> Int[Tensor, "B N"]:
    """Step of every patch; patches that a scanpath of T fixations leaves out tie at rank T.

    Of a patch that is looked at again, as scanpaths of an episode may, the first step counts.

    Args:
        order: the patch of each step, (B, T), or its segment, (B, T, S), padded with -1.
        num_patches: patches of an image, N.
        check: look for mistakes, for which a GPU must be waited for; False for scanpaths that an
            episode made.

    Raises:
        ValueError: a patch is outside 0..N-1, or, as far as is checked, is visited twice.
    """
    if check:
        check_order(order, num_patches)
    order = order.long()
    num_steps = order.shape[1]
    step = torch.arange(num_steps, device=order.device)
    if order.ndim == 3:
        step = step.repeat_interleave(order.shape[2])
    patches = order.flatten(1)
    # One more place takes the padding.
    rank = order.new_full((len(order), num_patches + 1), num_steps)
    place = patches.masked_fill(patches < 0, num_patches)
    return rank.scatter_reduce(1, place, step.expand_as(place), "amin")[:, :num_patches]


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


def fixed_ordering(path: list[int]) -> Ordering:
    """Turn a list of all patches in visiting order into an ordering, the same for every image."""
    step = order_to_rank(torch.tensor([path]), len(path))

    def order(
        images: Float[Tensor, "B C H W"], *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B N"]:
        return send(step, images.device).repeat(len(images), 1)

    return order

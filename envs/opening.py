"""What a step of an episode may open, and the note of what it opened."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from foveate.choices import told
from foveate.finite import is_whole
from foveate.orders.ranks import first_repeat

WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8)
"""Types of whole numbers that patches may be given in."""


def check_numbers(budget: int, num_fixations: int, num_candidates: int | None) -> None:
    """Raise ValueError unless an episode can be of these numbers."""
    if num_candidates is not None and not (is_whole(num_candidates) and num_candidates >= 1):
        raise ValueError(
            f"num_candidates must be at least 1, a whole number, got {told(num_candidates)}"
        )
    if not (is_whole(budget) and 1 <= budget <= num_fixations):
        raise ValueError(
            f"budget must lie in 1..{num_fixations} fixations, a whole number, got {told(budget)}"
        )


def raise_spent(row: int, budget: int) -> NoReturn:
    """Raise ValueError: the row has made all its fixations."""
    raise ValueError(f"the budget of {budget} fixations is spent (row {row}); start a new episode")


def check_not_spent(num_steps: NDArray[np.int64], budget: int) -> None:
    """Raise ValueError if the budget of a row is spent."""
    spent = num_steps >= budget
    if spent.any():
        raise_spent(int(spent.argmax()), budget)


def checked_segments(patches: Int[Tensor, "B *K"]) -> Int[Tensor, "B K"]:
    """Return patches as int64, (B, K); raise ValueError unless they are whole numbers of rows."""
    if not isinstance(patches, Tensor) or not patches.ndim or patches.dtype not in WHOLE:
        raise ValueError(
            "a step takes a patch, or a segment of patches, of each row as a tensor of integers, "
            f"got {told(patches)}"
        )
    return (patches.unsqueeze(1) if patches.ndim == 1 else patches).long()


def check_opening(
    patches: Int[Tensor, "B K"],
    num_patches: int,
    done: Bool[Tensor, "B"],
    budget: int,
    among: Int[Tensor, "B Q"] | None = None,
) -> None:
    """Raise ValueError unless each row may open these patches, padded with -1.

    Args:
        patches: what is to be opened.
        num_patches: patches of an image, N.
        done: whether a row's budget is spent.
        budget: fixations per episode.
        among: the patches of all candidates, one of which must be opened; None = any patches.
    """
    if len(patches) != len(done):
        raise ValueError(
            f"a step takes patches of each of the {len(done)} rows, got {told(patches)}"
        )
    if bool(done.any()):
        raise_spent(int(done.nonzero()[0]), budget)
    least = 0 if patches.shape[1] == 1 else -1
    is_outside = ((patches < least) | (patches >= num_patches)).any(1)
    if bool(is_outside.any()):
        row = int(is_outside.nonzero()[0])
        raise ValueError(
            f"a patch must lie in 0..{num_patches - 1}; row {row} opens {patches[row].tolist()}"
        )
    if patches.shape[1] > 1 and (repeat := first_repeat(patches)) is not None:
        row = repeat[0]
        raise ValueError(f"row {row} opens a patch twice at once: {patches[row].tolist()}")
    if among is not None:
        is_decoded = (among.unsqueeze(2) == patches.unsqueeze(1)).any(1)
        if not bool((is_decoded | (patches < 0)).all()):
            raise ValueError("with num_candidates the next patch must be one of the candidates")


def noted(
    opened: Int[Tensor, "B T S"],
    num_steps: Int[Tensor, "B"],
    patches: Int[Tensor, "B K"],
    new: Bool[Tensor, "B K"],
) -> Int[Tensor, "B T Z"]:
    """Return the new patches of each step with those of one more; -1 = nothing new, or padding."""
    patches = patches.masked_fill(~new, -1)
    if missing := patches.shape[1] - opened.shape[2]:
        opened = F.pad(opened, (0, max(0, missing)), value=-1)
        patches = F.pad(patches, (0, max(0, -missing)), value=-1)
    rows = torch.arange(len(patches), device=patches.device)
    return opened.index_put((rows, num_steps), patches)

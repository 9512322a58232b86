"""What an episode asks about the captions of its images: how surprising are they by now?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foveate.model import AnyOrderTransformer
from foveate.orders import order_to_rank


def renewed(
    words: Int[Tensor, "B K L"] | None, rows: Bool[Tensor, "B"], new: Int[Tensor, "R *M"] | None
) -> Int[Tensor, "B K L"] | None:
    """Replace the captions of the chosen rows (True = replace).

    Raises:
        ValueError: one of both has captions alone, or they are not as many and equally long.
    """
    if words is None and new is None:
        return None
    several = None if new is None else several_of(new)
    if words is None or several is None or words.shape[1:] != several.shape[1:]:
        told = "no captions" if several is None else _told(several)
        held = "none" if words is None else _told(words)
        raise ValueError(f"new images came with {told}, and the episode has {held}; give words so")
    return words.masked_scatter(rows.view(-1, 1, 1), several)


def several_of(words: Int[Tensor, "B *K"]) -> Int[Tensor, "B K L"]:
    """Return captions of each image, of which there may be one, (B, L), or several, (B, K, L)."""
    return words.unsqueeze(1) if words.ndim == 2 else words


def _told(words: Int[Tensor, "B K L"]) -> str:
    return f"{words.shape[1]} captions of {words.shape[2]} subwords for each"


@dataclass(frozen=True)
class CaptionQuestion:
    """A question about captions of each image, answered when a reward looks, and once."""

    model: AnyOrderTransformer
    images: Float[Tensor, "B C H W"]
    words: Int[Tensor, "B K L"]
    """Captions of each image; -1 = padding."""
    rank: Int[Tensor, "B N"]
    steps: Int[Tensor, "B"]
    """The patches of rank < steps have been seen."""

    @classmethod
    def of(
        cls,
        model: AnyOrderTransformer,
        images: Float[Tensor, "B C H W"],
        words: Int[Tensor, "B K L"] | None,
        order: Int[Tensor, "B T *S"],
        steps: Int[Tensor, "B"],
    ) -> CaptionQuestion | None:
        """Ask about captions after the first steps of a scanpath; of no captions nothing."""
        if words is None:
            return None
        return cls(
            model, images, words, order_to_rank(order, model.num_patches, check=False), steps
        )

    @cached_property
    def nats(self) -> Float[Tensor, "B"]:
        """Mean cross-entropy of the captions' subwords; 0 of an image that has no caption."""
        words = self.words
        with torch.no_grad():
            each = self.model.reader.cross_entropy(
                self.model, self.images, None, words, self.rank, self.steps
            )
        number = (words >= 0).sum((1, 2)).clamp_min(1)
        return each.sum((1, 2)) / number

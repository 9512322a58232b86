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
    words: Int[Tensor, "B L"] | None, rows: Bool[Tensor, "B"], new: Int[Tensor, "R M"] | None
) -> Int[Tensor, "B L"] | None:
    """Replace the captions of the chosen rows (True = replace).

    Raises:
        ValueError: one of both has captions alone, or they are not equally long.
    """
    if words is None and new is None:
        return None
    if words is None or new is None or words.shape[1] != new.shape[1]:
        told = "no captions" if new is None else f"captions of {new.shape[1]} subwords"
        held = "none" if words is None else f"some of {words.shape[1]} subwords"
        raise ValueError(f"new images came with {told}, and the episode has {held}; give words so")
    return words.masked_scatter(rows.unsqueeze(1), new)


@dataclass(frozen=True)
class Asked:
    """A question about a caption of each image, answered when a reward looks, and once."""

    model: AnyOrderTransformer
    images: Float[Tensor, "B C H W"]
    words: Int[Tensor, "B L"]
    """One caption of each image; -1 = padding."""
    rank: Int[Tensor, "B N"]
    steps: Int[Tensor, "B"]
    """The patches of rank < steps have been seen."""

    @classmethod
    def of(
        cls,
        model: AnyOrderTransformer,
        images: Float[Tensor, "B C H W"],
        words: Int[Tensor, "B L"] | None,
        order: Int[Tensor, "B T *S"],
        steps: Int[Tensor, "B"],
    ) -> Asked | None:
        """Ask about captions after the first steps of a scanpath; of no captions nothing."""
        if words is None:
            return None
        return cls(
            model, images, words, order_to_rank(order, model.num_patches, check=False), steps
        )

    @cached_property
    def nats(self) -> Float[Tensor, "B"]:
        """Mean cross-entropy of the caption's subwords; 0 of an image that has no caption."""
        words = self.words.unsqueeze(1)
        with torch.no_grad():
            each = self.model.reader.cross_entropy(
                self.model, self.images, None, words, self.rank, self.steps
            )
        number = (words >= 0).sum((1, 2)).clamp_min(1)
        return each.sum((1, 2)) / number

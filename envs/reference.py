"""Rewards that compare a model with a reference: with its past, or with a copy of other images.

The error of the patches that a fixation opens, as they were predicted before they were seen, is the
difficulty of the question. Its difference to the reference's error tells what is being learned, or
what can be: a difficulty that both share, as that of noise, cancels.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from foveate.model import AnyOrderTransformer
from foveate.model.encoder import take
from foveate.orders import order_to_rank, rank_to_order

ALIKE = (
    *("image_size", "in_chans", "patch_size"),
    *("target", "pixel_units", "feature_dim", "feature_weight"),
)
"""What model and reference have in common, so that their errors are of one unit."""


def reducible(fixation: Any, *, reference: Any) -> Tensor:
    """Error of the opened patches less that of the reference: what can still be learned of them.

    Both predict them from what was seen before, and both are over the model's error of the image
    before the first fixation.

    Reference: the reducible holdout loss of RHO-LOSS (Mindermann et al. 2022, arXiv 2206.07137,
    Eq. 3), there of examples, with a reference that was trained on held-out images. Differs: here
    of patches in their context, chosen by a policy.
    """
    return fixation.decoded - error_of_opened(fixation, reference)


def progress(fixation: Any, *, reference: Any) -> Tensor:
    """Error of the reference on the opened patches less the model's own: what was learned of them.

    The reference is to be an earlier state, such as the average of the weights over time.

    Reference: prediction gain of Graves et al. 2017 (arXiv 1704.03003, Sec. 3.1), there before and
    after one update.
    """
    return -reducible(fixation, reference=reference)


@torch.no_grad()
def error_of_opened(fixation: Any, reference: Any) -> Float[Tensor, "B"]:
    """Error of the opened patches as another model predicts them, from what was seen before.

    It is over the model's own error of the image before the first fixation.

    Raises:
        ValueError: the two do not predict the same of the same patches.
    """
    check_reference(reference, fixation.model)
    num_patches = reference.num_patches
    rank = order_to_rank(fixation.opened, num_patches, check=False)
    num_new = fixation.is_new.sum(1)
    counts = (rank < fixation.opened.shape[1]).sum(1) - num_new
    order = rank_to_order(rank)
    sorted_rank = rank.gather(1, order)
    embedded = reference.embed(fixation.images)
    layers = reference.encode_first(*embedded, order, sorted_rank, int(counts.max()))
    place = fixation.patches.clamp_min(0)
    values = reference.decode(layers, place, counts.unsqueeze(1).expand_as(place)).values
    errors = reference.target.loss(values, take(fixation.targets, place)) * fixation.is_new
    return errors.sum(1) / fixation.initial_error


def check_reference(reference: object, model: AnyOrderTransformer) -> None:
    """Raise ValueError unless a reference predicts the same of the same patches as a model."""
    if not isinstance(reference, AnyOrderTransformer):
        raise ValueError(
            f"reference must be an AnyOrderTransformer, got {type(reference).__name__}; "
            "foveate.load_model reads one from a run folder"
        )
    reference.check_scannable()
    ours, theirs = vars(model.config), vars(reference.config)
    differ = [
        f"{name} {theirs[name]}, not {ours[name]}" for name in ALIKE if theirs[name] != ours[name]
    ]
    if differ:
        raise ValueError(f"the reference has {', '.join(differ)}; give one that predicts the same")

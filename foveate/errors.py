"""How wrong a prediction of pixels is: the measure of scans, rewards, agents and error curves."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor


def unseen_error(
    predicted: Float[Tensor, "*#B Q P"],
    targets: Float[Tensor, "*#B Q P"],
    unseen: Bool[Tensor, "*#B Q"],
) -> Float[Tensor, "*B Q"]:
    """Mean squared error of each patch that is still unseen; 0 for the others.

    Its sum over patches is the error of a canvas that shows true pixels where a scan has been, and
    the prediction elsewhere.

    Args:
        predicted: normalized pixels.
        targets: what they are.
        unseen: True = counts.
    """
    return (predicted - targets).square().mean(-1) * unseen

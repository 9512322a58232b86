"""How wrong a prediction is: the measure of scans, rewards, agents and error curves."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from foveate.targets import Target


def unseen_error(
    target: Target,
    values: Float[Tensor, "*#B Q T"],
    targets: Float[Tensor, "*#B Q T"],
    unseen: Bool[Tensor, "*#B Q"],
) -> Float[Tensor, "*B Q"]:
    """Loss of each patch that is still unseen; 0 for the others.

    Of raw pixels it is the mean squared error, whose sum over patches is the error of a canvas that
    shows true pixels where a scan has been, and the prediction elsewhere.

    Args:
        target: what is predicted; its loss is the error.
        values: predicted, such as normalized pixels.
        targets: what they are.
        unseen: True = counts.
    """
    return target.loss(values, targets) * unseen

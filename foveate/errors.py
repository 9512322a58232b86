"""How wrong a prediction is: the measure of scans, rewards, agents and error curves."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foveate.targets import Target

LEAST_LOG_ERROR = -8.0
"""What an expected error counts as at least, as a logarithm: below it, errors are alike."""


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


def expected_error_loss(
    error: Float[Tensor, "B Q"], log_error: Float[Tensor, "B Q"]
) -> Float[Tensor, "B Q"]:
    """Return ``e * exp(-s) + s``, smallest at s = log E[e]: an exponential likelihood.

    Below -8 the expected error s counts as -8, with the gradient there, and errors as at least its
    exponential. So a prediction that is far too sure is put right without a gradient that explodes,
    and one of an error next to none is left where it is.

    Args:
        error: e, without gradient.
        log_error: s, the logarithm of the error that is expected.
    """
    is_below = log_error < LEAST_LOG_ERROR
    counted = torch.where(is_below, LEAST_LOG_ERROR + (log_error - log_error.detach()), log_error)
    least = torch.where(is_below, error.clamp_min(math.exp(LEAST_LOG_ERROR)), error)
    return least * (-counted).exp() + counted

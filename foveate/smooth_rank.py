"""How many directions features take, from the values that say how far along each of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

ADDED = 1e-7
"""Added to every share, as in the papers of RankMe and LiDAR."""


def singular_values(features: Float[Tensor, "*B M D"]) -> Float[Tensor, "*B R"]:
    """Return the singular values, R = min(M, D); all are NaN if any feature is not finite.

    There are none of such features, and LAPACK raises.
    """
    if not features.isfinite().all():
        *batch, rows, width = features.shape
        return features.new_full((*batch, min(rows, width)), torch.nan)
    return torch.linalg.svdvals(features)


def smooth_rank(values: Float[Tensor, "*B D"]) -> Float[Tensor, "*B"]:
    """Return ``exp(entropy)`` of the shares of singular values or eigenvalues; 1 if all are 0.

    Reference: RankMe (Garrido et al. 2023, arXiv 2210.02885), Eqs. 2 and 3.

    Args:
        values: those below 0 count as 0; NaN gives NaN.
    """
    positive = values.clamp_min(0)
    total = positive.sum(-1)
    shares = positive / total.unsqueeze(-1) + ADDED
    found = torch.special.entr(shares).sum(-1).exp()
    return found.where(total != 0, 1.0)

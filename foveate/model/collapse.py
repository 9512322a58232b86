"""Signs that features have collapsed: then they can be predicted without seeing anything."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from foveate.smooth_rank import singular_values


def feature_std(features: Float[Tensor, "B N F"]) -> float:
    """Standard deviation of a patch's feature over images, mean over patches and features.

    It is near 0 where all images have the same features, be it one for all patches or one for every
    place.
    """
    return float(features.std(0, correction=0).mean())


def effective_rank(features: Float[Tensor, "B N F"]) -> float:
    """Number of dimensions that features take, 1 to F: ``exp(entropy)`` of ``s / sum(s)``.

    s are the singular values of the features of all patches, their mean over images subtracted at
    every place, as what follows from the place alone tells nothing of an image.

    Reference: RankMe (Garrido et al. 2023, arXiv 2210.02885), Sec. 3. Differs: the subtracted mean,
    and patches instead of images. NaN = a feature is not finite.
    """
    centered = (features - features.mean(0)).flatten(0, 1)
    values = singular_values(centered.double())
    # What rounding leaves of features that do not differ is no direction.
    values = values * (values > 1e-6 * features.double().norm())
    share = values / values.sum().clamp_min(1e-12)
    return float(torch.special.entr(share).sum().exp())

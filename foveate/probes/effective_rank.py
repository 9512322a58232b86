"""Label-free signals of a representation: how many directions its features take.

Published to go along with linear probes where there are no labels; here beside them.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import eigh
from torch import Tensor

from foveate.data import ImageSet
from foveate.devices import device_of
from foveate.model import AnyOrderTransformer
from foveate.probes.features import IMAGES_AT_ONCE, Attention, frozen
from foveate.smooth_rank import singular_values, smooth_rank

WITHIN_ADDED = 1e-4
"""Added to the variance within images along every direction (LiDAR's delta)."""


def rank_me(features: Float[np.ndarray, "M D"]) -> float:
    """Return the number of directions that features take, 1 to D.

    ``exp(entropy)`` of ``s / sum(s) + 1e-7``, s the singular values of the features as they are.

    Reference: RankMe (Garrido et al. 2023, arXiv 2210.02885), Eqs. 2 and 3.
    NaN = a feature is not finite.
    """
    return float(smooth_rank(singular_values(torch.from_numpy(features.astype(np.float64)))))


def lidar(features: Float[np.ndarray, "M V D"]) -> float:
    """Return the number of directions that tell images apart in spite of their views, 1 to D.

    ``exp(entropy)`` of ``w / sum(w) + 1e-7``, w the eigenvalues of the covariance of the images'
    means, in units of that within images, to which 1e-4 is added along every direction.

    Reference: LiDAR (Thilak et al. 2024, arXiv 2312.04000), Sec. 4.

    Args:
        features: of V views of each of M images.

    Raises:
        ValueError: less than two images or views.
    """
    num_images, num_views, width = features.shape
    if min(num_images, num_views) < 2:
        raise ValueError(
            f"LiDAR needs 2 images and 2 views of each, got {num_images} and {num_views}"
        )
    values = features.astype(np.float64)
    means = values.mean(1)
    apart = means - means.mean(0)
    rest = (values - means[:, None]).reshape(-1, width)
    between = apart.T @ apart / (num_images - 1)
    within = rest.T @ rest / (num_images * (num_views - 1)) + WITHIN_ADDED * np.eye(width)
    return float(smooth_rank(torch.from_numpy(eigh(between, within, eigvals_only=True))))


def views_of(
    model: AnyOrderTransformer,
    image_set: ImageSet,
    *,
    num_views: int,
    attention: Attention = "full",
    seed: int = 0,
) -> dict[int, Float[np.ndarray, "M V D"]]:
    """Features of every layer (keys 0..depth-1) of random halves of each image's patches.

    What a model that learns from orders sees of an image, as crops are to one that learns from
    crops. Patch tokens are averaged. With causal attention each patch sees those before it.

    Raises:
        ValueError: the stream is masked: it does not leave patches out.
    """
    if model.config.stream != "causal":
        raise ValueError("views of some patches need a causal stream; this one is masked")
    device = device_of(model)
    generator = torch.Generator().manual_seed(seed)
    length = max(1, model.num_patches // 2)
    parts = []
    with frozen(model):
        for images in image_set.batches(IMAGES_AT_ONCE, device):
            views = [view(model, images, length, attention, generator) for _ in range(num_views)]
            parts.append([torch.stack(each, dim=1).cpu() for each in zip(*views, strict=True)])
    return {layer: torch.cat(rows).numpy() for layer, rows in enumerate(zip(*parts, strict=True))}


def view(
    model: AnyOrderTransformer,
    images: Float[Tensor, "B C H W"],
    length: int,
    attention: Attention,
    generator: torch.Generator,
) -> list[Float[Tensor, "B D"]]:
    """Return the mean patch token after every block of so many random patches of each image."""
    drawn = torch.rand(len(images), model.num_patches, generator=generator).argsort(1)
    order = drawn.to(images.device)
    counts = torch.full((len(images), length), length, device=images.device)
    if attention == "causal":
        counts = torch.arange(1, length + 1, device=images.device).expand(len(images), -1)
    layers = model.encode(images, order, counts, None if attention == "full" else False)
    return [tokens[:, model.num_always :].mean(1) for tokens in layers]

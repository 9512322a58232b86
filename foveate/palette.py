"""Palettes: the colors that stand for all pixels, and the nearest of them."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from threadpoolctl import threadpool_limits
from torch import Tensor

FITTED_PIXELS = 200_000
"""Pixels that a palette is fitted to, at most."""


def fit_palette(
    images: UInt8[Tensor, "M C H W"], num_colors: int, *, seed: int
) -> Float[Tensor, "K C"]:
    """Cluster pixel values into at most ``num_colors`` colors, in [0, 1].

    Where the pixels hold fewer different values (gray images), the palette is all of them, again
    and again: what names entries at random, as smoothed labels do, then prefers hardly any color.

    Reference: iGPT (Chen et al. 2020), Sec. 3.2: k-means of RGB values, k = 512.
    """
    from sklearn.cluster import MiniBatchKMeans  # Two seconds, which other targets need not wait.

    pixels = images.permute(0, 2, 3, 1).flatten(0, 2)
    if len(pixels) > FITTED_PIXELS:
        generator = torch.Generator().manual_seed(seed)
        pixels = pixels[torch.randint(len(pixels), (FITTED_PIXELS,), generator=generator)]
    different = pixels.unique(dim=0)
    if len(different) <= num_colors:
        centers = different.float() / 255
        return centers[torch.arange(num_colors) % len(centers)]
    clusters = MiniBatchKMeans(num_colors, random_state=seed, n_init=1, batch_size=4096)
    with threadpool_limits(1):  # On busy cores several BLAS threads wait for one another.
        clusters.fit(pixels.numpy().astype(np.float32) / 255)
    return torch.from_numpy(np.asarray(clusters.cluster_centers_, dtype=np.float32))


def nearest_color(
    pixels: Float[Tensor, "*B C"], palette: Float[Tensor, "K C"]
) -> Int[Tensor, "*B"]:
    """Number of the palette's nearest entry; of equal ones, the first."""
    return (
        torch.cdist(pixels.reshape(-1, pixels.shape[-1]), palette)
        .argmin(-1)
        .view(pixels.shape[:-1])
    )

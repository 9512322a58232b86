"""What a model predicts of a patch, and how wrong a prediction is.

Every loss is a map over patches, (B, Q), so that it can be masked, weighted, or turned into
a reward.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from threadpoolctl import threadpool_limits
from torch import Tensor


def normalize_patches(patches: Float[Tensor, "B N P"]) -> Float[Tensor, "B N P"]:
    """Subtract each patch's mean and divide by its deviation: ``(x - mean) / sqrt(var + 1e-6)``.

    Flat patches become amplified noise: a loss for training, never a reward.

    Reference: MAE (He et al. 2022, arXiv 2111.06377), Sec. 4.1.
    """
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def blur(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Smooth with a 9 x 9 Gaussian of deviation 1 pixel, zeros around.

    Reference: SAIM (Qi et al. 2023, arXiv 2212.01610), qiy20/SAIM models_saim.py.
    """
    # kornia takes seconds to import, which other targets need not wait for.
    from kornia.filters import gaussian_blur2d

    return gaussian_blur2d(images, (9, 9), (1.0, 1.0), border_type="constant")


def fit_palette(
    images: UInt8[Tensor, "M C H W"], num_colors: int, *, seed: int, max_pixels: int = 200_000
) -> Float[Tensor, "K C"]:
    """Cluster pixel values into at most ``num_colors`` colors, in [0, 1].

    Where the pixels hold fewer different values (gray images), the palette is all of them, filled
    up by repeating its last.

    Reference: iGPT (Chen et al. 2020), Sec. 3.2: k-means of RGB values, k = 512.
    """
    from sklearn.cluster import MiniBatchKMeans  # Two seconds, which other targets need not wait.

    pixels = images.permute(0, 2, 3, 1).flatten(0, 2)
    if len(pixels) > max_pixels:
        generator = torch.Generator().manual_seed(seed)
        pixels = pixels[torch.randint(len(pixels), (max_pixels,), generator=generator)]
    different = pixels.unique(dim=0)
    if len(different) <= num_colors:
        centers = different.float() / 255
        return torch.cat([centers, centers[-1:].expand(num_colors - len(centers), -1)])
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


def squared_error(
    values: Float[Tensor, "B Q T"], targets: Float[Tensor, "B Q T"]
) -> Float[Tensor, "B Q"]:
    """Mean squared error of each patch."""
    return (values - targets).square().mean(-1)


def cosine_error(
    values: Float[Tensor, "B Q T"], targets: Float[Tensor, "B Q T"]
) -> Float[Tensor, "B Q"]:
    """``2 - 2 cos``: the squared distance of the directions.

    Reference: D-iGPT (Ren et al. 2024, arXiv 2312.02147), OliverRensu/D-iGPT models_digpt.py.
    """
    return 2 - 2 * F.cosine_similarity(values, targets, dim=-1)


def color_error(
    logits: Float[Tensor, "B Q T"], colors: Int[Tensor, "B Q S"], label_smoothing: float
) -> Float[Tensor, "B Q"]:
    """Cross-entropy of each patch, nats, mean over its S pixels; T = S x colors."""
    scores = logits.unflatten(-1, (colors.shape[-1], -1))
    error = F.cross_entropy(
        scores.flatten(0, 2), colors.flatten(), reduction="none", label_smoothing=label_smoothing
    )
    return error.view(colors.shape).mean(-1)

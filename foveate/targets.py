"""Targets: what a model predicts of a patch, and how wrong a prediction is.

A target is found by its name in TARGETS, or is a class of your own, ``MODULE:NAME``. Every loss is
a map over patches, (B, Q), so that it can be masked, weighted, or turned into a reward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num, UInt8
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from foveate.choices import blaming, lookup
from foveate.config import ModelConfig
from foveate.patches import PixelScale, patchify


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


class Target(nn.Module, ABC):
    """What a model predicts of every patch of an image.

    A target of your own is a subclass that says :meth:`of`; the rest has defaults: as many values
    as a patch has pixel values, and their squared error. It is made from the model's config. Its
    buffers and parameters move, and are saved, with the model.

    Example::

        class Edges(Target):
            def of(self, images):
                return self.patchify(kornia.filters.sobel(images))
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.pixel_scale = PixelScale(config.pixel_units, config.in_chans)

    @property
    def dim(self) -> int:
        """Values predicted per patch, T."""
        return self.config.patch_dim

    @abstractmethod
    def of(self, images: Float[Tensor, "B C H W"]) -> Num[Tensor, "B N S"]:
        """Return what is to be predicted of every patch of images in [0, 1], in raster order.

        S is T unless the loss compares different things, such as logits and numbers of colors.
        """

    def loss(
        self, values: Float[Tensor, "B Q T"], targets: Num[Tensor, "B Q S"]
    ) -> Float[Tensor, "B Q"]:
        """Return the loss of each patch; by default the mean squared error."""
        return (values - targets).square().mean(-1)

    def patchify(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N P"]:
        """Cut images, or maps of their size, into the patches of the model."""
        return patchify(images, self.config.patch_size)

    def normalize(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Scale images in [0, 1] to the units of the model."""
        return self.pixel_scale.normalize(images)


class Pixels(Target):
    """Raw pixels, in the units of the model."""

    def of(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N T"]:
        """Return the normalized pixels of every patch."""
        return self.patchify(self.normalize(images))


class PatchNorm(Target):
    """Pixels normalized per patch."""

    def of(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N T"]:
        """Return the pixels of every patch, their mean 0 and deviation 1."""
        return normalize_patches(self.patchify(self.normalize(images)))


class Blurred(Target):
    """Pixels of a blurred image, normalized per patch."""

    def of(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N T"]:
        """Return the blurred pixels of every patch, their mean 0 and deviation 1."""
        return normalize_patches(self.patchify(blur(self.normalize(images))))


class Colors(Target):
    """The palette entry of every pixel."""

    palette: Float[Tensor, "K C"]
    """Colors in [0, 1]; NaN until a palette is fitted and copied here."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        palette = torch.full((config.num_colors, config.in_chans), torch.nan)
        self.register_buffer("palette", palette)
        self._looked_at: tuple[int, int] | None = None

    @property
    def dim(self) -> int:
        """One logit per pixel and color."""
        return self.config.patch_size**2 * self.config.num_colors

    def of(self, images: Float[Tensor, "B C H W"]) -> Int[Tensor, "B N S"]:
        """Return the number of the nearest palette entry of each of the S pixels of every patch.

        Raises:
            ValueError: no palette has been fitted.
        """
        self._check_palette()
        pixels = self.patchify(images).unflatten(-1, (-1, self.config.in_chans))
        return nearest_color(pixels, self.palette)

    def loss(
        self, values: Float[Tensor, "B Q T"], targets: Int[Tensor, "B Q S"]
    ) -> Float[Tensor, "B Q"]:
        """Return the cross-entropy of each patch, nats, mean over its S pixels."""
        scores = values.unflatten(-1, (targets.shape[-1], -1))
        error = F.cross_entropy(
            scores.flatten(0, 2),
            targets.flatten(),
            reduction="none",
            label_smoothing=self.config.label_smoothing,
        )
        return error.view(targets.shape).mean(-1)

    def _check_palette(self) -> None:
        """Look for NaN, once per palette: a look waits for the device."""
        written = self.palette.data_ptr(), self.palette._version
        if written == self._looked_at:
            return
        if bool(self.palette.isnan().any()):
            raise ValueError(
                "the model has no palette yet; fit one with foveate.targets.fit_palette "
                "and copy it to model.palette"
            )
        self._looked_at = written


class Features(Target):
    """Features that are given with the images, as those of a teacher."""

    @property
    def dim(self) -> int:
        """Width of the given features."""
        assert self.config.feature_dim is not None, "ModelConfig requires it"
        return self.config.feature_dim

    def of(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N T"]:
        """Refuse: features do not follow from the images alone.

        Raises:
            ValueError: always.
        """
        raise ValueError("target='features' needs features: model(images, rank, features=...)")

    def loss(
        self, values: Float[Tensor, "B Q T"], targets: Float[Tensor, "B Q T"]
    ) -> Float[Tensor, "B Q"]:
        """Return ``2 - 2 cos`` of each patch: the squared distance of the directions.

        Reference: D-iGPT (Ren et al. 2024, arXiv 2312.02147), OliverRensu/D-iGPT models_digpt.py.
        """
        return 2 - 2 * F.cosine_similarity(values, targets, dim=-1)


TARGETS: dict[str, type[Target]] = {
    "pixels": Pixels,
    "patch_norm": PatchNorm,
    "blurred": Blurred,
    "colors": Colors,
    "features": Features,
}
"""Targets by name; the names stand in ``foveate.config`` as well, which imports no torch."""


def make_target(config: ModelConfig) -> Target:
    """Make the target that a config names.

    Raises:
        ValueError: there is no such target, or it has no width.
    """
    kind = lookup("target", config.target, TARGETS, subclass_of=Target)
    with blaming("target", config.target):
        target = kind(config)
    if not isinstance(target.dim, int) or target.dim < 1:
        raise ValueError(
            f"target {config.target!r} must have a dim of at least 1 value, got {target.dim!r}"
        )
    return target


def move_palette(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Rename the palette of a checkpoint from before targets were modules of their own."""
    if f"{prefix}palette" in state:
        state[f"{prefix}target.palette"] = state.pop(f"{prefix}palette")

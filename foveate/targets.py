"""Targets: what a model predicts of a patch, and how wrong a prediction is.

A target is found by its name in TARGETS, or is a class of your own, ``MODULE:NAME``. Every loss is
a map over patches, (B, Q), so that it can be masked, weighted, or turned into a reward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from foveate.choices import blaming, lookup
from foveate.config import ModelConfig
from foveate.palette import nearest_color
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
    # kornia takes most of a second to import, which other targets need not wait for.
    from kornia.filters import gaussian_blur2d

    return gaussian_blur2d(images, (9, 9), (1.0, 1.0), border_type="constant")


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
        self, values: Float[Tensor, "*#B Q T"], targets: Num[Tensor, "*#B Q S"]
    ) -> Float[Tensor, "*B Q"]:
        """Return the loss of each patch; by default the mean squared error."""
        return (values - targets).square().mean(-1)

    def pixels_in(self, values: Float[Tensor, "*B T"]) -> Float[Tensor, "*B P"] | None:
        """Return the raw pixels among predicted values, in the model's units; None = none."""
        return None

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

    def pixels_in(self, values: Float[Tensor, "*B T"]) -> Float[Tensor, "*B P"]:
        """Return the values, which are pixels."""
        return values


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
        self._looked_at: tuple[int, int | None] | None = None

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
        # What is made in inference mode counts no versions.
        version = None if self.palette.is_inference() else self.palette._version
        if version is not None and (self.palette.data_ptr(), version) == self._looked_at:
            return
        if bool(self.palette.isnan().any()):
            raise ValueError(
                "the model has no palette yet; fit one with foveate.palette.fit_palette "
                "and copy it to model.palette"
            )
        self._looked_at = self.palette.data_ptr(), version


class FeatureSource(Protocol):
    """What a target asks of a teacher (``foveate.model.teachers``)."""

    def of_each(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N F"]:
        """Return a feature of every patch, which depends on no other image of the batch."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""


class Features(Target):
    """Features of a teacher, or such as are given with the images."""

    teacher: FeatureSource | None = None
    """Whose features are meant; set by ``foveate.model.teachers.attach_teacher``. It is no part of
    the model, whose weights and state are the same with and without it."""

    @property
    def dim(self) -> int:
        """Width of the features."""
        assert self.config.feature_dim is not None, "ModelConfig requires it"
        return self.config.feature_dim

    def of(
        self, images: Float[Tensor, "B C H W"], features: Float[Tensor, "B N F"] | None = None
    ) -> Float[Tensor, "B N T"]:
        """Return the features that are given, or those of the teacher.

        Raises:
            ValueError: none are given, and there is no teacher.
        """
        if features is not None:
            return features
        if self.teacher is None:
            raise ValueError(
                f"target={self.config.target!r} needs features, and this model has no teacher "
                "(timm's are in no checkpoint): attach_teacher(model, make_teacher(NAME, model)), "
                "of foveate.model.teachers, or take experiments.runs.load_run(FOLDER).model"
            )
        return self.teacher.of_each(images)

    def loss(
        self, values: Float[Tensor, "*#B Q T"], targets: Float[Tensor, "*#B Q T"]
    ) -> Float[Tensor, "*B Q"]:
        """Return ``2 - 2 cos`` of each patch: the squared distance of the directions.

        Reference: D-iGPT (Ren et al. 2024, arXiv 2312.02147), OliverRensu/D-iGPT models_digpt.py.
        """
        return 2 - 2 * F.cosine_similarity(values, targets, dim=-1)


class PixelsAndFeatures(Features):
    """Raw pixels, in the units of the model, then features.

    The loss is ``mean((x - y)^2) + feature_weight * (2 - 2 cos)``.
    """

    @property
    def dim(self) -> int:
        """Pixel values of a patch and width of the features."""
        return self.config.patch_dim + super().dim

    def of(
        self, images: Float[Tensor, "B C H W"], features: Float[Tensor, "B N F"] | None = None
    ) -> Float[Tensor, "B N T"]:
        """Return normalized pixels, and the features that are given or the teacher's."""
        pixels = self.patchify(self.normalize(images))
        return torch.cat([pixels, super().of(images, features)], dim=-1)

    def loss(
        self, values: Float[Tensor, "*#B Q T"], targets: Float[Tensor, "*#B Q T"]
    ) -> Float[Tensor, "*B Q"]:
        """Return the sum of both parts."""
        parts = self.parts(values, targets)
        return parts["pixels"] + parts["features"]

    def parts(
        self, values: Float[Tensor, "*#B Q T"], targets: Float[Tensor, "*#B Q T"]
    ) -> dict[str, Float[Tensor, "*B Q"]]:
        """Return the squared error of ``pixels``, and the weighted distance of ``features``."""
        first = self.config.patch_dim
        distance = super().loss(values[..., first:], targets[..., first:])
        return {
            "pixels": Target.loss(self, values[..., :first], targets[..., :first]),
            "features": self.config.feature_weight * distance,
        }

    def pixels_in(self, values: Float[Tensor, "*B T"]) -> Float[Tensor, "*B P"]:
        """Return the first values, which are pixels."""
        return values[..., : self.config.patch_dim]


TARGETS: dict[str, type[Target]] = {
    "pixels": Pixels,
    "patch_norm": PatchNorm,
    "blurred": Blurred,
    "colors": Colors,
    "features": Features,
    "pixels_features": PixelsAndFeatures,
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

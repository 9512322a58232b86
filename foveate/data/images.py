"""A split of a data set as uint8 tensors in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, UInt8
from torch import Tensor

from foveate.choices import told
from foveate.data.splits import Fingerprint
from foveate.devices import send
from foveate.finite import is_whole
from foveate.sampling import seeded


@dataclass(frozen=True)
class ImageSet:
    """One split of a data set, whole in memory.

    Images are uint8; floats in [0, 1] of any precision become so, to the nearest 255th.
    Images and labels may be NumPy arrays. Labels may be of any integer type, and become int64.

    Raises:
        ValueError: No images, images of another shape or type, float pixels outside [0, 1] or NaN;
            labels or captions that are not one for each image, or labels that are no integers,
            less than -1, beyond int64, or without a name among ``class_names`` where there are
            some; two classes of one name.
    """

    images: UInt8[Tensor, "M C H W"]
    labels: Int64[Tensor, " M"]
    """Class of each image; -1 where the set does not say."""
    class_names: tuple[str, ...]
    """Name of each label; empty for a set without labels."""
    name: str
    captions: tuple[tuple[str, ...], ...] | None = None
    """Sentences about each image, any number of them; None for a set without captions."""
    boxes_px: Int64[Tensor, "M 4"] | None = None
    """Top, left, height and width of each image's object; None where the set does not say."""
    fingerprints: Mapping[str, Fingerprint] | None = None
    """Of train, val and test of the data set that the images come from; None: not known."""
    columns: tuple[str, ...] = ()
    """All columns of the table that the images come from; empty where it is none."""
    __no_type_check__ = True
    """The tests' type checker leaves the constructor alone, which takes more than a field holds."""

    def __post_init__(self) -> None:
        # As ``replace`` does: the class is frozen once it is made.
        object.__setattr__(self, "images", _pixels(self.images, self.name))
        object.__setattr__(self, "labels", _labels(self.labels, self))
        if len(set(self.class_names)) < len(self.class_names):
            twice = next(name for name in self.class_names if self.class_names.count(name) > 1)
            raise ValueError(
                f"{self.name} has the class name {twice!r} twice; give every class its own"
            )
        for what, given in (("captions", self.captions), ("boxes", self.boxes_px)):
            if given is not None and len(given) != len(self.images):
                raise ValueError(
                    f"{self.name} has {len(given)} {what} for {len(self.images)} images; give "
                    "every image its own (captions: a tuple of sentences, which may be empty)"
                )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def batch(
        self, index: Int[Tensor, " B"], device: torch.device | str | None = None
    ) -> Float[Tensor, "B C H W"]:
        """Return the chosen images in [0, 1], on ``device`` (None: where the set lies)."""
        chosen = self.images[send(index, self.images.device)]
        return send(chosen, device or self.images.device).float() / 255

    def batches(
        self, at_once: int, device: torch.device | str | None = None
    ) -> Iterator[Float[Tensor, "B C H W"]]:
        """Yield all images in turn, so many at once, as :meth:`batch` returns them."""
        for index in torch.arange(len(self)).split(at_once):
            yield self.batch(index, device)

    def subset(self, limit: int) -> ImageSet:
        """Return the first ``limit`` images, or all if there are fewer.

        Raises:
            ValueError: limit is no whole number of at least 1.
        """
        check_limit(limit)
        return self.take(torch.arange(min(limit, len(self))))

    def take(self, index: Int[Tensor, " K"]) -> ImageSet:
        """Return the images at ``index``, with all that is known of them."""
        here = index.to(self.images.device)
        chosen = index.tolist()
        return replace(
            self,
            images=self.images[here],
            labels=self.labels[here],
            captions=self.captions and tuple(self.captions[number] for number in chosen),
            boxes_px=None if self.boxes_px is None else self.boxes_px[here],
        )

    def to(self, device: torch.device | str) -> ImageSet:
        """Return the set with its tensors on ``device``."""
        return replace(
            self,
            images=self.images.to(device),
            labels=self.labels.to(device),
            boxes_px=None if self.boxes_px is None else self.boxes_px.to(device),
        )


def _tensor(given: object, what: str) -> Tensor:
    if isinstance(given, np.ndarray) and given.dtype.kind in "biuf" and given.itemsize <= 8:
        # torch knows neither foreign byte orders nor arrays that are read-only.
        native = given.dtype.newbyteorder("=")
        return torch.from_numpy(np.require(given, native, ["C", "W"]))
    if isinstance(given, Tensor):
        return given.detach()
    kind = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else type(given).__name__
    raise ValueError(f"{what} must be a tensor or an array of numbers, got {kind}")


def check_limit(limit: object) -> None:
    """Raise ValueError unless so many images may be asked for: a whole number of at least 1."""
    if not is_whole(limit) or limit < 1:
        raise ValueError(f"limit must be at least 1 image, got {told(limit)}")


def _pixels(given: object, name: str) -> UInt8[Tensor, "M C H W"]:
    """Return images as uint8; see :class:`ImageSet`."""
    images = _tensor(given, f"the images of {name}")
    shape = tuple(images.shape)
    if len(shape) != 4 or 0 in shape:
        raise ValueError(
            f"the images of {name} must be of shape (images, channels, height, width), "
            f"none of them 0, got {shape}"
        )
    if shape[1] > 4 and shape[3] <= 4:
        raise ValueError(
            f"the images of {name} have their channels last, shape {shape}; "
            "give images.permute(0, 3, 1, 2), or for an array images.transpose(0, 3, 1, 2)"
        )
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise ValueError(
            f"the images of {name} must be uint8 in 0..255 or floats in [0, 1], got "
            f"{images.dtype}; convert them"
        )
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):  # NaN is neither.
        raise ValueError(
            f"the float images of {name} must lie in [0, 1], got pixels from {low:g} to {high:g}; "
            "divide 0..255 by 255, or convert it to uint8, and replace what is not a number"
        )
    return (images.float() * 255).round().to(torch.uint8)


def _labels(given: object, images: ImageSet) -> Int64[Tensor, " M"]:
    """Return labels as int64; see :class:`ImageSet`."""
    name = images.name
    labels = _tensor(given, f"the labels of {name}")
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise ValueError(f"the labels of {name} must be integers, got {labels.dtype}; convert them")
    if tuple(labels.shape) != (len(images.images),):
        raise ValueError(
            f"{name} has labels of shape {tuple(labels.shape)} for {len(images.images)} images; "
            "give every image one, -1 where its class is not known"
        )
    unsigned, labels = labels.dtype == torch.uint64, labels.to(torch.int64)
    if unsigned and bool((labels < 0).any()):
        raise ValueError(f"{name} has labels beyond int64; number its classes from 0")
    # A device is not asked: that would wait for it every time the set is moved there.
    if labels.device.type == "cpu":
        low, high = int(labels.min()), int(labels.max())
        if low < -1 or (images.class_names and high >= len(images.class_names)):
            raise ValueError(
                f"{name} has labels from {low} to {high} and {len(images.class_names)} class "
                "names; a label is the number of its class, from 0, or -1 where it is not known"
            )
    return labels


def augment(
    images: Float[Tensor, "B C H W"],
    *,
    generator: torch.Generator,
    shift_px: int = 4,
    crop_scale: float | None = None,
    color_jitter: float = 0.0,
) -> Float[Tensor, "B C H W"]:
    """Mirror half of the images, move or crop each, and change its colors if asked to.

    The same generator state gives the same result; torch's global random state is left as it was.

    Args:
        images: of any range; in [0, 1] where colors change.
        generator: on the CPU.
        shift_px: each image is shifted by up to so many pixels, edges reflected.
        crop_scale: least share of the area, in (0, 1]. A random rectangle of this share to all of
            the area and of 3/4 to 4/3 as wide as high is made as large as the image, instead of a
            shift (Szegedy et al. 2015, arXiv 1409.4842, Sec. 6). None = shifts.
        color_jitter: brightness, contrast and, of three channels, saturation are multiplied by
            1 - color_jitter to 1 + color_jitter, each drawn for each image. Hue stays, so that red
            remains what a caption calls red. 0 = colors stay.

    Raises:
        ValueError: shift_px is negative or not smaller than the image, crop_scale not in (0, 1],
            or color_jitter not in [0, 1).
    """
    # kornia takes most of a second to import, which images as they are need not wait for.
    import kornia.augmentation as K

    height, width = images.shape[-2:]
    if not 0 <= shift_px < min(height, width):
        raise ValueError(f"shift_px must lie in 0..{min(height, width) - 1}, got {shift_px}")
    if crop_scale is None:
        move = K.RandomCrop((height, width), padding=shift_px, padding_mode="reflect")
    elif 0 < crop_scale <= 1:
        move = K.RandomResizedCrop((height, width), scale=(crop_scale, 1.0))
    else:
        raise ValueError(f"crop_scale must lie in (0, 1], got {crop_scale:g}")
    if not 0 <= color_jitter < 1:
        raise ValueError(f"color_jitter must lie in [0, 1), got {color_jitter:g}")
    pipeline = torch.nn.Sequential(K.RandomHorizontalFlip(p=0.5), move)
    if color_jitter > 0:
        saturation = color_jitter if images.shape[1] == 3 else 0.0
        pipeline.append(K.ColorJitter(color_jitter, color_jitter, saturation, p=1.0))
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    # kornia draws from the global CPU generator whatever the images' device.
    return seeded(lambda: pipeline(images), seed)

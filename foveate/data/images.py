"""A split of a data set as uint8 tensors in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Int64, UInt8
from torch import Tensor

from foveate.data.splits import Fingerprint


@dataclass(frozen=True)
class ImageSet:
    """One split of a data set, whole in memory."""

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
    """Of all splits of the data set; None of computed images."""

    def __post_init__(self) -> None:
        if self.captions is not None and len(self.captions) != len(self.images):
            raise ValueError(
                f"{self.name} has {len(self.captions)} captions for {len(self.images)} images; "
                "give every image a tuple of sentences, which may be empty"
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
        chosen = self.images[index.to(self.images.device)]
        return chosen.to(device or self.images.device).float() / 255

    def subset(self, limit: int) -> ImageSet:
        """Return the first ``limit`` images, or all if there are fewer.

        Raises:
            ValueError: limit is less than 1.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1 image, got {limit}")
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


def augment(
    images: Float[Tensor, "B C H W"], *, generator: torch.Generator, shift_px: int = 4
) -> Float[Tensor, "B C H W"]:
    """Mirror half of the images and shift each by up to ``shift_px`` pixels, edges reflected.

    The same generator state gives the same result; torch's global random state is left as it was.

    Raises:
        ValueError: shift_px is negative or not smaller than the image.
    """
    # kornia takes seconds to import, which --help and evaluation need not wait for.
    import kornia.augmentation as K

    height, width = images.shape[-2:]
    if not 0 <= shift_px < min(height, width):
        raise ValueError(f"shift_px must lie in 0..{min(height, width) - 1}, got {shift_px}")
    pipeline = torch.nn.Sequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomCrop((height, width), padding=shift_px, padding_mode="reflect"),
    )
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    # kornia draws from the global CPU generator whatever the images' device.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        augmented: Tensor = pipeline(images)
    return augmented

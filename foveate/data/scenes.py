"""The embedded world: a real object at a random place on a calm crop of a real photograph.

Most patches are easy to guess and a few are not, and where those few lie differs from image to
image: a world in which looking matters. Objects come from Fashion-MNIST (MIT, in ``assets``),
texture from photographs that scikit-image carries (CC0 or public domain); nothing is downloaded.
In color the same objects lie at the same places on the same crops; their hues are random.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from foveate.choices import check_choice
from foveate.data.backgrounds import Backgrounds

SPLITS = ("train", "val", "test")
NUM_SCENES = {"train": 12_000, "val": 2_000, "test": 2_000}
"""Default number of scenes per split."""

_VAL_PER_CLASS = 50
_AT_ONCE_BYTES = 2**26
"""Of pixels that are composed at once, in float32."""
# Chosen by eye on a contact sheet, beside the levels in ``backgrounds``: these stay below.
_OBJECT_LEVEL = (0.40, 1.0)
_OPAQUE_FROM = 0.12
_SATURATION = 0.6
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")


@dataclass(frozen=True)
class Scenes:
    """Scenes with what is in them and where."""

    images: UInt8[Tensor, "M C H W"]
    labels: Int64[Tensor, " M"]
    corner_px: Int64[Tensor, "M 2"]
    """Row and column of the object box's top-left pixel."""
    class_names: tuple[str, ...]
    object_px: int
    """Height and width of the object boxes."""

    def sentences(self) -> list[str]:
        """Say of each scene what is in it and in which third of its height and width."""
        size_px = self.images.shape[-1]
        thirds = ((self.corner_px + self.object_px / 2) * 3 / size_px).long().tolist()
        return [
            f"a {self.class_names[label].lower()} at the {_ROWS[row]} {_COLUMNS[col]}"
            for label, (row, col) in zip(self.labels.tolist(), thirds, strict=True)
        ]


def object_size_px(size_px: int) -> int:
    """Side of the object's box in the default scenes of a size, pixels."""
    return max(1, round(size_px * 14 / 32))


def default_scenes(split: str, size_px: int, *, in_color: bool = False) -> Scenes:
    """Compose ``--data scenes``, or ``scenes_rgb``, at a size; the object scales with them."""
    number, object_px = NUM_SCENES[split], object_size_px(size_px)
    return compose_scenes(split, number, size_px=size_px, object_px=object_px, in_color=in_color)


def compose_scenes(
    split: str,
    num_scenes: int,
    *,
    size_px: int = 32,
    object_px: int = 14,
    seed: int = 0,
    in_color: bool = False,
) -> Scenes:
    """Compose scenes of one object each; the same arguments give the same scenes.

    The three splits share neither objects nor photo regions. Objects are used equally often (give
    or take one), each time at a new place on a new background; classes take turns, so that any
    prefix is class-balanced.

    Args:
        split: train, val or test: which objects and photo regions to draw from.
        num_scenes: How many scenes; there are 4,500 train, 500 val and 1,000 test objects to share.
        size_px: Height and width of a scene.
        object_px: Height and width of the object's box, which lies fully inside the scene.
        seed: Seed of places, backgrounds, hues and the turn of the objects.
        in_color: Whether scenes have three channels. The class says nothing of the hue.

    Raises:
        ValueError: An unknown split, no scenes to compose, or a size that does not fit.
    """
    check_choice("split", split, SPLITS)
    if num_scenes < 1:
        raise ValueError(f"num_scenes must be at least 1, got {num_scenes}")
    if not 1 <= object_px <= size_px:
        raise ValueError(f"object_px must lie in 1..size_px ({size_px}), got {object_px}")
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    objects, labels, class_names = _objects(split)
    turns = np.concatenate([_take_turns(labels, rng) for _ in range(-(-num_scenes // len(labels)))])
    turns = turns[:num_scenes]
    corner_px = rng.integers(0, size_px - object_px, (num_scenes, 2), endpoint=True)
    backgrounds = Backgrounds.drawn(split, num_scenes, size_px, rng, in_color)
    tints = _tints(num_scenes, rng) if in_color else np.ones((num_scenes, 1), np.float32)
    value, opacity = _resized(objects, object_px)
    images = np.empty((num_scenes, tints.shape[1], size_px, size_px), np.uint8)
    at_once = max(1, _AT_ONCE_BYTES // (4 * images[0].size))
    for first in range(0, num_scenes, at_once):
        these = slice(first, first + at_once)
        scenes = backgrounds.crops(these)
        which = turns[these]
        _put_in_front(scenes, value[which], opacity[which], tints[these], corner_px[these])
        images[these] = np.rint(scenes * 255).clip(0, 255)
    return Scenes(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels[turns]),
        corner_px=torch.from_numpy(corner_px),
        class_names=class_names,
        object_px=object_px,
    )


def _put_in_front(
    scenes: np.ndarray,
    value: np.ndarray,
    opacity: np.ndarray,
    tints: np.ndarray,
    corner_px: np.ndarray,
) -> None:
    """Put an object of its own, (M, S, S), into each scene, (M, C, H, W), in place.

    Tints are (M, C), and corners (M, 2): row and column of the object's first pixel.
    """
    offsets = np.arange(value.shape[1])
    rows = (corner_px[:, :1] + offsets)[:, :, None]
    columns = (corner_px[:, 1:] + offsets)[:, None, :]
    scene = np.arange(len(scenes))[:, None, None]
    for channel, tint in enumerate(tints.T):
        behind = scenes[scene, channel, rows, columns]
        front = value * tint[:, None, None]
        scenes[scene, channel, rows, columns] = behind * (1 - opacity) + front


def _objects(split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the split's objects in [0, 1] (M, 28, 28), their labels, and the class names."""
    with np.load(Path(__file__).parent.parent / "assets" / "fashion_mnist_6k.npz") as stored:
        source = "test" if split == "test" else "train"
        pixels, labels = stored[f"x_{source}"], stored[f"y_{source}"].astype(np.int64)
        class_names = tuple(str(name) for name in stored["class_names"])
    if split != "test":
        held_out = turn(labels) < _VAL_PER_CLASS
        chosen = held_out if split == "val" else ~held_out
        pixels, labels = pixels[chosen], labels[chosen]
    return pixels.astype(np.float32) / 255, labels, class_names


def turn(labels: np.ndarray) -> np.ndarray:
    """Return how many earlier entries have the same label."""
    turns = np.empty(len(labels), np.int64)
    order = np.argsort(labels, kind="stable")
    _, begins, number = np.unique(labels[order], return_index=True, return_counts=True)
    turns[order] = np.arange(len(labels)) - np.repeat(begins, number)
    return turns


def _take_turns(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random order of all objects in which the classes take turns."""
    shuffled = rng.permutation(len(labels))
    return shuffled[np.argsort(turn(labels[shuffled]), kind="stable")]


def _tints(number: int, rng: np.random.Generator) -> np.ndarray:
    """Return random hues of full brightness, (M, 3)."""
    from skimage import color

    hue = rng.random(number)
    tones = np.stack([hue, np.full(number, _SATURATION), np.ones(number)], axis=1)
    tints: np.ndarray = color.hsv2rgb(tones).astype(np.float32)
    return tints


def _resized(objects: np.ndarray, object_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Return opacity-weighted values and opacities, (M, object_px, object_px).

    The black around a garment is transparent; values are lifted so that dark garments stand out.
    """
    opacity = np.clip(objects / _OPAQUE_FROM, 0, 1)
    dark, bright = _OBJECT_LEVEL
    value = opacity * (dark + (bright - dark) * objects)
    layers = torch.from_numpy(np.stack([value, opacity], axis=1))
    # Areas shrink without aliasing, but would enlarge to blocks.
    mode = "area" if object_px <= objects.shape[1] else "bilinear"
    resized = torch.nn.functional.interpolate(layers, size=object_px, mode=mode).numpy()
    return resized[:, 0], resized[:, 1]

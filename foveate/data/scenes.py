"""The embedded world: a real object at a random place on a calm crop of a real photograph.

Most patches are easy to guess and a few are not, and where those few lie differs from image to
image: a world in which looking matters. Objects come from Fashion-MNIST (MIT, in ``assets``),
texture from photographs that scikit-image carries (CC0 or public domain); nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

SPLITS = ("train", "val", "test")
NUM_SCENES = {"train": 12_000, "val": 2_000, "test": 2_000}
"""Default number of scenes per split."""

_PHOTOS = ("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "rocket")
_SHRINKS = (2, 3)
_VAL_PER_CLASS = 50
# Chosen by eye on a contact sheet: the background stays darker and flatter than any object.
_BACKGROUND_STD = 0.05
_BACKGROUND_LEVEL = (0.10, 0.32)
_OBJECT_LEVEL = (0.40, 1.0)
_OPAQUE_FROM = 0.12
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")


@dataclass(frozen=True)
class Scenes:
    """Scenes with what is in them and where."""

    images: UInt8[Tensor, "M 1 H W"]
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


def default_scenes(split: str, size_px: int) -> Scenes:
    """Compose the scenes of ``--data scenes`` at a size; the object scales with them."""
    return compose_scenes(
        split, NUM_SCENES[split], size_px=size_px, object_px=object_size_px(size_px)
    )


def compose_scenes(
    split: str,
    num_scenes: int,
    *,
    size_px: int = 32,
    object_px: int = 14,
    seed: int = 0,
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
        seed: Seed of places, backgrounds and the turn of the objects.

    Raises:
        ValueError: An unknown split, no scenes to compose, or a size that does not fit.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if num_scenes < 1:
        raise ValueError(f"num_scenes must be at least 1, got {num_scenes}")
    if not 1 <= object_px <= size_px:
        raise ValueError(f"object_px must lie in 1..size_px ({size_px}), got {object_px}")
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    objects, labels, class_names = _objects(split)
    turns = np.concatenate([_take_turns(labels, rng) for _ in range(-(-num_scenes // len(labels)))])
    turns = turns[:num_scenes]
    corner_px = rng.integers(0, size_px - object_px, (num_scenes, 2), endpoint=True)
    scenes = _backgrounds(split, num_scenes, size_px, rng)
    value, opacity = _shrink(objects, object_px)
    offsets = np.arange(object_px)
    rows = (corner_px[:, :1] + offsets)[:, :, None]
    columns = (corner_px[:, 1:] + offsets)[:, None, :]
    scene = np.arange(num_scenes)[:, None, None]
    behind = scenes[scene, rows, columns]
    scenes[scene, rows, columns] = behind * (1 - opacity[turns]) + value[turns]
    return Scenes(
        images=torch.from_numpy(np.rint(scenes * 255).clip(0, 255).astype(np.uint8)).unsqueeze(1),
        labels=torch.from_numpy(labels[turns]),
        corner_px=torch.from_numpy(corner_px),
        class_names=class_names,
        object_px=object_px,
    )


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
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        turn[labels == label] = np.arange((labels == label).sum())
    return turn


def _take_turns(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random order of all objects in which the classes take turns."""
    shuffled = rng.permutation(len(labels))
    return shuffled[np.argsort(turn(labels[shuffled]), kind="stable")]


def _shrink(objects: np.ndarray, object_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Return opacity-weighted values and opacities, (M, object_px, object_px).

    The black around a garment is transparent; values are lifted so that dark garments stand out.
    """
    opacity = np.clip(objects / _OPAQUE_FROM, 0, 1)
    dark, bright = _OBJECT_LEVEL
    value = opacity * (dark + (bright - dark) * objects)
    layers = torch.from_numpy(np.stack([value, opacity], axis=1))
    shrunk = torch.nn.functional.interpolate(layers, size=object_px, mode="area").numpy()
    return shrunk[:, 0], shrunk[:, 1]


def _regions(split: str) -> list[np.ndarray]:
    """The split's part of each photo, grey: left train, upper right val, lower right test."""
    # scikit-image takes a second to import, which a cached data set need not wait for.
    from skimage import color, data

    regions = []
    for name in _PHOTOS:
        photo = getattr(data, name)()
        grey = color.rgb2gray(photo) if photo.ndim == 3 else photo / 255
        height, width = grey.shape
        middle, right = height // 2, width * 3 // 4
        parts = {
            "train": grey[:, :right],
            "val": grey[:middle, right:],
            "test": grey[middle:, right:],
        }
        regions.append(parts[split].astype(np.float32))
    return regions


def _backgrounds(split: str, num_scenes: int, size_px: int, rng: np.random.Generator) -> np.ndarray:
    """Return random calm crops of the split's photo regions in [0, 1], (M, size_px, size_px)."""
    levels = []
    for region in _regions(split):
        for shrink in _SHRINKS:
            rows, columns = (length // shrink for length in region.shape)
            tiles = region[: rows * shrink, : columns * shrink].reshape(
                rows, shrink, columns, shrink
            )
            if min(rows, columns) >= size_px:
                levels.append(tiles.mean(axis=(1, 3)))
    if not levels:
        raise ValueError(
            f"size_px {size_px} exceeds the photo regions of the {split} split; choose 64 or less"
        )
    chosen = rng.integers(len(levels), size=num_scenes)
    place = rng.random((num_scenes, 2))
    crops = np.empty((num_scenes, size_px, size_px), np.float32)
    for number, level in enumerate(levels):
        here = chosen == number
        windows = np.lib.stride_tricks.sliding_window_view(level, (size_px, size_px))
        top, left = (place[here] * windows.shape[:2]).astype(np.int64).T
        crops[here] = windows[top, left]
    mirrored = rng.random(num_scenes) < 0.5
    crops[mirrored] = crops[mirrored, :, ::-1]
    mean = crops.mean(axis=(1, 2), keepdims=True)
    std = crops.std(axis=(1, 2), keepdims=True)
    # Contrast is only ever reduced: a plain sky must not become amplified noise.
    gain = np.minimum(1, _BACKGROUND_STD / np.maximum(std, 1e-6))
    dark, bright = _BACKGROUND_LEVEL
    calm: np.ndarray = dark + (bright - dark) * mean + gain * (crops - mean)
    return calm

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

SPLITS = ("train", "val", "test")
NUM_SCENES = {"train": 12_000, "val": 2_000, "test": 2_000}
"""Default number of scenes per split."""

_PHOTOS = ("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "rocket")
_SHRINKS = (2, 3)
_FINE_FROM_PX = 65
"""Side from which scenes are cut from the photographs as they are: smaller ones would not fit into
all parts of them."""
_VAL_PER_CLASS = 50
_AT_ONCE_BYTES = 2**26
"""Of pixels that are composed at once, in float32."""
# Chosen by eye on a contact sheet: the background stays darker and flatter than any object.
_BACKGROUND_STD = 0.05
_BACKGROUND_LEVEL = (0.10, 0.32)
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
    offsets = np.arange(object_px)
    images = np.empty((num_scenes, tints.shape[1], size_px, size_px), np.uint8)
    at_once = max(1, _AT_ONCE_BYTES // (4 * images[0].size))
    for first in range(0, num_scenes, at_once):
        these = slice(first, first + at_once)
        scenes = backgrounds.crops(these)
        rows = (corner_px[these, :1] + offsets)[:, :, None]
        columns = (corner_px[these, 1:] + offsets)[:, None, :]
        scene = np.arange(len(scenes))[:, None, None]
        front, clear = value[turns[these]], 1 - opacity[turns[these]]
        for channel, tint in enumerate(tints[these].T):
            behind = scenes[scene, channel, rows, columns]
            tinted = front * tint[:, None, None]
            scenes[scene, channel, rows, columns] = behind * clear + tinted
        images[these] = np.rint(scenes * 255).clip(0, 255)
    return Scenes(
        images=torch.from_numpy(images),
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


def _regions(split: str, in_color: bool) -> list[np.ndarray]:
    """Return the split's part of each photo, (H, W, C): left train, upper right val, lower test."""
    # scikit-image takes a second to import, which a cached data set need not wait for.
    from skimage import color, data

    regions = []
    for name in _PHOTOS:
        photo = getattr(data, name)()
        if in_color:
            toned = (photo if photo.ndim == 3 else photo[..., None].repeat(3, axis=2)) / 255
        else:
            toned = (color.rgb2gray(photo) if photo.ndim == 3 else photo / 255)[..., None]
        height, width, _ = toned.shape
        middle, right = height // 2, width * 3 // 4
        parts = {
            "train": toned[:, :right],
            "val": toned[:middle, right:],
            "test": toned[middle:, right:],
        }
        regions.append(parts[split].astype(np.float32))
    return regions


@dataclass(frozen=True)
class Backgrounds:
    """Random calm crops of photo regions, drawn at once and cut when they are asked for."""

    levels: list[np.ndarray]
    """Photo regions in [0, 1], (H, W, C), as they are or shrunk."""
    size_px: int
    chosen: np.ndarray
    """Level of each crop, (M,)."""
    place: np.ndarray
    """Row and column as shares of those that the level has, (M, 2)."""
    mirrored: np.ndarray
    """Whether left and right change places, (M,)."""

    @classmethod
    def drawn(
        cls, split: str, num_scenes: int, size_px: int, rng: np.random.Generator, in_color: bool
    ) -> Backgrounds:
        """Draw crops of a split's photo regions.

        Raises:
            ValueError: the size does not fit into any.
        """
        levels, regions = [], _regions(split, in_color)
        for region in regions:
            for shrink in _SHRINKS if size_px < _FINE_FROM_PX else (1,):
                rows, columns = (length // shrink for length in region.shape[:2])
                tiles = region[: rows * shrink, : columns * shrink].reshape(
                    rows, shrink, columns, shrink, -1
                )
                if min(rows, columns) >= size_px:
                    levels.append(tiles.mean(axis=(1, 3)))
        if not levels:
            raise ValueError(
                f"size_px {size_px} exceeds the photo regions of the {split} split; choose "
                f"{max(min(region.shape[:2]) for region in regions)} or less"
            )
        chosen = rng.integers(len(levels), size=num_scenes)
        place = rng.random((num_scenes, 2))
        return cls(levels, size_px, chosen, place, rng.random(num_scenes) < 0.5)

    def crops(self, which: slice) -> np.ndarray:
        """Return crops in [0, 1], (M, C, size_px, size_px)."""
        chosen, place, size_px = self.chosen[which], self.place[which], self.size_px
        crops = np.empty((len(chosen), self.levels[0].shape[2], size_px, size_px), np.float32)
        for number, level in enumerate(self.levels):
            here = chosen == number
            windows = np.lib.stride_tricks.sliding_window_view(
                level, (size_px, size_px), axis=(0, 1)
            )
            top, left = (place[here] * windows.shape[:2]).astype(np.int64).T
            crops[here] = windows[top, left]
        mirrored = self.mirrored[which]
        crops[mirrored] = crops[mirrored, ..., ::-1]
        mean = crops.mean(axis=(1, 2, 3), keepdims=True)
        std = crops.mean(axis=1, keepdims=True).std(axis=(2, 3), keepdims=True)
        # Contrast is only ever reduced: a plain sky must not become amplified noise.
        gain = np.minimum(1, _BACKGROUND_STD / np.maximum(std, 1e-6))
        dark, bright = _BACKGROUND_LEVEL
        calm: np.ndarray = dark + (bright - dark) * mean + gain * (crops - mean)
        return calm

"""Backgrounds of the embedded world: random calm crops of the photographs of scikit-image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_PHOTOS = ("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "rocket")
_SHRINKS = (2, 3)
_FINE_FROM_PX = 65
"""Side from which scenes are cut from the photographs as they are: smaller ones would not fit into
all parts of them."""
# Chosen by eye on a contact sheet: the background stays darker and flatter than any object.
_STD = 0.05
_LEVEL = (0.10, 0.32)


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
        levels, regions = [], regions_of(split, in_color)
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
        """Return some of the crops in [0, 1], (length of the slice, C, size_px, size_px)."""
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
        gain = np.minimum(1, _STD / np.maximum(std, 1e-6))
        dark, bright = _LEVEL
        calm: np.ndarray = dark + (bright - dark) * mean + gain * (crops - mean)
        return calm


def regions_of(split: str, in_color: bool) -> list[np.ndarray]:
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

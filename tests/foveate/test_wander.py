"""Images that wander: whole, at a place that their pixels alone decide, or at any place."""

from __future__ import annotations

import pytest
import torch

from foveate.data import ImageSet
from foveate.data.wander import (
    CANVAS_GRAY,
    canvas_size,
    fixed_corners,
    on_canvas,
    random_corners,
    wandered,
)


def noise(num_images: int, channels: int = 1, size: tuple[int, int] = (4, 6)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (num_images, channels, *size)
    return torch.randint(256, shape, generator=generator).to(torch.uint8)


def as_set(images: torch.Tensor) -> ImageSet:
    boxes = torch.tensor([[1, 2, 3, 4]]).expand(len(images), -1)
    return ImageSet(images, torch.arange(len(images)), (), "noise", boxes_px=boxes)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_image_is_on_the_canvas_bit_by_bit_and_all_around_is_gray(channels: int) -> None:
    images = noise(5, channels)
    canvases = wandered(as_set(images), 2, 2)
    assert canvases.image_shape == (channels, 8, 12)
    assert canvases.boxes_px is not None
    for image, canvas, box in zip(images, canvases.images, canvases.boxes_px, strict=True):
        top, left = (box[:2] - torch.tensor([1, 2])).tolist()
        assert box[2:].tolist() == [3, 4]
        assert torch.equal(canvas[:, top : top + 4, left : left + 6], image)
        canvas[:, top : top + 4, left : left + 6] = 128
        assert (canvas == 128).all()


def test_bytes_and_floats_look_the_same() -> None:
    images, corners = noise(3), torch.tensor([[0, 0], [4, 6], [1, 5]])
    canvases = on_canvas(images, corners, (8, 12))
    assert torch.equal(on_canvas(images.float() / 255, corners, (8, 12)), canvases.float() / 255)
    assert canvases[0, 0, -1, -1] == round(255 * CANVAS_GRAY)


def test_a_fixed_place_is_a_function_of_the_image_alone() -> None:
    images = noise(40)
    whole = wandered(as_set(images), 1.5, 3)
    shuffled = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    other = wandered(as_set(images[shuffled]).subset(7), 1.5, 3)
    assert torch.equal(other.images, whole.images[shuffled[:7]])
    assert torch.equal(other.images, wandered(as_set(images[shuffled[:7]]), 1.5, 3).images)
    # Written down once: other places would be another benchmark.
    assert fixed_corners(images[:3], (6, 9)).tolist() == [[1, 3], [2, 1], [1, 3]]


def test_every_place_is_about_equally_likely() -> None:
    """Of 15 places each has 200 of 3,000 images; odds of a false alarm are below 1e-6."""
    images = noise(3000)
    for corners in (
        fixed_corners(images, (6, 10)),
        random_corners(3000, (4, 6), (6, 10), torch.Generator().manual_seed(0)),
    ):
        counts = (corners[:, 0] * 5 + corners[:, 1]).bincount(minlength=15)
        assert len(counts) == 15
        assert 120 < int(counts.min()) < int(counts.max()) < 280


def test_sides_are_rounded_and_of_whole_patches() -> None:
    assert canvas_size((32, 32), 1.5, 4) == (48, 48)
    assert canvas_size((192, 256), 1.25, 16) == (240, 320)
    assert canvas_size((96, 96), 1.333333, 8) == (128, 128)


@pytest.mark.parametrize(
    ("size", "factor", "patch_size", "other"),
    [
        ((32, 32), 1.3, 4, "1.375"),
        ((32, 32), 1.001, 4, "1.125"),
        ((30, 31), 1.5, 4, "3.6"),
        ((96, 96), 1.5, 7, "1.53125"),
    ],
)
def test_a_canvas_that_does_not_fit_names_one_that_does(
    size: tuple[int, int], factor: float, patch_size: int, other: str
) -> None:
    sides = f"{round(factor * size[0])} x {round(factor * size[1])}"
    with pytest.raises(ValueError, match=f"canvas of {sides} pixels .* take {other}$"):
        canvas_size(size, factor, patch_size)
    canvas_size(size, float(other), patch_size)


def test_a_canvas_is_of_patches() -> None:
    with pytest.raises(ValueError, match="patch_size must be at least 1, got 0"):
        canvas_size((32, 32), 1.5, 0)


@pytest.mark.parametrize("factor", [1, 0.5, -2, float("nan"), float("inf")])
def test_a_canvas_is_larger_than_the_image(factor: float) -> None:
    with pytest.raises(ValueError, match="wander must be above 1 and finite"):
        canvas_size((32, 32), factor, 4)

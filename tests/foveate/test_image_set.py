"""Arrays that users give: taken as they are meant, or refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foveate.data import ImageSet

FLOATS = torch.linspace(0, 1, 2 * 3 * 4 * 5).view(2, 3, 4, 5)
BYTES = (FLOATS * 255).round().to(torch.uint8)
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    "given",
    [
        BYTES,
        BYTES.numpy(),
        FLOATS,
        FLOATS.numpy(),
        FLOATS.double(),
        FLOATS.double().numpy(),
        FLOATS.half(),
        np.broadcast_to(FLOATS, FLOATS.shape),
    ],
)
def test_images_in_the_unit_range_and_bytes_are_the_same_set(given: object) -> None:
    made = ImageSet(given, LABELS, ("a", "b"), "set")
    assert torch.equal(made.images, BYTES)
    assert torch.allclose(made.batch(LABELS), FLOATS, atol=0.5 / 255)


def test_batches_are_all_images_in_turn() -> None:
    made = ImageSet(BYTES.repeat(4, 1, 1, 1)[:7], torch.arange(7), (), "set")
    batches = list(made.batches(3))
    assert [len(each) for each in batches] == [3, 3, 1]
    assert torch.equal(torch.cat(batches), made.batch(torch.arange(7)))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (FLOATS * 255, r"must lie in \[0, 1\], got pixels from 0 to 255; divide"),
        (FLOATS - 0.5, r"must lie in \[0, 1\], got pixels from -0.5"),
        (FLOATS / 0, r"must lie in \[0, 1\], got pixels from nan"),
        (FLOATS.where(FLOATS < 1, torch.nan), r"must lie in \[0, 1\]"),
        (BYTES.long(), r"must be uint8 in 0\.\.255 or floats in \[0, 1\], got torch.int64"),
        (BYTES.bool().numpy(), "got torch.bool"),
        (BYTES[:0], r"none of them 0, got \(0, 3, 4, 5\)"),
        (BYTES[0], r"must be of shape \(images, channels, height, width\).*got \(3, 4, 5\)"),
        (torch.zeros(2, 8, 8, 3), r"channels last, .*permute\(0, 3, 1, 2\)"),
        ([BYTES], "must be a tensor or an array of numbers, got list"),
        (np.array(["a"]), "must be a tensor or an array of numbers, got an array of"),
    ],
)
def test_other_images_are_refused_in_one_line(given: object, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        ImageSet(given, LABELS, ("a", "b"), "set")
    assert "\n" not in str(caught.value)


def test_labels_of_any_integer_type_are_taken() -> None:
    for labels in (LABELS.int(), LABELS.numpy(), LABELS.to(torch.uint8), np.array([0, 1], ">u2")):
        assert torch.equal(ImageSet(BYTES, labels, ("a", "b"), "set").labels, LABELS)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (LABELS.float(), "labels of set must be integers, got torch.float32"),
        (LABELS[:1], r"labels of shape \(1,\) for 2 images"),
        (LABELS.view(2, 1), r"labels of shape \(2, 1\) for 2 images"),
        (LABELS + 1, "labels from 1 to 2 and 2 class names"),
        (LABELS - 2, "labels from -2 to -1"),
        (np.array([0, 2**64 - 1], np.uint64), "set has labels beyond int64"),
        ([0, 1], "labels of set must be a tensor or an array of numbers, got list"),
    ],
)
def test_other_labels_are_refused_in_one_line(given: object, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        ImageSet(BYTES, given, ("a", "b"), "set")
    assert "\n" not in str(caught.value)


def test_two_classes_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="set has the class name 'a' twice"):
        ImageSet(BYTES, LABELS, ("a", "a"), "set")


def test_every_image_has_a_box_where_there_are_boxes() -> None:
    with pytest.raises(ValueError, match="set has 1 boxes for 2 images"):
        ImageSet(BYTES, LABELS, ("a", "b"), "set", boxes_px=torch.zeros(1, 4).long())

"""Pictures of scanpaths say what is known of the images."""

from __future__ import annotations

import torch

from experiments.evaluation.draw import names_of
from foveate.data import ImageSet


def test_pictures_name_the_classes_that_are_known() -> None:
    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    labels = torch.tensor([1, -1, 0])
    assert names_of(ImageSet(images, labels, ("cat", "dog"), "set")) == ["dog", "", "cat"]
    assert names_of(ImageSet(images, labels, (), "set")) is None

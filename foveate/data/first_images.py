"""The first images of a stream, held in memory to evaluate on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from foveate.data.columns import SPLIT_COLUMN
from foveate.data.decoding import ImageSize
from foveate.data.hub import HubDataset
from foveate.data.images import ImageSet, check_limit
from foveate.data.labels import find_classes
from foveate.data.streaming import ImageStream
from foveate.data.workers import ImageBatch


def first_images(
    source: str | Path | Sequence[str | Path] | HubDataset,
    split: str,
    *,
    image_size: ImageSize,
    image_column: str | None = None,
    channels: int = 3,
    limit: int,
    split_column: str | None = SPLIT_COLUMN,
    caption_column: str | None = None,
    skip_damaged: bool = False,
) -> ImageSet:
    """Hold the first images of a stream, each once, to evaluate on.

    Pieces come in random order. Of data sorted by class these are a few classes: shuffle it when it
    is stored.

    Args:
        source: as of :class:`ImageStream`.
        split: as of :class:`ImageStream`.
        image_size: as of :class:`ImageStream`.
        image_column: as of :class:`ImageStream`.
        channels: as of :class:`ImageStream`.
        limit: the most images; a split that has fewer comes whole.
        split_column: as of :class:`ImageStream`.
        caption_column: as of :class:`ImageStream`.
        skip_damaged: as of :class:`ImageStream`.

    Raises:
        ValueError: as of :class:`ImageStream`, or a limit below one image.
    """
    check_limit(limit)
    stream = ImageStream(
        source,
        split,
        image_size=image_size,
        batch_size=1,
        image_column=image_column,
        channels=channels,
        split_column=split_column,
        caption_column=caption_column,
        skip_damaged=skip_damaged,
    )
    batches: list[ImageBatch] = []
    for batch in stream:
        if stream.state_dict()["positions"][0]["epoch"] > 0:
            break
        batches.append(batch)
        if len(batches) == limit:
            break
    return _joined(stream, batches)


def _joined(stream: ImageStream, batches: Sequence[ImageBatch]) -> ImageSet:
    labels = torch.cat([batch.labels for batch in batches])
    names = stream.class_names
    if names is None:
        # Of tar files nobody knows more classes than are seen.
        names = find_classes(labels.tolist(), (), "stream").names
    images = torch.cat([batch.images for batch in batches])
    captions = tuple(sentences for batch in batches for sentences in batch.captions)
    kept = captions if any(captions) else None
    prints = stream.fingerprints
    return ImageSet(images, labels, names, "stream", captions=kept, fingerprints=prints)

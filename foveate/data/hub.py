"""Hugging Face sets as streams: one piece per shard."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Protocol, runtime_checkable

from PIL import Image

from foveate.data.column_types import is_text
from foveate.data.columns import find_columns, image_in, own_class_names, say_unread
from foveate.data.decoding import Encoded
from foveate.data.labels import Classes
from foveate.data.rows import sentences_in
from foveate.data.samples import PieceSource, Sample, own_split
from foveate.data.scenes import SPLITS
from foveate.data.splits import split_name

HUB = "hf://"
"""What the names of sets at Hugging Face begin with."""


@runtime_checkable
class HubDataset(Protocol):
    """What is used of ``datasets.IterableDataset``."""

    @property
    def features(self) -> dict[str, object] | None:
        """Column types, if known."""
        ...

    @property
    def split(self) -> object:
        """Name of the split."""
        ...

    @property
    def num_shards(self) -> int:
        """Number of files behind it."""
        ...

    def shard(self, num_shards: int, index: int) -> HubDataset:
        """Return one shard."""
        ...

    def select_columns(self, column_names: list[str]) -> HubDataset:
        """Return some columns."""
        ...

    def with_format(self, type: str | None) -> HubDataset:
        """Return the rows in another form, such as numpy's; None: as they are."""
        ...

    def cast_column(self, column: str, feature: object) -> HubDataset:
        """Return a column as another type."""
        ...

    def iter(self, batch_size: int) -> Iterator[dict[str, list[object]]]:
        """Yield batches of rows."""
        ...


@dataclass(frozen=True)
class _Hub(PieceSource):
    dataset: HubDataset
    image: str
    label: str | None
    captions: str | None
    classes: Classes
    kind: ClassVar[str] = "shards"

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Name of each label."""
        return self.classes.names or None

    def read(self, piece: int, row: int) -> Iterator[Sample | ValueError]:
        shard = self.dataset.shard(num_shards=len(self.names), index=piece)
        # Not __iter__, which deals the shards of a dataset once more where it is in a worker.
        rows = enumerate(shard.iter(batch_size=1))
        # Counted, as load_state_dict is not exact: after a filter, up to datasets 5.0.
        for number, columns in itertools.islice(rows, row, None):
            where = f"image {number} of {self.names[piece]}"
            try:
                content = _hub_content(columns[self.image][0], where)
            except ValueError as error:
                yield error
                continue
            label = columns[self.label][0] if self.label else None
            # Whoever made the columns known said that they are text.
            written: Any = columns[self.captions][0] if self.captions else None
            yield Sample(content, self.classes.number(label, where), where, sentences_in(written))


def _hub_content(stored: object, where: str) -> Encoded:
    """Return the image of a cell; unlike those of files, its path may be an address."""
    if isinstance(stored, list):
        stored = stored[0] if stored else None
    if isinstance(stored, Image.Image):
        # What map or filter has decoded.
        return stored
    cell = stored if isinstance(stored, dict) else {"path": stored}
    path = cell.get("path")
    if not isinstance(path, str) or cell.get("bytes") is not None:
        return image_in(stored, Path(), where)
    try:
        with importlib.import_module("fsspec").open(path, "rb") as file:
            content: bytes = file.read()
    except OSError as error:
        raise ValueError(f"{where} cannot be read from {path}") from error
    return content


def load_hub(
    source: str, split: str, image_column: str | None = None, caption_column: str | None = None
) -> _Hub:
    """Open one split of a set by its name, ``hf://NAME``.

    Raises:
        ValueError: there is no such set or split, or it cannot be opened.
    """
    datasets, name = _import_datasets(), source.removeprefix(HUB)
    try:
        stored = datasets.load_dataset(name, streaming=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"cannot open {source} ({reason}); check the name and the network, or give the "
            "datasets.IterableDataset itself"
        ) from error
    own = own_split(list(stored), split, source)
    return hub_source(stored[own], split, source, image_column, caption_column)


def hub_source(
    dataset: HubDataset,
    split: str,
    name: str,
    image_column: str | None = None,
    caption_column: str | None = None,
) -> _Hub:
    """Cut a dataset into its shards; only images, labels and captions are read.

    Raises:
        ValueError: the dataset is another split, or has no images, several columns of them, or
            labels that are neither numbers nor of named classes.
    """
    datasets = _import_datasets()
    own = split_name(dataset.split)
    if own in SPLITS and own != split:
        raise ValueError(f"{name} is a {own} split, not {split}; give that one's")
    if not dataset.features:
        raise ValueError(
            f"{name} has no known columns; where a map has hidden them, give features="
        )
    schema = datasets.Features(dataset.features).arrow_schema
    columns = find_columns(name, schema, image_column, caption_column=caption_column)
    image, label = columns.image, columns.label
    names = own_class_names(name, schema, label)
    if label and not names and is_text(schema.field(label).type):
        raise ValueError(
            f"{name}: {label} must be an integer column, got {dataset.features[label]}; name the "
            f"classes of text by cast_column({label!r}, datasets.ClassLabel(names=[...]))"
        )
    read = [column for column in (image, label, columns.captions) if column]
    say_unread(name, (column for column in schema.names if column not in read))
    # Labels as tensors, or cells of Arrow, are what others asked of it for themselves.
    kept = dataset.select_columns(read).with_format(None)
    for kind, undecoded in (
        (datasets.Image, datasets.Image(decode=False)),
        (datasets.List, datasets.List(datasets.Image(decode=False))),
    ):
        if isinstance(dataset.features[image], kind):
            kept = kept.cast_column(image, undecoded)
    shards = [f"shard {n} of {name}" for n in range(dataset.num_shards)]
    return _Hub(shards, None, kept, image, label, columns.captions, Classes(names))


def _import_datasets() -> ModuleType:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise ValueError(
            "Hugging Face streams need the package datasets; install .[stream]"
        ) from error

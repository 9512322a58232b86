"""Hugging Face sets as streams: one piece per shard."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar, Protocol, runtime_checkable

from PIL import Image

from foveate.data.decoding import Encoded
from foveate.data.parquet import LABEL_COLUMNS
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
    kind: ClassVar[str] = "shards"

    def read(self, piece: int, row: int) -> Iterator[Sample]:
        shard = self.dataset.shard(num_shards=len(self.names), index=piece)
        # Not __iter__, which deals the shards of a dataset once more where it is in a worker.
        rows = enumerate(shard.iter(batch_size=1))
        # Counted, as load_state_dict is not exact: after a filter, up to datasets 5.0.
        for number, columns in itertools.islice(rows, row, None):
            where = f"image {number} of {self.names[piece]}"
            content = _hub_content(columns[self.image][0], where)
            label = columns[self.label][0] if self.label else None
            yield Sample(content, label if isinstance(label, int) else -1, where)


def _hub_content(stored: object, where: str) -> Encoded:
    if isinstance(stored, Image.Image):
        # What map or filter has decoded.
        return stored
    if isinstance(stored, dict):
        if stored["bytes"] is not None:
            content: bytes = stored["bytes"]
            return content
        if stored["path"]:
            try:
                with importlib.import_module("fsspec").open(stored["path"], "rb") as file:
                    content = file.read()
            except OSError as error:
                raise ValueError(f"{where} cannot be read from {stored['path']}") from error
            return content
    raise ValueError(f"{where} has neither image bytes nor a path; embed the images")


def load_hub(source: str, split: str) -> _Hub:
    """Open one split of a set by its name, ``hf://NAME``.

    Raises:
        ValueError: there is no such set or split, or it cannot be opened.
    """
    datasets, name = _import_datasets(), source.removeprefix(HUB)
    try:
        stored = datasets.load_dataset(name, streaming=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"cannot open {source} ({reason}); check the name and the network, or give the "
            "datasets.IterableDataset itself"
        ) from error
    return hub_source(stored[own_split(list(stored), split, source)], split, source)


def hub_source(dataset: HubDataset, split: str, name: str) -> _Hub:
    """Cut a dataset into its shards; only images and labels are read.

    Raises:
        ValueError: the dataset is another split, or has no images, or labels that are no integers.
    """
    datasets = _import_datasets()
    own = split_name(str(dataset.split))
    if own in SPLITS and own != split:
        raise ValueError(f"{name} is a {own} split, not {split}; give that one's")
    features = dataset.features or {}
    image = next((key for key, kind in features.items() if isinstance(kind, datasets.Image)), None)
    if image is None:
        raise ValueError(
            f"{name} has no column of type datasets.Image; its columns: {list(features)} (where a "
            "map has hidden them, give it features=)"
        )
    label = next((key for key in LABEL_COLUMNS if key in features), None)
    if label and "int" not in str(getattr(features[label], "dtype", None)):
        raise ValueError(f"{name}: {label} must be an integer column, got {features[label]}")
    kept = dataset.select_columns([image, *([label] if label else [])])
    encoded = kept.cast_column(image, datasets.Image(decode=False))
    names = [f"shard {n} of {name}" for n in range(dataset.num_shards)]
    return _Hub(names, None, encoded, image, label)


def _import_datasets() -> ModuleType:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise ValueError(
            "Hugging Face streams need the package datasets; install .[stream]"
        ) from error

"""Batches of images from data that does not fit in memory: parquet, tar, Hugging Face streams.

A source is a list of *pieces*, each read from front to back: a parquet row group, a tar file, or a
shard of a Hugging Face dataset. Every epoch the pieces are shuffled and dealt to the workers of all
ranks; a worker reads its pieces one after the other, and shuffles block after block of samples.
So a position is where a block begins and how much of it was taken: returning there reads at most
one block again, and decodes no image that was delivered.

Splits: parquet follows the rules of ``foveate.data``, row for row. Tar files and Hugging Face
datasets do not say how many rows they have, so nothing is held out: their splits are their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import itertools
import json
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import ClassVar, Protocol, TypedDict, runtime_checkable

import numpy as np
import pyarrow.compute
import pyarrow.parquet
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from foveate import scenes, sources

_HUB = "hf://"
_FILE_KINDS = (".parquet", ".tar")
_TAR_IMAGES = frozenset({"jpg", "jpeg", "png", "webp"})
_TAR_LABELS = frozenset({"cls", "json"})


@dataclass(frozen=True)
class ImageBatch:
    """Some images of a stream."""

    images: UInt8[Tensor, "B C H W"]
    labels: Int64[Tensor, " B"]
    """Class of each image; -1 where the source does not say."""


class Position(TypedDict):
    """How far one worker has come."""

    epoch: int
    piece: int
    """Which of the worker's pieces of this epoch the current block begins in."""
    row: int
    """How many samples of that piece lie before the block."""
    block: int
    """How many blocks of the epoch came before."""
    taken: int
    """How many samples of the block were delivered."""


class StreamState(TypedDict):
    """What :meth:`ImageStream.load_state_dict` needs; numbers and strings only."""

    settings: dict[str, int | str]
    turn: int
    """The worker whose batch is next."""
    positions: list[Position]
    """One for each worker."""


class ImageStream:
    """Endless batches of one split, in an order that its arguments determine.

    A batch takes the last samples of one epoch and the first of the next where it must, so that all
    are of one size. Workers and ranks do not wait for one another at the end of an epoch.

    Args:
        source: A parquet or tar file, a list of them, a folder of them, ``hf://`` and a name that
            ``datasets.load_dataset`` takes, or a ``datasets.IterableDataset``, neither split by
            node nor shuffled. Tar files follow webdataset: neighbors that agree up to the first dot
            of their names are one sample, with one image (jpg, jpeg, png, webp) and its class, if
            any, in ``.cls`` or in ``.json`` under "label".
        split: train, val or test.
        image_size: Height and width in pixels: the shorter side is resized, the center kept.
        batch_size: Images per batch and rank.
        channels: 3, or 1 for gray.
        seed: Determines the order of pieces and samples.
        shuffle_buffer: Samples that a worker holds, encoded, and shuffles among themselves. 1: a
            piece's own order.
        num_workers: Processes that read and decode. 0: the caller's own.
        rank: Which of ``world_size`` processes this is; each gets other samples.
        world_size: How many processes train together.

    Raises:
        ValueError: A source that is missing, empty or of another kind, a split that it does not
            have, fewer pieces than workers, or an option out of range; while iterating, an image or
            file that cannot be read.
    """

    def __init__(
        self,
        source: str | Path | Sequence[str | Path] | _HubDataset,
        split: str = "train",
        *,
        image_size: int,
        batch_size: int,
        channels: int = 3,
        seed: int = 0,
        shuffle_buffer: int = 1000,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if split not in scenes.SPLITS:
            raise ValueError(f"split must be one of {', '.join(scenes.SPLITS)}, got {split!r}")
        if image_size < 1:
            raise ValueError(f"image_size must be at least 1 pixel, got {image_size}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 image, got {batch_size}")
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (gray) or 3 (RGB), got {channels}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        if shuffle_buffer < 1:
            raise ValueError(f"shuffle_buffer must be at least 1 sample, got {shuffle_buffer}")
        if num_workers < 0:
            raise ValueError(f"num_workers must not be negative, got {num_workers}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in 0..world_size - 1, got {rank} of {world_size}")
        opened = _open_source(source, split)
        lanes = max(1, num_workers)
        if lanes * world_size > len(opened.names):
            raise ValueError(
                f"{len(opened.names)} {opened.kind} cannot be dealt to {lanes} workers x "
                f"{world_size} ranks; use fewer, or store the data in more {opened.kind}"
            )
        digest = hashlib.sha256("\n".join(opened.names).encode()).hexdigest()
        self._settings: dict[str, int | str] = {
            "split": split,
            "batch_size": batch_size,
            "seed": seed,
            "shuffle_buffer": shuffle_buffer,
            "num_workers": num_workers,
            "rank": rank,
            "world_size": world_size,
            "source": f"{len(opened.names)} {opened.kind} ({digest[:8]})",
        }
        self._reader = _Reader(
            source=opened,
            image_size=image_size,
            batch_size=batch_size,
            channels=channels,
            seed=seed,
            shuffle_buffer=shuffle_buffer,
            num_lanes=lanes * world_size,
        )
        self._first_lane = lanes * rank
        self._turn = 0
        self._positions = [
            Position(epoch=0, piece=0, row=0, block=0, taken=0) for _ in range(lanes)
        ]
        self._deliveries: Iterator[_Delivery | str] | None = None

    def __iter__(self) -> Iterator[ImageBatch]:
        """Return the stream itself: a second loop goes on where the first stopped."""
        return self

    def __next__(self) -> ImageBatch:
        """Return the next batch.

        Raises:
            ValueError: An image or file cannot be read.
        """
        if self._deliveries is None:
            self._deliveries = self._start()
        delivery = next(self._deliveries)
        if isinstance(delivery, str):
            self._deliveries = None
            raise ValueError(delivery)
        self._positions[self._turn] = delivery.position
        self._turn = (self._turn + 1) % len(self._positions)
        return delivery.batch

    def state_dict(self) -> StreamState:
        """Return the position after the last delivered batch; every rank has its own."""
        return {
            "settings": dict(self._settings),
            "turn": self._turn,
            "positions": list(self._positions),
        }

    def load_state_dict(self, state: StreamState) -> None:
        """Go to the position where ``state`` was taken, by a stream made with the same arguments.

        Only ``image_size`` and ``channels`` may differ, and where the source lies.

        Raises:
            ValueError: Another argument or the source's pieces differ.
        """
        for name, value in self._settings.items():
            if state["settings"][name] != value:
                raise ValueError(
                    f"the state has {name} {state['settings'][name]!r}, this stream {value!r}; "
                    "make the stream with the state's"
                )
        self._turn = state["turn"]
        self._positions = list(state["positions"])
        self._deliveries = None

    def _start(self) -> Iterator[_Delivery | str]:
        """Start the workers; the loader asks them in turn, beginning with the one that is next."""
        num_lanes = len(self._positions)
        turns = [(self._turn + worker) % num_lanes for worker in range(num_lanes)]
        starts = [_Start(self._first_lane + turn, self._positions[turn]) for turn in turns]
        loader: DataLoader[_Delivery | str] = DataLoader(
            _Worker(self._reader, starts),
            batch_size=None,
            num_workers=int(self._settings["num_workers"]),
            # Otherwise the loader draws from torch's global random state.
            generator=torch.Generator(),
        )
        return iter(loader)


# In the workers.


@dataclass(frozen=True)
class _Sample:
    content: sources.Encoded
    label: int
    where: str


@dataclass(frozen=True)
class _Delivery:
    batch: ImageBatch
    position: Position


@dataclass(frozen=True)
class _Start:
    lane: int
    position: Position


class _Worker(IterableDataset[_Delivery | str]):
    """What each process iterates over: the batches from its own start."""

    def __init__(self, reader: _Reader, starts: list[_Start]) -> None:
        self.reader = reader
        self.starts = starts

    def __iter__(self) -> Iterator[_Delivery | str]:
        """Yield batches, or last the line of an error, which the loader would wrap in many."""
        worker = get_worker_info()
        try:
            yield from self.reader.batches(self.starts[worker.id if worker else 0])
        except ValueError as error:
            yield str(error)


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """From a lane, one worker of one rank, and its position to its batches."""

    source: _Source
    image_size: int
    batch_size: int
    channels: int
    seed: int
    shuffle_buffer: int
    num_lanes: int

    def batches(self, start: _Start) -> Iterator[_Delivery]:
        shuffled = self._shuffled(start)
        mode = "L" if self.channels == 1 else "RGB"
        size = (self.image_size, self.image_size)
        while True:
            images = np.empty((self.batch_size, self.channels, *size), np.uint8)
            labels = np.empty(self.batch_size, np.int64)
            for item in range(self.batch_size):
                sample, position = next(shuffled)
                images[item] = sources.decode_image(sample.content, sample.where, mode, size)
                labels[item] = sample.label
            batch = ImageBatch(torch.from_numpy(images), torch.from_numpy(labels))
            yield _Delivery(batch, position)

    def _shuffled(self, start: _Start) -> Iterator[tuple[_Sample, Position]]:
        """Yield the samples block by block, each with the position after it."""
        at = start.position
        while True:
            samples = self._read_epoch(start.lane, at)
            while block := list(itertools.islice(samples, self.shuffle_buffer)):
                random = np.random.default_rng(
                    (self.seed, at["epoch"], 1 + start.lane, at["block"])
                )
                shuffled = random.permutation(len(block))
                for taken in range(at["taken"], len(block)):
                    yield block[shuffled[taken]][0], {**at, "taken": taken + 1}
                _, piece, row = block[-1]
                at = {
                    "epoch": at["epoch"],
                    "piece": piece,
                    "row": row,
                    "block": at["block"] + 1,
                    "taken": 0,
                }
                # Before the next block is read, not after.
                block.clear()
            if at["block"] == 0:
                raise ValueError(
                    f"a worker's share of {len(self.source.names)} {self.source.kind} holds no "
                    "images; remove empty ones or use fewer workers"
                )
            at = Position(epoch=at["epoch"] + 1, piece=0, row=0, block=0, taken=0)

    def _read_epoch(self, lane: int, at: Position) -> Iterator[tuple[_Sample, int, int]]:
        """Yield the rest of a lane's epoch, with the piece and how much of it was read."""
        random = np.random.default_rng((self.seed, at["epoch"], 0))
        dealt = random.permutation(len(self.source.names))
        # Where the deal is uneven, another lane gets more in the next epoch.
        pieces = dealt[(lane + at["epoch"]) % self.num_lanes :: self.num_lanes].tolist()
        row = at["row"]
        for piece in range(at["piece"], len(pieces)):
            for sample in self.source.read(pieces[piece], row):
                row += 1
                yield sample, piece, row
            row = 0


# Sources.


@dataclass(frozen=True)
class _Source(ABC):
    names: list[str]
    """One for each piece; where they differ, so do the data."""
    kind: ClassVar[str]
    """What its pieces are, in the plural."""

    @abstractmethod
    def read(self, piece: int, row: int) -> Iterator[_Sample]:
        """Yield the samples of a piece, without the first ``row``."""


def _open_source(source: object, split: str) -> _Source:
    if isinstance(source, _HubDataset):
        return _hub_source(source, split, "the dataset")
    if isinstance(source, str) and source.startswith(_HUB):
        return _load_hub(source, split)
    if isinstance(source, str | Path):
        return _open_files([source], split, str(source))
    if isinstance(source, Sequence):
        return _open_files(source, split, "the list")
    raise ValueError(
        f"source must be a path, a list of paths, {_HUB}NAME or one split's datasets."
        f"IterableDataset, got {type(source).__name__}; a datasets.Dataset has to_iterable_dataset"
    )


def _open_files(paths: Sequence[str | Path], split: str, name: str) -> _Source:
    found: set[tuple[Path, str]] = set()
    for path in (Path(path).expanduser().resolve() for path in paths):
        if path.is_dir():
            files = [file for file in sources.files_under(path) if file.suffix in _FILE_KINDS]
            found |= {(file, sources.split_in_name(file, path)) for file in files}
        elif not path.exists():
            raise ValueError(
                f"no data {path}; give parquet or tar files that exist, or their folder"
            )
        elif path.suffix in _FILE_KINDS:
            found.add((path, sources.split_in_name(path, path.parent)))
        else:
            raise ValueError(f"{path} is neither a parquet nor a tar file; give one of these")
    kinds = {file.suffix for file, _ in found}
    if not kinds:
        raise ValueError(f"no parquet or tar files in {name}; image folders are for load_data")
    if len(kinds) > 1:
        raise ValueError(f"{name} has both parquet and tar files; list the files of one kind")
    return (_open_parquet if kinds == {".parquet"} else _open_tar)(sorted(found), split, name)


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (pyarrow.ArrowException, tarfile.TarError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"cannot read {file} as {file.suffix[1:]} ({reason}); write it again"
        ) from error


def _own_split(stored: Sequence[str], split: str, name: str) -> str:
    """Return what a source that nothing can be held out of calls a split."""
    own = {sources.split_name(called): called for called in stored}
    if split not in own:
        raise ValueError(
            f"{name} has no {split} split; it has {sorted(own)}, and nothing is held out of tar "
            "files and Hugging Face datasets: store the split on its own"
        )
    return own[split]


# Parquet.


@dataclass(frozen=True)
class _RowGroup:
    file: Path
    number: int
    image: str
    label: str | None
    rows: Int64[np.ndarray, " M"]
    """Which of its rows belong to the split."""


@dataclass(frozen=True)
class _Parquet(_Source):
    groups: list[_RowGroup]
    kind: ClassVar[str] = "row groups"

    def read(self, piece: int, row: int) -> Iterator[_Sample]:
        group = self.groups[piece]
        if row == len(group.rows):
            return
        columns = [f"{group.image}.bytes", *([group.label] if group.label else [])]
        with _reading(group.file), pyarrow.parquet.ParquetFile(group.file) as opened:
            # Threads of its own would take the other workers' cores.
            table = opened.read_row_group(group.number, columns=columns, use_threads=False)
        contents = pyarrow.compute.struct_field(table[group.image], "bytes")
        for number in group.rows[row:].tolist():
            where = f"row {number} of row group {group.number} of {group.file}"
            content = contents[number].as_py()
            if content is None:
                raise ValueError(f"{where} has no image bytes; embed the images")
            label = table[group.label][number].as_py() if group.label else None
            yield _Sample(content, -1 if label is None else label, where)


def _open_parquet(files: list[tuple[Path, str]], split: str, name: str) -> _Parquet:
    """Read footers and split columns, and number each stored split's rows over all files."""
    groups: list[tuple[str, int, _RowGroup]] = []
    num_rows: dict[str, int] = {}
    for file, named in files:
        with _reading(file), pyarrow.parquet.ParquetFile(file) as opened:
            image, label, column = sources.parquet_columns(file, opened.schema_arrow)
            for number in range(opened.num_row_groups):
                if column:
                    table = opened.read_row_group(number, columns=[column], use_threads=False)
                    stored = [sources.split_name(str(own)) for own in table[column].to_pylist()]
                else:
                    stored = [named] * opened.metadata.row_group(number).num_rows
                for own in sorted(set(stored)):
                    rows = np.flatnonzero(np.array(stored) == own)
                    first = num_rows.get(own, 0)
                    groups.append((own, first, _RowGroup(file, number, image, label, rows)))
                    num_rows[own] = first + len(rows)
    source, chosen = sources.choose_rows(num_rows, split, name)
    kept = []
    for own, first, group in groups:
        low, high = np.searchsorted(chosen, (first, first + len(group.rows)))
        if own == source and low < high:
            kept.append(replace(group, rows=group.rows[chosen[low:high] - first]))
    names = [f"{group.file.name}, row group {group.number}: {len(group.rows)}" for group in kept]
    return _Parquet(names, kept)


# Tar.


@dataclass(frozen=True)
class _Tar(_Source):
    files: list[Path]
    kind: ClassVar[str] = "tar files"

    def read(self, piece: int, row: int) -> Iterator[_Sample]:
        file = self.files[piece]
        # Not "r|", which would have to read what is skipped.
        with _reading(file), tarfile.open(file, "r:") as opened:
            members = (member for member in opened if member.isfile() and _stem(member))
            for stem, parts in itertools.islice(itertools.groupby(members, _stem), row, None):
                where = f"sample {stem} of {file}"
                found = {
                    suffix: content.read()
                    for member in parts
                    if (suffix := _suffix(member)) in _TAR_IMAGES | _TAR_LABELS
                    and (content := opened.extractfile(member))
                }
                images = sorted(_TAR_IMAGES & found.keys())
                if len(images) != 1:
                    raise ValueError(
                        f"{where} has {len(images)} images; give every sample one "
                        f"({', '.join(sorted(_TAR_IMAGES))})"
                    )
                yield _Sample(found[images[0]], _tar_label(found, where), where)


def _open_tar(files: list[tuple[Path, str]], split: str, name: str) -> _Tar:
    own = _own_split([named for _, named in files], split, name)
    kept = [file for file, named in files if named == own]
    return _Tar([f"{file.name}: {file.stat().st_size} bytes" for file in kept], kept)


def _stem(member: tarfile.TarInfo) -> str:
    """Return folder and name up to the first dot; nothing for a hidden file."""
    path = PurePosixPath(member.name)
    stem = path.name.partition(".")[0]
    return str(path.with_name(stem)) if stem else ""


def _suffix(member: tarfile.TarInfo) -> str:
    return PurePosixPath(member.name).name.partition(".")[2].lower()


def _tar_label(found: dict[str, bytes], where: str) -> int:
    try:
        label = int(found["cls"]) if "cls" in found else json.loads(found.get("json", b"null"))
    except ValueError as error:
        raise ValueError(f"{where}: its .cls or .json cannot be read ({error})") from error
    if isinstance(label, dict):
        label = next((label[name] for name in sources.LABEL_COLUMNS if name in label), None)
    if label is not None and not isinstance(label, int):
        raise ValueError(f"{where}: its class must be an integer, got {label!r}")
    return -1 if label is None else label


# Hugging Face.


@runtime_checkable
class _HubDataset(Protocol):
    """What is used of ``datasets.IterableDataset``."""

    @property
    def features(self) -> dict[str, object] | None: ...
    @property
    def split(self) -> object: ...
    @property
    def num_shards(self) -> int: ...
    def shard(self, num_shards: int, index: int) -> _HubDataset: ...
    def select_columns(self, column_names: list[str]) -> _HubDataset: ...
    def cast_column(self, column: str, feature: object) -> _HubDataset: ...
    def iter(self, batch_size: int) -> Iterator[dict[str, list[object]]]: ...


@dataclass(frozen=True)
class _Hub(_Source):
    dataset: _HubDataset
    image: str
    label: str | None
    kind: ClassVar[str] = "shards"

    def read(self, piece: int, row: int) -> Iterator[_Sample]:
        shard = self.dataset.shard(num_shards=len(self.names), index=piece)
        # Not __iter__, which deals the shards of a dataset once more where it is in a worker.
        rows = enumerate(shard.iter(batch_size=1))
        # Counted, as load_state_dict is not exact: after a filter, up to datasets 5.0.
        for number, columns in itertools.islice(rows, row, None):
            where = f"image {number} of {self.names[piece]}"
            content = _hub_content(columns[self.image][0], where)
            label = columns[self.label][0] if self.label else None
            yield _Sample(content, label if isinstance(label, int) else -1, where)


def _hub_content(stored: object, where: str) -> sources.Encoded:
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


def _load_hub(source: str, split: str) -> _Hub:
    datasets, name = _import_datasets(), source.removeprefix(_HUB)
    try:
        stored = datasets.load_dataset(name, streaming=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"cannot open {source} ({reason}); check the name and the network, or give the "
            "datasets.IterableDataset itself"
        ) from error
    return _hub_source(stored[_own_split(list(stored), split, source)], split, source)


def _hub_source(dataset: _HubDataset, split: str, name: str) -> _Hub:
    datasets = _import_datasets()
    own = sources.split_name(str(dataset.split))
    if own in scenes.SPLITS and own != split:
        raise ValueError(f"{name} is a {own} split, not {split}; give that one's")
    features = dataset.features or {}
    image = next((key for key, kind in features.items() if isinstance(kind, datasets.Image)), None)
    if image is None:
        raise ValueError(
            f"{name} has no column of type datasets.Image; its columns: {list(features)} (where a "
            "map has hidden them, give it features=)"
        )
    label = next((key for key in sources.LABEL_COLUMNS if key in features), None)
    if label and "int" not in str(getattr(features[label], "dtype", None)):
        raise ValueError(f"{name}: {label} must be an integer column, got {features[label]}")
    kept = dataset.select_columns([image, *([label] if label else [])])
    encoded = kept.cast_column(image, datasets.Image(decode=False))
    return _Hub([f"shard {n} of {name}" for n in range(dataset.num_shards)], encoded, image, label)


def _import_datasets() -> ModuleType:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise ValueError(
            "Hugging Face streams need the package datasets; install foveate[stream]"
        ) from error

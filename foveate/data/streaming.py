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

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from foveate.data import scenes, sources
from foveate.data.images import ImageSet
from foveate.data.pieces import HubDataset, Sample, Source, open_source


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
        source: str | Path | Sequence[str | Path] | HubDataset,
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
        opened = open_source(source, split)
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


def first_images(
    source: str | Path | Sequence[str | Path] | HubDataset,
    split: str,
    *,
    image_size: int,
    channels: int = 3,
    limit: int,
) -> ImageSet:
    """Hold the first images of a stream, each once, to evaluate on.

    Pieces come in random order. Of data sorted by class these are a few classes: shuffle it when it
    is stored.

    Args:
        source: as of :class:`ImageStream`.
        split: as of :class:`ImageStream`.
        image_size: as of :class:`ImageStream`.
        channels: as of :class:`ImageStream`.
        limit: the most images; a split that has fewer comes whole.

    Raises:
        ValueError: as of :class:`ImageStream`.
    """
    stream = ImageStream(source, split, image_size=image_size, batch_size=1, channels=channels)
    batches: list[ImageBatch] = []
    for batch in stream:
        if stream.state_dict()["positions"][0]["epoch"] > 0:
            break
        batches.append(batch)
        if len(batches) == limit:
            break
    labels = torch.cat([batch.labels for batch in batches])
    named = int(labels.min()) >= 0
    names = tuple(str(label) for label in range(int(labels.max()) + 1)) if named else ()
    return ImageSet(torch.cat([batch.images for batch in batches]), labels, names, "stream")


# In the workers.


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

    source: Source
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

    def _shuffled(self, start: _Start) -> Iterator[tuple[Sample, Position]]:
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

    def _read_epoch(self, lane: int, at: Position) -> Iterator[tuple[Sample, int, int]]:
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

"""The workers of a stream: from a lane and a position to batches.

A lane is one worker of one process. It reads its pieces one after the other, and shuffles block
after block of samples.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from foveate.data import decoding
from foveate.data.notes import say_once
from foveate.data.samples import PieceSource, SameDamage, Sample

PARENT_CHECK_S = 0.2
"""How often a worker looks whether its parent is still there."""
SKIPPED_IN_A_ROW = 1000
"""So many unreadable images on end are no damage that could be left out."""


@dataclass(frozen=True)
class ImageBatch:
    """Some images of a stream."""

    images: UInt8[Tensor, "B C H W"]
    labels: Int64[Tensor, " B"]
    """Class of each image; -1 where the source does not say."""
    captions: tuple[tuple[str, ...], ...] = ()
    """Sentences about each image, which may be none."""


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


@dataclass(frozen=True)
class Delivery:
    """A batch, and the position of its worker behind it."""

    batch: ImageBatch
    position: Position
    skipped: int
    """Images left out since the batch before."""


@dataclass(frozen=True)
class Start:
    """The lane of a worker, and how far it has come."""

    lane: int
    position: Position


class Worker(IterableDataset[Delivery | str]):
    """What each process iterates over: the batches from its own start."""

    def __init__(self, reader: LaneReader, starts: list[Start]) -> None:
        self.reader = reader
        self.starts = starts
        self.parent = os.getpid()

    def __iter__(self) -> Iterator[Delivery | str]:
        """Return batches, and last the line of an error, which the loader would wrap in many."""
        worker = get_worker_info()
        if worker:
            # Now, and not when the first batch is asked for: the parent may end before.
            threading.Thread(target=_end_with, args=[self.parent], daemon=True).start()
        return self._deliveries(self.starts[worker.id if worker else 0])

    def _deliveries(self, start: Start) -> Iterator[Delivery | str]:
        try:
            yield from self.reader.batches(start)
        except ValueError as error:
            yield str(error)


def check_processes(num_workers: int, process: int, num_processes: int) -> None:
    """Raise ValueError unless a process is one of all, with workers or without."""
    if num_workers < 0:
        raise ValueError(f"num_workers must not be negative, got {num_workers}")
    if not 0 <= process < num_processes:
        raise ValueError(
            f"process must lie in 0..num_processes - 1, got {process} of {num_processes}"
        )


def lost_worker(error: Exception) -> str | None:
    """Describe what torch raises, wherever the program is, when a worker ends; None: all else."""
    if not isinstance(error, RuntimeError) or "DataLoader worker" not in str(error):
        return None
    return (
        "a worker of the stream was killed, perhaps for want of memory; the last checkpoint is "
        f"intact: go on with --resume [{' '.join(str(error).split())}]"
    )


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, also where that was killed.

    The loader's own workers look for their parent every five seconds, between batches.
    """
    sentinels = []
    if multiprocessing.get_start_method() != "fork":
        # Started by a server, as is the way of Python 3.14, which tells of the parent's end.
        started_by = multiprocessing.parent_process()
        assert started_by is not None, "a worker has a parent"
        sentinels, parent = [started_by.sentinel], os.getppid()
    while os.getppid() == parent and not connection.wait(sentinels, PARENT_CHECK_S):
        pass
    os._exit(1)


@dataclass
class _Skips:
    """Images that a worker has left out: the first is named, and all of an epoch are counted."""

    worker: str
    first: bool = True
    epoch: int | None = None
    count: int = 0

    def add(self, error: ValueError) -> None:
        """Count one; name the first, and say at 10, 100, ... how many there are by now."""
        if self.first:
            say_once(f"skipped: {error}")
        self.first = False
        self.count += 1
        if self.count > 1 and self.count == 10 ** (len(str(self.count)) - 1):
            self._say("so far in an epoch")

    def enter(self, epoch: int) -> None:
        """Say how many there were where an epoch ends: once, if it is the same in each."""
        if epoch != self.epoch and self.count:
            self._say("in an epoch")
            self.count = 0
        self.epoch = epoch

    def _say(self, when: str) -> None:
        say_once(f"skipped {when}: {self.count} images that cannot be read, by {self.worker}")


@dataclass(frozen=True, kw_only=True)
class LaneReader:
    """From a lane, one worker of one process, and its position to its batches."""

    source: PieceSource
    image_size: tuple[int, int]
    """Height and width, pixels."""
    batch_size: int
    channels: int
    seed: int
    shuffle_buffer: int
    num_lanes: int
    skip_damaged: bool

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 image, got {self.batch_size}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (gray) or 3 (RGB), got {self.channels}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.shuffle_buffer < 1:
            raise ValueError(f"shuffle_buffer must be at least 1 sample, got {self.shuffle_buffer}")

    def batches(self, start: Start) -> Iterator[Delivery]:
        """Yield batches without end."""
        decoded = self._decoded(start)
        height, width = self.image_size
        while True:
            images = np.empty((self.batch_size, self.channels, height, width), np.uint8)
            labels = np.empty(self.batch_size, np.int64)
            captions, skipped = [], 0
            for item in range(self.batch_size):
                images[item], sample, position, left_out = next(decoded)
                skipped += left_out
                labels[item] = sample.label
                captions.append(sample.captions)
            batch = ImageBatch(torch.from_numpy(images), torch.from_numpy(labels), tuple(captions))
            yield Delivery(batch, position, skipped)

    def _decoded(
        self, start: Start
    ) -> Iterator[tuple[UInt8[np.ndarray, "C H W"], Sample, Position, int]]:
        """Yield each sample with its pixels, the position after it, and how many were left out."""
        mode = "L" if self.channels == 1 else "RGB"
        height, width = self.image_size
        skips = _Skips(f"worker {start.lane + 1} of {self.num_lanes}")
        in_a_row = left_out = 0
        for sample, position in self._shuffled(start):
            skips.enter(position["epoch"])
            try:
                if isinstance(sample, ValueError):
                    raise sample
                pixels = decoding.decode_image(sample.content, sample.where, mode, (width, height))
            except ValueError as error:
                left_out += 1
                in_a_row += not isinstance(error, SameDamage)
                if not self.skip_damaged or in_a_row == SKIPPED_IN_A_ROW:
                    raise
                skips.add(error)
                continue
            yield pixels, sample, position, left_out
            in_a_row = left_out = 0

    def _shuffled(self, start: Start) -> Iterator[tuple[Sample | ValueError, Position]]:
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
                shared = self.num_lanes > 1
                share = "a worker's share of " if shared else ""
                raise ValueError(
                    f"no images in {share}{len(self.source.names)} {self.source.kind}; "
                    f"{self.source.advice(shared=shared)}"
                )
            at = Position(epoch=at["epoch"] + 1, piece=0, row=0, block=0, taken=0)

    def _read_epoch(
        self, lane: int, at: Position
    ) -> Iterator[tuple[Sample | ValueError, int, int]]:
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

"""The workers of a stream: from a lane and a position to batches.

A lane is one worker of one process. It reads its pieces one after the other, and shuffles block
after block of samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from foveate.data import decoding
from foveate.data.samples import PieceSource, Sample


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


@dataclass(frozen=True)
class Delivery:
    """A batch, and the position of its worker behind it."""

    batch: ImageBatch
    position: Position


@dataclass(frozen=True)
class Start:
    """The lane of a worker, and how far it has come."""

    lane: int
    position: Position


class Worker(IterableDataset[Delivery | str]):
    """What each process iterates over: the batches from its own start."""

    def __init__(self, reader: Reader, starts: list[Start]) -> None:
        self.reader = reader
        self.starts = starts

    def __iter__(self) -> Iterator[Delivery | str]:
        """Yield batches, or last the line of an error, which the loader would wrap in many."""
        worker = get_worker_info()
        try:
            yield from self.reader.batches(self.starts[worker.id if worker else 0])
        except ValueError as error:
            yield str(error)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """From a lane, one worker of one process, and its position to its batches."""

    source: PieceSource
    image_size: tuple[int, int]
    """Height and width, pixels."""
    batch_size: int
    channels: int
    seed: int
    shuffle_buffer: int
    num_lanes: int

    def batches(self, start: Start) -> Iterator[Delivery]:
        """Yield batches without end."""
        shuffled = self._shuffled(start)
        mode = "L" if self.channels == 1 else "RGB"
        height, width = self.image_size
        while True:
            images = np.empty((self.batch_size, self.channels, height, width), np.uint8)
            labels = np.empty(self.batch_size, np.int64)
            for item in range(self.batch_size):
                sample, position = next(shuffled)
                images[item] = decoding.decode_image(
                    sample.content, sample.where, mode, (width, height)
                )
                labels[item] = sample.label
            batch = ImageBatch(torch.from_numpy(images), torch.from_numpy(labels))
            yield Delivery(batch, position)

    def _shuffled(self, start: Start) -> Iterator[tuple[Sample, Position]]:
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

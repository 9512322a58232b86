"""Batches of images from data that does not fit in memory: parquet, tar, Hugging Face streams.

A source is a list of *pieces*, each read from front to back: a parquet row group, a tar file, or a
shard of a Hugging Face dataset. Every epoch the pieces are shuffled and dealt to the workers of all
processes; a worker reads its pieces one after the other, and shuffles block after block of samples.
So a position is where a block begins and how much of it was taken: returning there reads at most
one block again, and decodes no image that was delivered.

Splits: parquet follows the rules of ``foveate.data``, row for row. Tar files and Hugging Face
datasets do not say how many rows they have, so nothing is held out: their splits are their own. For
tar files, ``split_column=None`` holds out all the same, each sample by its name alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import torch
from torch.utils.data import DataLoader

from foveate.choices import check_choice, told
from foveate.data import scenes
from foveate.data.columns import SPLIT_COLUMN
from foveate.data.decoding import ImageSize, height_and_width
from foveate.data.hub import HubDataset
from foveate.data.pieces import open_source
from foveate.data.workers import (
    Delivery,
    ImageBatch,
    LaneReader,
    Position,
    Start,
    Worker,
    check_processes,
    lost_worker,
)


class StreamState(TypedDict):
    """What :meth:`ImageStream.load_state_dict` needs; numbers and strings only."""

    settings: dict[str, int | str]
    turn: int
    """The worker whose batch is next."""
    positions: list[Position]
    """One for each worker."""
    skipped: NotRequired[int]
    """Images left out so far."""


RENAMED = {"rank": "process", "world_size": "num_processes"}
"""Settings under other names in the states of older checkpoints."""
ADDED = frozenset({"content", "image_column", "split_column", "caption_column"})
"""Settings that the states of older checkpoints lack."""


class ImageStream:
    """Endless batches of one split, in an order that its arguments determine.

    A batch takes the last samples of one epoch and the first of the next where it must, so that all
    are of one size. Workers and processes do not wait for one another at the end of an epoch.

    Args:
        source: A parquet or tar file, a list of them, a folder of them, ``hf://`` and a name that
            ``datasets.load_dataset`` takes, or a ``datasets.IterableDataset``, neither split by
            node nor shuffled. Tar files follow webdataset: neighbors that agree up to the first dot
            of their names are one sample, with one image (jpg, png, ...) and its class, if any,
            in ``.cls`` or in ``.json`` under "label". Its captions, if any, are the lines of
            ``.txt``, or in ``.json`` under "captions" or "caption".
        split: train, val or test.
        image_size: Side, or height and width, in pixels: images are resized to cover it, the center
            kept.
        batch_size: Images per batch and process.
        image_column: Column with the images; None: ``image``, else the only one that may hold some.
        caption_column: Column of text, or of lists of text; of tar files a key of ``.json``. None:
            ``captions``, else ``caption``, where there is one.
        channels: 3, or 1 for gray.
        seed: Determines the order of pieces and samples.
        shuffle_buffer: Samples that a worker holds, encoded, and shuffles among themselves. 1: a
            piece's own order.
        num_workers: Worker processes that read and decode. 0: the caller's own process.
        process: Number of this training process, from 0; each gets other samples.
        num_processes: How many processes train together.
        split_column: Parquet column that names each row's split; by default ``split``, if there is
            one. None: rows and files of whatever split are train, and val and test held out.
        skip_damaged: Leave out images that cannot be read, damaged row groups, and what is damaged
            in tar files, and count it on stderr, instead of stopping there.

    Attributes:
        num_skipped: Images left out so far; what cannot be told apart in tar files is none.
        fingerprints: Of the splits that have shards of their own; None for Hugging Face datasets.

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
        image_size: ImageSize,
        batch_size: int,
        image_column: str | None = None,
        channels: int = 3,
        seed: int = 0,
        shuffle_buffer: int = 1000,
        num_workers: int = 0,
        process: int = 0,
        num_processes: int = 1,
        split_column: str | None = SPLIT_COLUMN,
        caption_column: str | None = None,
        skip_damaged: bool = False,
    ) -> None:
        check_choice("split", split, scenes.SPLITS)
        check_processes(num_workers, process, num_processes)
        columns = {"image_column": image_column, "split_column": split_column}
        columns["caption_column"] = caption_column
        opened = open_source(source, split, **columns, skip_damaged=skip_damaged)
        lanes = max(1, num_workers)
        if lanes * num_processes > len(opened.names):
            raise ValueError(
                f"{len(opened.names)} {opened.kind} cannot be dealt to {lanes} workers x "
                f"{num_processes} processes; use fewer, or store the data in more {opened.kind}"
            )
        self.fingerprints = opened.fingerprints
        self._settings: dict[str, int | str] = {
            "split": split,
            "batch_size": batch_size,
            "seed": seed,
            "shuffle_buffer": shuffle_buffer,
            "num_workers": num_workers,
            "process": process,
            "num_processes": num_processes,
            **{name: str(column) for name, column in columns.items()},
            **opened.digests(),
        }
        self._reader = LaneReader(
            source=opened,
            skip_damaged=skip_damaged,
            image_size=height_and_width(image_size),
            batch_size=batch_size,
            channels=channels,
            seed=seed,
            shuffle_buffer=shuffle_buffer,
            num_lanes=lanes * num_processes,
        )
        self._first_lane = lanes * process
        self._turn = 0
        self._positions = [
            Position(epoch=0, piece=0, row=0, block=0, taken=0) for _ in range(lanes)
        ]
        self.num_skipped = 0
        self._deliveries: Iterator[Delivery | str] | None = None

    def __iter__(self) -> Iterator[ImageBatch]:
        """Return the stream itself: a second loop goes on where the first stopped."""
        return self

    def __next__(self) -> ImageBatch:
        """Return the next batch.

        Raises:
            ValueError: An image or file cannot be read, or a worker was killed.
        """
        if self._deliveries is None:
            self._deliveries = self._start()
        try:
            delivery = next(self._deliveries)
        except RuntimeError as error:
            if (described := lost_worker(error)) is None:
                raise
            self._deliveries = None
            raise ValueError(described) from error
        if isinstance(delivery, str):
            self._deliveries = None
            raise ValueError(delivery)
        self._positions[self._turn] = delivery.position
        self.num_skipped += delivery.skipped
        self._turn = (self._turn + 1) % len(self._positions)
        return delivery.batch

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Name of each label; None where the source does not list them."""
        return self._reader.source.class_names

    def state_dict(self) -> StreamState:
        """Return the position after the last delivered batch; every process has its own."""
        return {
            "settings": dict(self._settings),
            "turn": self._turn,
            "positions": list(self._positions),
            "skipped": self.num_skipped,
        }

    def load_state_dict(self, state: StreamState, *, data_changed_ok: bool = False) -> None:
        """Go to the position where ``state`` was taken, by a stream made with the same arguments.

        Only ``image_size``, ``channels`` and ``skip_damaged`` may differ, and where the source
        lies. With ``data_changed_ok`` its pieces may too; then the position is one among those.

        Raises:
            ValueError: Another argument or the source's pieces differ, or it is no such state.
        """
        kinds = {"settings": dict, "turn": int, "positions": list}
        if not isinstance(state, dict) or any(
            not isinstance(state.get(name), kind) for name, kind in kinds.items()
        ):
            raise ValueError(f"the state must be one of state_dict(), got {told(state)}")
        settings = {RENAMED.get(name, name): value for name, value in state["settings"].items()}
        for name, value in self._settings.items():
            stored = settings.get(name, value if name in ADDED else None)
            if stored == value or (data_changed_ok and name in ("source", "content")):
                continue
            if name == "content":
                raise ValueError(
                    "the files of the stream have changed since the state was taken; put them "
                    "back, or start anew"
                )
            raise ValueError(
                f"the state has {name} {stored!r}, this stream {value!r}; "
                "make the stream with the state's"
            )
        lanes, turn = len(self._positions), state["turn"]
        if len(state["positions"]) != lanes or not 0 <= turn < lanes:
            raise ValueError(
                f"the state is of {len(state['positions'])} workers, the next of which is {turn}; "
                f"this stream has {lanes}"
            )
        self._turn, self.num_skipped = turn, state.get("skipped", 0)
        self._positions = list(state["positions"])
        self._deliveries = None

    def _start(self) -> Iterator[Delivery | str]:
        """Start the workers; the loader asks them in turn, beginning with the one that is next."""
        num_lanes = len(self._positions)
        turns = [(self._turn + worker) % num_lanes for worker in range(num_lanes)]
        starts = [Start(self._first_lane + turn, self._positions[turn]) for turn in turns]
        loader: DataLoader[Delivery | str] = DataLoader(
            Worker(self._reader, starts),
            batch_size=None,
            num_workers=int(self._settings["num_workers"]),
            # Otherwise the loader draws from torch's global random state.
            generator=torch.Generator(),
        )
        return iter(loader)

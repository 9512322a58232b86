"""The images of a training run: drawn from memory or a stream, with their words."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from envs.rewards import REWARDS_OF_WORDS
from experiments.training.build import captions_of, load_stored, texts_of
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from foveate.data import augment
from foveate.data.captions import Captions
from foveate.data.splits import Fingerprint
from foveate.data.streaming import ImageStream, StreamState
from foveate.data.texts import ImageTexts
from foveate.data.wander import on_canvas, random_corners, wandered
from foveate.devices import send

STREAM_SAMPLE = 256
"""Images of a stream that are looked at before training."""

Drawn = tuple[Float[Tensor, "B C H W"], Int[Tensor, "B"]]
"""Images and their numbers in the training set."""
Scans = tuple[Drawn, Int[Tensor, "S T *K"]]
"""Images and the scanpaths on them, equally many on each, in succession."""


@dataclass(frozen=True)
class Ranked:
    """Images and the ranks of their patches, with what is known of these without a look."""

    images: Float[Tensor, "B C H W"]
    index: Int[Tensor, "B"]
    """Numbers of the images in the training set."""
    rank: Int[Tensor, "B N"]
    ties: bool | None
    """Whether patches before the last rank may tie; None = unknown."""
    last_rank: int | None
    """The highest rank of every image; None = unknown."""


class TrainingImages:
    """Training images of one process, from which batches are drawn."""

    def __init__(self, config: TrainConfig, processes: Processes) -> None:
        self.config = config
        self.processes = processes
        self.stream = make_stream(config, processes) if config.data.stream else None
        with processes.one_before_the_others():
            # Of a stream a sample, the same for all processes, which must agree on a palette.
            limit = STREAM_SAMPLE if config.data.stream else config.data.limit
            self.held = load_stored(config, config.data.learn_split, limit)
        self.pixels = self.held.images.to(config.run.device)
        if config.data.wander is not None:
            # As evaluations see them; those that are drawn have a new place every time.
            self.held = wandered(self.held, config.data.wander, config.model.patch_size)
        self.captions: Captions | None = None
        if config.parts.tracks:
            self.captions = captions_of(config, self.held)
        self.texts: ImageTexts | None = None
        if config.parts.captions:
            self.texts = texts_of(config, self.held)
            for line in self.texts.notes() if processes.is_first else ():
                print(f"note: {line}", file=sys.stderr)

    @property
    def words(self) -> tuple[tuple[str, ...], int, tuple[str, ...]]:
        """Vocabulary, words of a track at most, and merges of the model; empty without words."""
        if self.texts is not None:
            subwords = self.texts.subwords
            return subwords.vocabulary, self.texts.tokens.shape[1], subwords.merges
        if self.captions is not None:
            return self.captions.vocabulary.words, self.captions.encoded.shape[1], ()
        return (), 0, ()

    @property
    def fingerprints(self) -> Mapping[str, Fingerprint] | None:
        """What the splits are known by, if they come from files."""
        return (self.stream or self.held).fingerprints

    def draw(self, size: int, generator: torch.Generator) -> Drawn:
        """Draw images with replacement, or take the next ones of the stream."""
        if self.stream is None:
            index = torch.randint(len(self.pixels), (size,), generator=generator)
            pixels = self.pixels[send(index, self.pixels.device)]
        else:
            index = torch.full((size,), -1)  # Nothing that needs numbers takes a stream.
            parts = [next(self.stream).images for _ in range(size // self.config.stream_batch)]
            pixels = send(torch.cat(parts), self.config.run.device)
        images = pixels.float() / 255
        if self.config.data.augment:
            options = self.config.data
            images = augment(
                images,
                generator=generator,
                crop_scale=options.crop_scale,
                color_jitter=options.color_jitter,
            )
        if self.config.data.wander is not None:
            height, width = images.shape[2:]
            canvas = self.held.image_shape[1:]
            corner_px = random_corners(size, (height, width), canvas, generator)
            images = on_canvas(images, corner_px, canvas)
        return images, index

    def first(self, number: int) -> Float[Tensor, "B C H W"]:
        """Return the first images as evaluations see them, in [0, 1]; the same in all processes."""
        index = torch.arange(min(number, len(self.held)))
        return self.held.batch(index, self.config.run.device)

    def labels(self, index: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """Return the class of each drawn image; -1 where the set does not say, and of a stream."""
        known = self.held.labels[index.clamp_min(0)].masked_fill(index < 0, -1)
        return send(known, self.config.run.device)

    def rewarded_words(
        self, index: Int[Tensor, "B"], generator: torch.Generator
    ) -> Int[Tensor, "B L"] | None:
        """Draw a caption of each image, if the policy is rewarded for it."""
        policy = self.config.policy
        if self.texts is None or policy is None or policy.reward not in REWARDS_OF_WORDS:
            return None
        drawn = self.texts.draw(index, generator).squeeze(1)
        return send(drawn, self.config.run.device)

    def stream_state(self) -> StreamState | None:
        """Return where the stream of this process is; None if all images are in memory."""
        return None if self.stream is None else self.stream.state_dict()

    @property
    def num_skipped(self) -> int:
        """Streamed images that all processes have left out so far, as they cannot be read."""
        if self.stream is None or not self.config.data.skip_damaged:
            return 0
        return int(self.processes.sum([float(self.stream.num_skipped)])[0])

    def load_stream_states(self, states: list[StreamState]) -> None:
        """Continue where the stream was.

        Raises:
            ValueError: it was shared by another number of processes.
        """
        if self.stream is None:
            return
        if len(states) != self.processes.count:
            raise ValueError(
                f"a streaming run of {len(states)} processes resumes with as many, "
                f"got {self.processes.count}"
            )
        self.stream.load_state_dict(
            states[self.processes.index], data_changed_ok=self.config.run.data_changed_ok
        )


def make_stream(config: TrainConfig, processes: Processes) -> ImageStream:
    """Open the training split as this process's share of a stream."""
    assert config.data.image_size is not None, "DataConfig requires it of streams"
    return ImageStream(
        config.data.data,
        config.data.learn_split,
        image_size=config.data.image_size,
        batch_size=config.stream_batch,
        image_column=config.data.image_column,
        caption_column=config.data.caption_column,
        channels=config.data.channels or 3,
        seed=config.run.seed,
        num_workers=config.data.stream_workers,
        process=processes.index,
        num_processes=processes.count,
        split_column=config.data.split_column,
        skip_damaged=config.data.skip_damaged,
    )


def moved(scans: Iterable[Scans], device: str) -> list[Scans]:
    """Move scans to a device."""
    return [
        ((images.to(device), index.to(device)), order.to(device))
        for (images, index), order in scans
    ]


def repeated(drawn: Drawn, times: int) -> Drawn:
    """Repeat each image in succession."""
    images, index = drawn
    return images.repeat_interleave(times, dim=0), index.repeat_interleave(times)

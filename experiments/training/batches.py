"""What a training step works on: images and their numbers, with scanpaths or ranks."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float, Int
from torch import Tensor

from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from foveate.data.streaming import ImageStream

Drawn = tuple[Float[Tensor, "B C H W"], Int[Tensor, "B"]]
"""Images and their numbers in the training set."""
Scans = tuple[Drawn, Int[Tensor, "S T"]]
"""Images and the scanpaths on them, equally many on each, in succession."""
Ranked = tuple[Drawn, Int[Tensor, "B N"]]
"""Images and the ranks of their patches."""


def make_stream(config: TrainConfig, processes: Processes) -> ImageStream:
    """Open the training split as this process's share of a stream."""
    assert config.data.image_size is not None
    return ImageStream(
        config.data.data,
        "train",
        image_size=config.data.image_size,
        batch_size=config.stream_batch,
        channels=config.data.channels or 3,
        seed=config.run.seed,
        num_workers=config.data.stream_workers,
        rank=processes.rank,
        world_size=processes.count,
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

"""Options that all evaluations of a trained run share.

No torch, so that ``--help`` answers at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.runs import Run

OF_THE_POLICY = ("policy", "other_image", "best_fixed")
"""The policy and what is made of its scanpaths; all other orders and agents do not learn."""
LEAST_MEMORY = 0.064
"""GB that the fixations which an oracle tries at once may take, whatever the bound."""


def check_seed(seed: int) -> None:
    """Raise ValueError unless scikit-learn, NumPy and torch all take a seed of an evaluation."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie in 0..{2**32 - 1}, got {seed}")


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise ValueError unless trainings have one or more seeds, different, which torch takes."""
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) >= 2**32:
        listed = " ".join(map(str, seeds)) or "none"
        raise ValueError(
            f"seeds takes one or more different numbers, at least 0 and below 2**32, got {listed}"
        )


def check_image_numbers(index: Sequence[int]) -> None:
    """Raise ValueError unless these can be numbers of one image or more."""
    if not index or min(index) < 0:
        raise ValueError("index takes one or more test image numbers from 0")


def check_memory(memory: float) -> None:
    """Raise ValueError unless so many GB (10^9 bytes) can bound what is computed at once."""
    if not LEAST_MEMORY <= memory < math.inf:
        raise ValueError(f"memory must be a number of GB from {LEAST_MEMORY} on, got {memory}")


@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """On what runs are evaluated, and where."""

    data: str | None = None
    """Where the run's images lie now, if they have moved; None = where they lay in training."""
    data_changed_ok: bool = False
    """Evaluate although the images differ from those of the training, and say what changed."""
    device: str = "cpu"
    """Torch device."""
    threads: int | None = None
    """CPU threads; None = torch's choice."""

    def loaded(self, directory: Path, *, writes: bool = True) -> Run:
        """Load a run; what would keep its result from being written is found now.

        Args:
            directory: its folder.
            writes: whether the result goes into that.

        Raises:
            ValueError: there is no such run, or nothing can be written into its folder.
        """
        from experiments.run_folder import check_writable
        from experiments.runs import load_run
        from experiments.training.build import set_threads

        set_threads(self.threads)
        run = load_run(directory, self.device, self.data, self.data_changed_ok)
        if writes:
            check_writable(run.directory)
        return run


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(PlaceOptions):
    """Which run is evaluated, on what, and where."""

    run: Path
    """Run folder made by experiments.train."""

    def load(self, *, writes: bool = True) -> Run:
        """Load the run, as :meth:`loaded`."""
        return self.loaded(self.run, writes=writes)


@dataclass(frozen=True, kw_only=True)
class SeedsOptions(PlaceOptions):
    """Which runs of one kind are evaluated, on what, and where."""

    run: tuple[Path, ...]
    """Run folders made by experiments.train; several are runs of one kind and different seeds."""

    def __post_init__(self) -> None:
        if not self.run:
            raise ValueError("run takes one or more run folders, got none")

    def load(self) -> list[Run]:
        """Load the runs, as :meth:`loaded`; something is kept in the folder of each."""
        return [self.loaded(each) for each in self.run]

"""Let a model with tracks write at fixation points: the policy's against random ones.

    python -m experiments.read --run runs/git

A sentence is right if all its words are. Writes read.json into the run folder, and prints what is
written on a few images.
"""

from __future__ import annotations

from dataclasses import dataclass

from experiments.cli import main_with_options
from experiments.evaluation.options import EvaluationOptions, check_seed


@dataclass(frozen=True, kw_only=True)
class ReadConfig(EvaluationOptions):
    """Options of the read-out. The run is of a recipe with tracks."""

    limit: int = 500
    """Test images."""
    tracks: int = 8
    """Fixations of each image that are read."""
    seed: int = 0
    """Seed of the random points."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.limit < 2 or self.tracks < 1:
            raise ValueError("limit must be at least 2 (for an interval), tracks at least 1")


def main(config: ReadConfig) -> None:
    """Read as configured; write and print."""
    from experiments.evaluation.read import read
    from experiments.evaluation.report import present

    result = read(config.load(), limit=config.limit, tracks=config.tracks, seed=config.seed)
    present(result, config.run / "read.json", config.threads)
    print(result.examples_text())


if __name__ == "__main__":
    main_with_options(main, ReadConfig)

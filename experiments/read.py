"""Let a model with tracks write at fixation points: the policy's against random ones.

    python -m experiments.read --run runs/git

A sentence is right if all its words are. Writes read.json into the run folder, and prints what is
written on a few images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.cli import main_with_options


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """Options of the read-out."""

    run: Path
    """Run folder of a recipe with tracks."""
    limit: int = 500
    """Test images."""
    tracks: int = 8
    """Fixations of each image that are read."""
    seed: int = 0
    """Seed of the random points."""
    device: str = "cpu"
    """Torch device."""
    threads: int | None = None
    """CPU threads; None = torch's choice."""

    def __post_init__(self) -> None:
        if self.limit < 2 or self.tracks < 1:
            raise ValueError("limit must be at least 2 (for an interval), tracks at least 1")


def main(config: ReadConfig) -> None:
    """Read as configured; write and print."""
    from experiments.evaluation.read import read

    result = read(**vars(config))
    result.keep(config.run / "read.json", vars(config))
    print(result.to_text())
    print(result.examples_text())
    print(f"written: {config.run / 'read.json'}")


if __name__ == "__main__":
    main_with_options(main, ReadConfig)

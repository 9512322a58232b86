"""Compare the native agent with MaskablePPO over seeds, each trained jointly with its own model.

    python -m experiments.study cue     the toy world, 3 minutes on 2 cores
    python -m experiments.study demo    the demo preset, 40 minutes on 2 cores

Both agents scan in every iteration. Reports the area under the error curve on test images, with 95%
intervals over seeds (Student's t), beside random, center-out and the greedy oracle on the same
models, and the training time until the scans of training come within 0.02 of the worse agent's last
ones. Finished runs are kept, others resumed. Writes study_PRESET.json into the output folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.cli import main_with_options


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Options of the study."""

    preset: Annotated[Literal["cue", "demo", "smoke"], tyro.conf.Positional] = "cue"
    """Preset of experiments.train."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training, two or more."""
    iterations: int | None = None
    """Iterations with the policy; None = the preset's."""
    limit: int = 400
    """Test images."""
    out: Path = Path("runs/study")
    """Folder of the runs and the result."""
    threads: int | None = None
    """CPU threads; None = torch's choice."""

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < 2:
            raise ValueError("seeds takes two or more different ones, to have an interval")
        if self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")


def main(config: StudyConfig) -> None:
    """Run the study as configured."""
    from experiments.evaluation.agents import study

    study(config)


if __name__ == "__main__":
    main_with_options(main, StudyConfig)

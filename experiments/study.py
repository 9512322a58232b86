"""Compare the native learner with MaskablePPO over seeds, each trained jointly with its own model.

    python -m experiments.study cue     the toy world, 3 minutes on 2 cores
    python -m experiments.study demo    the demo preset, 40 minutes on 2 cores

Both scan in every iteration. The table shows the area under the error curve on test images, beside
that of random, center-out and the greedy oracle on the same models; 95% intervals are over seeds
(Student's t). It also shows the training time until the scans of training come within 0.02 of the
worse learner's last ones. Finished runs are kept, others resumed. Writes study_PRESET.json into the
output folder.
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
    """Run the study as configured; write and print."""
    from experiments.evaluation.study import study

    result = study(**vars(config))
    path = config.out / f"study_{config.preset}.json"
    result.write(path)
    print(result.to_text())
    print(f"written: {path}")


if __name__ == "__main__":
    main_with_options(main, StudyConfig)

"""Carry out a whole grid of trainings, or what is left of it, each cell against a baseline.

    python -m experiments.study cue                     native learner or MaskablePPO, 3 minutes
    python -m experiments.study teaching --workers 4    which order teaches best, many hours
    python -m experiments.study my_grid.py --minutes 8  one of your own, 8 minutes of it

GRID is the name of a grid that ships (cue, demo, doubt, labels, smoke, teaching, teaching_eight,
teaching_imagenette, teaching_smoke, words), a Python file whose function ``grid`` yields cells by
name, FILE.py:NAME, or MODULE:NAME. Every seed of a cell is a job of its own: what is done is
skipped, what was cut off goes on, what fails is reported and stops nothing but what needs it. Two
calls may share a folder, as no two train the same run.

Differences from the baseline are paired over seeds and images, with 95% intervals. Writes
study_GRID.json into the output folder, and with --page study_GRID.html. ``--minutes 0 --page``
writes them from what is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.cli import main_with_options
from experiments.evaluation.options import check_seeds
from foveate.sizes import check_at_least


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Options of the study."""

    grid: Annotated[str, tyro.conf.Positional] = "cue"
    """Grid: a name, FILE.py, FILE.py:NAME or MODULE:NAME."""
    seeds: tuple[int, ...] | None = None
    """Seeds of every cell; None = the grid's."""
    iterations: int | None = None
    """Iterations with a policy, of cells that have one; None = theirs."""
    limit: int | None = None
    """Images that are asked about; None = the grid's."""
    teraflops: float | None = None
    """Operations of every run, 10^12, but for screening; None = the grid's."""
    screening_teraflops: float | None = None
    """Operations of every run in screening, 10^12; None = the grid's."""
    cells: tuple[str, ...] | None = None
    """Cells that are trained, without a screening, with those that they are set against and need;
    None = all."""
    options: dict[str, str] | None = None
    """Options of experiments.train for all cells, such as ``data PATH image_size 32``."""
    out: Path = Path("runs/study")
    """Folder of the runs and the result."""
    device: str = "cpu"
    """Torch device of all runs."""
    threads: int | None = None
    """CPU threads of each run; None = torch's choice, or a share of the cores for each worker."""
    workers: int | None = None
    """Runs at once; None = one, and all on a cluster."""
    minutes: float | None = None
    """Stop after so many minutes, with checkpoints: the same command goes on. None = when all is
    done."""
    page: bool = False
    """Write one HTML page of all that was found."""
    cluster: Literal["slurm", "local"] | None = None
    """Where the runs are carried out, by submitit (extra ``cluster``); None = on this machine."""
    partition: str | None = None
    """Partition of Slurm."""
    job_minutes: int = 120
    """Minutes after which the cluster ends a job; the same command goes on."""

    def __post_init__(self) -> None:
        if self.seeds is not None:
            check_seeds(self.seeds)
        check_at_least(self, 1, "iterations", "limit", "threads", "workers", "job_minutes")
        check_at_least(self, 0, "minutes")
        usual = type(self).job_minutes
        if self.cluster is None and (self.partition is not None or self.job_minutes != usual):
            raise ValueError("partition and job_minutes need --cluster slurm")


def main(config: StudyConfig) -> None:
    """Carry out the study as configured; write and print."""
    from experiments.studies.page import write_page
    from experiments.studies.study import run_study

    config.out.mkdir(parents=True, exist_ok=True)
    arguments = {name: each for name, each in vars(config).items() if name != "page"}
    study = run_study(**arguments)
    path = config.out / f"study_{study.grid.name}.json"
    result = study.own or study.result
    result.write(path)
    print(result.to_text())
    print(f"written: {path}")
    if config.page:
        page = path.with_suffix(".html")
        write_page(page, study.result, () if study.own is None else study.own.tables())
        print(f"written: {page}")
    stage = study.result.last
    if study.result.undecided or stage is None or stage.waiting:
        print("not all runs are done; the same command goes on")
    if study.result.failures:
        # What calls this command is to know.
        raise SystemExit(1)


if __name__ == "__main__":
    main_with_options(main, StudyConfig)

"""A whole grid: screen, choose, train what goes on, and gather the answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from experiments.run_folder import git_commit
from experiments.studies.answers import read_pictures
from experiments.studies.cell import check_left_to_the_study
from experiments.studies.cluster import Cluster, start_on
from experiments.studies.deciding import check_learned_alike, choose, stage_of
from experiments.studies.grid import Cell, Grid, Split
from experiments.studies.job import Job, training_of
from experiments.studies.loading import load_grid
from experiments.studies.result import GridResult
from experiments.studies.runner import Starter, run_jobs, start_here
from experiments.studies.stage import Stage
from experiments.tables import Result, plural
from experiments.training.config import TrainConfig
from experiments.training.locating import located
from experiments.training.typed import typed_text
from foveate.checkpoint import check_device
from foveate.choices import blaming, lookup
from foveate.devices import name_of_device

StageName = Literal["screen", "final"]


@dataclass(frozen=True)
class Study:
    """What a study came to."""

    grid: Grid
    home: Path
    """Folder of the runs."""
    result: GridResult
    own: Result | None
    """What the grid's ``summary`` made; None = it has none, or not all runs are done."""


@dataclass(frozen=True, kw_only=True)
class Carrying:
    """How the jobs of a study are carried out."""

    home: Path
    start: Starter
    workers: int | None
    stop_at: float
    threads: int | None
    device: str
    options: Mapping[str, object]

    def __post_init__(self) -> None:
        check_left_to_the_study(self.options)

    def jobs(self, grid: Grid, stage: StageName, cells: Sequence[Cell]) -> list[Job]:
        """Return the jobs of a stage, seed by seed, so that pairs are soon whole.

        Raises:
            ValueError: a cell cannot be trained in this setting.
        """
        rule = grid.screening if stage == "screen" else None
        folder = self.home / "screen" if rule else self.home
        split: Split = "val" if rule else "test"
        jobs = []
        for cell in cells:
            config = self._config(cell, {} if rule is None else rule.options)
            if rule and not cell.reference and config.data.learn_split == "val":
                raise ValueError(
                    f"cell {cell.name!r} learns from val, by which the screening would choose it; "
                    "leave out --learn-split, or the screening"
                )
            for place, seed in enumerate(grid.seeds_of(cell) if rule is None else rule.seeds):
                name = f"{cell.name}_{seed}"
                needs = {option: f"{needed}_{seed}" for option, needed in cell.needs.items()}
                own = {option: str(folder / run) for option, run in needs.items()}
                with blaming("cell", cell.name):
                    own_config = config.replace(seed=seed, out=folder / name, **own)
                asked = grid.asked if rule is None else (rule.asked or grid.asked).of_screening()
                seen = asked if place == 0 else asked.without_pictures()
                job = Job(
                    cell=cell.name,
                    config=located(own_config),
                    asked=None if cell.reference else seen,
                    split=split,
                    teraflops=(rule and rule.teraflops) or grid.teraflops,
                    folder=self.home / "jobs" / stage / name,
                    needs=needs,
                )
                jobs.append((place, job))
        by_name = {job.name: job for _, job in jobs}
        return [with_trainings(job, by_name) for _, job in sorted(jobs, key=lambda each: each[0])]

    def _config(self, cell: Cell, options: Mapping[str, object]) -> TrainConfig:
        config = cell.config({**options, **self.options})
        return config.replace(device=self.device, threads=self.threads)

    def carry_out(self, grid: Grid, jobs: Sequence[Job], title: str) -> Stage:
        """Carry out the jobs of a stage, as far as time allows, and gather what they answer."""
        print(f"{title}: {plural(len(jobs), 'run')}", flush=True)
        check_learned_alike([job.config for job in jobs])
        missing = run_jobs(jobs, self.start, workers=self.workers, stop_at=self.stop_at)
        return stage_of(title, jobs, missing, grid.against, grid.own_baselines)


def run_study(
    grid: str = "cue",
    *,
    seeds: tuple[int, ...] | None = None,
    iterations: int | None = None,
    limit: int | None = None,
    teraflops: float | None = None,
    screening_teraflops: float | None = None,
    cells: tuple[str, ...] | None = None,
    options: Mapping[str, str] | None = None,
    out: Path = Path("runs/study"),
    device: str = "cpu",
    threads: int | None = None,
    workers: int | None = None,
    minutes: float | None = None,
    cluster: Cluster | None = None,
    partition: str | None = None,
    job_minutes: int = 120,
) -> Study:
    """Carry out a grid, or what is left of it. What is done is kept, what was cut off goes on.

    Args:
        grid: name of one that ships, ``FILE.py``, ``FILE.py:NAME`` or ``MODULE:NAME``.
        seeds: of every cell; None = the grid's.
        iterations: with a policy, of the cell that has the most, of others in proportion; None =
            theirs.
        limit: images that are asked about; None = the grid's.
        teraflops: operations of every run, 10^12, but for screening; None = the grid's.
        screening_teraflops: operations of every run in screening, 10^12; None = the grid's.
        cells: as of :meth:`~experiments.studies.grid.Grid.changed`; None = all.
        options: of experiments.train for all cells, by name; they come last.
        out: folder of the study, which gets a folder of the grid's name.
        device: torch device of all runs.
        threads: CPU threads of each run; None = torch's choice, of several a share of the cores.
        workers: runs at once; None = one, and all on a cluster.
        minutes: after which running jobs stop with a checkpoint; None = when all is done.
        cluster: where jobs run; None = here.
        partition: of the cluster.
        job_minutes: after which the cluster ends a job.

    Raises:
        ValueError: no such grid, cell or cluster, a cell that cannot be trained, a study's option.
    """
    stop_at = float("inf") if minutes is None else time.monotonic() + 60 * minutes
    own: Any = {"seeds": seeds, "iterations": iterations, "limit": limit, "teraflops": teraflops}
    own |= {"screening_teraflops": screening_teraflops, "cells": cells}
    changed = load_grid(grid).changed(**own)
    home, start = (out / changed.name).resolve(), start_here()
    if cluster is None:
        check_device(device)
        workers = workers or 1
        threads = threads or share_of_cores(workers)
    else:
        own = {"partition": partition, "job_minutes": job_minutes, "threads": threads}
        start = start_on(cluster, home / "cluster", gpu=device.startswith("cuda"), **own)
    own = {"threads": threads, "device": device, "options": typed_text(options or {})}
    carrying = Carrying(home=home, start=start, workers=workers, stop_at=stop_at, **own)
    return carry_out(changed, carrying)


def with_trainings(job: Job, jobs: Mapping[str, Job]) -> Job:
    """Return a job that says what the trainings of the runs that it needs follow from."""
    needed = {option: with_trainings(jobs[name], jobs) for option, name in job.needs.items()}
    own = {option: training_of(each.question) for option, each in needed.items()}
    return replace(job, trainings=own)


def share_of_cores(workers: int) -> int | None:
    """Return the CPU threads of each of several workers; None = torch's choice, of one alone."""
    return max(1, (os.cpu_count() or 1) // workers) if workers > 1 else None


def carry_out(grid: Grid, carrying: Carrying) -> Study:
    """Screen, choose and train; gather what is known, be it not whole."""
    # All cells in all settings, before the first is trained.
    final = carrying.jobs(grid, "final", grid.cells)
    screened, dropped, undecided = None, dict[str, str](), None
    if (rule := grid.screening) is not None:
        jobs = carrying.jobs(grid, "screen", grid.cells)
        title = f"Screening on validation images, seeds {listed(rule.seeds)}"
        screened = carrying.carry_out(grid, jobs, title)
        choice = choose(grid, rule, screened)
        dropped, undecided = choice.dropped, choice.undecided
        final = [job for job in final if job.cell in choice.kept]
        for name, why in dropped.items():
            print(f"{name} does not go on: {why}", flush=True)
    stage = None
    if final:
        seeds = listed(sorted({job.config.run.seed for job in final}))
        stage = carrying.carry_out(grid, final, f"Test images, seeds {seeds}")
    first: dict[str, Path] = {}
    for job in final:
        first.setdefault(job.cell, job.config.run.out)
    result = GridResult(
        name=grid.name,
        question=grid.question,
        baseline=grid.against,
        ideas={cell.name: cell.idea for cell in grid.cells},
        needs={cell.name: grid.needs_of(cell.name) for cell in grid.cells if cell.needs},
        rule=None if grid.screening is None else grid.screening.rule,
        measure="" if grid.screening is None else grid.screening.by,
        trainings={cell.name: words for cell in grid.cells if (words := cell.words)},
        options={name: str(each) for name, each in carrying.options.items()},
        screened=screened,
        final=stage,
        dropped=dropped,
        undecided=undecided,
        verdict_seeds=grid.verdict_seeds,
        scans={cell: scans for cell, folder in first.items() if (scans := read_pictures(folder))},
        threads=carrying.threads or torch.get_num_threads(),
        device=name_of_device(carrying.device),
        commit=git_commit(),
    )
    whole = stage is not None and not stage.waiting and not stage.failed
    return Study(grid, carrying.home, result, summarized(grid, carrying, whole))


def summarized(grid: Grid, carrying: Carrying, whole: bool) -> Result | None:
    """Return the result of the grid's own kind; None = it has none, or it is not whole.

    Raises:
        ValueError: its summary returns no result.
    """
    if grid.summary is None or not whole:
        return None
    make: Callable[..., object] = lookup("summary", grid.summary, {})
    with blaming("summary", grid.summary):
        made = make(grid, carrying.home)
        if not isinstance(made, Result):
            raise ValueError("it must return a Result")
    return made


def listed(numbers: Sequence[int]) -> str:
    """Write numbers: 0, 1, 2."""
    return ", ".join(map(str, numbers))

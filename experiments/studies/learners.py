"""Study of two learners of the policy over seeds, beside random, center-out and the oracle."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import BeforeValidator

from agents.baselines import GreedyOracleAgent
from experiments.evaluation.curves import error_curves_of
from experiments.evaluation.intervals import Interval, seed_interval
from experiments.evaluation.recognition.paths import scan_of
from experiments.evaluation.scanpaths import scanned_in_chunks
from experiments.metrics_file import read_metrics
from experiments.run_folder import git_commit, read_manifest
from experiments.runs import Run
from experiments.studies.answers import read_answers
from experiments.studies.grid import Grid
from experiments.tables import Result, Table, plural, short_commit, with_interval

Seconds = Annotated[float, BeforeValidator(lambda value: float("inf") if value is None else value)]
"""A time; JSON has no number for one that never comes, which is null there."""
AREA = "area, "
"""How the measures are called, before the order."""
TOLERANCE = 0.02
"""How near a learner must come to the worse one's last area to have reached it."""


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """What one learner or control reached, over seeds."""

    auc: float
    """Area under the error curve on test images, mean over runs."""
    auc_per_run: tuple[float, ...]
    auc_ci95: Interval | None
    seconds_to_target: tuple[Seconds, ...] = ()
    """Training time until the target, by seed; inf = never, none = it does not learn."""


@dataclass(frozen=True, kw_only=True)
class StudyResult(Result):
    """Learners and controls, best first."""

    kind: ClassVar[str] = "study"

    preset: str
    agents: dict[str, StudyRow]
    """By the name of the learner or control."""
    target_train_auc: float
    """Area of the training scans that counts as reached."""
    seeds: tuple[int, ...]
    test_images: int
    threads: int
    commit: str

    def tables(self) -> list[Table]:
        """Return areas, with the seconds that each seed took to the target."""
        return [
            Table(
                caption=f"Preset `{self.preset}`, seeds {', '.join(map(str, self.seeds))}, "
                f"{self.test_images} test images (the oracle on the first 100), "
                f"{plural(self.threads, 'CPU thread')}, commit `{short_commit(self.commit)}`.",
                columns=(
                    "agent",
                    "area under the error curve, 95% interval over seeds",
                    f"seconds until its training scans reach {self.target_train_auc:.3f}, by seed",
                ),
                rows=tuple(
                    (
                        name,
                        with_interval(row.auc, row.auc_ci95, 4),
                        ", ".join(f"{taken:.0f}" for taken in row.seconds_to_target),
                    )
                    for name, row in self.agents.items()
                ),
            )
        ]


def study_of(grid: Grid, home: Path) -> StudyResult:
    """Gather what both learners found, once all their runs are done.

    Args:
        grid: of :func:`experiments.studies.shipped.learners`.
        home: folder of the runs.
    """
    areas: dict[str, list[list[float]]] = {}
    curves: dict[str, list[list[tuple[float, float]]]] = {}
    images = 0
    for place, seed in enumerate(grid.seeds):
        for cell in grid.cells:
            folder = home / f"{cell.name}_{seed}"
            answers = read_answers(folder)
            if answers is None:
                raise ValueError(f"{folder} has not been asked")
            for name, values in answers.values.items():
                order = name.removeprefix(AREA)
                whose = cell.name if order == "policy" else order
                areas.setdefault(whose, [[] for _ in grid.seeds])[place].append(
                    float(values.mean())
                )
                images = max(images, len(values))
            curves.setdefault(cell.name, []).append(learning_curve(folder))
    worst = max(statistics.mean(curve[-1][1] for curve in each) for each in curves.values())
    target = worst + TOLERANCE
    # A control scans the models of both learners, which are alike: a seed counts once.
    by_seed = {name: [statistics.mean(each) for each in found] for name, found in areas.items()}
    return StudyResult(
        preset=grid.name,
        agents={
            name: row_of(values, curves.get(name, []), target)
            for name, values in sorted(by_seed.items(), key=lambda item: statistics.mean(item[1]))
        },
        target_train_auc=target,
        seeds=grid.seeds,
        test_images=images,
        threads=read_manifest(folder)["threads"],
        commit=git_commit(),
    )


def row_of(areas: list[float], curves: list[list[tuple[float, float]]], target: float) -> StudyRow:
    """Return the mean over seeds, its interval, and the times to the target."""
    return StudyRow(
        auc=statistics.mean(areas),
        auc_per_run=tuple(areas),
        auc_ci95=seed_interval(areas),
        seconds_to_target=tuple(seconds_to(curve, target) for curve in curves),
    )


def areas_on(run: Run, split: str, limit: int | None) -> dict[str, Float[np.ndarray, " I"]]:
    """Return each image's area under the error curve, of the policy and its controls."""
    held_out = run.split(split, limit)
    orders = ("random", "center_out", "policy")
    paths = {name: scan_of(run, name)(held_out.images) for name in orders}
    paths["oracle"] = scanned_in_chunks(
        GreedyOracleAgent(),
        run.model,
        held_out.images[:100],
        run.budget,
        len(run.fixations),
        run.fixations,
    ).order
    curves = error_curves_of(run.model, held_out.images, paths)
    return {f"{AREA}{name}": curve[:, 1:].mean(1) for name, curve in curves.items()}


def learning_curve(folder: Path) -> list[tuple[float, float]]:
    """Return seconds of training and area of its scans, averaged over five lines of metrics."""
    lines = read_metrics(folder / "metrics.jsonl")
    points = [(line["seconds"], line["auc"]) for line in lines if "auc" in line]
    window = min(5, len(points))
    return [
        (points[last][0], statistics.mean(auc for _, auc in points[last - window + 1 : last + 1]))
        for last in range(window - 1, len(points))
    ]


def seconds_to(curve: list[tuple[float, float]], target: float) -> float:
    """Return the first time at which a curve reaches the target; inf = never."""
    return next((at for at, auc in curve if auc <= target), float("inf"))

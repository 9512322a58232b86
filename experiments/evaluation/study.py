"""Study of two learners of the policy over seeds, beside random, center-out and the oracle."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

import torch
from pydantic import BeforeValidator

from agents.baselines import GreedyOracleAgent
from experiments.evaluation.curves import error_curves_of
from experiments.evaluation.intervals import Interval, seed_interval
from experiments.evaluation.scanpaths import scanned_in_chunks
from experiments.metrics_file import read_metrics
from experiments.run_folder import git_commit
from experiments.runs import Run
from experiments.tables import Result, Table, plural, with_interval
from experiments.training.build import set_threads
from experiments.training.loop import finished_run
from experiments.training.presets import PRESETS
from foveate.orders import ordering, rank_to_order

Learner = Literal["group-relative", "maskable-ppo"]
"""Who learns the policy."""
Seconds = Annotated[float, BeforeValidator(lambda value: float("inf") if value is None else value)]
"""A time; JSON has no number for one that never comes, which is null there."""
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
                f"{plural(self.threads, 'CPU thread')}, commit `{self.commit[:10]}`.",
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


def study(
    preset: str = "cue",
    *,
    seeds: tuple[int, ...] = (0, 1, 2),
    iterations: int | None = None,
    limit: int = 400,
    out: Path = Path("runs/study"),
    threads: int | None = None,
) -> StudyResult:
    """Train both learners for every seed, and evaluate what they learned.

    Args:
        preset: of experiments.train.
        seeds: of training, two or more.
        iterations: with the policy; None = the preset's.
        limit: test images.
        out: folder of the runs; finished ones are kept, others resumed.
        threads: CPU threads; None leaves them as they are.
    """
    set_threads(threads)
    areas: dict[str, list[float]] = {}
    curves: dict[str, list[list[tuple[float, float]]]] = {}
    plan = PRESETS[preset][1]
    plan = plan.replace(
        policy_every=1,
        iterations=iterations or plan.iterations,
        report=False,
        threads=threads,
    )
    for seed in seeds:
        for learner in get_args(Learner):
            folder = out / preset / f"{learner}_{seed}"
            run = finished_run(plan.replace(out=folder, agent=learner, seed=seed))
            measured = evaluate(run, limit)
            areas.setdefault(learner, []).append(measured.pop("policy"))
            for name, area in measured.items():
                areas.setdefault(name, []).append(area)
            curves.setdefault(learner, []).append(learning_curve(run.directory))
    worst = max(statistics.mean(curve[-1][1] for curve in each) for each in curves.values())
    target = worst + TOLERANCE
    return StudyResult(
        preset=preset,
        agents={
            name: row_of(values, curves.get(name, []), target)
            for name, values in sorted(areas.items(), key=lambda item: statistics.mean(item[1]))
        },
        target_train_auc=target,
        seeds=seeds,
        test_images=limit,
        threads=torch.get_num_threads(),
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


def evaluate(run: Run, limit: int) -> dict[str, float]:
    """Return the mean area under the error curve of the policy and its controls on test images."""
    test = run.split("test", limit)
    images = test.batch(torch.arange(len(test)))
    budget = run.budget
    generator = torch.Generator().manual_seed(0)
    paths = {
        name: rank_to_order(ordering(name, run.model.grid)(images, generator=generator))[:, :budget]
        for name in ("random", "center_out")
    }
    paths["policy"] = scanned_in_chunks(run.agent, run.model, images, budget).order
    paths["oracle"] = scanned_in_chunks(
        GreedyOracleAgent(), run.model, images[:100], budget, run.model.num_patches
    ).order
    curves = error_curves_of(run.model, images, paths)
    return {name: float(curve[:, 1:].mean()) for name, curve in curves.items()}


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

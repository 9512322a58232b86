"""The measurements behind ``experiments.study``."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch

from agents.baselines import GreedyOracleAgent
from experiments.evaluation.intervals import seed_interval
from experiments.evaluation.scanpaths import error_curves_of, scan_in_chunks
from experiments.runs import Run, check_folder, git_commit, load_run, read_config, write_json
from experiments.training.config import TrainConfig
from experiments.training.loop import train
from experiments.training.presets import PRESETS
from foveate.checkpoint import CHECKPOINT
from foveate.orders import ordering, rank_to_order

if TYPE_CHECKING:
    from experiments.study import StudyConfig

Agent = Literal["group-relative", "maskable-ppo"]
TOLERANCE = 0.02
"""How near an agent must come to the worse one's last area to have reached it."""


def study(config: StudyConfig) -> dict[str, object]:
    """Train both agents for every seed, evaluate, print the table, and write study.json."""
    areas: dict[str, list[float]] = {}
    curves: dict[str, list[list[tuple[float, float]]]] = {}
    for seed in config.seeds:
        for agent in get_args(Agent):
            run = trained(config, agent, seed)
            measured = evaluate(run, config.limit)
            areas.setdefault(agent, []).append(measured.pop("policy"))
            for name, area in measured.items():
                areas.setdefault(name, []).append(area)
            curves.setdefault(agent, []).append(learning_curve(run.directory))
    target = max(statistics.mean(curve[-1][1] for curve in each) for each in curves.values())
    rows: dict[str, dict[str, object]] = {}
    for name, values in sorted(areas.items(), key=lambda item: statistics.mean(item[1])):
        row: dict[str, object] = {"auc": statistics.mean(values), "auc_per_run": values}
        row["auc_ci95"] = seed_interval(values)
        if name in curves:
            row["seconds_to_target"] = [seconds_to(curve, target) for curve in curves[name]]
        rows[name] = row
    result: dict[str, object] = {
        "kind": "study",
        "preset": config.preset,
        "agents": rows,
        "target_train_auc": target + TOLERANCE,
        "seeds": config.seeds,
        "test_images": config.limit,
        "threads": torch.get_num_threads(),
        "commit": git_commit(),
    }
    write_json(config.out / f"study_{config.preset}.json", result)
    print(f"{config.preset}: area under the error curve, {len(config.seeds)} seeds\n")
    print(f"{'agent':<16}{'area':>8}   {'95% interval':<18}seconds until {target + TOLERANCE:.3f}")
    for name, row in rows.items():
        low, high = seed_interval(areas[name])
        seconds = row.get("seconds_to_target", [])
        assert isinstance(seconds, list)
        print(
            f"{name:<16}{statistics.mean(areas[name]):8.4f}   "
            f"{f'[{low:.4f}, {high:.4f}]':<18}{', '.join(f'{s:.0f}' for s in seconds)}"
        )
    print(f"written: {config.out / f'study_{config.preset}.json'}")
    return result


def trained(config: StudyConfig, agent: Agent, seed: int) -> Run:
    """Train one run, or finish or load the one that is there."""
    folder = config.out / config.preset / f"{agent}_{seed}"
    preset = PRESETS[config.preset][1]
    wanted: TrainConfig = preset.replace(
        out=folder,
        agent=agent,
        seed=seed,
        policy_every=1,
        iterations=config.iterations or preset.iterations,
        report=False,
        threads=config.threads,
    )
    return finished(wanted)


def finished(wanted: TrainConfig) -> Run:
    """Train a run, or finish or load the one that is there.

    Raises:
        ValueError: the run that is there has another config.
    """
    begun = (wanted.run.out / "config.json").is_file()
    if begun:
        same = (
            wanted.optimization.micro_batches
            or read_config(wanted.run.out).optimization.micro_batches
        )
        try:
            check_folder(wanted.replace(resume=True, micro_batches=same))
        except ValueError as reason:
            raise ValueError(f"{reason}; choose another --out for a study of its own") from reason
    if not (wanted.run.out / CHECKPOINT).is_file() or (
        load_run(wanted.run.out).iteration < wanted.total_iterations
    ):
        train(wanted.replace(resume=begun))
    return load_run(wanted.run.out)


def evaluate(run: Run, limit: int) -> dict[str, float]:
    """Mean area under the error curve of the policy and its controls on test images."""
    test = run.split("test", limit)
    images = test.batch(torch.arange(len(test)))
    budget = run.config.scan.budget
    generator = torch.Generator().manual_seed(0)
    paths = {
        name: rank_to_order(ordering(name, run.model.grid)(images, generator=generator))[:, :budget]
        for name in ("random", "center_out")
    }
    paths["policy"] = scan_in_chunks(run.agent, run.model, images, budget)
    paths["oracle"] = scan_in_chunks(
        GreedyOracleAgent(), run.model, images[:100], budget, run.model.num_patches
    )
    return {
        name: float(error_curves_of(run.model, images, path)[:, 1:].mean())
        for name, path in paths.items()
    }


def learning_curve(folder: Path) -> list[tuple[float, float]]:
    """Seconds of training and area of the training scans, averaged over five lines of metrics."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    points = [(line["seconds"], line["auc"]) for line in lines if "auc" in line]
    window = min(5, len(points))
    return [
        (points[last][0], statistics.mean(auc for _, auc in points[last - window + 1 : last + 1]))
        for last in range(window - 1, len(points))
    ]


def seconds_to(curve: list[tuple[float, float]], target: float) -> float:
    """First time at which a curve comes within TOLERANCE of the target; inf = never."""
    return next((at for at, auc in curve if auc <= target + TOLERANCE), float("inf"))

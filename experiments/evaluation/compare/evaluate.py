"""Compare orders: error versus fixations, for the policy, its controls, and other orders."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.evaluation.compare.contenders import ContenderCurves, Scanners, measure
from experiments.evaluation.compare.diagnostics import (
    Diagnostics,
    diagnose,
    mean_saccade,
    visited_entropy,
)
from experiments.evaluation.compare.findings import (
    IMAGE_INDEPENDENT,
    RULES,
    beside_rules,
    judge_with_cost,
    nearly_collapsed,
    not_beaten,
    not_judged,
)
from experiments.evaluation.compare.result import Comparison, OrderErrors
from experiments.evaluation.intervals import Interval, gap_interval, half_width, mean_interval
from experiments.evaluation.options import check_memory
from experiments.evaluation.progress import Progress
from experiments.evaluation.scanpaths import MOST_OF_VALIDATION
from experiments.run_folder import git_commit
from experiments.runs import Run, not_finite
from experiments.tables import plural
from foveate.drawing import error_curves
from foveate.orders import order_to_rank

OF_A_POLICY = (
    "gap_closed",
    "gap_closed_ci95",
    "gap_closed_oracle_16",
    "gap_closed_oracle_16_ci95",
    "not_better_than",
    "nearly_collapsed",
    "behind_rules",
    "level_with_rules",
    "not_judged",
    "with_saccade_cost",
)
"""What is found of a policy, and null where none has learned."""
MOST_JUDGED = 6400
"""Patches of the images on which every fixation of the policy is judged among all others: 100
images of 64 patches, 25 of 256. The cost grows with the square of the patches."""


def compare(
    run: Run,
    *,
    judge: Run | None = None,
    orders: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    agents: tuple[str, ...] = (),
    limit: int = 2000,
    oracle_limit: int = 500,
    memory: float = 1.0,
) -> Comparison:
    """Let orders and agents scan the same test images, and measure the errors.

    Standard error says how far it is.

    Args:
        run: its policy is compared, and its model is the world of all scans.
        judge: run whose model measures the errors; None = the run itself.
        orders: orders and oracles by name, see :func:`compared`; ``MODULE:NAME`` come on top.
        without: orders, oracles and agents that are left out.
        agents: agents of the user's own, ``MODULE:NAME`` of what makes them.
        limit: test images.
        oracle_limit: test images of the greedy oracles and of the gap.
        memory: bound on what is computed at once, GB; at least LEAST_MEMORY.

    Raises:
        ValueError: the judge reads other images, an order or agent is unknown, less than two
            images are asked for, memory is too small, or the model's predictions are not finite.
    """
    check_question(run, judge, min(limit, oracle_limit), memory)
    scanners = Scanners.of(run.model, orders, agents, without, run.saccade_cost)
    test, validation = run.split("test", limit), run.split("val", MOST_OF_VALIDATION)
    by, few = judge or run, min(oracle_limit, len(test))
    judged = min(few, max(2, MOST_JUDGED // run.model.num_patches))
    with started(run, scanners, len(test), len(validation), few, judged, by) as progress:
        shared: Any = {"memory": int(memory * 1e9), "advance": progress.advance}
        pixels, seen = test.images, validation.images
        measured = measure(run, scanners, pixels, seen, judge=by.model, oracle_limit=few, **shared)
        check_errors(measured.curve, by)
        path, lost = measured.order["policy"], measured.own_minus_other
        diagnostics = diagnose(run.model, pixels[:judged], path, lost, run.fixations, **shared)
    return Comparison(
        **conclusions(run, measured, diagnostics),
        diagnostics=diagnostics,
        percentile_images=judged,
        dataset=run.dataset(test),
        judge="own" if judge is None else judge.name,
        test_images=len(test),
        **facts_of(run),
        options={
            "judge": None if judge is None else judge.directory,
            "orders": orders,
            "without": without,
            "agents": agents,
            "limit": limit,
            "oracle_limit": oracle_limit,
            "memory": memory,
            **run.data_options,
        },
    )


def started(
    run: Run,
    scanners: Scanners,
    images: int,
    validation: int,
    oracle_images: int,
    judged: int,
    by: Run,
) -> Progress:
    """Say what is compared on how many images, and begin to count what is done of it."""
    work = scanners.predictions(run, images, validation, oracle_images, by is not run)
    work += judged * run.model.num_patches * (1 + run.budget * len(run.fixations))
    sys.stderr.write(
        f"comparing {len(scanners)} orders and agents on {plural(images, 'test image')}"
        f"{f', the oracles on {oracle_images}' * bool(scanners.oracles)}\n"
    )
    return Progress("compare", work)


def conclusions(run: Run, measured: ContenderCurves, diagnostics: Diagnostics) -> dict[str, Any]:
    """Fields of a comparison that follow from the scanpaths and their errors."""
    rows = {
        name: replace(row, path_length=mean_saccade(measured.order[name], run.model.grid))
        for name, row in order_errors(measured.curve, measured.area).items()
    }
    gap, gap_ci95 = gap_closed(measured.area, "oracle")
    gap_16, gap_16_ci95 = gap_closed(measured.area, "oracle_16")
    best_gap = gap if "oracle" in measured.area else gap_16
    ruled = any(name in rows for name in RULES)
    behind, level = beside_rules(rows)
    rank, grid = order_to_rank(measured.order["policy"], run.model.num_patches), run.model.grid
    cost = (measured.area, measured.order, grid, run.saccade_cost)
    found: dict[str, Any] = {
        "orders": rows,
        "gap_closed": gap,
        "gap_closed_ci95": gap_ci95,
        "gap_closed_oracle_16": gap_16,
        "gap_closed_oracle_16_ci95": gap_16_ci95,
        "visited_entropy": round(visited_entropy(rank, run.budget), 4),
        "not_better_than": not_beaten(rows, IMAGE_INDEPENDENT),
        "nearly_collapsed": nearly_collapsed(rows, best_gap, diagnostics),
        "behind_rules": behind if ruled else None,
        "level_with_rules": level if ruled else None,
        "not_judged": not_judged(rows, best_gap, diagnostics),
        "saccade_cost": run.saccade_cost,
        "with_saccade_cost": judge_with_cost(*cost) if run.is_paid_area_and_cost else None,
    }
    if run.without_policy is not None:
        found |= dict.fromkeys(OF_A_POLICY)
    return found


def check_errors(curves: dict[str, Float[np.ndarray, "R S"]], run: Run) -> None:
    """Raise ValueError if the errors of a model are not finite."""
    broken = sum(int((~np.isfinite(curve).all(1)).sum()) for curve in curves.values())
    if broken:
        raise not_finite(run, f", in {broken} of {sum(map(len, curves.values()))} scans")


def facts_of(run: Run) -> dict[str, Any]:
    """Fields of a comparison that are the run's and the code's."""
    return {
        "split": "test",
        "seed": run.seed,
        "budget": run.budget,
        "fixation_patches": run.fixations.size,
        "num_patches": run.model.num_patches,
        "periphery": run.model.config.periphery,
        "iteration": run.iteration,
        "without_policy": run.without_policy,
        "commit": git_commit(),
    }


def gap_closed(
    area: dict[str, Float[np.ndarray, " R"]], oracle: str
) -> tuple[float | None, Interval | None]:
    """Share of the gap from random to an oracle that the policy closes, on the oracle's images.

    None if the oracle is not among those that were compared.
    """
    if oracle not in area:
        return None, None
    few = len(area[oracle])
    return gap_interval(area["random"][:few], area["policy"][:few], area[oracle])


def check_question(run: Run, judge: Run | None, num_images: int, memory: float) -> None:
    """Raise ValueError unless intervals can be had, and a judge reads the run's images."""
    check_memory(memory)
    if num_images < 2:
        raise ValueError("limit and oracle_limit take two or more images; three have an interval")
    run.model.check_scannable()
    if judge is None:
        return
    world, judged = run.model, judge.model
    judged.check_scannable()
    sizes, judged_sizes = (
        (model.config.in_chans, model.config.image_size, model.grid) for model in (world, judged)
    )
    if sizes != judged_sizes:
        raise ValueError(
            f"the judge reads {judged.config.in_chans} x {judged.config.image_size} pixels on a "
            f"{judged.grid} grid, the run {world.config.in_chans} x {world.config.image_size} on "
            f"{world.grid}; choose a judge that fits"
        )


def order_errors(
    curves: dict[str, Float[np.ndarray, "R S"]], area: dict[str, Float[np.ndarray, " R"]]
) -> dict[str, OrderErrors]:
    """Summarize the error curves of all orders, best first.

    They are sorted by the paired difference from the policy, as the oracles scan fewer images.
    """
    paired = {name: (each - area["policy"][: len(each)]).mean() for name, each in area.items()}
    rows = {}
    for name in sorted(paired, key=lambda name: float(paired[name])):
        curve, number = curves[name], len(area[name])
        auc, auc_ci95 = mean_interval(area[name])
        minus_random, minus_random_ci95 = mean_interval(area[name] - area["random"][:number])
        minus_policy, minus_policy_ci95 = mean_interval(area[name] - area["policy"][:number])
        rows[name] = OrderErrors(
            auc=auc,
            auc_ci95=auc_ci95,
            final_error=float(curve[:, -1].mean()),
            minus_random=minus_random,
            minus_random_ci95=minus_random_ci95,
            minus_policy=minus_policy,
            minus_policy_ci95=minus_policy_ci95,
            images=number,
            curve=tuple(round(float(error), 5) for error in curve.mean(0)),
            curve_half_width=None
            if (half := half_width(curve)) is None
            else tuple(round(float(each), 5) for each in half),
        )
    return rows


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Draw the error curves, with the interval of each where it is known."""
    mean = {name: np.array(row.curve) for name, row in comparison.orders.items()}
    half = {
        name: np.array(row.curve_half_width or [0.0] * len(row.curve))
        for name, row in comparison.orders.items()
    }
    error_curves(
        mean,
        {name: mean[name] - half[name] for name in mean},
        {name: mean[name] + half[name] for name in mean},
        path,
    )

"""Compare orders: error versus fixations, for the policy, its controls, and every other order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from experiments.evaluation.compare_result import Comparison, OrderErrors
from experiments.evaluation.diagnostics import diagnose
from experiments.evaluation.intervals import Interval, gap_interval, half_width, mean_interval
from experiments.evaluation.scanpaths import (
    IMAGE_INDEPENDENT,
    Scanners,
    error_curves_of,
    scanpaths,
)
from experiments.run_folder import git_commit
from experiments.runs import Run
from foveate.data import ImageSet
from foveate.drawing import error_curves


def compare(
    run: Run,
    *,
    judge: Run | None = None,
    orders: tuple[str, ...] = (),
    agents: tuple[str, ...] = (),
    limit: int = 2000,
    oracle_limit: int = 500,
) -> Comparison:
    """Let every order and agent scan the same test images, and measure the errors.

    Args:
        run: its policy is compared, and its model is the world of all scans.
        judge: run whose model measures the errors; None = the run itself.
        orders: orders of the user's own, ``MODULE:NAME``.
        agents: agents of the user's own, ``MODULE:NAME`` of what makes them.
        limit: test images.
        oracle_limit: test images of the greedy oracles and of the gap.

    Raises:
        ValueError: the judge reads other images, an order or agent is unknown, less than two
            images are asked for, or the model's predictions are not finite.
    """
    check_question(run, judge, min(limit, oracle_limit))
    scanners = Scanners.of(run.model, orders, agents, run.saccade_cost)
    test, images, looked_at = images_of(run, limit)
    few = min(oracle_limit, len(images))
    paths = scanpaths(run, images, looked_at, oracle_limit=few, scanners=scanners)
    by = judge or run
    curves = {name: error_curves_of(by.model, images, path) for name, path in paths.items()}
    check_errors(curves, by)
    area = {name: curve[:, 1:].mean(1) for name, curve in curves.items()}
    rows = order_errors(curves, area)
    gap, gap_ci95 = gap_closed(area, "oracle")
    gap_16, gap_16_ci95 = gap_closed(area, "oracle_16")
    other = area.get("other_image")
    own_minus_other = None if other is None else area["policy"] - other
    return Comparison(
        orders=rows,
        gap_closed=gap,
        gap_closed_ci95=gap_ci95,
        gap_closed_oracle_16=gap_16,
        gap_closed_oracle_16_ci95=gap_16_ci95,
        diagnostics=diagnose(
            run.model, images[:few], paths["policy"], own_minus_other, run.fixations
        ),
        not_better_than=not_beaten(rows),
        dataset=run.dataset(test),
        judge="own" if judge is None else judge.name,
        test_images=len(images),
        **facts_of(run),
        options={
            "judge": None if judge is None else judge.directory,
            "orders": orders,
            "agents": agents,
            "limit": limit,
            "oracle_limit": oracle_limit,
            **run.data_options,
        },
    )


def images_of(
    run: Run, limit: int
) -> tuple[ImageSet, Float[Tensor, "B C H W"], Float[Tensor, "V C H W"]]:
    """Load the test split, and the pixels of it and of the validation split."""
    test, validation = run.split("test", limit), run.split("val", limit)
    images, looked_at = (
        split.batch(torch.arange(len(split)), device=torch.device(run.device))
        for split in (test, validation)
    )
    return test, images, looked_at


def check_errors(curves: dict[str, Float[np.ndarray, "R S"]], run: Run) -> None:
    """Raise ValueError if the errors of a model are not finite."""
    broken = sum(int((~np.isfinite(curve).all(1)).sum()) for curve in curves.values())
    if broken:
        raise ValueError(
            f"the model in {run.directory} predicts numbers that are not finite, in {broken} of "
            f"{sum(map(len, curves.values()))} scans; its training went wrong, train anew"
        )


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
        "commit": git_commit(),
    }


def gap_closed(
    area: dict[str, Float[np.ndarray, " R"]], oracle: str
) -> tuple[float | None, Interval | None]:
    """Share of the gap from random to an oracle that the policy closes, on the oracle's images."""
    few = len(area[oracle])
    return gap_interval(area["random"][:few], area["policy"][:few], area[oracle])


def not_beaten(rows: dict[str, OrderErrors]) -> tuple[str, ...]:
    """Return the controls that know nothing of the image and may be as good as the policy."""
    intervals = {name: rows[name].minus_policy_ci95 for name in IMAGE_INDEPENDENT if name in rows}
    return tuple(name for name, each in intervals.items() if each is not None and each[0] <= 0)


def check_question(run: Run, judge: Run | None, num_images: int) -> None:
    """Raise ValueError unless intervals can be had, and a judge reads the run's images."""
    if num_images < 2:
        raise ValueError("limit and oracle_limit take two or more images, to have an interval")
    if judge is None:
        return
    world, judged = run.model, judge.model
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
            curve_half_width=tuple(round(float(half), 5) for half in half_width(curve)),
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

"""Do scanpaths look where people look? A run, its orders and agents, beside viewers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from experiments.evaluation.contenders import Scanners
from experiments.evaluation.human_contenders import Contest
from experiments.evaluation.human_result import HumanComparison, HumanRow
from experiments.evaluation.human_scores import Viewed, cell_grid
from experiments.evaluation.human_study import Study
from experiments.evaluation.options import check_memory
from experiments.evaluation.progress import Progress
from experiments.run_folder import git_commit
from experiments.runs import Run
from foveate.human.cells import cell_paths
from foveate.human.multi_match import is_installed
from foveate.human.reading import read_scanpaths
from foveate.image_sizes import sides_in
from foveate.orders.paths import Grid

USUAL = ("center_out", "farthest_point", "raster")
"""Orders beside the policy, its controls, saliency and uncertainty. Oracles run if named."""
GRID = (12, 16)
"""Rows and columns of cells where there is no run."""


@dataclass(frozen=True)
class Measured:
    """A comparison with what pictures show of it."""

    comparison: HumanComparison
    test: Viewed
    scanpaths: dict[str, Int64[np.ndarray, "M T"]]
    """Cells of every order and agent on the test images."""


def compare_with_viewers(
    run: Run | None,
    data: Path | str,
    *,
    orders: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    agents: tuple[str, ...] = (),
    grid: str | None = None,
    first_fixation: bool = False,
    revisits: bool = False,
    limit: int = 200,
    train_limit: int = 200,
    oracle_limit: int = 5,
    memory: float = 1.0,
) -> Measured:
    """Compare a run with human viewers of photographs, or these with one another.

    Args:
        run: whose policy is asked; None = nulls and ceilings alone.
        data: parquet file of images and fixations, see :mod:`foveate.human.reading`.
        orders: orders and oracles by name; none = USUAL. ``MODULE:NAME`` come on top.
        without: orders and agents that are left out.
        agents: agents of the user's own, ``MODULE:NAME`` of what makes them.
        grid: cells without a run, ``ROWSxCOLS``; None = GRID. A run has its own.
        first_fixation: whether first fixations are scored; see :func:`cell_paths`.
        revisits: whether fixations of viewed cells are kept.
        limit: test images.
        train_limit: training images that densities are fitted on.
        oracle_limit: images of test and training on which oracles score.
        memory: bound on what is computed at once, GB.

    Raises:
        ValueError: the file cannot be used, or an option cannot be had; see the functions above.
    """
    check_limits(memory, limit, train_limit, oracle_limit)
    scanners, cells = scanners_of(run, orders, without, agents), grid_in(grid, run)
    given: Any = {"first_fixation": first_fixation, "revisits": revisits}
    limits = {"train": train_limit, "test": limit}
    sides = {split: read(run, data, split, most, cells, given) for split, most in limits.items()}
    study = Study.of(*(side for side, _ in sides.values()), seed=0 if run is None else run.seed)
    rows = study.human_rows()
    scanpaths: dict[str, Any] = {}
    if run is not None and scanners is not None:
        asked, scanpaths = asked_of(run, scanners, study, oracle_limit, int(memory * 1e9))
        rows |= asked
    comparison = HumanComparison(
        orders=study.compared(rows),
        **study.facts(),
        dataset=Path(data).stem,
        grid=cells,
        **given,
        left_out=tuple(f"{split}: {line}" for split, (_, left) in sides.items() for line in left),
        **facts_of(run),
        options={
            **{"orders": orders, "without": without, "agents": agents, "grid": grid, **given},
            **{"limit": limit, "train_limit": train_limit, "oracle_limit": oracle_limit},
            "memory": memory,
        },
    )
    return Measured(comparison, study.test, scanpaths)


def check_limits(memory: float, *limits: int) -> None:
    """Raise ValueError unless there is memory, and an image of each kind."""
    check_memory(memory)
    if min(limits) < 1:
        raise ValueError("limit, train_limit and oracle_limit must be at least 1 image")


def asked_of(
    run: Run, scanners: Scanners, study: Study, oracle_limit: int, memory: int
) -> tuple[dict[str, HumanRow], dict[str, Int64[np.ndarray, "M T"]]]:
    """Return rows and scanpaths of the policy, and of all who are compared with it."""
    train, test = study.train, study.test
    rows, scanpaths = {}, {}
    with Progress("human", predictions(run, scanners, train, test, oracle_limit)) as progress:
        contest = Contest(run, train, test, memory, progress.advance)
        for name, gaze in contest.gazes(scanners, oracle_limit):
            rows[name], scanpaths[name] = study.row(name, gaze), gaze.path
    return rows, scanpaths


def scanners_of(
    run: Run | None, orders: tuple[str, ...], without: tuple[str, ...], agents: tuple[str, ...]
) -> Scanners | None:
    """Make who is compared with the policy; None without a run.

    Raises:
        ValueError: there is no such order or agent, or no run to compare them with.
    """
    if run is None:
        if orders or without or agents:
            raise ValueError(
                "orders, without and agents have no effect without --run; leave them out"
            )
        return None
    scanners = Scanners.of(run.model, orders or USUAL, agents, without, run.saccade_cost)
    # Random order is the uniform density.
    scanners.orders.pop("random", None)
    return scanners


def grid_in(grid: str | None, run: Run | None) -> Grid:
    """Return the cells that are asked for: a run's own, or those of the text.

    Raises:
        ValueError: there are both, or the text is no grid of two cells or more.
    """
    if run is not None:
        if grid is not None:
            raise ValueError("grid has no effect with --run, which has its own; leave it out")
        return cell_grid(run)
    sides = GRID if grid is None else sides_in(grid) if "x" in grid else ()
    if not sides or sides[0] * sides[1] < 2:
        raise ValueError(f"grid must be ROWSxCOLS of two cells or more, got {grid!r}")
    return sides[0], sides[1]


def read(
    run: Run | None,
    data: Path | str,
    split: str,
    limit: int,
    grid: Grid,
    given: dict[str, bool],
) -> tuple[Viewed, tuple[str, ...]]:
    """Read a split of the file as the run's model sees it; say what was left out.

    Raises:
        ValueError: it cannot be read, or nothing is left to score.
    """
    shape = None
    if run is not None:
        shape = (run.model.config.in_chans, *run.model.config.image_size)
    human = read_scanpaths(data, split, image_shape=shape, limit=limit)
    height, width = human.images.shape[2:]
    if grid[0] > height or grid[1] > width:
        raise ValueError(
            f"grid {grid[0]}x{grid[1]} has cells of less than a pixel on images of "
            f"{height}x{width} pixels; take a coarser one"
        )
    paths = cell_paths(human, grid, most=None if run is None else run.budget, **given)
    left = human.skipped.lines()
    if paths.num_short:
        left += (f"left out: {paths.num_short} scanpaths of a single cell",)
    return Viewed(human.images, paths), left


def predictions(
    run: Run, scanners: Scanners, train: Viewed, test: Viewed, oracle_limit: int
) -> int:
    """Patches that are predicted in all, the measure of the cost."""

    def of(train: Viewed, test: Viewed, tried: int) -> int:
        forced = sum(int(each.paths.length.sum()) for each in (train, test))
        return run.model.num_patches * tried * (forced + len(test.images) * (1 + run.budget))

    few = train.first(oracle_limit), test.first(oracle_limit)
    oracles = (of(*few, number or len(run.fixations)) for number in scanners.oracles.values())
    return (2 + len(scanners.agents)) * of(train, test, 1) + sum(oracles)


def facts_of(run: Run | None) -> dict[str, Any]:
    """Fields of a comparison that are the run's, and the machine's."""
    here = {"multi_match_installed": is_installed(), "commit": git_commit()}
    if run is None:
        return here
    return here | {
        "run_data": run.data,
        "seed": run.seed,
        "budget": run.budget,
        "periphery": run.model.config.periphery,
        "saccade_cost": run.saccade_cost,
        "iteration": run.iteration,
    }

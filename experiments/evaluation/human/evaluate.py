"""Do scanpaths look where people look? A run, its orders and agents, beside viewers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from experiments.evaluation.compare.contenders import Scanners
from experiments.evaluation.human.contenders import Contest
from experiments.evaluation.human.means import UNTRAINED, ContenderFinding, rows_of
from experiments.evaluation.human.reading import read
from experiments.evaluation.human.result import HumanComparison
from experiments.evaluation.human.scores import Viewed, cell_grid
from experiments.evaluation.human.study import FittedViewers
from experiments.evaluation.options import check_memory
from experiments.evaluation.progress import Progress
from experiments.evaluation.seeds import runs_of, several
from experiments.run_folder import git_commit
from experiments.runs import Run
from foveate.data.columns import SPLIT_COLUMN
from foveate.human.multi_match import is_installed
from foveate.image_sizes import sides_in
from foveate.orders.paths import Grid

USUAL = ("center_out", "farthest_point", "raster", "oracle_16")
"""Orders and oracles beside the policy, its controls, saliency and uncertainty."""
GRID = (12, 16)
"""Rows and columns of cells where there is no run."""
LEAST_CELLS = 3
"""Of a grid: one is given, and of the rest a viewer chooses."""


@dataclass(frozen=True)
class HumanMeasurement:
    """A comparison with what pictures show of it."""

    comparison: HumanComparison
    test: Viewed
    scanpaths: dict[str, Int64[np.ndarray, "M T"]]
    """Cells of every order and agent on the test images; of several runs, the first one's."""


def compare_with_viewers(
    run: Run | Sequence[Run] | None,
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
    fit_limit: int = 30,
    oracle_limit: int = 5,
    memory: float = 1.0,
    image_column: str | None = None,
    split_column: str | None = SPLIT_COLUMN,
) -> HumanMeasurement:
    """Compare a run with human viewers of photographs, or these with one another.

    Args:
        run: whose policy is asked; several differ in their seeds alone; None = nulls and ceilings.
        data: parquet file of images and fixations, see :mod:`foveate.human.reading`.
        orders: orders and oracles by name; none = USUAL. ``MODULE:NAME`` come on top.
        without: orders and agents that are left out.
        agents: agents of the user's own, ``MODULE:NAME`` of what makes them.
        grid: cells without a run, ``ROWSxCOLS``; None = GRID. A run has its own.
        first_fixation: whether first fixations are scored; as ``cell_paths`` says.
        revisits: whether fixations of viewed cells are kept.
        limit: test images.
        train_limit: training images that densities are fitted on.
        fit_limit: of these the ones on which scores are made, to fit their temperature.
        oracle_limit: images of test and training on which oracles score.
        memory: bound on what is computed at once, GB.
        image_column: of the file; None = as of training.
        split_column: of the file; None = hold val and test out of all rows.

    Raises:
        ValueError: the file, an option, or the runs together cannot be used; see below.
    """
    options = {name: each for name, each in locals().items() if name not in ("run", "data")}
    check_limits(memory, limit, train_limit, fit_limit, oracle_limit)
    runs = runs_of(run)
    first = next(iter(runs), None)
    scanners, cells = scanners_of(runs, orders, without, agents), grid_in(grid, first)
    given: Any = {"first_fixation": first_fixation, "revisits": revisits}
    columns: Any = {"image_column": image_column, "split_column": split_column}
    sides = read(first, data, {"train": train_limit, "test": limit}, cells, given, columns)
    study = FittedViewers.of(*(side for side, _ in sides.values()), seed=first.seed if first else 0)
    asked, scanpaths = asked_of(scanners, study, fit_limit, oracle_limit, int(memory * 1e9))
    left = (f"{split}: {line}" for split, (_, lines) in sides.items() for line in lines)
    comparison = HumanComparison(
        orders=rows_of({**study.nulls_and_ceilings(), **asked}),
        dataset=Path(data).stem,
        grid=cells,
        left_out=(*left, *study.alone()),
        **{**study.facts(), **given, **facts_of(runs)},
        options={**options, **asked_about(runs, data)},
    )
    return HumanMeasurement(comparison, study.test, scanpaths)


def asked_about(runs: Sequence[Run], data: Path | str) -> dict[str, Any]:
    """Return what a result is of, beside its options: one of others is kept beside it."""
    asked = {"viewers": Path(data).name, "asked": [each.name for each in runs]}
    return {**asked, **several(runs)}


def check_limits(memory: float, *limits: int) -> None:
    """Raise ValueError unless there is memory, and an image of each kind."""
    check_memory(memory)
    if min(limits) < 1:
        raise ValueError("limit, train_limit, fit_limit and oracle_limit must be at least 1 image")


def asked_of(
    scanners: Sequence[tuple[Run, Scanners]],
    study: FittedViewers,
    fit_limit: int,
    oracle_limit: int,
    memory: int,
) -> tuple[dict[str, list[ContenderFinding]], dict[str, Int64[np.ndarray, "M T"]]]:
    """Return what is found of the policies and all who are compared with them, by name and run.

    And the scanpaths of all in the first run.
    """
    found: dict[str, list[ContenderFinding]] = {}
    scanpaths: dict[str, Any] = {}
    contests = [
        (Contest(run, study.train, study.test, fit_limit, memory), each) for run, each in scanners
    ]
    whole = sum(predictions(contest, each, oracle_limit) for contest, each in contests)
    with Progress("human", whole) as progress:
        for contest, each in contests:
            heard = replace(contest, advance=progress.advance)
            for name, gaze in heard.gazes(each, oracle_limit):
                found.setdefault(name, []).append(study.found(name, gaze))
                scanpaths.setdefault(name, gaze.path)
    return found, scanpaths


def scanners_of(
    runs: Sequence[Run],
    orders: tuple[str, ...],
    without: tuple[str, ...],
    agents: tuple[str, ...],
) -> list[tuple[Run, Scanners]]:
    """Make who is compared with the policy of each run.

    Raises:
        ValueError: there is no such order or agent, or it cannot be left out, or there is no run to
            compare them with.
    """
    if not runs and (orders or without or agents):
        raise ValueError("orders, without and agents have no effect without --run; leave them out")
    if UNTRAINED in without:
        raise ValueError(
            f"{UNTRAINED} stands beside every policy that learned and cannot be left out"
        )
    if "random" in (*orders, *without):
        raise ValueError("random is the row uniform, which is always there; leave it out of both")
    # Names of one's own come on top of those that are compared unasked.
    named = orders if any(":" not in name for name in orders) else (*USUAL, *orders)
    found = []
    for run in runs:
        scanners = Scanners.of(run.model, named, agents, without, run.saccade_cost)
        # Random order is the uniform density.
        scanners.orders.pop("random", None)
        found.append((run, scanners))
    return found


def grid_in(grid: str | None, run: Run | None) -> Grid:
    """Return the cells that are asked for: a run's own, or those of the text.

    Raises:
        ValueError: there are both, the text is no grid, or there are less than LEAST_CELLS.
    """
    if run is not None:
        if grid is not None:
            raise ValueError("grid has no effect with --run, which has its own; leave it out")
        rows, cols = cell_grid(run)
        if rows * cols < LEAST_CELLS:
            raise ValueError(
                f"{run.directory} looks at {rows}x{cols} cells, {LEAST_CELLS} are needed, as one "
                "is given and others must be left to choose among; take a run of smaller patches"
            )
        return rows, cols
    sides = GRID if grid is None else sides_in(grid) if "x" in grid else ()
    if not sides or sides[0] * sides[1] < LEAST_CELLS:
        raise ValueError(f"grid must be ROWSxCOLS of {LEAST_CELLS} cells or more, got {grid!r}")
    return sides[0], sides[1]


def predictions(contest: Contest, scanners: Scanners, oracle_limit: int) -> int:
    """Patches that are predicted in all, the measure of the cost."""
    run = contest.run

    def forced(*parts: Viewed) -> int:
        return sum(int(each.paths.length.sum()) for each in parts)

    scan = 1 + run.budget
    # Agents look at the same episodes; the policy also at another image.
    made = 2 * forced(*contest.scored) + len(contest.train.images) * scan
    made += (2 + len(scanners.agents)) * len(contest.test.images) * scan
    few = [each.first(oracle_limit) for each in (contest.train, contest.test)]
    for number in scanners.oracles.values():
        tried = number or len(run.fixations)
        made += tried * (forced(*few) + len(few[1].images) * run.budget) + len(few[1].images)
    return made * run.model.num_patches


def facts_of(runs: Sequence[Run]) -> dict[str, Any]:
    """Fields of a comparison that are the runs', and the machine's."""
    here = {"multi_match_installed": is_installed(), "commit": git_commit()}
    if not runs:
        return here
    run = runs[0]
    return here | {
        "run_data": run.data,
        "seed": run.seed if len(runs) == 1 else None,
        "seeds": tuple(each.seed for each in runs),
        "budget": run.budget,
        "periphery": run.model.config.periphery,
        "saccade_cost": run.saccade_cost,
        "iteration": run.iteration,
    }

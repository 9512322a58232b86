"""Fixation files as a comparison with viewers sees them: splits, crops, and cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.evaluation.human.scores import Viewed
from experiments.runs import Run
from foveate.data.folders import files_under
from foveate.data.splits import splits_in_names
from foveate.files import expanded
from foveate.human.cells import cell_paths
from foveate.human.reading import HumanScanpaths, read_scanpaths
from foveate.orders.paths import Grid


def check_same_splits(run: Run | None, data: Path | str, split_column: str | None) -> None:
    """Raise ValueError if the run sees other images, or this very file was split otherwise."""
    if run is None:
        return
    options = run.config.data
    if options.wander is not None:
        raise ValueError(
            f"{run.directory} learned from images on a larger canvas; take a run without --wander"
        )
    learned, asked = (expanded(each).resolve() for each in (options.data, data))
    if asked.is_relative_to(learned) and options.split_column != split_column:
        raise ValueError(
            f"{run.directory} learned from this file by --split-column {options.split_column}, so "
            "that its test images are others; give the same option here"
        )
    if learned.is_dir() and asked.is_relative_to(learned) and asked.is_file():
        check_not_one_of_the_splits(learned, asked, split_column)
    if asked.is_relative_to(learned):
        run.split("test", 1)  # It compares the data with those of the training.


def check_not_one_of_the_splits(folder: Path, file: Path, split_column: str | None) -> None:
    """Raise ValueError if the files of a folder are its splits, and the file has none of its own.

    What is held out of that file alone, the run has learned from.
    """
    import pyarrow.parquet

    if split_column is None or split_column in pyarrow.parquet.read_schema(file).names:
        return
    tables = [each.path for each in files_under(folder) if each.path.suffix.lower() == ".parquet"]
    if set(splits_in_names(tables, folder)) != {"train"}:
        raise ValueError(
            f"{file} is one of the splits of {folder}, which the run learned from, so that what is "
            f"held out of this file alone is no test image of it; write all files into one, with "
            f"a column {split_column}, and train on that"
        )


def read(
    run: Run | None,
    data: Path | str,
    limits: Mapping[str, int],
    grid: Grid,
    given: dict[str, bool],
    columns: Mapping[str, Any],
) -> dict[str, tuple[Viewed, tuple[str, ...]]]:
    """Read splits of the file as the run's model sees them, and say what was left out of each.

    Args:
        run: None = the first image of the first split says how all are cropped.
        data: the file.
        limits: images of each split, at most.
        grid: rows and columns of cells.
        given: options of :func:`cell_paths`.
        columns: options of :func:`read_scanpaths`.

    Raises:
        ValueError: it cannot be read, or nothing is left to score.
    """
    check_same_splits(run, data, columns["split_column"])
    shape = None if run is None else (run.model.config.in_chans, *run.model.config.image_size)
    sides = {}
    for split, most in limits.items():
        human = read_scanpaths(data, split, image_shape=shape, limit=most, **columns)
        channels, height, width = human.images.shape[1:]
        shape = (channels, height, width)
        sides[split] = on_cells(human, grid, None if run is None else run.budget, given)
    return sides


def on_cells(
    human: HumanScanpaths, grid: Grid, budget: int | None, given: dict[str, bool]
) -> tuple[Viewed, tuple[str, ...]]:
    """Lay what viewers saw on cells; say what was left out.

    Args:
        human: images of a split, and who looked where.
        grid: rows and columns of cells.
        budget: cells of a scanpath, at most; None = all.
        given: options of :func:`cell_paths`.

    Raises:
        ValueError: nothing is left to score.
    """
    height, width = human.images.shape[2:]
    if grid[0] > height or grid[1] > width:
        raise ValueError(
            f"grid {grid[0]}x{grid[1]} has cells of less than a pixel on images of "
            f"{height}x{width} pixels; take a coarser one"
        )
    paths = cell_paths(human, grid, most=budget, **given)
    left = human.skipped.lines()
    if paths.num_short:
        left += (f"left out: {paths.num_short} scanpaths of a single cell",)
    kept, image = np.unique(paths.image, return_inverse=True)
    if len(kept) < len(human.images):
        left += (f"left out: {len(human.images) - len(kept)} images of which no other is left",)
    return Viewed(human.images[torch.from_numpy(kept)], replace(paths, image=image)), left

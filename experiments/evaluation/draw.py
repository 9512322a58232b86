"""Draw scanpaths: a sheet, an animation, and heat maps of the fixations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from experiments.evaluation.run_result import RunResult
from experiments.evaluation.scanpaths import ordered_in_chunks, scanned_in_chunks
from experiments.run_folder import git_commit
from experiments.runs import Run
from experiments.tables import written_whole
from foveate.data import ImageSet
from foveate.drawing import fixation_heatmaps, scanpath_animation, scanpath_sheet
from foveate.orders.semantic import model_ordering


@dataclass(frozen=True, kw_only=True)
class Drawings(RunResult):
    """What pictures of scanpaths show; they lie beside the file of this result."""

    kind: ClassVar[str] = "scanpaths"

    dataset: str
    commit: str


MOST_DRAWN = (0, 1, 2, 3, 4, 5)
"""Test images that are drawn, unless others are asked for."""


def draw(
    run: Run,
    *,
    index: tuple[int, ...] | None = None,
    order: str = "policy",
    heatmap_limit: int = 1000,
) -> list[Path]:
    """Draw into the run folder; return the files: sheet, animation, heat maps.

    Pictures of other options are kept under a number, as scanpaths.json tells.

    Args:
        run: its policy scans, and its model reconstructs.
        index: test images of the sheet and the animation; None = the first six, or all of fewer.
        order: policy, or the name of any order.
        heatmap_limit: test images of the heat maps, the first ones.

    Raises:
        ValueError: unknown order, or an image that the test split does not hold.
    """
    chosen_order = None if order == "policy" else model_ordering(order, run.model)
    test = run.split("test", max(heatmap_limit, *(index or MOST_DRAWN)) + 1)
    index = index or MOST_DRAWN[: len(test)]
    if max(index) >= len(test):
        raise ValueError(
            f"image {max(index)} of --index does not exist: the test split holds 0..{len(test) - 1}"
        )
    every = torch.arange(min(heatmap_limit, len(test)))
    images = test.batch(torch.cat([torch.tensor(index), every]), device=torch.device(run.device))
    if chosen_order is None:
        paths = scanned_in_chunks(
            run.agent, run.model, images, run.budget, fixations=run.fixations
        ).order
    else:
        generator = torch.Generator().manual_seed(run.seed)
        paths = ordered_in_chunks(
            chosen_order, run.model, images, run.budget, generator, run.fixations
        )
    chosen = len(index)
    picked, path = images[:chosen], paths[:chosen]
    labels = names_of(test.take(torch.tensor(index)))
    # What predicts features alone has no pixels to show.
    draws = run.model.config.predicts_pixels
    canvas = run.model.reconstructions(picked, path) if draws else None
    error = run.model.error_curve(picked, path)
    suffix = "" if order == "policy" else f"_{order.replace(':', '_')}"
    files = [
        run.directory / f"{name}{suffix}.{kind}"
        for name, kind in (("scanpaths", "png"), ("scanpaths", "gif"), ("fixations", "png"))
    ]
    result = Drawings(dataset=run.dataset(test), commit=git_commit(), iteration=run.iteration)
    options = {"index": index, "order": order, "heatmap_limit": heatmap_limit, **run.data_options}
    result.keep(files[0].with_suffix(".json"), options, files)
    with written_whole(files[0]) as sheet, written_whole(files[1]) as animation:
        scanpath_sheet(picked, path, canvas, run.model.grid, sheet, errors=error, labels=labels)
        scanpath_animation(picked, path, canvas, run.model.grid, animation, labels=labels)
    with written_whole(files[2]) as maps:
        fixation_heatmaps(paths[chosen:], run.model.grid, maps)
    return files


def names_of(images: ImageSet) -> list[str] | None:
    """Return the name of each image's class, empty where it is not known; None without classes."""
    if not images.class_names:
        return None
    return [images.class_names[label] if label >= 0 else "" for label in images.labels.tolist()]

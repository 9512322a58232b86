"""Draw scanpaths: a sheet, an animation, and heat maps of the fixations."""

from __future__ import annotations

from pathlib import Path

import torch

from experiments.evaluation.scanpaths import ordered_in_chunks, scan_in_chunks
from experiments.runs import Run
from foveate.drawing import fixation_heatmaps, scanpath_animation, scanpath_sheet


def draw(
    run: Run,
    *,
    index: tuple[int, ...] = (0, 1, 2, 3, 4, 5),
    order: str = "policy",
    heatmap_limit: int = 1000,
) -> list[Path]:
    """Draw into the run folder; return the files: sheet, animation, heat maps.

    Args:
        run: its policy scans, and its model reconstructs.
        index: test images of the sheet and the animation.
        order: policy, or the name of any order.
        heatmap_limit: test images of the heat maps, the first ones.

    Raises:
        ValueError: unknown order, or an image that the test split does not hold.
    """
    test = run.split("test", max(heatmap_limit, *index) + 1)
    if max(index) >= len(test):
        raise ValueError(
            f"image {max(index)} does not exist: the test split holds 0..{len(test) - 1}"
        )
    every = torch.arange(min(heatmap_limit, len(test)))
    images = test.batch(torch.cat([torch.tensor(index), every]), device=torch.device(run.device))
    if order == "policy":
        paths = scan_in_chunks(run.agent, run.model, images, run.budget, fixations=run.fixations)
    else:
        generator = torch.Generator().manual_seed(run.seed)
        paths = ordered_in_chunks(order, run.model, images, run.budget, generator, run.fixations)
    chosen = len(index)
    picked, path = images[:chosen], paths[:chosen]
    canvas = run.model.reconstructions(picked, path)
    error = run.model.error_curve(picked, path)
    suffix = "" if order == "policy" else f"_{order.replace(':', '_')}"
    files = [
        run.directory / f"{name}{suffix}.{kind}"
        for name, kind in (("scanpaths", "png"), ("scanpaths", "gif"), ("fixations", "png"))
    ]
    scanpath_sheet(picked, path, canvas, run.model.grid, files[0], errors=error)
    scanpath_animation(picked, path, canvas, run.model.grid, files[1])
    fixation_heatmaps(paths[chosen:], run.model.grid, files[2])
    return files

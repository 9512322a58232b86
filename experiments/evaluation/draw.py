"""The drawings behind ``experiments.scanpaths``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from experiments.evaluation.compare import ordered_in_chunks, scan_in_chunks
from experiments.runs import load_run
from experiments.training.build import set_threads
from foveate.drawing import fixation_heatmaps, scanpath_animation, scanpath_sheet

if TYPE_CHECKING:
    from experiments.scanpaths import ScanpathConfig


def draw(config: ScanpathConfig) -> list[Path]:
    """Draw sheet, animation and heat maps; return where they are."""
    set_threads(config.threads)
    run = load_run(config.run, config.device)
    test = run.split("test", max(config.heatmap_limit, *config.index) + 1)
    if max(config.index) >= len(test):
        raise ValueError(
            f"image {max(config.index)} does not exist: the test split holds 0..{len(test) - 1}"
        )
    every = torch.arange(min(config.heatmap_limit, len(test)))
    index = torch.cat([torch.tensor(config.index), every])
    images = test.batch(index, device=torch.device(config.device))
    budget = run.config.scan.budget
    generator = torch.Generator().manual_seed(run.config.run.seed)
    if config.order == "policy":
        order = scan_in_chunks(run.agent, run.model, images, budget)
    else:
        order = ordered_in_chunks(config.order, run.model, images, budget, generator)
    chosen = len(config.index)
    picked, path = images[:chosen], order[:chosen]
    canvas = run.model.reconstructions(picked, path)
    error = run.model.error_curve(picked, path)
    suffix = "" if config.order == "policy" else f"_{config.order.replace(':', '_')}"
    files = [
        run.directory / f"{name}{suffix}.{kind}"
        for name, kind in (("scanpaths", "png"), ("scanpaths", "gif"), ("fixations", "png"))
    ]
    scanpath_sheet(picked, path, canvas, run.model.grid, files[0], errors=error)
    scanpath_animation(picked, path, canvas, run.model.grid, files[1])
    fixation_heatmaps(order[chosen:], run.model.grid, files[2])
    print("written: " + ", ".join(str(file) for file in files))
    return files

"""Scanpaths for people: sheets, animations, heat maps of fixations, and error curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from foveate.orders.segments import borders

Grid = tuple[int, int]
UNSEEN_GRAY = 0.5
_STEPS = mpl.colormaps["plasma"]
_CONTROLS = (
    "random",
    "raster",
    "center_out",
    "farthest_point",
    "best_fixed",
    "other_image",
    "uncertainty",
    "oracle",
)


def seen_canvas(
    image: Float[Tensor, "C H W"], order: Int[Tensor, "t *K"], grid: Grid
) -> Float[Tensor, "C H W"]:
    """What has been seen: the fixated patches, gray elsewhere."""
    seen = torch.zeros(grid[0] * grid[1], dtype=torch.bool)
    seen[order[order >= 0].cpu()] = True
    height, width = image.shape[1] // grid[0], image.shape[2] // grid[1]
    mask = seen.view(grid).repeat_interleave(height, 0).repeat_interleave(width, 1)
    return torch.where(mask, image.cpu(), torch.tensor(UNSEEN_GRAY))


def _show(axis: Axes, image: Float[Tensor, "C H W"]) -> None:
    pixels = image.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    gray = pixels.shape[2] == 1
    axis.imshow(
        pixels[..., 0] if gray else pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest"
    )
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_visible(False)


def draw_scanpath(
    axis: Axes, image: Float[Tensor, "C H W"], order: Int[Tensor, "t *K"], grid: Grid, budget: int
) -> None:
    """Draw the image, the saccades, and the numbered fixations, dark (first) to bright (last).

    A segment has a frame around all of its patches, and its number in their middle.
    """
    _show(axis, image)
    height, width = image.shape[1] / grid[0], image.shape[2] / grid[1]
    steps = [
        [int(patch) for patch in step if patch >= 0] for step in order.unsqueeze(-1).flatten(1)
    ]
    # A step that opens nothing has no place; the others keep their numbers.
    segments = {step: patches for step, patches in enumerate(steps) if patches}
    middles = [np.mean([divmod(patch, grid[1]) for patch in each], 0) for each in segments.values()]
    y, x = ((np.array(middles).reshape(-1, 2) + 0.5) * (height, width) - 0.5).T
    for place, (step, segment) in enumerate(segments.items()):
        color = _STEPS(0.15 + 0.8 * step / max(1, budget - 1))
        if len(segment) > 1:
            lines = np.array(border_lines(segment, grid)) * (width, height) - 0.5
            axis.add_collection(LineCollection(list(lines), colors=[color], linewidths=1.2))
        if place:
            axis.plot(
                x[place - 1 : place + 1],
                y[place - 1 : place + 1],
                color=color,
                linewidth=1.4,
                alpha=0.9,
            )
        axis.text(
            x[place],
            y[place],
            str(step + 1),
            color=color,
            fontsize=8,
            fontweight="bold",
            ha="center",
            va="center",
            path_effects=[withStroke(linewidth=2.2, foreground="black")],
        )


def border_lines(segment: list[int], grid: Grid) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the lines around a segment, each from (x, y) to (x, y), in patches."""
    lines = []
    for patch, (top, bottom, left, right) in borders(segment, grid).items():
        y, x = divmod(patch, grid[1])
        sides = {
            ((x, y), (x + 1, y)): top,
            ((x, y + 1), (x + 1, y + 1)): bottom,
            ((x, y), (x, y + 1)): left,
            ((x + 1, y), (x + 1, y + 1)): right,
        }
        lines += [line for line, is_border in sides.items() if is_border]
    return lines


def shown_steps(budget: int, columns: int = 5) -> list[int]:
    """Fixation counts that a sheet shows: all, or about ``columns`` spaced evenly to the budget."""
    return sorted({round(step) for step in np.linspace(1, budget, min(columns, budget))})


def scanpath_sheet(
    images: Float[Tensor, "B C H W"],
    order: Int[Tensor, "B T *K"],
    reconstructions: Float[Tensor, "B S C H W"],
    grid: Grid,
    path: Path,
    *,
    errors: Float[Tensor, "B S"],
) -> None:
    """Write a PNG: per image the scanpath, and what is seen and reconstructed on the way.

    After k fixations, what is seen stands above and the reconstruction below.

    Args:
        images: pixels in [0, 1].
        order: the scanpaths.
        reconstructions: after 0..T fixations, S = T + 1.
        grid: rows and columns of patches.
        path: file to write.
        errors: error of the unseen over the error before the first fixation, printed
            under each reconstruction.
    """
    budget = order.shape[1]
    steps = shown_steps(budget)
    figure = Figure(figsize=(2.3 + 1.15 * len(steps), 2.45 * len(images)), dpi=110)
    FigureCanvasAgg(figure)
    outer = figure.add_gridspec(
        len(images), 1, hspace=0.12, left=0.01, right=0.99, top=0.97, bottom=0.02
    )
    for row in range(len(images)):
        cells = outer[row].subgridspec(2, 2 + len(steps), wspace=0.05, hspace=0.22)
        draw_scanpath(figure.add_subplot(cells[:, :2]), images[row], order[row], grid, budget)
        for column, step in enumerate(steps):
            seen = figure.add_subplot(cells[0, 2 + column])
            _show(seen, seen_canvas(images[row], order[row, :step], grid))
            if row == 0:
                seen.set_title(f"{step} fixation{'s' * (step > 1)}", fontsize=8, pad=3)
            canvas = figure.add_subplot(cells[1, 2 + column])
            _show(canvas, reconstructions[row, step])
            canvas.set_xlabel(f"error {float(errors[row, step]):.2f}", fontsize=7, labelpad=2)
    figure.savefig(path)


def scanpath_animation(
    images: Float[Tensor, "B C H W"],
    order: Int[Tensor, "B T *K"],
    reconstructions: Float[Tensor, "B S C H W"],
    grid: Grid,
    path: Path,
) -> None:
    """Write an animated GIF of T + 1 frames.

    Each shows, per image, the scanpath so far, what is seen, and the reconstruction.
    """
    budget, frames = order.shape[1], []
    for step in range(budget + 1):
        figure = Figure(figsize=(1.5 * len(images), 4.6), dpi=80)
        canvas: Any = FigureCanvasAgg(figure)  # matplotlib annotates none of its methods
        axes = figure.subplots(3, len(images), squeeze=False)
        for column in range(len(images)):
            draw_scanpath(axes[0, column], images[column], order[column, :step], grid, budget)
            _show(axes[1, column], seen_canvas(images[column], order[column, :step], grid))
            _show(axes[2, column], reconstructions[column, step])
        seen = int((order[:, :step] >= 0).flatten(1).sum(1).max()) if step else 0
        figure.suptitle(f"{seen} of {grid[0] * grid[1]} patches seen", fontsize=9)
        figure.subplots_adjust(
            left=0.01, right=0.99, top=0.93, bottom=0.01, wspace=0.04, hspace=0.04
        )
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    durations = [500] * budget + [2000]
    # A fixed palette per frame would merge equal frames and lose their durations.
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False
    )


def fixation_shares(order: Int[Tensor, "B T *K"], grid: Grid) -> Float[Tensor, "T rows cols"]:
    """Share of images that open each patch at each step; a step sums to the patches it opens."""
    segments = order.cpu().flatten(2) if order.ndim == 3 else order.cpu().unsqueeze(2)
    # One more patch takes the padding.
    place = segments.masked_fill(segments < 0, grid[0] * grid[1])
    hits = torch.nn.functional.one_hot(place, grid[0] * grid[1] + 1)[..., :-1].sum(2).float()
    return hits.mean(0).unflatten(1, grid)


def fixation_heatmaps(order: Int[Tensor, "B T *K"], grid: Grid, path: Path) -> None:
    """Write a PNG of where the scanpaths fixate at every step, and over the whole budget."""
    share = fixation_shares(order, grid)
    panels = [(f"fixation {step + 1}", heat) for step, heat in enumerate(share)]
    panels.append(("visited at all", share.sum(0)))
    columns = min(7, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1.35 * columns, 1.6 * rows), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, heat) in enumerate(panels):
        axis = figure.add_subplot(rows, columns, place + 1)
        axis.imshow(heat.numpy(), cmap="magma", vmin=0)
        axis.set_title(f"{title}\nmax {float(heat.max()):.0%}", fontsize=7)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.savefig(path)


def error_curves(
    mean: Mapping[str, Float[np.ndarray, " S"]],
    low: Mapping[str, Float[np.ndarray, " S"]],
    high: Mapping[str, Float[np.ndarray, " S"]],
    path: Path,
) -> None:
    """Write a PNG of error versus fixations.

    The policy is in bold, its controls are in color, all other orders in gray.
    """
    # As high as the legend, which has a line for every order.
    height = max(4.2, 0.16 * len(mean) + 0.5)
    figure = Figure(figsize=(7.0, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    colors = dict(zip(_CONTROLS, mpl.colormaps["tab10"](np.linspace(0, 1, 10)), strict=False))
    for name in sorted(mean, key=lambda name: -float(mean[name][1:].mean())):
        steps = np.arange(len(mean[name]))
        style: dict[str, Any]
        if name == "policy":
            style = {"color": "black", "linewidth": 2.6, "zorder": 5}
        elif name in colors:
            style = {"color": colors[name], "linewidth": 1.5, "zorder": 3}
        else:
            style = {"color": "0.8", "linewidth": 0.8, "zorder": 1}
        label = f"{name}  {float(mean[name][1:].mean()):.3f}"
        axis.plot(steps, mean[name], label=label, **style)
        if name == "policy" or name in colors:
            axis.fill_between(
                steps, low[name], high[name], color=style["color"], alpha=0.15, linewidth=0
            )
    axis.set_xlabel("fixations")
    axis.set_ylabel("error of what is unseen, over the error at first")
    axis.set_xlim(0)
    axis.legend(
        fontsize=6.5,
        title="order  area",
        title_fontsize=7,
        frameon=False,
        bbox_to_anchor=(1, 1),
        loc="upper left",
    )
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)

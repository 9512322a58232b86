"""One scanpath on its image: numbered fixations, saccades, frames around segments."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from torch import Tensor

from foveate.orders.paths import Grid
from foveate.orders.segments import borders
from foveate.patches import UNSEEN_GRAY

Color = tuple[float, float, float, float]
Lines = list[tuple[tuple[int, int], tuple[int, int]]]
_STEPS = mpl.colormaps["plasma"]
MOST_NUMBERS = 20
"""Fixations that are all numbered."""
FIRST_NUMBERS = 5
"""Of longer scanpaths these are numbered as well."""
_HATCH, _HATCH_PX = "0.38", 1.0
"""Of unseen patches: gray level and width of the lines."""
LEAST_TEXT_PX, MOST_TEXT_PX = 7.5, 15.0
_DIGIT_WIDTH, _LINE_HEIGHT = 0.8, 1.2
"""Of bold text and a little room around it, over its size."""


def seen_canvas(
    image: Float[Tensor, "C H W"], order: Int[Tensor, "t *K"], grid: Grid
) -> Float[Tensor, "C H W"]:
    """What has been seen: the fixated patches, gray elsewhere."""
    seen = torch.zeros(grid[0] * grid[1], dtype=torch.bool)
    seen[order[order >= 0].cpu()] = True
    height, width = image.shape[1] // grid[0], image.shape[2] // grid[1]
    mask = seen.view(grid).repeat_interleave(height, 0).repeat_interleave(width, 1)
    return torch.where(mask, image.cpu(), torch.tensor(UNSEEN_GRAY))


def show(axis: Axes, image: Float[Tensor, "C H W"]) -> None:
    """Show an image in [0, 1], without ticks and frame."""
    pixels = image.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    gray = pixels.shape[2] == 1
    axis.imshow(
        pixels[..., 0] if gray else pixels, cmap="gray", vmin=0, vmax=1, interpolation="antialiased"
    )
    axis.set_axis_off()


def show_seen(
    axis: Axes, image: Float[Tensor, "C H W"], order: Int[Tensor, "t *K"], grid: Grid
) -> None:
    """Show what has been seen; unseen patches are hatched, as an image may be gray itself."""
    show(axis, seen_canvas(image, order, grid))
    height, width = image.shape[1] / grid[0], image.shape[2] / grid[1]
    unseen = sorted({*range(grid[0] * grid[1])} - {*order.flatten().tolist()})
    y, x = np.divmod(np.array(unseen, dtype=int), grid[1])
    lines = np.stack([np.stack([x, y + 1], 1), np.stack([x + 1, y], 1)], 1) * (width, height) - 0.5
    axis.add_collection(
        LineCollection(list(lines), colors=[_HATCH], linewidths=_points(axis, _HATCH_PX))
    )


def numbered_steps(budget: int) -> set[int]:
    """Return which of the fixations 1..budget get a number where not all fit a reader's eye.

    All of MOST_NUMBERS; of more the first ones, every second, fifth, tenth, ..., and the last.
    """
    if budget <= MOST_NUMBERS:
        return set(range(1, budget + 1))
    steps = (factor * 10**zeros for zeros in range(9) for factor in (1, 2, 5))
    every = next(step for step in steps if budget <= MOST_NUMBERS * step)
    return {*range(1, FIRST_NUMBERS + 1), *range(every, budget + 1, every), budget}


def as_written(text: str) -> str:
    """Return a text of anyone's for matplotlib, to which two dollars are a formula."""
    return text.replace("$", r"\$")


def draw_scanpath(
    axis: Axes,
    image: Float[Tensor, "C H W"],
    order: Int[Tensor, "t *K"],
    grid: Grid,
    budget: int,
    *,
    mark_last: bool = False,
) -> None:
    """Draw the image, the saccades, and the numbered fixations, dark (first) to bright (last).

    A number is as large as its patch allows. Fixations without one, and those whose number would
    lie on an earlier one's, are dots. A segment has a frame around all of its patches, and its
    number in their middle.

    Args:
        axis: of its final size, which decides the size of the numbers.
        image: pixels in [0, 1].
        order: the scanpath so far.
        grid: rows and columns of patches.
        budget: fixations of the whole scanpath.
        mark_last: whether the last fixation has a white frame.
    """
    show(axis, image)
    height, width = image.shape[1] / grid[0], image.shape[2] / grid[1]
    steps = [
        [int(patch) for patch in step if patch >= 0] for step in order.unsqueeze(-1).flatten(1)
    ]
    # A step that opens nothing has no place; the others keep their numbers.
    segments = {step: patches for step, patches in enumerate(steps) if patches}
    middles = [np.mean([divmod(patch, grid[1]) for patch in each], 0) for each in segments.values()]
    y, x = ((np.array(middles).reshape(-1, 2) + 0.5) * (height, width) - 0.5).T
    patch_px = _pixel_px(axis, image.shape[2]) * min(height, width)
    line_width = _points(axis, min(1.8, max(0.9, patch_px / 18)))
    # The first two fifths of the colors is too dark to be read on a photograph.
    colors = [_STEPS(0.42 + 0.55 * step / max(1, budget - 1)) for step in segments]
    alpha = 0.8 if budget <= MOST_NUMBERS else 0.5
    for place, segment in enumerate(segments.values()):
        if len(segment) > 1:
            _frame(axis, segment, grid, (width, height), color=colors[place], linewidth=line_width)
        if place:
            ends = slice(place - 1, place + 1)
            # Axes.plot() is slow: it looks for limits, which are known.
            axis.add_artist(
                Line2D(x[ends], y[ends], color=colors[place], linewidth=line_width, alpha=alpha)
            )
    if mark_last and segments:
        last = list(segments.values())[-1]
        _frame(axis, last, grid, (width, height), color="white", linewidth=2 * line_width)
    _number(axis, list(zip(x, y, segments, colors, strict=True)), patch_px, budget)


def _number(
    axis: Axes, fixations: Sequence[tuple[float, float, int, Color]], patch_px: float, budget: int
) -> None:
    """Write numbers where they are wanted and overlap no earlier one, and dots elsewhere."""
    wanted, scale = numbered_steps(budget), _pixel_px(axis, axis.get_images()[0].get_size()[1])
    written: list[tuple[float, float, float, float]] = []
    for x, y, step, color in fixations:
        text = str(step + 1)
        fits = min(patch_px / _LINE_HEIGHT, patch_px / _DIGIT_WIDTH / len(text))
        size_px = min(MOST_TEXT_PX, max(LEAST_TEXT_PX, fits))
        half = size_px * _DIGIT_WIDTH * len(text) / 2, size_px * _LINE_HEIGHT / 2
        box = x * scale, y * scale, *half
        if step + 1 in wanted and not any(_overlap(box, other) for other in written):
            written.append(box)
            axis.text(
                x,
                y,
                text,
                color=color,
                fontsize=_points(axis, size_px),
                fontweight="bold",
                ha="center",
                va="center_baseline",
                path_effects=[
                    withStroke(linewidth=_points(axis, 0.25 * size_px), foreground="black")
                ],
            )
        else:
            size = _points(axis, max(2.5, patch_px / 5))
            dot = Line2D(
                [x], [y], marker="o", color=color, markersize=size, markeredgecolor="black"
            )
            axis.add_artist(dot)


def _overlap(
    box: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> bool:
    """Whether two boxes, given by middle and half the sides, have pixels in common."""
    return all(abs(box[axis] - other[axis]) < box[axis + 2] + other[axis + 2] for axis in (0, 1))


def _pixel_px(axis: Axes, columns: int) -> float:
    """Display pixels of one image pixel."""
    return float(axis.get_window_extent().width) / columns


def _points(axis: Axes, px: float) -> float:
    """Convert display pixels to points, in which matplotlib has text and lines."""
    figure = axis.get_figure(root=True)
    assert figure is not None, "an axis is drawn on a figure"
    return px * 72 / figure.dpi


def _frame(
    axis: Axes,
    segment: list[int],
    grid: Grid,
    patch: tuple[float, float],
    *,
    color: Color | str,
    linewidth: float,
) -> None:
    lines = np.array(border_lines(segment, grid)) * patch - 0.5
    axis.add_collection(LineCollection(list(lines), colors=[color], linewidths=linewidth))


def border_lines(segment: list[int], grid: Grid) -> Lines:
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

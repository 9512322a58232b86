"""What many scanpaths have in common: heat maps, error curves, and what is fixated most."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from foveate.drawing.sheets import shown_steps
from foveate.orders.paths import Grid
from foveate.orders.ranks import as_segments
from foveate.orders.segments import patches_in

MOST_HEAT_MAPS = 20
"""Steps that have one."""
_CONTROLS = {
    "random": 0,
    "raster": 2,
    "center_out": 4,
    "farthest_point": 6,
    "best_fixed": 8,
    "other_image": 10,
    "uncertainty": 12,
    "uncertainty_near": 13,
    "oracle": 16,
    "oracle_16": 17,
    "saliency": 18,
}
"""Orders in color, by their number in tab20, whose pairs are dark and light of one hue. Its grays,
14 and 15, would be taken for the other orders."""
NUM_BINS = 10
"""Bins of the values at fixations."""


def fixation_shares(order: Int[Tensor, "B T *K"], grid: Grid) -> Float[Tensor, "T rows cols"]:
    """Share of images that open each patch at each step; a step sums to the patches it opens."""
    opened = patches_in(as_segments(order.cpu()), grid[0] * grid[1])
    return opened.float().mean(0).unflatten(1, grid)


def fixation_heatmaps(order: Int[Tensor, "B T *K"], grid: Grid, path: Path) -> None:
    """Write a PNG of where the scanpaths fixate at every step, and over the whole budget.

    Of long scanpaths it has MOST_HEAT_MAPS steps, spaced evenly.
    """
    share = fixation_shares(order, grid)
    steps = shown_steps(len(share), MOST_HEAT_MAPS)
    panels = [(f"fixation {step}", share[step - 1]) for step in steps]
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
    colors = {name: mpl.colormaps["tab20"](number) for name, number in _CONTROLS.items()}
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
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
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


def shares_by_value(
    panels: Mapping[str, Mapping[str, Float[np.ndarray, "*F"]]], first: str, path: Path
) -> None:
    """Write a PNG: a panel for each quantity, with the share of fixations in each bin of its value.

    Args:
        panels: by the name of the quantity, its values at the fixations of each scanner.
        first: the scanner in the filled outline, beside which the others are set. The policy is in
            bold.
        path: file to write.
    """
    figure = Figure(figsize=(4.2 * len(panels), 3.2), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    for place, (quantity, values) in enumerate(panels.items()):
        axis = figure.add_subplot(1, len(panels), place + 1)
        edges = np.linspace(0, max(float(each.max()) for each in values.values()), NUM_BINS + 1)
        for name, each in values.items():
            shares = np.histogram(each, edges)[0] / max(1, len(each))
            label = f"{name.replace('_', ' ')}, mean {float(each.mean()):.2f}"
            if name == first:
                axis.stairs(shares, edges, fill=True, color="0.8", label=label)
                continue
            color = mpl.colormaps["tab20"](_CONTROLS.get(name, 14))
            is_policy = name == "policy"
            axis.stairs(
                shares,
                edges,
                color="black" if is_policy else color,
                linewidth=2.4 if is_policy else 1.4,
                baseline=None,
                label=label,
            )
        axis.set_xlabel(quantity)
        axis.set_xlim(0, edges[-1])
        axis.set_ylim(0)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.legend(fontsize=7, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("share of fixations")
    figure.savefig(path)

"""Picture of the study of knowing: accuracy over fixations, a panel for each read-out."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.evaluation.knowing.plan import POLICY
from experiments.evaluation.knowing.result import KnowingResult
from foveate.drawing import as_written

MOST_COLUMNS = 3


def draw_knowing(result: KnowingResult, path: Path) -> None:
    """Write a PNG of what the policy's model knows, one line an order, with intervals over seeds.

    The policy is in bold.
    """
    names = result.read_outs
    columns = min(MOST_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.6 * columns + 1.4, 3.2 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).flatten()
    for panel, name in zip(panels, names, strict=False):
        draw_read_out(result, name, panel)
    for empty in panels[len(names) :]:
        empty.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=7, frameon=False)
    title = f"{as_written(result.data)}: images known after k fixations"
    figure.suptitle(title, fontsize=9)
    figure.savefig(path)


def draw_read_out(result: KnowingResult, read_out: str, panel: Axes) -> None:
    """Draw the accuracies of one read-out."""
    by_order = result.rows(POLICY, read_out)
    # An order has one color in all panels, whatever its place there.
    others = sorted(set(by_order) - {POLICY})
    colors = {name: mpl.colormaps["tab10"](place % 10) for place, name in enumerate(others)}
    for order in (POLICY, *others):
        bold = order == POLICY
        color, width = ("black", 2.6) if bold else (colors[order], 1.3)
        accuracies = [by_order[order][after].accuracy for after in result.fixations]
        panel.plot(
            result.fixations,
            [each.mean for each in accuracies],
            label=order,
            color=color,
            linewidth=width,
            zorder=3 + bold,
        )
        intervals = [each.ci95 or (each.mean, each.mean) for each in accuracies]
        low, high = zip(*intervals, strict=True)
        panel.fill_between(result.fixations, low, high, color=color, alpha=0.12, linewidth=0)
    references = result.references(POLICY, read_out).items()
    for (name, row), style in zip(references, ("--", ":"), strict=False):
        panel.axhline(row.accuracy.mean, color="0.4", linestyle=style, linewidth=1.0, label=name)
    panel.set_xticks(result.fixations)
    panel.set_title(read_out, fontsize=8)
    panel.set_xlabel("fixations", fontsize=7)
    panel.set_ylabel("accuracy on test images", fontsize=7)
    panel.tick_params(labelsize=7)
    panel.spines[["top", "right"]].set_visible(False)

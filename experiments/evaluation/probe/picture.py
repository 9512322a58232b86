"""A picture of recognition after k fixations: a panel for each read-out, a line for each order.

Controls are dashed. Those that take no read-out of the model, and chance, stand in every panel.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.evaluation.probe.result import ProbeResult
from experiments.evaluation.recognition.result import (
    ByFixations,
    read_outs_of,
    shown_probes,
    titled,
)
from foveate.drawing import as_written

REFERENCES = {"all_patches": "--", "periphery_alone": ":"}
"""What does not depend on an order, and how its line is drawn."""


def draw_fixations(result: ProbeResult, path: Path) -> None:
    """Write a PNG: a line for each order with its interval, and level lines for the references."""
    rows = result.fixations or {}
    names = read_outs_of(rows)
    figure = Figure(figsize=(2.9 * len(names) + 1.5, 3.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axis, read_out in zip(axes, names, strict=True):
        _draw_panel(axis, read_out, rows, result)
    axes[0].set_ylabel(f"accuracy on {result.test_images} test images")
    # Not every line is in every panel.
    lines = {
        str(line.get_label()): line for axis in axes for line in axis.get_legend_handles_labels()[0]
    }
    axes[-1].legend(
        handles=[*lines.values()],
        fontsize=7,
        frameon=False,
        bbox_to_anchor=(1, 1),
        loc="upper left",
    )
    figure.suptitle(f"{as_written(result.dataset)}: recognized after k fixations", fontsize=9)
    figure.savefig(path)


def _draw_controls(
    axis: Axes,
    read_out: str,
    probe: str,
    names: list[str],
    controls: dict[str, ByFixations],
    wanted: Collection[str],
) -> None:
    """Draw the controls of one read-out, and those of none that the others have."""
    colors = mpl.colormaps["tab20"]
    for number, (name, row) in enumerate(controls.items()):
        for own in read_outs_of({name: row}):
            if own != read_out and own in names:
                continue
            label, by = name, probe
            if own != read_out:
                label, by = f"{name}, {own}", shown_probes(own, {name: row}, wanted)[0]
            found = {k: getattr(cell.read_outs.get(own), by, None) for k, cell in row.items()}
            known = {k: value for k, value in found.items() if value is not None}
            color = colors(2 * number + 1)  # The light ones.
            axis.plot([*known], [*known.values()], "x--", label=label, color=color, linewidth=1.4)


def _draw_panel(
    axis: Axes, read_out: str, rows: dict[str, ByFixations], result: ProbeResult
) -> None:
    """Draw what one read-out recognizes."""
    colors = mpl.colormaps["tab10"]
    wanted = result.options.get("probes", ())
    probe = shown_probes(read_out, rows, wanted)[0]
    for number, (name, row) in enumerate(rows.items()):
        found = {k: cell.read_outs[read_out] for k, cell in row.items()}
        known = {k: each for k, each in found.items() if getattr(each, probe) is not None}
        style: dict[str, Any] = {"color": colors(number % 10), "linewidth": 1.4}
        if name == "policy":
            style = {"color": "black", "linewidth": 2.4, "zorder": 5}
        ks = list(known)
        axis.plot(ks, [getattr(known[k], probe) for k in ks], marker=".", label=name, **style)
        bands = [getattr(known[k], f"{probe}_ci95") for k in ks]
        if all(bands):
            low, high = zip(*bands, strict=True) if bands else ((), ())
            axis.fill_between(ks, low, high, color=style["color"], alpha=0.12, linewidth=0)
    _draw_controls(axis, read_out, probe, read_outs_of(rows), result.controls or {}, wanted)
    if result.commonest_class is not None:
        chance = result.commonest_class
        axis.axhline(
            chance, label="the commonest class", color="0.7", linestyle="-.", linewidth=1.2
        )
    for name, line in REFERENCES.items():
        cell = getattr(result, name)
        level = None if cell is None else getattr(cell.read_outs[read_out], probe)
        if level is not None:
            label = name.replace("_", " ")
            axis.axhline(level, color="0.4", linestyle=line, linewidth=1.2, label=label)
    axis.set_title(titled(read_out, probe), fontsize=8)
    axis.set_xlabel("fixations")
    axis.set_xticks(sorted({k for row in rows.values() for k in row}))
    axis.spines[["top", "right"]].set_visible(False)

"""Line charts as SVG for a page: drawn by matplotlib, with text that stays text."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from itertools import cycle
from math import ceil

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Points = Sequence[tuple[float, float]]
STYLES = ("-", "--", ":", "-.")
"""So that lines differ without color as well."""
MARKERS = ".ov^sDP"
"""As many as share no factor with the styles and the ten colors: 140 lines all differ."""
MOST_INSIDE = 6
"""Lines whose names fit into the chart; those of more stand below it."""
SIZE_INCHES = (5.2, 3.4)
"""As wide as a phone at the size in which its text is read."""
NAME_INCHES = 0.2
"""Height of a row of names below a chart."""


def line_chart(
    lines: Mapping[str, Points], *, x: str, y: str, title: str, counts: bool = False
) -> str:
    """Draw lines by name as an ``<svg>`` without any reference to the network.

    Args:
        lines: points (x, y) of each.
        x: what the x axis shows, with its unit.
        y: what the y axis shows.
        title: what a reader hears who cannot see it.
        counts: whether x counts something.
    """
    # Names of clip paths follow from the salt: two charts of a page must not share them.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        marks = zip(cycle(STYLES), cycle(MARKERS), strict=False)
        for (name, points), (style, marker) in zip(lines.items(), marks, strict=False):
            axes.plot(*zip(*points, strict=True), style, marker=marker, markersize=4, label=name)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=counts))
        axes.grid(alpha=0.3)
        if len(lines) <= MOST_INSIDE:
            axes.legend(fontsize="small")
        else:
            width, height = SIZE_INCHES
            figure.set_size_inches(width, height + NAME_INCHES * ceil(len(lines) / 2))
            figure.legend(loc="outside lower center", ncols=2, fontsize="small")
        file = StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    drawn = file.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = re.sub(r'\sxmlns(:\w+)?="[^"]*"|\s(width|height)="[^"]*pt"', "", drawn)
    return drawn.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)

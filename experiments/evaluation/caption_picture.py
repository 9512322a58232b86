"""Captions as they are written while the policy looks: fixations, and the words beside them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.evaluation.caption import Example
from foveate.drawing.scanpaths import draw_scanpath, show, show_seen

LETTERS = 28
"""Of a line beside a picture."""
MOST_LINES = 7


def draw_captions(examples: Sequence[Example], path: Path) -> None:
    """Write a PNG, a row for each image: its scanpath, what is seen and said after k fixations.

    Below the scanpath stands a caption of the image's own; last comes the whole image.
    """
    after = list(examples[0].written.after)
    columns = len(after) + 2
    figure = Figure(figsize=(2.1 * columns, 3.2 * len(examples)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(examples), columns, squeeze=False)
    # The layout decides how large a panel is, and that how large its numbers are.
    figure.draw_without_rendering()
    for example, row in zip(examples, panels, strict=True):
        written, order = example.written, example.order
        draw_scanpath(row[0], example.image, order, example.grid, len(order))
        _say(row[0], "fixations; one of its captions:", written.captions[0])
        for k, panel in zip(after, row[1:], strict=False):
            show_seen(panel, example.image, order[:k], example.grid)
            _say(panel, f"after {k}:", written.after[k])
        show(row[-1], example.image)
        _say(row[-1], "whole image:", written.whole)
    figure.savefig(path)


def _say(panel: Axes, title: str, text: str) -> None:
    """Write below a panel; a caption is text of anyone's, in which a dollar is no formula."""
    lines = textwrap.wrap(text.replace("$", r"\$"), LETTERS, max_lines=MOST_LINES)
    panel.set_title(title, fontsize=7)
    panel.text(
        0.5,
        -0.04,
        "\n".join(lines),
        transform=panel.transAxes,
        ha="center",
        va="top",
        fontsize=7,
    )

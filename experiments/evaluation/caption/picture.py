"""Captions as they are written while the policy looks: fixations, and the words beside them."""

from __future__ import annotations

import textwrap
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.evaluation.caption.evaluate import CaptionExample
from foveate.drawing.scanpaths import as_written, draw_scanpath, show, show_seen

LETTERS = 28
"""Of a line beside a picture; a wide one, as of Chinese, counts twice."""
MOST_LINES = 7
SCRIPTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans Devanagari",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Arial Unicode MS",
)
"""Fonts of letters that matplotlib's own lacks; those that are installed are asked in turn."""


def draw_captions(examples: Sequence[CaptionExample], path: Path) -> None:
    """Write a PNG, a row for each image: its scanpath, what is seen and said after k fixations.

    Below the scanpath stands a caption of the image's own; last comes the whole image. A letter
    that no font has is a box.
    """
    after = list(examples[0].written.after)
    columns = len(after) + 2
    figure = Figure(figsize=(2.1 * columns, 3.5 * len(examples)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(examples), columns, squeeze=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
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
    """Write below a panel."""
    panel.set_title(title, fontsize=7)
    # The picture stands above, and leaves its room below to the words.
    panel.set_anchor("N")
    said = panel.text(
        0.5,
        -0.04,
        as_written("\n".join(lines_of(text))),
        transform=panel.transAxes,
        ha="center",
        va="top",
        fontsize=7,
        fontfamily=["DejaVu Sans", *_installed()],
    )
    said.set_in_layout(False)


def lines_of(text: str) -> list[str]:
    """Break a text into lines of at most LETTERS; of too many the first ones stay."""
    # A wide letter is followed by one that is taken away again.
    filler = "\0"
    wide = "".join(
        letter + filler * (unicodedata.east_asian_width(letter) in "AFW") for letter in text
    )
    lines = textwrap.wrap(wide, LETTERS, max_lines=MOST_LINES)
    return [line.replace(filler, "") for line in lines]


def _installed() -> list[str]:
    names = set(font_manager.get_font_names())
    return [name for name in SCRIPTS if name in names]

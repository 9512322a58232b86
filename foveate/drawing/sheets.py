"""Pages of scanpaths: a sheet of what is seen and predicted on the way, and the same animated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from foveate.drawing.scanpaths import as_written, draw_scanpath, show, show_seen
from foveate.orders.paths import Grid

DPI = 72
"""Of the pages, on which a point is thus a pixel."""
SHEET_PX, SHEET_PATCH_PX = 288, 18
"""The longer side of an image with its scanpath, and the side of a patch, at least."""
FRAME_PX, FRAME_PATCH_PX = 192, 12
"""The same in an animation."""
GAP_PX, TEXT_PX = 4, 11
LINE_PX = TEXT_PX + 5
"""Height of a line of text."""


def shown_steps(budget: int, columns: int = 5) -> list[int]:
    """Fixation counts that a sheet shows: all, or about ``columns`` spaced evenly to the budget."""
    return sorted({round(step) for step in np.linspace(1, budget, min(columns, budget))})


def panel_size(
    image_size: tuple[int, int], grid: Grid, panel_px: int, patch_px: int
) -> tuple[int, int]:
    """Return height and width of a panel in which image and patches are large enough, pixels.

    Small images get a whole number of pixels for each of theirs.
    """
    height, width = image_size
    scale = max(panel_px / max(height, width), patch_px * max(grid[0] / height, grid[1] / width))
    if scale > 2:
        scale = math.ceil(scale)
    return round(scale * height), round(scale * width)


class Page:
    """A figure on which panels and texts have places in pixels, from the top left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        self.canvas: Any = FigureCanvasAgg(self.figure)  # Its methods have no annotations.

    def panel(self, left: int, top: int, size: tuple[int, int]) -> Axes:
        """Make a panel of a height and width, at its top left corner."""
        height, width = size
        place = (left, self.height - top - height, width, height)
        sides = (self.width, self.height) * 2
        return self.figure.add_axes(
            tuple(each / side for each, side in zip(place, sides, strict=True))  # type: ignore[arg-type]
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        room_px: int,
        *,
        upward: bool = False,
        size_px: float = TEXT_PX,
    ) -> Any:
        """Write a line around its middle, cut to the room that it has."""
        # A sign takes about 0.6 of the text's size.
        signs = max(1, int(room_px / (0.6 * size_px)))
        return self.figure.text(
            x / self.width,
            1 - y / self.height,
            as_written(text if len(text) <= signs else f"{text[: signs - 1]}…"),
            fontsize=size_px,
            rotation=90 if upward else 0,
            ha="center",
            va="center",
        )

    def pixels(self) -> Image.Image:
        """Return the page as it is drawn."""
        self.canvas.draw()
        return Image.fromarray(np.asarray(self.canvas.buffer_rgba())).convert("RGB")


def scanpath_sheet(
    images: Float[Tensor, "B C H W"],
    order: Int[Tensor, "B T *K"],
    reconstructions: Float[Tensor, "B S C H W"] | None,
    grid: Grid,
    path: Path,
    *,
    errors: Float[Tensor, "B S"],
    labels: Sequence[str] | None = None,
) -> None:
    """Write a PNG: per image the scanpath, and what is seen and reconstructed on the way.

    After k fixations, what is seen stands above and the reconstruction below.

    Args:
        images: pixels in [0, 1].
        order: the scanpaths.
        reconstructions: after 0..T fixations, S = T + 1; None = no pixels are predicted, and what
            is seen stands alone.
        grid: rows and columns of patches.
        path: file to write.
        errors: error of the unseen over the error before the first fixation, printed
            under each column.
        labels: what each image is, written beside it; None = not known.
    """
    budget = order.shape[1]
    steps = shown_steps(budget)
    large = panel_size((images.shape[2], images.shape[3]), grid, SHEET_PX, SHEET_PATCH_PX)
    kinds = ("seen",) if reconstructions is None else ("seen", "predicted")
    # The small panels and a line of text are as high as the large one.
    height = (large[0] - (len(kinds) - 1) * GAP_PX - LINE_PX) // len(kinds)
    small = height, round(height * large[1] / large[0])
    margin = 0 if labels is None else LINE_PX
    first = margin + large[1] + LINE_PX
    row_height = large[0] + GAP_PX
    page = Page(
        first + len(steps) * (small[1] + GAP_PX) - GAP_PX, LINE_PX + len(images) * row_height
    )
    page.text(margin + large[1] / 2, LINE_PX / 2, f"{budget} fixations", large[1])
    for column, step in enumerate(steps):
        middle = first + column * (small[1] + GAP_PX) + small[1] / 2
        page.text(middle, LINE_PX / 2, f"after {step}", small[1])
    for row in range(len(images)):
        top = LINE_PX + row * row_height
        starts = [top + place * (small[0] + GAP_PX) for place in range(len(kinds))]
        if labels is not None:
            page.text(margin / 2, top + large[0] / 2, labels[row], large[0], upward=True)
        draw_scanpath(page.panel(margin, top, large), images[row], order[row], grid, budget)
        for what, start in zip(kinds, starts, strict=True):
            middle = start + small[0] / 2
            page.text(first - LINE_PX / 2, middle, what, small[0], upward=True)
        for column, step in enumerate(steps):
            left = first + column * (small[1] + GAP_PX)
            show_seen(page.panel(left, top, small), images[row], order[row, :step], grid)
            if reconstructions is not None:
                show(page.panel(left, starts[1], small), reconstructions[row, step])
            under = starts[-1] + small[0] + LINE_PX / 2
            error = f"error {float(errors[row, step]):.2f}"
            page.text(left + small[1] / 2, under, error, small[1])
    page.pixels().save(path, "png")


def scanpath_animation(
    images: Float[Tensor, "B C H W"],
    order: Int[Tensor, "B T *K"],
    reconstructions: Float[Tensor, "B S C H W"] | None,
    grid: Grid,
    path: Path,
    *,
    labels: Sequence[str] | None = None,
) -> None:
    """Write an animated GIF of T + 1 frames.

    Each shows, per image, the scanpath so far with the latest fixation in a white frame, what is
    seen, and the reconstruction. Arguments are those of :func:`scanpath_sheet`.
    """
    budget, frames = order.shape[1], []
    size = panel_size((images.shape[2], images.shape[3]), grid, FRAME_PX, FRAME_PATCH_PX)
    head = LINE_PX * (1 if labels is None else 2)
    row, column = size[0] + GAP_PX, size[1] + GAP_PX
    kinds = ("scanpath", "seen", "predicted")[: 2 if reconstructions is None else 3]
    page = Page(LINE_PX + len(images) * column - GAP_PX, head + len(kinds) * row - GAP_PX)
    for place, what in enumerate(kinds):
        page.text(LINE_PX / 2, head + place * row + size[0] / 2, what, size[0], upward=True)
    for place, label in enumerate(labels or ()):
        middle = LINE_PX + place * column + size[1] / 2
        page.text(middle, 1.5 * LINE_PX, label, size[1])
    title = page.text(page.width / 2, LINE_PX / 2, "", page.width)
    panels = [
        [
            page.panel(LINE_PX + place * column, head + line * row, size)
            for line in range(len(kinds))
        ]
        for place in range(len(images))
    ]
    for step in range(budget + 1):
        for place, (scanned, seen, *predicted) in enumerate(panels):
            for panel in (scanned, seen, *predicted):
                # Panel.clear() would make its axes anew, which takes most of the time.
                for drawn in (*panel.images, *panel.lines, *panel.texts, *panel.collections):
                    drawn.remove()
            so_far = order[place, :step]
            draw_scanpath(scanned, images[place], so_far, grid, budget, mark_last=step > 0)
            show_seen(seen, images[place], so_far, grid)
            if reconstructions is not None:
                show(predicted[0], reconstructions[place, step])
        opened = int((order[:, :step] >= 0).flatten(1).sum(1).max()) if step else 0
        num_patches = grid[0] * grid[1]
        title.set_text(f"fixation {step} of {budget} ({opened} of {num_patches} patches seen)")
        # The usual way to 256 colors, median cut, would take most of the time.
        frames.append(page.pixels().quantize(method=Image.Quantize.FASTOCTREE))
    durations = [500] * budget + [2000]
    frames[0].save(
        path,
        "gif",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        optimize=False,
    )

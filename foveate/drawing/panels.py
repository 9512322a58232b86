"""Panels side by side: several scanpaths on the same images, and where fixations lie in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from foveate.drawing.scanpaths import draw_scanpath, show
from foveate.drawing.sheets import GAP_PX, Page, panel_size
from foveate.orders.paths import Grid

PANEL_PX, PANEL_PATCH_PX = 352, 12
"""The longer side of a panel, and the side of a patch, at least."""
HEADING_PX, HEADING_LINE_PX = 20.0, 34
"""Size of the columns' names, and height of their line."""
HEAT, PALE = 0.75, 0.45
"""How much the largest share covers the image below it, and how far that image fades to white."""


def side_by_side(
    images: Float[Tensor, "B C H W"],
    scanpaths: Mapping[str, Int[Tensor, "B T"]],
    grid: Grid,
    path: Path,
) -> None:
    """Write a PNG: a row for each image, on which each column draws its scanpath.

    Args:
        images: pixels in [0, 1].
        scanpaths: cells of each column by its name, padded with -1.
        grid: rows and columns of cells.
        path: file to write.
    """

    def draw(axis: Axes, row: int, name: str) -> None:
        order = scanpaths[name][row]
        order = order[order >= 0]
        draw_scanpath(axis, images[row], order, grid, len(order))

    _panels(images, tuple(scanpaths), grid, path, draw)


def densities(
    images: Float[Tensor, "B C H W"],
    shares: Mapping[str, Float[Tensor, "B N"]],
    grid: Grid,
    path: Path,
) -> None:
    """Write a PNG: a row for each image, over which each column lays the shares of its fixations.

    Every panel is scaled to its own largest share, which is dark red. Smaller shares are paler and
    let more of the image through, and where there are none it is as it was, in pale gray.

    Args:
        images: pixels in [0, 1].
        shares: of all fixations, by column, those that fall into each cell.
        grid: rows and columns of cells.
        path: file to write.
    """

    def draw(axis: Axes, row: int, name: str) -> None:
        gray = images[row].mean(0, keepdim=True)
        show(axis, PALE + (1 - PALE) * gray)
        height, width = images.shape[2:]
        share = shares[name][row].view(grid).numpy()
        # The root keeps what is rare visible beside the one cell where all look.
        heat = np.sqrt(share / max(float(share.max()), 1e-12))
        axis.imshow(
            heat,
            cmap="YlOrRd",
            vmin=0,
            vmax=1,
            alpha=HEAT * heat,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="nearest",
        )
        axis.add_patch(
            Rectangle((0, 0), 1, 1, transform=axis.transAxes, fill=False, edgecolor="0.6")
        )

    _panels(images, tuple(shares), grid, path, draw)


def _panels(
    images: Float[Tensor, "B C H W"],
    names: tuple[str, ...],
    grid: Grid,
    path: Path,
    draw: Callable[[Axes, int, str], None],
) -> None:
    """Lay out a panel for every image and name, and let each be drawn."""
    size = panel_size((images.shape[2], images.shape[3]), grid, PANEL_PX, PANEL_PATCH_PX)
    down, right = size[0] + GAP_PX, size[1] + GAP_PX
    page = Page(len(names) * right - GAP_PX, HEADING_LINE_PX + len(images) * down - GAP_PX)
    for column, name in enumerate(names):
        middle, heading = column * right + size[1] / 2, name.replace("_", " ")
        page.text(middle, HEADING_LINE_PX / 2, heading, size[1], size_px=HEADING_PX)
        for row in range(len(images)):
            draw(page.panel(column * right, HEADING_LINE_PX + row * down, size), row, name)
    page.pixels().save(path, "png")

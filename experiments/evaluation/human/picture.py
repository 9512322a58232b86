"""Write, draw and print a comparison with human viewers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from experiments.evaluation.human.evaluate import HumanMeasurement
from experiments.evaluation.human.means import VIEWERS
from experiments.evaluation.human.rows import contrast_ranks
from experiments.evaluation.report import present
from experiments.evaluation.scanpaths import pixels_of
from experiments.tables import written_whole
from foveate.drawing import densities, shares_by_value, side_by_side
from foveate.human.cells import CellPaths, middles_of
from foveate.human.densities import fixation_density
from foveate.human.saccades import center_distance

SHOWN = ("policy", "uncertainty", "saliency", "best_fixed")
"""Columns beside the viewers, where they were compared."""
CONTRAST = "contrast rank of the cell, 1 = the image's highest"
DISTANCE = "distance from the center, image diagonals"
NUM_IMAGES, NUM_VIEWERS = 6, 2
"""Rows of the pictures, and viewers of each image whose scanpaths are drawn."""


def present_human(measured: HumanMeasurement, path: Path, threads: int | None = None) -> None:
    """Write the result, pictures of the first test images and of all, and print the tables.

    Args:
        measured: what was compared.
        path: file of the result; the pictures stand beside it.
        threads: option of the script; None = torch's choice.
    """
    pictures = [path.with_name(f"{path.stem}{end}.png") for end in ("", "_densities", "_where")]
    scanpaths, shares, where = pictures
    present(measured.comparison, path, threads, pictures)
    paths = measured.test.paths
    shown = {name: measured.scanpaths[name] for name in SHOWN if name in measured.scanpaths}
    drawn = np.unique(paths.image)[:NUM_IMAGES]
    images = pixels_of(measured.test.images[drawn], "cpu")
    with written_whole(scanpaths) as partial:
        side_by_side(images, drawn_scanpaths(paths, shown, drawn), paths.grid, partial)
    with written_whole(shares) as partial:
        draw_densities(measured, shown, drawn, partial)
    with written_whole(where) as partial:
        shares_by_value(preferred(measured, shown), VIEWERS, partial)
    print(f"written: {', '.join(map(str, pictures))}")


def drawn_scanpaths(
    paths: CellPaths, shown: dict[str, Int64[np.ndarray, "M T"]], drawn: Int64[np.ndarray, " B"]
) -> dict[str, Tensor]:
    """Return a column for each of the first viewers of an image, and for each that is shown.

    Those are as long as the first viewer's.
    """
    columns: dict[str, Tensor] = {}
    of_image = [np.flatnonzero(paths.image == image) for image in drawn]
    for number in range(min([NUM_VIEWERS, *map(len, of_image)])):
        rows = [each[number] for each in of_image]
        columns[f"viewer {number + 1}"] = torch.from_numpy(paths.cell[rows])
    first = paths.length[[each[0] for each in of_image]]
    for name, cell in shown.items():
        within = np.arange(cell.shape[1]) < first[:, None]
        columns[name] = torch.from_numpy(np.where(within, cell[drawn], -1))
    return columns


def draw_densities(
    measured: HumanMeasurement,
    shown: dict[str, Int64[np.ndarray, "M T"]],
    drawn: Int64[np.ndarray, " B"],
    path: Path,
) -> None:
    """Draw where fixations lie: over all test images on white, and on each of some.

    What is given says nothing and is left out. Scanpaths are as long as the viewers' on average.
    """
    paths, images = measured.test.paths, measured.test.images
    longest, given = round(float(paths.length.mean())), paths.num_given
    shares = {VIEWERS: of_cells(paths.cell[:, given:], paths.image, paths, len(images))}
    for name, cell in shown.items():
        each = np.arange(len(cell))
        shares[name] = of_cells(cell[:, given:longest], each, paths, len(images))
    pixels = pixels_of(images[drawn], "cpu")
    sheet = torch.cat([torch.ones_like(pixels[:1]), pixels])
    columns = {
        name: torch.cat([each.mean(0, keepdim=True), each[drawn]]) for name, each in shares.items()
    }
    densities(sheet, columns, paths.grid, path)


def preferred(
    measured: HumanMeasurement, shown: dict[str, Int64[np.ndarray, "M T"]]
) -> dict[str, dict[str, Float64[np.ndarray, " F"]]]:
    """Return contrast rank and distance from the center of all scored fixations, by whose they are.

    Scanpaths are as long as the viewers' on average.
    """
    paths, (height, width) = measured.test.paths, measured.test.images.shape[2:]
    scored = slice(paths.num_given, round(float(paths.length.mean())))
    cells = {VIEWERS: (paths.cell[:, paths.num_given :], paths.image)}
    cells |= {name: (each[:, scored], np.arange(len(each))) for name, each in shown.items()}
    rank = contrast_ranks(measured.test.images, paths.grid)
    found: dict[str, dict[str, np.ndarray]] = {CONTRAST: {}, DISTANCE: {}}
    for name, (cell, image) in cells.items():
        row, number = np.nonzero(cell >= 0)
        at = cell[row, number]
        found[CONTRAST][name] = rank[image[row], at]
        found[DISTANCE][name] = center_distance(middles_of(at, paths.grid), height / width)
    return found


def of_cells(
    cell: Int64[np.ndarray, "P T"],
    image: Int64[np.ndarray, " P"],
    paths: CellPaths,
    num_images: int,
) -> Tensor:
    """Return the share of fixations in each cell, of all on an image."""
    return torch.from_numpy(fixation_density(cell, image, paths.num_cells, num_images)).float()

"""What one row of a comparison with human viewers finds of a density, and of scanpaths."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float64, Int64, Num
from scipy import stats
from torch import Tensor

from experiments.evaluation.human.means import ContenderFinding, by_image
from foveate.human.cells import CellPaths, Steps, middles_of
from foveate.human.densities import uniform
from foveate.human.metrics import information_gain_bits, next_auc_judd, nss
from foveate.human.multi_match import DIMENSIONS, LEAST_FIXATIONS, is_installed, multi_match
from foveate.human.saccades import center_distance, direction_shares, revisit_share, saccades
from foveate.human.scan_match import scan_match
from foveate.orders.paths import Grid

MOST_MULTI_MATCHED = 600
"""Pairs of scanpaths that MultiMatch compares in a row: it takes milliseconds for each."""


@dataclass(frozen=True)
class Pairs:
    """Scanpaths that are compared, two and two, as cells."""

    one: Int64[np.ndarray, "K T"]
    """Of the contender, padded with -1."""
    viewer: Int64[np.ndarray, "K U"]
    """Of a viewer."""
    image: Int64[np.ndarray, " K"]


@dataclass(frozen=True)
class Viewing:
    """What every row is asked about."""

    paths: CellPaths
    """Of the viewers."""
    contrast: Float64[np.ndarray, "M N"]
    """Rank of each cell by contrast, 0 to 1."""
    size_px: tuple[int, int]
    """Height and width of the images."""

    @property
    def aspect(self) -> float:
        """Height over width."""
        return self.size_px[0] / self.size_px[1]

    @property
    def grid(self) -> Grid:
        """Rows and columns of cells."""
        return self.paths.grid

    @property
    def num_images(self) -> int:
        """Images, M."""
        return len(self.contrast)

    def scored(self, cell: Int64[np.ndarray, "K T"]) -> Int64[np.ndarray, "K S"]:
        """Return scanpaths without what was given."""
        return cell[:, self.paths.num_given :]


def density_found(
    density: Float64[np.ndarray, "F N"],
    center: Float64[np.ndarray, "F N"],
    steps: Steps,
    num_images: int,
) -> ContenderFinding:
    """Return what a density says of the viewers' fixations."""
    found = {
        "bits": information_gain_bits(density, uniform(steps), steps),
        "minus_center": information_gain_bits(density, center, steps),
        "nss": nss(density, steps),
        "auc_judd": next_auc_judd(density, steps),
    }
    return ContenderFinding(
        {name: by_image(each, steps.image, num_images) for name, each in found.items()}
    )


def similarity_found(pairs: Pairs, asked: Viewing) -> ContenderFinding:
    """Return how similar pairs of scanpaths are."""
    one, viewer = (middles_of(asked.scored(each), asked.grid) for each in (pairs.one, pairs.viewer))
    alike = by_image(scan_match(one, viewer), pairs.image, asked.num_images)
    return ContenderFinding(
        {"scan_match": alike}, {"multi_match": multi_matched(one, viewer, asked.size_px)}
    )


def habits_found(
    cell: Int64[np.ndarray, "K T"], image: Int64[np.ndarray, " K"], asked: Viewing
) -> ContenderFinding:
    """Return how far and in which directions scanpaths go, how often back, and where they lie.

    Saccades begin at what is given; where it lies says nothing of who was told to look there.

    Args:
        cell: scanpaths, padded with -1.
        image: of each.
        asked: what every row is asked about.
    """
    amplitude, direction = saccades(middles_of(cell, asked.grid), asked.aspect)
    scored = asked.scored(cell)
    rows, at = np.nonzero(scored >= 0)
    where, on = scored[rows, at], image[rows]
    place = middles_of(where, asked.grid)
    found = {
        "amplitude": (amplitude.ravel(), image.repeat(amplitude.shape[1])),
        "revisit_share": (revisit_share(cell), image),
        "contrast": (asked.contrast[on, where], on),
        "center_distance": (center_distance(place, asked.aspect), on),
    }
    shares = tuple(round(float(each), 4) for each in direction_shares(direction))
    return ContenderFinding(
        {name: by_image(*each, asked.num_images) for name, each in found.items()},
        {"directions": shares},
    )


def multi_matched(
    one: Float64[np.ndarray, "K T 2"],
    other: Float64[np.ndarray, "K U 2"],
    size_px: tuple[int, int],
) -> dict[str, float] | None:
    """Return the mean of each dimension over pairs, evenly taken; None = not installed, or none."""
    if not is_installed():
        return None
    lengths = np.stack([(~np.isnan(each[:, :, 0])).sum(1) for each in (one, other)])
    long = np.flatnonzero(lengths.min(0) >= LEAST_FIXATIONS)
    if not len(long):
        return None
    evenly = np.linspace(0, len(long) - 1, min(len(long), MOST_MULTI_MATCHED)).astype(int)
    rows = long[np.unique(evenly)]
    found = np.array([multi_match(_real(one[row]), _real(other[row]), size_px) for row in rows])
    return {name: float(each) for name, each in zip(DIMENSIONS, found.mean(0), strict=True)}


def _real(place: Float64[np.ndarray, "T 2"]) -> Float64[np.ndarray, "S 2"]:
    return place[~np.isnan(place[:, 0])]


# --- pairs of scanpaths


def as_long(
    cell: Int64[np.ndarray, "K T"], viewer: Int64[np.ndarray, "K U"]
) -> Int64[np.ndarray, "K U"]:
    """Cut scanpaths to the lengths of the viewers'; shorter ones stay as they are."""
    width = viewer.shape[1]
    padded = np.pad(cell, ((0, 0), (0, max(0, width - cell.shape[1]))), constant_values=-1)
    return np.where(viewer >= 0, padded[:, :width], -1)


def own_pairs(cell: Int64[np.ndarray, "M T"], paths: CellPaths) -> Pairs:
    """Compare the one scanpath on each image with all of its viewers."""
    few = paths.of_first(len(cell))
    return drawn_pairs(cell[few.image], few)


def drawn_pairs(cell: Int64[np.ndarray, "P T"], paths: CellPaths) -> Pairs:
    """Compare a scanpath for each viewer with that viewer's.

    Those that have nothing left beside what is given are left out.
    """
    one = as_long(cell, paths.cell)
    kept = (one[:, paths.num_given :] >= 0).any(1)
    # A step of an agent that opens nothing leaves a hole, which is closed.
    one = np.take_along_axis(one, (one < 0).argsort(axis=1, kind="stable"), axis=1)
    return Pairs(one[kept], paths.cell[kept], paths.image[kept])


def viewer_pairs(paths: CellPaths) -> Pairs:
    """Compare every viewer of an image with every other, each at its own length."""
    pairs = [
        (first, second)
        for image in np.unique(paths.image)
        for first, second in combinations(np.flatnonzero(paths.image == image).tolist(), 2)
    ]
    one, other = np.array(pairs, np.int64).reshape(-1, 2).T
    return Pairs(paths.cell[one], paths.cell[other], paths.image[one])


def other_image_pairs(paths: CellPaths, other: Int64[np.ndarray, " M"]) -> Pairs:
    """Compare every viewer with one of another image, each at its own length."""
    of_image = [np.flatnonzero(paths.image == image) for image in range(len(other))]
    stand_in = []
    for row, image in enumerate(paths.image):
        candidates = of_image[other[image]]
        # An image whose scanpaths were all too short lends none.
        place = row - int(of_image[image][0])
        stand_in.append(int(candidates[place % len(candidates)]) if len(candidates) else -1)
    chosen = np.array(stand_in)
    kept = chosen >= 0
    return Pairs(paths.cell[chosen[kept]], paths.cell[kept], paths.image[kept])


def sampled_paths(
    of_number: Float64[np.ndarray, "T N"], paths: CellPaths, seed: int
) -> Int64[np.ndarray, "P T"]:
    """Draw a scanpath for each viewer from the density of each fixation number.

    What is given is the viewer's. Where revisits were dropped no cell is drawn twice.
    """
    generator = np.random.default_rng(seed)
    cell, rows = paths.cell.copy(), np.arange(len(paths.cell))
    viewed = np.zeros((len(cell), paths.num_cells), bool)
    for number in range(cell.shape[1]):
        if number >= paths.num_given:
            # The largest of log density + Gumbel noise is a draw.
            log_weight = np.log(of_number[min(number, len(of_number) - 1)])
            noisy = log_weight + generator.gumbel(size=viewed.shape)
            if not paths.may_return:
                noisy = np.where(viewed, -np.inf, noisy)
            cell[:, number] = noisy.argmax(1)
        viewed[rows, cell[:, number]] = True
    return np.where(paths.cell >= 0, cell, -1)


def contrast_ranks(images: Num[Tensor, "M C H W"], grid: Grid) -> Float64[np.ndarray, "M N"]:
    """Return the rank of each cell by the standard deviation of its gray values, 0 to 1.

    Equal ones share the mean of their ranks. Where cells do not divide the image, neighbors share
    pixels, as in torch's adaptive pooling.
    """
    # Gray values of bytes are whole thirds: their differences would else be lost in rounding.
    gray = images.double().mean(1, keepdim=True)
    mean, squared = (F.adaptive_avg_pool2d(each, grid) for each in (gray, gray**2))
    contrast = (squared - mean**2).flatten(1).numpy().round(9)
    ranks: np.ndarray = (stats.rankdata(contrast, axis=1) - 1) / max(1, contrast.shape[1] - 1)
    return ranks

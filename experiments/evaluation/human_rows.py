"""One row of a comparison with human viewers: its density, its scanpaths, its intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float64, Int64, Num
from torch import Tensor

from experiments.evaluation.intervals import Interval, mean_interval
from foveate.human.cells import CellPaths, Steps, middles_of
from foveate.human.densities import uniform
from foveate.human.metrics import information_gain_bits, next_auc_judd, nss
from foveate.human.multi_match import DIMENSIONS, is_installed, multi_match
from foveate.human.saccades import direction_shares, revisit_share, saccades
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

    def scored(self, cell: Int64[np.ndarray, "K T"]) -> Int64[np.ndarray, "K S"]:
        """Return scanpaths without what was given."""
        return cell[:, self.paths.num_given :]


def by_image(values: Float64[np.ndarray, " F"], image: Int64[np.ndarray, " F"]) -> np.ndarray:
    """Return the mean of each image that has a value, in their order; NaN does not count."""
    known = ~np.isnan(values)
    total = np.bincount(image[known], values[known])
    number = np.bincount(image[known])
    return total[number > 0] / number[number > 0]


def density_facts(
    density: Float64[np.ndarray, "F N"], center: Float64[np.ndarray, "F N"], steps: Steps
) -> tuple[dict[str, Any], np.ndarray]:
    """Return the fields of a row that its density decides, and its bits by image."""
    gain = information_gain_bits(density, uniform(steps), steps)
    over_center = information_gain_bits(density, center, steps)
    bits = by_image(gain, steps.image)
    facts = {
        "images": len(bits),
        **meant("bits", bits),
        **meant("minus_center", by_image(over_center, steps.image)),
        **meant("nss", by_image(nss(density, steps), steps.image)),
        **meant("auc_judd", by_image(next_auc_judd(density, steps), steps.image)),
    }
    return facts, bits


def scanpath_facts(pairs: Pairs | None, asked: Viewing) -> dict[str, Any]:
    """Return the fields of a row that its scanpaths decide."""
    names = ("scan_match", "scan_match_ci95", "amplitude", "directions", "revisit_share")
    if pairs is None or not len(pairs.image):
        return dict.fromkeys((*names, "contrast"))
    grid = asked.paths.grid
    one, viewer = (asked.scored(each) for each in (pairs.one, pairs.viewer))
    places, others = middles_of(one, grid), middles_of(viewer, grid)
    amplitude, direction = saccades(middles_of(pairs.one, grid), asked.aspect)
    rows, at = np.nonzero(one >= 0)
    return {
        **meant("scan_match", by_image(scan_match(places, others), pairs.image)),
        "multi_match": multi_matched(places, others, asked.size_px),
        "amplitude": _or_none(amplitude),
        "directions": tuple(round(float(each), 4) for each in direction_shares(direction)),
        "revisit_share": float(revisit_share(pairs.one).mean()),
        "contrast": float(asked.contrast[pairs.image[rows], one[rows, at]].mean()),
    }


def _or_none(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def multi_matched(
    one: Float64[np.ndarray, "K T 2"],
    other: Float64[np.ndarray, "K U 2"],
    size_px: tuple[int, int],
) -> dict[str, float] | None:
    """Return the mean of each dimension over pairs, evenly taken; None = not installed, or none."""
    if not is_installed():
        return None
    rows = np.unique(np.linspace(0, len(one) - 1, min(len(one), MOST_MULTI_MATCHED)).astype(int))
    found = np.array([multi_match(_real(one[row]), _real(other[row]), size_px) for row in rows])
    found = found[~np.isnan(found).any(axis=1)]
    if not len(found):
        return None
    return {name: float(each) for name, each in zip(DIMENSIONS, found.mean(0), strict=True)}


def _real(place: Float64[np.ndarray, "T 2"]) -> Float64[np.ndarray, "S 2"]:
    return place[~np.isnan(place[:, 0])]


def meant(name: str, values: Float64[np.ndarray, " M"]) -> dict[str, float | Interval | None]:
    """Return a mean over images and its interval, as the fields of a row."""
    mean, interval = mean_interval(values)
    return {name: mean, f"{name}_ci95": interval}


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
        for first, second in _two_of(np.flatnonzero(paths.image == image).tolist())
    ]
    one, other = np.array(pairs, np.int64).reshape(-1, 2).T
    return Pairs(paths.cell[one], paths.cell[other], paths.image[one])


def _two_of(rows: list[int]) -> Iterable[tuple[int, int]]:
    return ((one, other) for place, one in enumerate(rows) for other in rows[place + 1 :])


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
    """Return the rank of each cell by the standard deviation of its gray values, 0 to 1."""
    gray = images.float().mean(1, keepdim=True)
    mean, squared = (F.adaptive_avg_pool2d(each, grid) for each in (gray, gray**2))
    contrast = (squared - mean**2).flatten(1)
    rank = contrast.argsort(1).argsort(1).double()
    ranks: np.ndarray = (rank / max(1, contrast.shape[1] - 1)).numpy()
    return ranks


def strangers(num_images: int, seed: int) -> Int64[np.ndarray, " M"]:
    """Return a random other image for each; the same one where there is no other."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(num_images, generator=generator)
    other = torch.empty_like(shuffled)
    other[shuffled] = shuffled.roll(1)
    found: np.ndarray = other.numpy()
    return found

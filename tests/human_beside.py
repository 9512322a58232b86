"""Whether bits, NSS and AUC of human fixations agree with those of pysaliency.

    python -m tests.human_beside

Draws scanpaths and densities that change with every fixation, has both score them, and prints the
largest difference. Not a part of the suite: it needs a network, since pysaliency goes into an
environment of its own. All else comes from the environment that runs this.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from foveate.human.cells import Steps
from foveate.human.densities import uniform
from foveate.human.metrics import information_gain_bits, next_auc_judd, nss
from tests.wheel_beside import ROOT, environment, run

INSTALLED = ["setuptools<81", "pysaliency"]
"""It imports pkg_resources, which later setuptools lack."""
GRID = (12, 16)
NUM_SCANPATHS, NUM_FIXATIONS = 20, 8
TOLERANCE = 1e-6


def drawn() -> tuple[Steps, np.ndarray]:
    """Draw scanpaths with revisits, and a density before every fixation."""
    generator = np.random.default_rng(0)
    number_of_cells, rows = GRID[0] * GRID[1], NUM_SCANPATHS * NUM_FIXATIONS
    cell = generator.integers(0, number_of_cells, rows)
    trial, number = np.divmod(np.arange(rows), NUM_FIXATIONS)
    viewed = np.zeros((rows, number_of_cells), bool)
    steps = Steps(trial, number, cell, np.zeros(rows, int), viewed, may_return=True)
    density = generator.dirichlet(np.full(number_of_cells, 0.3), rows)
    return steps, density


def ours(steps: Steps, density: np.ndarray) -> dict[str, np.ndarray]:
    """Score by the functions of this project."""
    return {
        "bits": information_gain_bits(density, uniform(steps), steps),
        "NSS": nss(density, steps),
        "AUC": next_auc_judd(density, steps),
    }


def theirs(steps: Steps, density: np.ndarray) -> dict[str, np.ndarray]:
    """Score by pysaliency, whose pixels are the cells here."""
    import pysaliency

    y, x = np.divmod(steps.cell.reshape(NUM_SCANPATHS, NUM_FIXATIONS), GRID[1])
    times, subjects = [np.arange(NUM_FIXATIONS)] * NUM_SCANPATHS, list(range(NUM_SCANPATHS))
    fixations = pysaliency.FixationTrains.from_fixation_trains(
        list(x), list(y), times, [0] * NUM_SCANPATHS, subjects
    )
    given = pysaliency.Stimuli([np.zeros((*GRID, 3), np.uint8)]), fixations

    class InTurn:
        """One prediction after the other, whatever the history: it is drawn for each fixation."""

        def __init__(self, maps: np.ndarray) -> None:
            self.maps = iter(maps.reshape(-1, *GRID))

        def predicted(self, *_: Any, **__: Any) -> np.ndarray:
            return next(self.maps)

        conditional_log_density = conditional_saliency_map = predicted

    class Model(InTurn, pysaliency.ScanpathModel):  # type: ignore[misc, name-defined]
        """Log densities."""

    class Map(InTurn, pysaliency.ScanpathSaliencyMapModel):  # type: ignore[misc, name-defined]
        """Saliency maps."""

    return {
        "bits": Model(np.log(density)).information_gains(*given, pysaliency.UniformModel()),
        "NSS": Map(density).NSSs(*given),
        "AUC": Map(density).AUCs(*given, nonfixations="unfixated"),
    }


def compare() -> None:
    """Print the largest difference of every number, where pysaliency is; exit 1 if one is large."""
    steps, density = drawn()
    found, expected = ours(steps, density), theirs(steps, density)
    differences = {name: float(np.abs(found[name] - expected[name]).max()) for name in found}
    for name, difference in differences.items():
        print(f"{name:4} of {len(steps.cell)} fixations: largest difference {difference:.1e}")
    sys.exit(int(max(differences.values()) > TOLERANCE))


def main() -> None:
    """Compare in an environment that has pysaliency."""
    with tempfile.TemporaryDirectory() as folder:
        python = environment(Path(folder) / "beside", INSTALLED)
        done = run(python, "-c", "import tests.human_beside as t; t.compare()", folder=ROOT)
    print(done.stdout or done.stderr)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()

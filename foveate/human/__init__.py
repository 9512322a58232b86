"""Human scanpaths: read from parquet, laid on a grid, and what else is measured against them.

* :mod:`foveate.human.reading`: images and the fixations of their viewers, from a parquet file.
* :mod:`foveate.human.cells`: scanpaths as grid cells, and every fixation with its history.
* :mod:`foveate.human.densities`: where the next fixation may fall: center bias, softmax of scores.
* :mod:`foveate.human.nearness`: the center bias times how far people look from their gaze.
* :mod:`foveate.human.viewers`: where the other viewers of an image look.
* :mod:`foveate.human.metrics`: bits, NSS and AUC of such a density.
* :mod:`foveate.human.scan_match`, :mod:`foveate.human.multi_match`: similarity of two scanpaths.
* :mod:`foveate.human.saccades`: amplitudes, directions and revisits.
"""

from foveate.human.cells import CellPaths, Steps, cell_paths
from foveate.human.reading import HumanScanpaths, Skipped, Trial, read_scanpaths

__all__ = [
    "CellPaths",
    "HumanScanpaths",
    "Skipped",
    "Steps",
    "Trial",
    "cell_paths",
    "read_scanpaths",
]

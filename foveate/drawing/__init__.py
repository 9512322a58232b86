"""Pictures for people: scanpaths as sheets and animations, heat maps of fixations, curves."""

from foveate.drawing.panels import densities, side_by_side
from foveate.drawing.scanpaths import (
    as_written,
    border_lines,
    draw_scanpath,
    numbered_steps,
    seen_canvas,
)
from foveate.drawing.sheets import scanpath_animation, scanpath_sheet, shown_steps
from foveate.drawing.statistics import (
    error_curves,
    fixation_heatmaps,
    fixation_shares,
    shares_by_value,
)
from foveate.patches import UNSEEN_GRAY

__all__ = [
    "UNSEEN_GRAY",
    "as_written",
    "border_lines",
    "densities",
    "draw_scanpath",
    "error_curves",
    "fixation_heatmaps",
    "fixation_shares",
    "numbered_steps",
    "scanpath_animation",
    "scanpath_sheet",
    "seen_canvas",
    "shares_by_value",
    "shown_steps",
    "side_by_side",
]

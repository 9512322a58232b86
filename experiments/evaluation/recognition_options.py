"""What can be asked of recognition after k fixations. Free of torch, as ``--help`` is."""

from __future__ import annotations

from typing import Literal

ReadOut = Literal["seen", "last", "queries", "queries_2x2", "attentive"]
READ_OUTS: tuple[ReadOut, ...] = ("queries", "seen", "last", "queries_2x2", "attentive")
FixationsProbe = Literal["per_order", "shared"]
ORDERS = (
    "policy",
    "random",
    "raster",
    "center_out",
    "best_fixed",
    "other_image",
    "uncertainty",
    "saliency",
)
"""Orders whose fixations are probed, if no others are asked for."""

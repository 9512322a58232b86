"""What can be asked of recognition after k fixations. No torch, for ``--help``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal

from foveate.choices import check_choice

ReadOut = Literal["seen", "last", "queries", "queries_2x2", "attentive"]
READ_OUTS: tuple[ReadOut, ...] = ("seen", "last", "queries", "queries_2x2", "attentive")
READ_OUTS_OF_A_LAYER = ("seen", "last", "attentive")
"""Those that read encoder layers."""
FixationsProbe = Literal["per_order", "shared"]
VectorProbe = Literal["linear", "knn"]
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


def check_read_outs(names: Iterable[str]) -> None:
    """Raise ValueError unless there are all these read-outs."""
    for name in names:
        check_choice("read-out", name, READ_OUTS)


@dataclass(frozen=True, kw_only=True)
class FixationsOptions:
    """Options of recognition after k fixations."""

    fixations: tuple[int, ...] = ()
    """Probe what is known after so many fixations as well, in 1..budget; none = off."""
    orders: tuple[str, ...] | None = None
    """Whose fixations: policy, best_fixed, other_image, any order or agent by name, or MODULE:NAME
    of your own; None = policy random raster center_out best_fixed other_image uncertainty
    saliency. Repeats are dropped, as those of fixations are."""
    read_outs: tuple[ReadOut, ...] | None = None
    """What is probed; None = all but attentive, which is trained for minutes, unless attentive is
    among the probes. seen: mean over the states seen; last: the newest state; queries: mean over
    the decoder's queries; queries_2x2: their means over quarters; attentive: a learned query
    attends to the states with their places. The first but attentive is the headline."""
    fixations_layer: int | None = None
    """Encoder layer of these states, from 1; None = the mean of all, each layer-normalized."""
    fixations_probe: FixationsProbe = "per_order"
    """Probes trained for each order and number of fixations, or once on random fixations."""
    label_shares: tuple[float, ...] = (1.0,)
    """Shares of the training labels, balanced over classes, such as 0.01 0.1 1; all labels are
    always among them."""

    def __post_init__(self) -> None:
        for name in ("orders", "read_outs", "label_shares"):
            if getattr(self, name) == ():
                raise ValueError(f"{name} needs at least one choice")
        check_read_outs(self.read_outs or ())
        check_label_shares(self.label_shares)
        for name in (each.name for each in fields(FixationsOptions)):
            if not self.fixations and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"{name} has no effect without fixations; add --fixations 1 2 4")


def check_label_shares(shares: tuple[float, ...]) -> None:
    """Raise ValueError unless these are shares of the training labels."""
    for share in shares:
        if not 0 < share <= 1:
            raise ValueError(f"label_shares must lie above 0 and up to 1, got {share}")

"""What the finished runs of a grid are asked. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from experiments.evaluation.recognition.options import ReadOut, check_read_outs
from foveate.choices import check_choice, check_name
from foveate.sizes import check_at_least


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the finished run of a cell is asked.

    Answers from before there was an option count as those of its default. So a new one must ask
    nothing more by default.
    """

    probes: tuple[Literal["linear", "knn"], ...] = ("linear", "knn")
    """Probes of frozen features, as of experiments.probe, beside which RankMe and LiDAR are
    measured; none = not probed."""
    layer: int | None = None
    """Layer that is probed, from 1, fixed before anything is seen; None = every layer, and the
    accuracy is the mean over layers."""
    attention: tuple[Literal["full", "causal"], ...] = ("full",)
    """Attention of the probed encoder."""
    label_shares: tuple[float, ...] = (1.0,)
    """Shares of the probes' training labels, balanced over classes."""
    train_limit: int = 10_000
    """Training images of the probes."""
    test_limit: int | None = 5_000
    """Images that are asked about; None = all."""
    areas: tuple[str, ...] = ()
    """Orders whose area under the error curve is measured, such as ``policy``; needs a model that
    can be scanned, as the options below do."""
    area_limit: int = 1000
    """Images of the areas, and of the signs."""
    fixations: tuple[int, ...] = ()
    """Numbers of fixations after which a probe is asked what is known; in the last stage."""
    orders: tuple[str, ...] = ("policy", "random")
    """Whose fixations."""
    read_outs: tuple[ReadOut, ...] = ("seen",)
    """What that probe reads; ``attentive`` is a probe of its own, all others are linear. The first
    gives the measure its name, further ones are named in it."""
    signs: bool = True
    """Whether a policy that learned is compared with its controls; in the last stage."""
    pictures: int = 3
    """Images whose scans the page shows, of a cell's first seed; in the last stage."""
    compute: bool = True
    """Whether the operations of the training are counted."""
    own: tuple[str, ...] = ()
    """Questions of one's own, ``MODULE:NAME``: called with the run, the split and ``test_limit``,
    they return a value for each image by the name of the measure."""

    def __post_init__(self) -> None:
        for name in ("probes", "attention", "areas", "fixations", "orders", "own"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name} takes several, as a tuple; got {getattr(self, name)!r}")
        for name, choices in (("probes", ("linear", "knn")), ("attention", ("full", "causal"))):
            for each in getattr(self, name):
                check_choice(name, each, choices)
        check_read_outs(self.read_outs)
        if min(self.fixations, default=1) < 1 or self.pictures < 0:
            raise ValueError(
                "fixations count from 1, and pictures from 0; got fixations "
                f"{' '.join(map(str, self.fixations)) or 'none'} and pictures {self.pictures}"
            )
        for name in self.own:
            check_name("question", name, ())
        for share in self.label_shares:
            if not 0 < share <= 1:
                raise ValueError(f"label_shares must lie above 0 and up to 1, got {share:g}")
        check_at_least(self, 1, "train_limit", "test_limit", "area_limit")
        if self.layer is not None and self.layer < 1:
            raise ValueError(f"layer counts from 1, got {self.layer}")
        if not (self.probes or self.areas or self.fixations or self.own):
            raise ValueError("nothing is asked; give probes, areas, fixations or own questions")

    @property
    def own_names(self) -> tuple[str, ...]:
        """Questions, orders and agents of one's own, ``MODULE:NAME``."""
        orders = self.orders if self.fixations else ()
        return tuple(name for name in (*self.own, *self.areas, *orders) if ":" in name)

    def of_images(self, limit: int) -> Asked:
        """Ask about so many images at most."""
        return replace(self, test_limit=limit, area_limit=min(self.area_limit, limit))

    @property
    def most_images(self) -> int | None:
        """The images that are asked about; None = all."""
        return None if self.test_limit is None else max(self.test_limit, self.area_limit)

    def of_screening(self) -> Asked:
        """Return what is asked where cells are only chosen: nothing that a test split answers."""
        return replace(self, fixations=(), signs=False, pictures=0)

    def without_pictures(self) -> Asked:
        """Return the same for a seed whose scans nobody looks at."""
        return replace(self, pictures=0)

"""The result of a comparison of orders, and the tables that a reader sees of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from experiments.evaluation.diagnostics import Diagnostics
from experiments.evaluation.intervals import Interval
from experiments.evaluation.run_result import RunResult
from experiments.tables import Table, plural, signed

SHOWN = (
    "oracle",
    "oracle_16",
    "policy",
    "uncertainty",
    "uncertainty_near",
    "saliency",
    "best_fixed",
    "other_image",
    "random",
    "center_out",
    "farthest_point",
    "raster",
)
"""Orders that records show, in their order."""
COLUMNS = (
    "order",
    "area under the error curve",
    "error at the end",
    "minus random, 95% interval",
    "minus policy, 95% interval",
    "images",
)
NARROW = ("order", "area", "final", *COLUMNS[3:])
"""The same columns where a terminal has little room."""


@dataclass(frozen=True, kw_only=True)
class OrderErrors:
    """Errors of one order over the test images.

    All intervals are bootstraps over images; None = of a single image.
    """

    auc: float
    """Area under the error curve: mean error after fixations 1..T, over the error before."""
    auc_ci95: Interval | None
    final_error: float
    """Error after the last fixation, over the error before the first."""
    minus_random: float
    """Area minus that of random orders, paired over images."""
    minus_random_ci95: Interval | None
    minus_policy: float
    """Area minus that of the policy, paired over images."""
    minus_policy_ci95: Interval | None
    images: int
    """Test images that were scanned, the first ones; the oracles scan fewer than the others."""
    curve: tuple[float, ...]
    """Mean error before the first fixation and after each."""
    curve_half_width: tuple[float, ...] | None = None
    """Half of the normal interval of each; None = an old record, which does not say."""


@dataclass(frozen=True, kw_only=True)
class Comparison(RunResult):
    """Errors of all orders on the same test images, and what they say of the policy."""

    kind: ClassVar[str] = "compare"
    orders: dict[str, OrderErrors]
    """By name, best first."""
    gap_closed: float | None
    """Share of the gap from random to the oracle over all patches that the policy closes; None =
    there is no gap."""
    gap_closed_ci95: Interval | None
    gap_closed_oracle_16: float | None
    """The same with the oracle over 16 random patches."""
    gap_closed_oracle_16_ci95: Interval | None
    diagnostics: Diagnostics
    not_better_than: tuple[str, ...] | None = None
    """Controls that the policy fails to beat; None = an old record, which does not say."""
    commit: str
    dataset: str
    split: str
    seed: int
    """Of the training."""
    budget: int
    """Fixations per scan."""
    fixation_patches: int = 1
    """Patches that a fixation opens, at most."""
    num_patches: int
    periphery: int
    """Patches on a side of the thumbnail that is always visible; 0 = none."""
    judge: str
    """Run whose model measured the errors; own = the run's."""
    test_images: int | None = None
    """Test images that all but the oracles scanned; None = an old record, which does not say."""

    def tables(self) -> list[Table]:
        """Return all orders, best first, with what they say of the policy."""
        caption = (
            f"{self.dataset}: {self._scans()}, error over the error "
            "before the first fixation;\narea = mean over fixations 1..T; differences paired over "
            "images, 95% bootstrap interval"
        )
        entropy = self.diagnostics.fixation_entropy_nats
        notes = [
            *self._findings(),
            f"Fixation entropy over images, first to last step: {entropy[0]:.2f} to "
            f"{entropy[-1]:.2f} nats.",
        ]
        if self.not_better_than:
            notes.append(
                f"COLLAPSED: the policy is not better than {' and '.join(self.not_better_than)}, "
                "which know nothing of the image."
            )
        rows = tuple(self._row(name) for name in self.orders)
        return [Table(NARROW, rows, caption, tuple(notes))]

    def summary(self, training: str) -> Table:
        """Return the table of a record: the orders of SHOWN.

        Args:
            training: how the run was trained, as :func:`training_facts` writes it.
        """
        caption = (
            f"{self._scans()}, {'periphery' if self.periphery else 'blind'}, seed {self.seed}, "
            f"{training}, compared at `{self.commit[:10]}`."
        )
        rows = tuple(self._row(name) for name in SHOWN if name in self.orders)
        return Table(COLUMNS, rows, caption, (" ".join(self._findings()),))

    def _scans(self) -> str:
        """Say how long a scan is."""
        if self.fixation_patches == 1:
            return f"{self.budget} of {self.num_patches} patches"
        return (
            f"{plural(self.budget, 'fixation')} of {self.fixation_patches} among "
            f"{self.num_patches} patches"
        )

    def _row(self, name: str) -> tuple[str, ...]:
        row = self.orders[name]
        return (
            f"**{name}**" if name == "policy" else name,
            f"{row.auc:.4f}",
            f"{row.final_error:.4f}",
            "" if name == "random" else signed(row.minus_random, row.minus_random_ci95),
            "" if name == "policy" else signed(row.minus_policy, row.minus_policy_ci95),
            str(row.images),
        )

    def _findings(self) -> list[str]:
        """Parts of a paragraph on the policy."""
        signs, images = self.diagnostics, self.orders["oracle"].images
        own = "nothing, as there is no other image"
        if signs.own_minus_other is not None:
            own = signed(signs.own_minus_other, signs.own_minus_other_ci95)
        return [
            f"The policy closes {share(self.gap_closed, self.gap_closed_ci95)} of the gap from "
            "random to the greedy oracle over all patches,",
            f"and {share(self.gap_closed_oracle_16, self.gap_closed_oracle_16_ci95)} of that to "
            "the oracle over 16 random ones;",
            f"the oracles scan the first {plural(images, 'image')}, to which their "
            "gaps and differences refer.",
            f"Its own path minus another image's: {own};",
            f"{signs.distinct_orders} distinct orders on {plural(signs.images, 'image')}; "
            f"percentile of the chosen patch by true reward {signs.chosen_percentile:.2f}.",
        ]


def share(closed: float | None, interval: Interval | None) -> str:
    """Write the share of a gap that is closed, with its interval; ``-`` where there is no gap."""
    if closed is None:
        return "-"
    between = "-" if interval is None else f"{interval[0]:.1%}, {interval[1]:.1%}"
    return f"{closed:.1%} [{between}]"


def training_facts(manifest: dict[str, Any], config: dict[str, Any]) -> str:
    """Say how large a run's model is and how it was trained.

    Args:
        manifest: content of manifest.json.
        config: content of config.json.
    """
    return (
        f"{manifest['parameters']['model'] / 1e6:.2f} M parameters, "
        f"trained {manifest['train_seconds'] / 60:.1f} minutes on "
        f"{plural(manifest['threads'], 'CPU thread')} "
        f"({config['warmup_iterations']} + {config['iterations']} iterations), "
        f"commit `{manifest['commit'][:10]}`"
    )

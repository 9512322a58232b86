"""Results of the order study: runs, rows of runs over seeds, and their tables."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from experiments.evaluation.intervals import Interval, seed_interval, share_interval
from experiments.tables import Result, Table, plural, set_aside, short_commit, signed, with_interval


@dataclass(frozen=True, kw_only=True)
class OrderRun:
    """One trained and probed model; None = an older record does not say."""

    linear: float
    """Linear accuracy on test images at the layer that is best on held-out training images."""
    knn: float
    """k-NN accuracy at the same layer."""
    layer: int
    """That layer, from 1."""
    linear_per_layer: tuple[float, ...]
    linear_causal: float | None = None
    """The same with the causal mask of raster order."""
    knn_causal: float | None = None
    layer_causal: int | None = None
    linear_per_layer_causal: tuple[float, ...] | None = None
    parameters: int
    """Of the model."""
    patches: int | None = None
    target: str | None = None
    """What the model predicts."""
    train_seconds: float
    images: int
    """Seen in training, each as often as it was seen."""
    images_per_s: float
    saved_mb: float
    """Activations that a step on the run's order saves."""
    iterations: tuple[int, int]
    """Without and with a policy."""
    commit: str
    """Of the training."""
    teraflops: float
    probe_train: int | None = None
    """Training images that the probes had."""
    probe_test: int | None = None
    """Test images that were asked about."""
    asked_images: str | None = None
    """Digest of both."""
    asked_model: str | None = None
    """Digest of the weights that were asked; None = an older answer, which does not say."""
    probe_commit: str | None = None
    """Of the probing."""

    def accuracies(self) -> dict[str, float]:
        """Return what was measured, by the name that tables give it."""
        measured = {
            "linear": self.linear,
            "linear, causal mask": self.linear_causal,
            "k-NN": self.knn,
            "k-NN, causal mask": self.knn_causal,
        }
        return {name: value for name, value in measured.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class OrderRow:
    """An order or recipe: its runs, one per seed, and their means."""

    runs: tuple[OrderRun, ...]
    linear: float
    linear_ci95: Interval | None
    """Over seeds; None = there is one only."""
    linear_causal: float | None = None
    linear_causal_ci95: Interval | None = None
    knn: float
    knn_ci95: Interval | None
    knn_causal: float | None = None
    knn_causal_ci95: Interval | None = None

    @classmethod
    def of_runs(cls, runs: Sequence[OrderRun]) -> Self:
        """Return means and intervals over seeds."""
        columns = [run.accuracies() for run in runs]
        values = {name: [column[name] for column in columns] for name in columns[0]}
        means = {name: statistics.mean(each) for name, each in values.items()}
        intervals = {name: share_interval(each) for name, each in values.items()}
        return cls(
            runs=tuple(runs),
            linear=means["linear"],
            linear_ci95=intervals["linear"],
            linear_causal=means.get("linear, causal mask"),
            linear_causal_ci95=intervals.get("linear, causal mask"),
            knn=means["k-NN"],
            knn_ci95=intervals["k-NN"],
            knn_causal=means.get("k-NN, causal mask"),
            knn_causal_ci95=intervals.get("k-NN, causal mask"),
        )

    @property
    def distilled(self) -> bool:
        """Whether the models learned from features, which orders of pixels do not see."""
        return self.runs[0].target == "features"

    def accuracies(self) -> dict[str, str]:
        """Return means with their intervals, by the name that tables give them."""
        measured = {
            "linear": (self.linear, self.linear_ci95),
            "linear, causal mask": (self.linear_causal, self.linear_causal_ci95),
            "k-NN": (self.knn, self.knn_ci95),
            "k-NN, causal mask": (self.knn_causal, self.knn_causal_ci95),
        }
        return {
            # A single seed is nothing that is missing.
            name: f"{mean:.3f}" if interval is None else with_interval(mean, interval)
            for name, (mean, interval) in measured.items()
            if mean is not None
        }

    def minus(self, other: OrderRow) -> str:
        """Write the differences of all accuracies, paired over seeds, with 95% intervals."""
        cells = []
        for name in self.accuracies():
            pairs = zip(self.runs, other.runs, strict=True)
            differences = [one.accuracies()[name] - each.accuracies()[name] for one, each in pairs]
            mean = statistics.mean(differences)
            cells.append(f"{name} {signed(mean, seed_interval(differences), 3)}")
        return ", ".join(cells)

    def costs(self) -> tuple[str, ...]:
        """Write what a run took: TFLOP, images, images/s, MB; the mean over seeds."""
        return tuple(
            f"{statistics.fmean(values):.{digits}f}"
            for values, digits in (
                ([run.teraflops for run in self.runs], 1),
                ([run.images for run in self.runs], 0),
                ([run.images_per_s for run in self.runs], 0),
                ([run.saved_mb for run in self.runs], 0),
            )
        )


@dataclass(frozen=True, kw_only=True)
class OrdersResult(Result):
    """Orders, or recipes, at equal compute."""

    kind: ClassVar[str] = "orders"

    orders: dict[str, OrderRow]
    """By the name of the order or recipe."""
    data: str
    limit: int | None = None
    """The first so many training images; None = all."""
    augment: bool = False
    recipe: str | None
    """That all orders share; None = recipes are compared."""
    target: str | None
    memory: str | None = None
    init: str | None = None
    """How all weights started; None = as each recipe says."""
    teraflops: float
    """Of each run."""
    precision: str
    seeds: tuple[int, ...]
    probe_train: int
    """Training images of the probes, at most."""
    probe_test: int
    """Test images, at most."""
    threads: int
    commit: str
    """Of the last call."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the trainings that all rows share."""

    def with_earlier(self, path: Path) -> Self:
        """Add the rows of an earlier call with the same settings and seeds.

        A file of other settings or versions, damaged, or whose rows were not probed with the
        causal mask, is kept beside under a number.
        """
        if not path.is_file():
            return self
        try:
            earlier = self.read(path)
        except ValueError:
            set_aside(path)
            return self
        # Rows of one table may differ in these.
        now, before = (
            dataclasses.replace(each, orders={}, commit="", threads=0) for each in (self, earlier)
        )
        if now != before or any(row.linear_causal is None for row in earlier.orders.values()):
            set_aside(path)
            return self
        return dataclasses.replace(self, orders={**earlier.orders, **self.orders})

    def tables(self) -> list[Table]:
        """Return rows by linear accuracy; distillations in a table apart."""
        ranked = dict(sorted(self.orders.items(), key=lambda item: -item[1].linear))
        notes: tuple[str, ...] = ()
        if self.recipe is not None and len(self.seeds) > 1:
            name = next(iter(self.orders))
            reference = self.orders[name]
            others = {each: row for each, row in ranked.items() if each != name}
            differences = [f"{each} {row.minus(reference)}" for each, row in others.items()]
            notes = (f"Minus {name}, paired over seeds: {'; '.join(differences)}.",)
        plain = {name: row for name, row in ranked.items() if not row.distilled}
        distilled = {name: row for name, row in ranked.items() if row.distilled}
        caption = self._caption(next(iter(ranked.values())).runs[0])
        apart = "Distillations, which see features beside pixels:"
        if not plain:
            return [self._table(distilled, f"{caption}\n\n{apart}", notes)]
        if not distilled:
            return [self._table(plain, caption, notes)]
        return [self._table(plain, caption, ()), self._table(distilled, apart, notes)]

    def _caption(self, first: OrderRun) -> str:
        millions = [run.parameters / 1e6 for row in self.orders.values() for run in row.runs]
        sizes = dict.fromkeys(f"{size:.2f}" for size in (min(millions), max(millions)))
        data = self.data if self.limit is None else f"first {self.limit} images of {self.data}"
        if self.augment:
            data += ", flipped and shifted at random"
        if self.recipe is None:
            model = "recipes of their own order, decoder and target"
        else:
            memory = "" if self.memory is None else f", memory {self.memory}"
            model = f"recipe `{self.recipe}` with target {self.target}{memory}"
            data += "" if first.patches is None else f", {first.patches} patches"
        model += "" if self.init is None else f", weights started by {self.init}"
        at = first.probe_commit or self.commit
        probed = "" if at == first.commit else f", probed at `{short_commit(at)}`"
        train, test = first.probe_train or self.probe_train, first.probe_test or self.probe_test
        return (
            f"{data}, {model}, {' to '.join(sizes)} M parameters, {self.teraflops:g} TFLOP a run, "
            f"{self.precision}, seeds {', '.join(map(str, self.seeds))}, "
            f"{plural(self.threads, 'CPU thread')}, probed with {train} training "
            f"and {test} test images at the layer that is best on held-out training "
            f"images, commit `{short_commit(first.commit)}`{probed}."
        )

    def _table(self, rows: dict[str, OrderRow], caption: str, notes: tuple[str, ...]) -> Table:
        names = list(next(iter(rows.values())).accuracies())
        heads = [f"{name}, 95% interval" for name in names]
        heads[0] += " over seeds"
        cells = []
        for name, row in rows.items():
            first, measured = row.runs[0], row.accuracies()
            what = f" ({first.patches} patches, target {first.target})"
            cells.append(
                (
                    f"{name}{what if self.recipe is None else ''}",
                    *(measured[each] for each in names),
                    *row.costs(),
                    ", ".join(f"{run.linear:.3f}" for run in row.runs),
                )
            )
        costs = ("TFLOP", "images", "images/s", "activations, MB")
        return Table(
            columns=("recipe" if self.recipe is None else "order", *heads, *costs, "by seed"),
            rows=tuple(cells),
            caption=caption,
            notes=notes,
        )

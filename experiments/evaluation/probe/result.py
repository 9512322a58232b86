"""The result of a probe, and the tables that a reader sees of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from experiments.evaluation.questions import COLUMNS, TITLES
from experiments.evaluation.recognition.result import (
    ByFixations,
    Recognized,
    fixation_tables,
    of_the_labels,
)
from experiments.evaluation.run_result import RunResult
from experiments.tables import Table, with_interval
from foveate.probes import Accuracy, ChosenAccuracy, LinearAccuracy
from foveate.probes.attentive import MAX_TOKEN_BYTES
from foveate.probes.finetuning import FineTuneConfig
from foveate.probes.heads import HeadAccuracy

Best = dict[str, str | float]
"""``layer`` is the name of the best features; under the probe's name stands their accuracy."""


@dataclass(frozen=True, kw_only=True)
class FineTuned(FineTuneConfig, HeadAccuracy):
    """How well a fine-tuned copy classifies, and how it was fine-tuned."""


TunedByFixations = dict[str, dict[int, FineTuned]]
"""By order, that of untrained weights with ``random_weights_`` before it, and by fixations."""


@dataclass(frozen=True, kw_only=True)
class ProbeResult(RunResult):
    """Accuracies on the test images, by probe and by features; None = not probed.

    The names of features say their weights and attention, their pooling, and their layer.
    """

    kind: ClassVar[str] = "probe"
    linear: dict[str, LinearAccuracy] | None = None
    sgd: dict[str, HeadAccuracy] | None = None
    attentive: dict[str, HeadAccuracy] | None = None
    knn: dict[str, Accuracy] | None = None
    """Of 20 neighbors."""
    knn_10: dict[str, Accuracy] | None = None
    best: Best | None = None
    """Layer of the linear probe that is best on held-out training images."""
    best_sgd: Best | None = None
    best_attentive: Best | None = None
    finetune: dict[str, FineTuned] | None = None
    """By the weights and the attention that fine-tuning starts from."""
    finetune_fixations: TunedByFixations | None = None
    """How well one fine-tuned network classifies after k fixations; None = not asked for."""
    fixations: dict[str, ByFixations] | None = None
    """What is recognized after k fixations, by order; None = not asked for."""
    controls: dict[str, ByFixations] | None = None
    """The same without the model's features, or without its training, on the policy's path."""
    all_patches: Recognized | None = None
    """After all patches, in random order."""
    periphery_alone: Recognized | None = None
    """Before any fixation; None = the model has no periphery."""
    label_shares: dict[str, dict[str, ByFixations]] | None = None
    """The same with fewer labels, by order and by the share of the training labels asked for."""
    label_images: dict[str, int] | None = None
    """Training images of each share, balanced over classes; None = not asked for, or an old result,
    which does not say."""
    commit: str
    dataset: str
    train_images: int
    test_images: int
    pooling: str
    """In words."""
    seed: int
    """Of the probe."""
    concat_layers: tuple[int, ...] | None = None
    """Layers that were concatenated, from 1."""
    token_megabytes: tuple[float, float] | None = None
    """Tokens of one layer, of train and of test, as the attentive probe reads them."""
    commonest_class: float | None = None
    """Share of the test images that are of the commonest class."""
    notes: dict[str, str] = field(default_factory=dict)
    """Why a probe has no number, by its name; and which images were left out, and why."""

    def tables(self) -> list[Table]:
        """Return the tables of what was probed; notes stand below the last."""
        made = [self._frozen()] if self._columns() else []
        made += [self._fine_tuned(self.finetune)] if self.finetune else []
        if self.finetune_fixations:
            made.append(tuned_table(self.finetune_fixations))
        if self.fixations:
            references = {"all_patches": self.all_patches, "periphery_alone": self.periphery_alone}
            of_controls, of_shares = self.controls or {}, self.label_shares or {}
            made += fixation_tables(
                self.fixations,
                of_controls,
                references,
                of_shares,
                {
                    share: of_the_labels(used, self.train_images, float(share))
                    for share, used in (self.label_images or {}).items()
                },
                self.options.get("probes", ()),
            )
        if not self.notes:
            return made
        last = made.pop() if made else Table(("accuracy, 95% interval",), ())
        return [*made, replace(last, notes=(*last.notes, *self._unanswered()))]

    def summary(self) -> Table:
        """Return the table of a record: the best layer, and what it is to be set against.

        Raises:
            ValueError: the linear probe, k-NN, or what they are set against was not measured.
        """
        if self.linear is None or self.knn is None or self.best is None:
            raise ValueError("a record shows the linear probe and k-NN; probe both")
        linear, layer = self.linear, str(self.best["layer"])
        untrained = max(
            (name for name in linear if name.startswith("random_weights")),
            key=lambda name: linear[name].validation_accuracy,
        )
        spoken = layer.replace("_", " ")
        their_best = untrained.removeprefix("random_weights_").replace("_", " ")
        labels = {
            f"encoder, {spoken}, full attention": layer,
            f"encoder, {spoken}, causal attention": f"causal_{layer}",
            f"untrained weights, their best ({their_best})": untrained,
            "raw pixels": "pixels",
        }
        rows = tuple(
            (label, shown(linear[name]), f"{self.knn[name].accuracy:.3f}")
            for label, name in labels.items()
        )
        note = (
            f"Probe: {self.train_images} training and {self.test_images} test images, "
            "mean over patches."
        )
        return Table(("features", "linear probe, 95% interval", "k-NN"), rows, notes=(note,))

    def _columns(self) -> dict[str, Mapping[str, Accuracy]]:
        """Accuracies by probe, of the probes that were measured."""
        columns = {name: getattr(self, name) for name in COLUMNS}
        return {name: column for name, column in columns.items() if column is not None}

    def _unanswered(self) -> list[str]:
        """Write the notes, a line for each reason."""
        asked: dict[str, list[str]] = {}
        for name, reason in self.notes.items():
            if name in TITLES:
                asked.setdefault(reason, []).append(TITLES[name])
        left_out = [
            reason
            for name, reason in self.notes.items()
            if name not in TITLES and reason not in asked
        ]
        return [*left_out, *(f"no number of {', '.join(n)}: {why}" for why, n in asked.items())]

    def _frozen(self) -> Table:
        columns = self._columns()
        names = dict.fromkeys(name for column in columns.values() for name in column)
        asked = [column for column in COLUMNS if column in columns or column in self.notes]

        def cell(column: str, name: str) -> str:
            return shown(columns[column].get(name)) if column in columns else "-"

        rows = tuple((name, *(cell(column, name) for column in asked)) for name in names)
        notes = []
        for column, best in (
            ("linear", self.best),
            ("sgd", self.best_sgd),
            ("attentive", self.best_attentive),
        ):
            if best is not None:
                notes.append(
                    f"best layer by held-out training images: {best['layer']}, {COLUMNS[column]} "
                    f"accuracy {best[column]:.3f} on {self.test_images} test images"
                )
        if self.token_megabytes is not None:
            train, test = self.token_megabytes
            notes.append(
                f"tokens of a layer in float16: {train:.0f} MB of train, {test:.0f} MB of test; "
                f"above {MAX_TOKEN_BYTES / 1e6:.0f} MB they are recomputed per batch"
            )
        heads = "accuracy, 95% interval", *(COLUMNS[column] for column in asked)
        return Table(heads, rows, notes=tuple(notes))

    def _fine_tuned(self, tuned: dict[str, FineTuned]) -> Table:
        rows = tuple((name, shown(row)) for name, row in tuned.items())
        alone = self.commonest_class
        notes = tuple(
            f"{name}: no better than the commonest class alone ({alone:.3f}): too short; "
            "raise --finetune-epochs or --train-limit"
            for name, row in tuned.items()
            if alone is not None and row.ci95 is not None and row.ci95[0] <= alone
        )
        return Table(("accuracy, 95% interval", "fine-tuned"), rows, notes=notes)


def tuned_table(tuned: TunedByFixations) -> Table:
    """Return a row for every order, and a column for every number of fixations."""
    numbers = sorted({number for row in tuned.values() for number in row})
    rows = tuple((name, *(shown(row.get(k)) for k in numbers)) for name, row in tuned.items())
    return Table(("fine-tuned, 95% interval, after", *map(str, numbers)), rows)


def shown(accuracy: Accuracy | None) -> str:
    """Write an accuracy with its interval, or nothing."""
    return "" if accuracy is None else with_interval(accuracy.accuracy, accuracy.ci95)


def best_of(rows: Mapping[str, Mapping[str, Accuracy]], column: str) -> Best | None:
    """Return the features that a probe finds best on held-out training images.

    The test set is looked at once per layer, never chosen on.

    Args:
        rows: accuracies by features and by probe.
        column: the probe; None is returned for one that chooses nothing.
    """
    found = {
        name: each
        for name, row in rows.items()
        if isinstance(each := row.get(column), ChosenAccuracy)
    }
    if not found:
        return None
    best = max(found, key=lambda name: found[name].validation_accuracy)
    return {"layer": best, column: found[best].accuracy}

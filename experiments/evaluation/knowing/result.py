"""Result of the study of knowing: what each model knows after k fixations, and what differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from experiments.evaluation.knowing.plan import POLICY, RANDOM
from experiments.evaluation.knowing.rows import Area, KnownRow, Taught
from experiments.evaluation.knowing.wording import accuracy, in_words, lead_of
from experiments.evaluation.recognition.asking import CONTROLS, REFERENCES
from experiments.evaluation.run_result import RunResult, scans
from experiments.tables import Table, plural, short_commit, signed, with_interval


@dataclass(frozen=True, kw_only=True)
class KnowingResult(RunResult):
    """Seeing and teaching, over seeds."""

    kind: ClassVar[str] = "knowing"

    known: tuple[KnownRow, ...]
    taught: tuple[Taught, ...]
    """Empty in a study of seeing alone."""
    areas: tuple[Area, ...]
    paid: tuple[Area, ...] = ()
    """Areas plus the cost of saccades; empty where they cost nothing or the reward is another."""
    saccade_cost: float = 0.0
    """Per patch of distance."""
    data: str
    num_patches: int
    budget: int
    fixation_patches: int = 1
    """Patches that a fixation opens."""
    periphery: int
    """Side of the always-visible thumbnail, patches; 0 = the models are blind."""
    iterations: tuple[int, int]
    """Of a model: without a policy, and with one."""
    seeds: tuple[int, ...]
    train_images: int
    test_images: int
    area_images: int
    threads: int
    commit: str
    commits: tuple[str, ...] = ()
    """Of the code that measured the answers, which are kept; older results do not say."""
    notes: tuple[str, ...] = ()
    """Why there is no number, and which images were left out."""

    @property
    def intervals(self) -> str:
        """What the intervals of differences are over."""
        if len(self.seeds) > 1:
            return "over seeds and images at once"
        return "over images alone; one seed says nothing of other seeds"

    @property
    def read_outs(self) -> tuple[str, ...]:
        """Features and their probes, as measured."""
        return tuple(dict.fromkeys(row.read_out for row in self.known if row.order == POLICY))

    @property
    def fixations(self) -> tuple[int, ...]:
        """Numbers of fixations after which was asked."""
        return tuple(sorted({row.after for row in self.known if row.order == POLICY}))

    def references(self, model: str, read_out: str) -> dict[str, KnownRow]:
        """Return what a model knows of all patches, and of the periphery alone if it has one."""
        return {
            row.order: row
            for row in self.known
            if (row.model, row.read_out) == (model, read_out) and row.order in REFERENCES
        }

    def rows(self, model: str, read_out: str) -> dict[str, dict[int, KnownRow]]:
        """Return what a model knows, by order and fixations; best order first, after the last."""
        rows: dict[str, dict[int, KnownRow]] = {}
        for row in self.known:
            asked = (row.model, row.read_out) == (model, read_out)
            if asked and row.order not in (*REFERENCES, *CONTROLS):
                rows.setdefault(row.order, {})[row.after] = row
        last = self.fixations[-1]
        return dict(sorted(rows.items(), key=lambda item: -item[1][last].accuracy.mean))

    # --- what a reader sees

    def summary(self) -> Table:
        """Return the policy's accuracy and its lead over each order, after the last fixation."""
        last = self.fixations[-1]
        columns = {name: self.rows(POLICY, name) for name in self.read_outs}
        orders = list(next(iter(columns.values())))
        lines = [(f"**{POLICY}**", *(accuracy(rows[POLICY][last]) for rows in columns.values()))]
        lines += [
            (f"minus {order}", *(str(rows[order][last].policy_minus) for rows in columns.values()))
            for order in orders
            if order != POLICY
        ]
        standing = [self.references(POLICY, name) for name in self.read_outs]
        lines += [
            (f"minus {order}", *(lead_of(rows.get(order)) for rows in standing))
            for order in standing[0]
        ]
        return Table(
            columns=(f"accuracy after {plural(last, 'fixation')}", *columns),
            rows=tuple(lines),
            caption=self._caption(),
            notes=(*self.verdicts(), *self.notes),
        )

    def verdicts(self) -> tuple[str, ...]:
        """Say in words what the intervals say, for each read-out, after the last fixation."""
        last = self.fixations[-1]
        lines = []
        for read_out in self.read_outs:
            rows = {order: row[last] for order, row in self.rows(POLICY, read_out).items()}
            seen = {f"{name}'s": row.policy_minus for name, row in rows.items()}
            taught = {
                f"at {row.order} fixations": row.policy_model_minus_random_model
                for row in self.taught
                if (row.after, row.read_out) == (last, read_out)
            }
            line = (
                f"{read_out}: after the policy's fixations the image is known "
                f"{in_words(seen, ('better', 'worse'), 'than after')}"
            )
            if taught:
                verdict = in_words(taught, ("better", "worse"), "than the random one")
                line += f"; the policy's model knows it {verdict}"
            lines.append(f"{line}.")
        for of, errors in (("area", self.areas), ("area + cost of saccades", self.paid)):
            areas = {f"{row.order}'s": row.policy_minus for row in errors if row.model == POLICY}
            if areas:
                # Of an error less is better.
                verdict = in_words(areas, ("lower", "higher"), "than", good=-1)
                lines.append(f"Reconstruction: the policy's {of} is {verdict}.")
        if len(self.seeds) == 1:
            lines.append(f"All of this is {self.intervals}.")
        return tuple(lines)

    def tables(self) -> list[Table]:
        """Return the summary, each read-out after all fixations, the 2 x 2 if asked, and areas."""
        by_read_out = [
            table
            for name in self.read_outs
            for table in (self._accuracies(name), self._differences(name))
        ]
        crossed = [self.two_by_two()] if self.taught else []
        controls = [table] if (table := self.controls()).rows else []
        errors = [self._errors(self.areas, "area under the error curve")]
        if self.paid:
            errors.append(
                self._errors(self.paid, f"area + {self.saccade_cost:g} x path length / fixations")
            )
        return [self.summary(), *by_read_out, *controls, *crossed, *errors]

    @property
    def _is_shared(self) -> bool:
        """Whether one probe, trained on random fixations, judges all orders."""
        return self.options.get("fixations_probe") == "shared"

    def _caption(self) -> str:
        warmup, iterations = self.iterations
        sight = f"periphery {self.periphery}" if self.periphery else "blind"
        epochs = self.options.get("finetune_epochs", 0)
        once = ""
        if self._is_shared:
            once = ", trained once on random fixations (of references and controls: on these)"
        tuned = f", {plural(epochs, 'epoch')} of fine-tuning" if epochs else ""
        return (
            f"{self.data}, {sight}, "
            f"{scans(self.budget, self.num_patches, self.fixation_patches)}, "
            f"{warmup} + {iterations} iterations, seeds {', '.join(map(str, self.seeds))}; probes "
            f"of {self.train_images} training and {self.test_images} test images{once}{tuned}, "
            f"{plural(self.threads, 'CPU thread')}, commit `{short_commit(self.commit)}`. "
            "Model trained jointly with its policy. Differences are of the policy minus the order, "
            f"with 95% intervals {self.intervals}."
        )

    def _accuracies(self, read_out: str) -> Table:
        return Table(
            columns=(f"{read_out}: accuracy", *(f"after {after}" for after in self.fixations)),
            rows=tuple(
                (order, *(accuracy(row[after]) for after in self.fixations))
                for order, row in self.rows(POLICY, read_out).items()
            ),
            notes=(
                "95% intervals over seeds (Student's t)."
                if len(self.seeds) > 1
                else "A single seed has no interval over seeds.",
                *(
                    f"{order}: {accuracy(row)}."
                    for order, row in self.references(POLICY, read_out).items()
                ),
            ),
        )

    def _differences(self, read_out: str) -> Table:
        last = self.fixations[-1]
        lines = []
        for order, row in self.rows(POLICY, read_out).items():
            differences = {after: row[after].policy_minus for after in self.fixations}
            if (at_last := differences[last]) is not None:
                alone = (at_last.ci95_seeds, at_last.ci95_images)
                lines.append(
                    (
                        order,
                        *map(str, differences.values()),
                        *(signed(at_last.mean, each, 3) for each in alone),
                    )
                )
        return Table(
            columns=(
                f"{read_out}: policy minus",
                *(f"after {after}" for after in self.fixations),
                f"after {last}, over seeds alone",
                f"after {last}, over images alone",
            ),
            rows=tuple(lines),
        )

    def controls(self) -> Table:
        """Return what the policy's path tells without a part of what its features have."""
        found: dict[tuple[str, str], dict[int, KnownRow]] = {}
        for row in self.known:
            if row.order in CONTROLS:
                found.setdefault((row.order, row.read_out), {})[row.after] = row
        last = self.fixations[-1]
        return Table(
            columns=(
                "the policy's path without a part",
                *(f"after {after}" for after in self.fixations),
                f"policy minus, after {last}",
            ),
            rows=tuple(
                (
                    f"{control}, {read_out}",
                    *(accuracy(row[after]) for after in self.fixations),
                    # By a shared probe the policy is judged otherwise than its controls.
                    "" if self._is_shared else lead_of(row[last]),
                )
                for (control, read_out), row in found.items()
            ),
        )

    def two_by_two(self) -> Table:
        """Return accuracies of both models after random fixations and their own policy's."""
        last = self.fixations[-1]
        lines = []
        for read_out in self.read_outs:
            models = [self.rows(model, read_out) for model in (RANDOM, POLICY)]
            cells = [rows[order][last] for rows in models for order in (RANDOM, POLICY)]
            taught = {
                row.order: row.policy_model_minus_random_model
                for row in self.taught
                if (row.after, row.read_out) == (last, read_out)
            }
            lines.append(
                (
                    read_out,
                    *map(accuracy, cells),
                    *(str(rows[RANDOM][last].policy_minus) for rows in models),
                    *(str(taught[order]) for order in (RANDOM, POLICY)),
                )
            )
        cell = "{} model, {} fixations"
        return Table(
            columns=(
                f"after {plural(last, 'fixation')}",
                *(cell.format(m, o) for m in (RANDOM, POLICY) for o in (RANDOM, POLICY)),
                "seeing: policy minus random fixations, random model",
                "seeing, policy model",
                "teaching: policy minus random model, random fixations",
                "teaching, each its policy's fixations",
            ),
            rows=tuple(lines),
            notes=(
                "The random model learned from uniformly random scans, as often as the policy "
                "model; its policy learned afterwards.",
            ),
        )

    def _errors(self, errors: tuple[Area, ...], measure: str) -> Table:
        return Table(
            columns=("model, order", measure, "policy minus"),
            rows=tuple(
                (
                    f"{row.model}, {row.order}",
                    with_interval(row.auc.mean, row.auc.ci95, 4),
                    "" if row.policy_minus is None else str(row.policy_minus),
                )
                for row in sorted(errors, key=lambda row: (row.model, row.auc.mean))
            ),
            caption=f"Error of the reconstruction on {self.area_images} test images; lower is "
            "better.",
        )

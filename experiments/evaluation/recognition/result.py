"""How well images are known after k fixations: the numbers, and the tables of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from experiments.evaluation.intervals import Interval
from experiments.tables import Table, signed, with_interval

MAIN_PROBE = {"attentive": "attentive"}
"""The only probe of a read-out, where it is no vector."""


@dataclass(frozen=True, kw_only=True)
class ProbeAccuracies:
    """Accuracies of the probes of one read-out on the test images; None = not probed."""

    linear: float | None = None
    linear_ci95: Interval | None = None
    """Wilson interval over test images, as all but that of a difference."""
    knn: float | None = None
    """Of 20 neighbors."""
    knn_ci95: Interval | None = None
    attentive: float | None = None
    attentive_ci95: Interval | None = None
    minus_policy: float | None = None
    """Accuracy minus the policy's after as many fixations: linear, or k-NN where that alone was
    measured; attentive, where that is the read-out."""
    minus_policy_ci95: Interval | None = None
    """Paired over test images: a bootstrap, Student's t of less than 20."""

    def shown(self, probe: str) -> str:
        """Write the accuracy of one probe with its interval, or a dash."""
        accuracy = getattr(self, probe)
        return "-" if accuracy is None else with_interval(accuracy, getattr(self, f"{probe}_ci95"))


@dataclass(frozen=True, kw_only=True)
class Recognized(ProbeAccuracies):
    """What is recognized after some fixations: of the first vector, and of every read-out.

    ``attentive`` stands beside the first vector, whose read-out it is not.
    """

    read_outs: dict[str, ProbeAccuracies] = field(default_factory=dict)


ByFixations = dict[int, Recognized]
"""By the number of fixations."""


def read_outs_of(rows: Mapping[str, ByFixations]) -> list[str]:
    """Return all read-outs, in the order in which they were asked for."""
    cells = [cell for row in rows.values() for cell in row.values()]
    return list(dict.fromkeys(name for cell in cells for name in cell.read_outs))


def titled(read_out: str, probe: str) -> str:
    """Name a read-out and its probe; the attentive read-out is its probe."""
    return ", ".join(dict.fromkeys((read_out, probe)))


def shown_probes(
    read_out: str, rows: Mapping[str, ByFixations], wanted: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the probes that are shown of a read-out, of those that have a number.

    Args:
        read_out: whose probes.
        rows: accuracies by order.
        wanted: probes that were asked for; without any of them the first is shown. Few labels leave
            the neighbors alone.
    """
    if read_out in MAIN_PROBE:
        return (MAIN_PROBE[read_out],)
    cells = [cell.read_outs.get(read_out) for row in rows.values() for cell in row.values()]
    measured = tuple(
        probe
        for probe in ("linear", "knn")
        if any(getattr(cell, probe, None) is not None for cell in cells)
    )
    return tuple(probe for probe in measured if probe in wanted) or measured[:1]


def fixation_tables(
    fixations: Mapping[str, ByFixations],
    controls: Mapping[str, ByFixations],
    references: Mapping[str, Recognized | None],
    label_shares: Mapping[str, Mapping[str, ByFixations]],
    captions: Mapping[str, str],
    probes: Collection[str] = (),
) -> list[Table]:
    """Return tables of every read-out, then of what needs no model, then of fewer labels.

    Args:
        fixations: accuracies by order.
        controls: accuracies by control.
        references: what does not depend on an order, such as all patches.
        label_shares: accuracies by order, and by share of the labels.
        captions: what each share is in truth; old results know what was asked for alone.
        probes: those that are shown, a table each; see :func:`shown_probes`.
    """
    names = read_outs_of(fixations)
    tables = [
        table_of(name, probe, fixations, controls, references)
        for name in names
        for probe in shown_probes(name, fixations, probes)
    ]
    # By the probe that read them, which may be none of the orders'.
    plain: dict[str, dict[str, dict[int, ProbeAccuracies]]] = {}
    for name, row in controls.items():
        for read_out in read_outs_of({name: row}):
            cells = {k: cell.read_outs[read_out] for k, cell in row.items()}
            for probe in () if read_out in names else shown_probes(read_out, {name: row}, probes):
                plain.setdefault(probe, {})[f"{name}, {read_out}"] = cells
    for probe, found in plain.items():
        ks = list(next(iter(found.values())))
        rows = tuple((name, *(row[k].shown(probe) for k in ks)) for name, row in found.items())
        tables.append(Table(headings(f"the policy's path without the model, {probe}", ks), rows))
    for share in dict.fromkeys(share for row in label_shares.values() for share in row):
        fewer = {name: row[share] for name, row in label_shares.items() if share in row}
        caption = captions.get(share, f"asked for: {100 * float(share):.3g}% of the labels")
        tables += [
            table_of(name, probe, fewer, {}, {}, caption)
            for name in read_outs_of(fewer)
            for probe in shown_probes(name, fewer, probes)
        ]
    return tables


def of_the_labels(used: int, number: int, share: float) -> str:
    """Say which share of the labels was used, beside what was asked for."""
    of_all = f"{100 * used / number:.3g}% of the labels ({used} of {number})"
    asked = f"{100 * share:.3g}%"
    return of_all if of_all.startswith(f"{asked} ") else f"{of_all}, asked for {asked}"


def headings(what: str, ks: list[int]) -> tuple[str, ...]:
    """Return the headings of a table over numbers of fixations."""
    return f"{what}, after", *(str(k) for k in ks)


def table_of(
    read_out: str,
    probe: str,
    fixations: Mapping[str, ByFixations],
    controls: Mapping[str, ByFixations],
    references: Mapping[str, Recognized | None],
    caption: str = "",
) -> Table:
    """Return the table of one read-out: a row for every order, a column for every number.

    Differences from the policy are of the probe that the read-out is compared by.
    """
    compared = probe == shown_probes(read_out, fixations)[0]
    ks = sorted({k for row in fixations.values() for k in row})
    shown = {
        name: {k: cell.read_outs[read_out] for k, cell in row.items() if read_out in cell.read_outs}
        for name, row in (*fixations.items(), *controls.items())
    }
    rows = []
    for name, row in shown.items():
        if not row:
            continue
        cells = [name, *(row[k].shown(probe) if k in row else "-" for k in ks)]
        if compared:
            cells.append(difference_of(row[max(row)]))
        rows.append(tuple(cells))
    for name, cell in references.items():
        if cell is not None and read_out in cell.read_outs:
            value = cell.read_outs[read_out].shown(probe)
            rows.append((name.replace("_", " "), *[""] * (len(ks) - 1), value, *[""] * compared))
    heads = *headings(titled(read_out, probe), ks), *["minus policy"] * compared
    return Table(heads, tuple(rows), caption=caption)


def difference_of(known: ProbeAccuracies) -> str:
    """Write the difference from the policy with its interval, or a dash."""
    if known.minus_policy is None:
        return "-"
    return signed(known.minus_policy, known.minus_policy_ci95, digits=3)

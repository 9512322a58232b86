"""How the study of knowing writes accuracies and what differences mean."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.evaluation.knowing.rows import Difference, KnownRow
from experiments.tables import with_interval


def accuracy(row: KnownRow) -> str:
    """Write an accuracy with its interval over seeds."""
    return with_interval(row.accuracy.mean, row.accuracy.ci95)


def lead_of(reference: KnownRow | None) -> str:
    """Write the policy's lead over a reference or control; empty = it has none."""
    lead = None if reference is None else reference.policy_minus
    return "" if lead is None else str(lead)


def in_words(
    differences: Mapping[str, Difference | None], words: tuple[str, str], than: str, good: int = 1
) -> str:
    """Say what differences mean, one ``word than names`` for each outcome there is.

    Args:
        differences: by the name of what was set against; None is passed over.
        words: for a difference that is good, and for one that is bad.
        than: what stands between a word and the names.
        good: sign of a difference that is good.
    """
    signs = {name: each.sign * good for name, each in differences.items() if each is not None}
    outcomes = {1: words[0], 0: f"NOT {words[0]}", -1: words[1].upper()}
    named = {
        word: ", ".join(name for name, sign in signs.items() if sign == outcome)
        for outcome, word in outcomes.items()
    }
    return "; ".join(f"{word} {than} {names}" for word, names in named.items() if names)

"""What a comparison with human viewers says of the policy, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from experiments.evaluation.human.means import HUMAN, NEARNESS, VIEWERS, HumanRow
from experiments.evaluation.intervals import Interval
from experiments.evaluation.options import OF_THE_POLICY
from experiments.tables import signed

CLOSER = "closer than"
NOT_JUDGED = "not judged against"


def findings(rows: Mapping[str, HumanRow], baseline: str) -> tuple[str, ...]:
    """Return sentences about the policy; none without a run.

    Args:
        rows: all who were compared.
        baseline: name of the row that ``minus_center`` is over.
    """
    policy, name = rows.get("policy"), baseline.replace("_", " ")
    if policy is None:
        return ()
    others = [each for each in rows if each not in (*HUMAN, *OF_THE_POLICY) and ":" not in each]
    own = [each for each in rows if ":" in each]
    near = [each for each in (NEARNESS,) if each in rows]
    blind = [each for each in OF_THE_POLICY if each in rows and each != "policy"]
    lines = [
        f"The policy is {_above(policy.minus_center_ci95)} the {name}: "
        f"{signed(policy.minus_center, policy.minus_center_ci95, 3)} bits per fixation."
    ]
    if policy.with_center is not None:
        added = signed(policy.with_center, policy.with_center_ci95, 3)
        lines.append(f"Multiplied with the {name} it adds {added} bits to it.")
    if policy.with_near is not None:
        added = signed(policy.with_near, policy.with_near_ci95, 3)
        lines.append(f"Multiplied with the one that knows the gaze it adds {added} bits to that.")
    return (
        *lines,
        *_closer(rows, near, "the center bias that knows the gaze"),
        *_habits(policy, rows[VIEWERS]),
        *_closer(rows, blind, "what is made of it without the image"),
        *_closer(rows, others, "every order that does not learn"),
        *_closer(rows, own, "those of your own"),
    )


def _closer(rows: Mapping[str, HumanRow], names: Iterable[str], whom: str) -> tuple[str, ...]:
    """Say whether the policy has more bits than all of some, and which."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_than(rows[name].minus_policy_ci95), []).append(name)
    judged = groups.keys() - {NOT_JUDGED}
    listed = "; ".join(f"{word} {', '.join(each)}" for word, each in sorted(groups.items()))
    if not judged:
        return (f"A single image does not say whether it is closer than {whom}.",) if groups else ()
    verdict = "closer" if judged == {CLOSER} else "NOT closer"
    return (f"It is {verdict} to viewers than {whom}: {listed}.",)


def _than(minus_policy: Interval | None) -> str:
    """Say on which side of another the policy lies, which is where the other's bits are fewer."""
    if minus_policy is None:
        return NOT_JUDGED
    if minus_policy[1] < 0:
        return CLOSER
    return "farther than" if minus_policy[0] > 0 else "level with"


def _above(interval: Interval | None) -> str:
    if interval is None:
        return "on too few images to be judged against"
    if interval[0] > 0:
        return "above"
    return "below" if interval[1] < 0 else "NOT above"


def _habits(policy: HumanRow, viewers: HumanRow) -> tuple[str, ...]:
    """Say what it prefers instead, if it is on one side of what viewers do."""
    lines = []
    for name, higher, lower, alike, unit in (
        ("contrast", "at higher contrast than", "at lower contrast than", "at the contrast of", ""),
        (
            "center_distance",
            "farther from the center than",
            "nearer the center than",
            "as far from the center as",
            " of the diagonal",
        ),
    ):
        own, theirs, minus, interval = (
            getattr(policy, name),
            getattr(viewers, name),
            *(getattr(policy, f"{name}_minus_viewers{end}") for end in ("", "_ci95")),
        )
        if interval is None:
            continue
        side = higher if interval[0] > 0 else lower if interval[1] < 0 else alike
        lines.append(
            f"It looks {side} viewers: {own:.3f} against {theirs:.3f}{unit}, "
            f"{signed(minus, interval, 3)}."
        )
    return tuple(lines)

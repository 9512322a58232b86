"""Golden traces: twenty training steps give the numbers that they gave before."""

from __future__ import annotations

import json
from typing import Any

import pytest
from golden_trace import GOLDEN, TRACED, trace, traced_config
from unchecked import unchecked

STEP_TOLERANCE = 1e-5
"""Relative, of losses, returns, entropies and rates. With SSE, AVX2 and AVX-512 kernels they differ
by 4e-7 at most: float32 rounds sums in another order."""
WEIGHT_TOLERANCE = 1e-4
"""Relative to a weight's norm; between those kernels 8e-6 at most."""
WITHOUT_EFFECT = ("qkv.bias", "key_value.bias", "score.bias")
"""Biases that a softmax ignores, in whole or in part: their gradient is rounding, which Adam blows
up, so that kernels differ by 1e-3."""


def differences(found: dict[str, Any], golden: dict[str, Any]) -> list[str]:
    """Say which numbers of a trace are not the golden ones."""
    wrong = []
    for number, (step, expected) in enumerate(
        zip(found["steps"], golden["steps"], strict=True), start=1
    ):
        assert set(step) == set(expected), f"step {number} measures {sorted(step)}"
        wrong += [
            f"step {number}: {name} is {step[name]:.9g}, was {value:.9g}"
            for name, value in expected.items()
            if step[name] != pytest.approx(value, rel=STEP_TOLERANCE, abs=1e-9)
        ]
    for part in ("model", "policy"):
        assert set(found[part]) == set(golden[part]), f"the {part} has other weights"
        for name, expected in golden[part].items():
            allowed = WEIGHT_TOLERANCE * expected[0] + 1e-9
            if not name.endswith(WITHOUT_EFFECT) and found[part][name] != pytest.approx(
                expected, rel=0, abs=allowed
            ):
                wrong.append(f"{part}.{name}: norm and signed sum {found[part][name]}, {expected}")
    return wrong


@pytest.mark.parametrize("name", TRACED)
def test_twenty_steps_give_the_golden_numbers(name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    with unchecked():
        found = trace(traced_config(name))
    wrong = differences(found, golden)
    assert not wrong, (
        f"{len(wrong)} numbers of {name} are not those of tests/golden/{name}.json:\n"
        + "\n".join(wrong[:8])
        + "\nIf the change is meant: python tests/golden_trace.py, and say so in the commit."
    )


@pytest.mark.parametrize("name", TRACED)
def test_a_number_that_moves_is_noticed(name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    assert not differences(golden, golden)
    for part, key in (("steps", 7), ("model", "encoder.norm.weight"), ("policy", "context.weight")):
        moved = json.loads(json.dumps(golden))
        if part == "steps":
            moved[part][key]["loss"] *= 1 + 1e-4
        else:
            moved[part][key][1] += 1e-3 * moved[part][key][0]
        assert len(differences(moved, golden)) == 1

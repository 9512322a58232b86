"""The grid of what a policy earns over the model's own doubt. No torch here."""

from __future__ import annotations

from experiments.studies.grid import Asked, Cell, Grid
from experiments.studies.labels import CIFAR10, LONGER, MODEL, POLICY


def doubt() -> Grid:
    """Return one model, with a thumbnail, on which policies learn that differ in one thing each."""

    def learns(name: str, options: str, what: str) -> Cell:
        training = f"{CIFAR10} {POLICY} {options}".rstrip()
        return Cell(name, training, what, needs={"start_from": "model"})

    return Grid(
        name="doubt",
        question=(
            "What does a policy that learned earn over the rule that fixates where the model "
            "expects the largest error, and what makes it earn more?"
        ),
        baseline="policy",
        cells=(
            Cell(
                "model",
                f"{CIFAR10} {MODEL}",
                "The model, which learns from random scans.",
                reference=True,
            ),
            learns("policy", "", "The demo's policy, which starts as that rule."),
            learns("from_nothing", "--doubt 0", "It starts uniform, and is not told the rule."),
            learns("attending", "--policy-depth 2", "Its candidates attend to one another."),
            learns("far_sighted", "--discount 0.95", "Later errors count more."),
            learns("longer", LONGER, "It learns from three times as many scans."),
            learns("near", "--saccade-cost 0.01", "Long saccades cost something."),
            learns("segments", "--fixation-size 2 --budget 4", "It opens 4 squares of 2 x 2."),
        ),
        asked=Asked(
            probes=(),
            own=("experiments.studies.over_doubt:minus_uncertainty",),
            test_limit=2000,
            areas=("policy", "uncertainty", "best_fixed", "center_out"),
            signs=False,
            compute=False,
        ),
    )

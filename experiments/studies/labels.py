"""The grid of what labels are worth to a policy. No torch here."""

from __future__ import annotations

from experiments.studies.grid import Asked, Cell, Grid

CIFAR10 = "demo --data cifar10.parquet --budget 16 --evaluate-every 600"
MODEL = "--warmup-iterations 700 --iterations 1100 --schedule frozen"
"""As ``random_SEED`` of experiments.knowing."""
POLICY = "--warmup-iterations 0 --iterations 550 --schedule policy_only --policy-every 1"
"""It learns on that model, which stays as it is, by twice the updates that it has there."""
LONGER = "--iterations 1650"
"""Three times as many."""
BLIND = f"{CIFAR10} --periphery 0"
PAID = "--reward recognition"


def labels() -> Grid:
    """Return one model on which a policy learns without labels, and another with them."""

    def learns(name: str, options: str, what: str, against: str | None = None) -> Cell:
        training = f"{BLIND} {POLICY} {options}".rstrip()
        return Cell(name, training, what, against=against, needs={"start_from": "model"})

    return Grid(
        name="labels",
        question=(
            "Is an image known better after the fixations of a policy that was paid for naming "
            "its class than after those of one that was paid for the reconstruction?"
        ),
        baseline="reconstruction",
        cells=(
            Cell(
                "model",
                f"{BLIND} {MODEL}",
                "The model, which learns from random scans.",
                reference=True,
            ),
            learns("reconstruction", "", "Paid for the error that falls; no labels."),
            learns("labels", PAID, "Paid for the cross-entropy of a linear probe that falls."),
            learns("reconstruction_longer", LONGER, "It learns from three times as many scans."),
            learns(
                "labels_longer",
                f"{PAID} {LONGER}",
                "Paid for the cross-entropy, it learns from three times as many scans.",
                against="reconstruction_longer",
            ),
        ),
        asked=Asked(
            probes=(),
            train_limit=8000,
            test_limit=4000,
            areas=("policy", "best_fixed", "center_out", "uncertainty"),
            fixations=(4, 16),
            orders=("policy", "best_fixed", "other_image", "center_out", "uncertainty", "random"),
            read_outs=("seen", "attentive"),
            compute=False,
        ),
    )

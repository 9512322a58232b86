"""What is known of a run in tests of studies, beside its answers."""

from __future__ import annotations

from experiments.studies.answers import Facts

FACTS = Facts(
    commit="c",
    parameters=10,
    num_patches=4,
    iterations=(1, 0),
    images=8,
    train_seconds=60.0,
    teraflops=1.0,
    probe_images=5,
)

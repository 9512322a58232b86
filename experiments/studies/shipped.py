"""The grids of this project. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from experiments.studies.grid import Asked, Cell, Grid, Screening
from experiments.studies.words import words
from experiments.training.presets import PRESETS

LEARNERS = ("group-relative", "maskable-ppo")
"""Who learns the policy."""


def learners(preset: str) -> Grid:
    """Return the native learner and MaskablePPO on one preset; both scan in every iteration."""
    plan = PRESETS[preset][1].replace(policy_every=1, report=False)
    return Grid(
        name=preset,
        question="Does the native learner find as good a policy as MaskablePPO, and as fast?",
        cells=tuple(Cell(name, plan.replace(agent=name)) for name in LEARNERS),
        least_seeds=2,
        asked=Asked(
            probes=(),
            own=("experiments.evaluation.study:areas_on",),
            test_limit=400,
            signs=False,
            compute=False,
        ),
        summary="experiments.evaluation.study:study_of",
    )


TEACHES = (
    "Does a model learn a better representation if a policy says in which order, or of what, it "
    "is asked, than from random orders with the same parts and as many operations?"
)
RANDOM = "cifar10 --periphery 0 --iterations 0"
POLICY = "cifar10 --periphery 0 --policy-every 4 --batch-size 8 --random-share"


def teaching() -> Grid:
    """Return ways of ordering and asking, each of which a model learns from."""
    return Grid(
        name="teaching",
        question=TEACHES,
        baseline="random",
        cells=(
            Cell("random", RANDOM, "Random order alone."),
            Cell("raster", f"{RANDOM} --order raster", "One fixed order."),
            Cell("squares", f"{RANDOM} --order random_squares", "Random squares of patches."),
            Cell("blobs", f"{RANDOM} --order random_blobs", "Random blobs of patches."),
            Cell("policy_25", f"{POLICY} 0.75", "A quarter of the orders are the policy's."),
            Cell("policy_50", f"{POLICY} 0.5", "Half of the orders are the policy's."),
            Cell("policy_100", f"{POLICY} 0", "All orders are the policy's after the warm-up."),
            Cell("surprise_50", f"{POLICY} 0.5 --reward surprise", "Paid for the unforeseen."),
            Cell("scans_50", f"{POLICY} 0.5 --schedule frozen", "As policy_50, but never learned."),
            Cell("decoder_4", f"{RANDOM} --decoder-depth 4", "A deeper decoder, random order."),
            Cell("decoder_8", f"{RANDOM} --decoder-depth 8", "Deeper still, random order."),
            Cell("policy_decoder_4", f"{POLICY} 0.5 --decoder-depth 4", "Policy, deeper decoder."),
            Cell("latent", f"{RANDOM} --target features", "Features as targets, random order."),
            Cell(
                "latent_squares", f"{RANDOM} --target features --order random_squares", "As I-JEPA."
            ),
            Cell("latent_policy", f"{POLICY} 0.5 --target features", "Features, by a policy."),
        ),
        seeds=(0, 1, 2, 3, 4),
        asked=Asked(
            attention=("full", "causal"),
            label_shares=(1.0, 0.1, 0.01),
            test_limit=None,
            fixations=(1, 2, 4, 8),
            areas=("policy", "random", "uncertainty"),
        ),
        screening=Screening(
            options={"patch_size": 8, "embed_dim": 64, "depth": 4, "budget": 8}, teraflops=8.0
        ),
        teraflops=100.0,
    )


def teaching_smoke() -> Grid:
    """Return a grid of two cells that does all that the others do, in seconds."""
    return Grid(
        name="teaching_smoke",
        question=TEACHES,
        cells=(
            Cell("random", "smoke --patch-size 8 --iterations 0", "Random order alone."),
            Cell("policy", "smoke --patch-size 8", "Half of the orders are the policy's."),
        ),
        seeds=(0, 1),
        asked=Asked(
            train_limit=200,
            test_limit=100,
            area_limit=30,
            areas=("policy", "random"),
            fixations=(1, 4),
        ),
        screening=Screening(options={"warmup_iterations": 2}, seeds=(0,), within=1.0),
    )


GRIDS: Mapping[str, Callable[[], Grid]] = {
    **{preset: partial(learners, preset) for preset in ("cue", "demo", "smoke")},
    "teaching": teaching,
    "teaching_smoke": teaching_smoke,
    "words": words,
}
"""Grids by name."""

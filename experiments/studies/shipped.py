"""The grids of this project. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from experiments.studies.doubt import doubt
from experiments.studies.grid import Asked, Cell, Grid, Screening
from experiments.studies.labels import labels
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
            own=("experiments.studies.learners:areas_on",),
            test_limit=400,
            signs=False,
            compute=False,
        ),
        summary="experiments.studies.learners:study_of",
    )


TEACHES = (
    "Does a model learn a better representation if a policy says in which order, or of what, it "
    "is asked, than from random orders with the same parts and as many operations?"
)
RANDOM = "--iterations 0"
SCANS = "--policy-every 4 --batch-size 16"
POLICY = f"{SCANS} --random-share 0.5"
"""Half of the 128 orders of a batch are the policy's."""
REVERSED = f"{POLICY} --scan-direction reversed"
JUDGE = "--random-share 1 --policy-every 16 --batch-size 32 --prefer policy"
"""All 128 orders of a batch are random; the policy says which patches count."""
LATENT = "--target features"
SQUARES = f"{LATENT} --budget 2"
BUDGETED = "--budget 4 --prefix-share 0"
RAMPED_IN = "--prefer-share-start 0"
CANDIDATES = (
    Cell("random", RANDOM, "Random order alone.", control=True),
    Cell("policy", POLICY, "Half of the orders are the policy's."),
    Cell(
        "frozen",
        f"{POLICY} --schedule frozen",
        "As policy, whose policy never learns: uniformly random scans.",
        control=True,
    ),
    Cell("reversed", REVERSED, "Half of the orders, the policy's patches last."),
    Cell("ramp", f"{SCANS} --random-share 1 --random-share-end 0.5", "The policy's share grows."),
    Cell(
        "ramp_back",
        f"{POLICY} --random-share-end 1",
        "It falls from a half to 0: the control.",
        control=True,
    ),
    Cell("weight_policy", f"{JUDGE} {RAMPED_IN}", "The policy weighs the loss of each patch."),
    Cell(
        "weight_doubt",
        f"{RANDOM} --prefer harder {RAMPED_IN}",
        "As weight_policy, by the error that the model expects.",
    ),
    Cell("ask_policy", f"{JUDGE} --prefer-by ask", "The policy chooses what is asked."),
    Cell(
        "ask_policy_too",
        f"{POLICY} --prefer policy --prefer-by ask",
        "It chooses what is asked, and half of the orders.",
    ),
    Cell("surprise", f"{REVERSED} --reward surprise", "As reversed, paid for the unforeseen."),
    Cell("progress", f"{REVERSED} --reward progress", "As reversed, paid for what was learned."),
    Cell("reducible", f"{REVERSED} --reward reducible", "As reversed, paid for the unlearned."),
    Cell("latent", f"{RANDOM} {LATENT}", "Features as targets, random order.", control=True),
    Cell(
        "latent_policy",
        f"{POLICY} {LATENT}",
        "Features, half of the orders are the policy's.",
        against="latent",
    ),
    Cell(
        "latent_weight",
        f"{RANDOM} {LATENT} --prefer harder {RAMPED_IN}",
        "Each patch weighed by the error that the model expects.",
        against="latent",
    ),
    Cell(
        "latent_ask",
        f"{RANDOM} {LATENT} --prefer harder --prefer-by ask",
        "Asked where the model expects errors.",
        against="latent",
    ),
    Cell(
        "latent_blobs",
        f"{RANDOM} {SQUARES} --order random_blobs --order-options blobs 5",
        "Features, random blobs.",
        against="latent",
        control=True,
    ),
    Cell(
        "latent_squares",
        f"{RANDOM} {SQUARES} --order random_squares",
        "Features, random squares of 2 x 2.",
        against="latent",
        control=True,
    ),
    Cell(
        "latent_policy_squares",
        f"{POLICY} {SQUARES} --fixation-size 2",
        "Half of the squares are the policy's.",
        against="latent_squares",
    ),
    Cell(
        "decoder_4", f"{RANDOM} --decoder-depth 4", "4 decoder blocks, random order.", control=True
    ),
    Cell(
        "decoder_4_policy",
        f"{POLICY} --decoder-depth 4",
        "Half of the orders are the policy's.",
        against="decoder_4",
    ),
    Cell(
        "decoder_8", f"{RANDOM} --decoder-depth 8", "8 decoder blocks, random order.", control=True
    ),
    Cell(
        "decoder_8_policy",
        f"{POLICY} --decoder-depth 8",
        "Half of the orders are the policy's.",
        against="decoder_8",
    ),
    Cell(
        "budget_4", f"{RANDOM} {BUDGETED}", "4 of 16 patches are encoded, at random.", control=True
    ),
    Cell(
        "budget_4_policy",
        f"{POLICY} {BUDGETED}",
        "Half of the time the policy chooses the 4.",
        against="budget_4",
    ),
    Cell(
        "held_out",
        f"{RANDOM} --learn-split val",
        "The reference of reducible_held_out: random order, on validation images.",
        reference=True,
    ),
    Cell(
        "reducible_held_out",
        f"{REVERSED} --reward reducible",
        "As reversed, paid for what a copy has learned from other images.",
        needs={"reward_reference": "held_out"},
    ),
    Cell(
        "rankme",
        f"{REVERSED} --reward rankme",
        "As reversed, paid for features that differ from those of other images.",
    ),
)
"""Without the words of the data; docs/teaching.md says where they come from."""

EIGHT = (
    "policy",
    "frozen",
    "reversed",
    "ramp",
    "weight_policy",
    "weight_doubt",
    "ask_policy",
    "progress",
    "latent_policy",
    "decoder_4_policy",
    "budget_4_policy",
)
"""Of each candidate the cell that was screened best, after the policy's orders as they are; and
what needs no policy that learns: orders at random, and weights by the model's own doubt."""


def teaching(name: str, data: str) -> Grid:
    """Return the candidates of docs/teaching.md, each beside random order with the same parts.

    Args:
        name: of the grid.
        data: words of a training that name the images, cut into 4 x 4 patches.
    """
    return Grid(
        name=name,
        question=TEACHES,
        baseline="random",
        cells=tuple(
            replace(cell, training=f"{data} --periphery 0 --budget 8 {cell.training}")
            for cell in CANDIDATES
        ),
        seeds=(0, 1, 2, 3, 4),
        asked=Asked(
            attention=("full", "causal"),
            label_shares=(1.0, 0.1, 0.01),
            test_limit=None,
            fixations=(1, 2, 4, 8),
            areas=("policy", "random", "uncertainty"),
        ),
        # Five seeds of the grid's own setting are dear: the best candidate has them.
        screening=Screening(
            options={"embed_dim": 64, "depth": 4},
            most=1,
            teraflops=8.0,
            asked=Asked(test_limit=None),
        ),
        verdict_seeds=5,
        teraflops=100.0,
    )


def teaching_eight() -> Grid:
    """Return one cell of each of the eight candidates, all with five seeds on test images.

    It is the one that was furthest ahead in the screening of ``teaching``, which had two seeds. No
    cell is dropped, so that nothing is chosen here.
    """
    grid = teaching("teaching_eight", "cifar10 --patch-size 8 --embed-dim 64 --depth 4")
    kept = grid.with_company(EIGHT)
    return replace(
        grid,
        cells=tuple(cell for cell in grid.cells if cell.name in kept),
        asked=Asked(test_limit=None),
        screening=None,
        teraflops=3.0,
    )


SMOKE = "smoke --patch-size 8 --prefix-share 0"
"""Of batches without prefixes a few steps say what all cost."""


def teaching_smoke() -> Grid:
    """Return a grid of two cells that does all that the others do, in seconds."""
    return Grid(
        name="teaching_smoke",
        question=TEACHES,
        cells=(
            Cell("random", f"{SMOKE} --iterations 0", "Random order alone."),
            Cell("policy", SMOKE, "Half of the orders are the policy's."),
        ),
        seeds=(0, 1),
        asked=Asked(
            train_limit=200,
            test_limit=100,
            area_limit=30,
            areas=("policy", "random"),
            fixations=(1, 4),
            read_outs=("seen", "attentive"),
        ),
        screening=Screening(options={"warmup_iterations": 2}, seeds=(0,), within=1.0),
    )


GRIDS: Mapping[str, Callable[[], Grid]] = {
    **{preset: partial(learners, preset) for preset in ("cue", "demo", "smoke")},
    "teaching": partial(teaching, "teaching", "cifar10 --patch-size 8"),
    "teaching_imagenette": partial(
        teaching,
        "teaching_imagenette",
        "cifar10 --data imagenette96.parquet --image-size 64 --patch-size 16 --augment",
    ),
    "teaching_eight": teaching_eight,
    "teaching_smoke": teaching_smoke,
    "doubt": doubt,
    "labels": labels,
    "words": words,
}
"""Grids by name."""

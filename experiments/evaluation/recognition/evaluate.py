"""Recognition after k fixations: how well is an image known from what has been seen of it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int

from experiments.evaluation.intervals import mean_interval
from experiments.evaluation.questions import Questions
from experiments.evaluation.recognition.asking import (
    CONTROLS,
    REFERENCES,
    Answered,
    RecognitionAsking,
)
from experiments.evaluation.recognition.options import (
    ORDERS,
    READ_OUTS,
    FixationsProbe,
    ReadOut,
    VectorProbe,
    check_read_outs,
)
from experiments.evaluation.recognition.paths import PathMakers
from experiments.evaluation.recognition.result import ByFixations, ProbeAccuracies, Recognized
from experiments.runs import Run
from foveate.probes import score
from foveate.probes.partial import check_layer


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """How well images are known after k fixations of every order."""

    fixations: dict[str, ByFixations]
    controls: dict[str, ByFixations]
    all_patches: Recognized
    periphery_alone: Recognized | None
    """None = the model is blind but for what it fixates."""
    label_shares: dict[str, dict[str, ByFixations]]
    """Of smaller shares of the training labels, by order and share."""
    label_images: dict[str, int]
    """Training images of each share, as balanced over classes."""
    notes: dict[str, str]
    """Why there is no number, and which images were left out."""
    correct: dict[Answered, Bool[np.ndarray, " K"]]
    """Whether each test image was classified correctly, to pair over images and seeds."""
    labels: Int[np.ndarray, " K"]
    """Classes of the test images."""
    train_images: int
    """Training images that the probes had."""


def recognize(
    run: Run,
    *,
    after: tuple[int, ...],
    orders: tuple[str, ...] = ORDERS,
    read_outs: tuple[ReadOut, ...] = READ_OUTS,
    probes: tuple[VectorProbe, ...] = ("linear", "knn"),
    layer: int | None = None,
    probe: FixationsProbe = "per_order",
    label_shares: tuple[float, ...] = (1.0,),
    controls: bool = True,
    train_limit: int = 10000,
    test_limit: int | None = None,
    seed: int = 0,
) -> Recognition:
    """Probe what is known after each number of fixations in ``after``, for every order.

    Args:
        run: its model reads, and its policy scans.
        after: numbers of fixations, in 1..budget.
        orders: names of orders and agents, or ``MODULE:NAME`` of one's own.
        read_outs: what the probes see; the first vector is the headline.
        probes: of the read-outs that are vectors; differences are of the linear one,
            where it is among them.
        layer: encoder layer of the content, from 1; None = the mean of all, layer-normalized.
        probe: probes trained for each order and number, or once on random subsets.
        label_shares: shares of the training labels; 1 is always measured.
        controls: whether the controls are probed as well.
        train_limit: training images of the probes.
        test_limit: test images; None = all.
        seed: of the held-out images, the probes, the subsets and the untrained weights.

    Raises:
        NoLabels: there are no labels.
        ValueError: a number of fixations outside 1..budget, an unknown order or read-out, a layer
            that is not there, or a model that cannot scan.
    """
    check_read_outs(read_outs)
    makers = recognizable(run, after=after, orders=orders, layer=layer)
    train, test = run.split("train", train_limit), run.split("test", test_limit)
    questions = Questions.of(train, test, [], seed)
    if not torch.isin(questions.test.labels, questions.train.labels).any():
        return nothing_of(questions, {"fixations": questions.notes["classes"]})
    asking = RecognitionAsking(
        run=run,
        train=questions.train,
        test=questions.test,
        after=tuple(sorted({*after})),
        read_outs=read_outs,
        probes=probes,
        layer=layer,
        label_shares=tuple(sorted({*label_shares, 1.0}, reverse=True)),
        seed=seed,
    )
    if not asking.answerable:
        return nothing_of(questions, asking.notes)
    asking.ask_all(makers, shared=probe == "shared", controls=controls)
    return recognition_of(asking, {**questions.notes, **asking.notes})


def nothing_of(questions: Questions, why: dict[str, str]) -> Recognition:
    """Return no number at all, and the notes that say why."""
    return Recognition(
        fixations={},
        controls={},
        all_patches=Recognized(),
        periphery_alone=None,
        label_shares={},
        label_images={},
        notes={**questions.notes, **why},
        correct={},
        labels=questions.test.labels.numpy(),
        train_images=len(questions.train),
    )


def recognizable(
    run: Run, *, after: tuple[int, ...], orders: tuple[str, ...], layer: int | None
) -> PathMakers:
    """Return who scans; what :func:`recognize` would refuse is refused before any image is read.

    Raises:
        ValueError: see :func:`recognize`.
    """
    run.model.check_scannable()
    if not after or not 1 <= min(after) <= max(after) <= run.budget:
        raise ValueError(
            f"fixations must lie in 1..{run.budget}, the budget of the run, "
            f"got {' '.join(map(str, after)) or 'none'}"
        )
    check_layer(run.model.config.depth, layer)
    return PathMakers.of(run, orders)


def recognition_of(asking: RecognitionAsking, notes: dict[str, str]) -> Recognition:
    """Turn answers into accuracies, with intervals and differences from the policy."""
    rows: dict[tuple[str, float], ByFixations] = {}
    asked = dict.fromkeys((each.order, each.label_share, each.after) for each in asking.correct)
    for order, share, after in asked:
        cell = recognized(asking.correct, order, share, after)
        rows.setdefault((order, share), {})[after] = cell
    whole = {order: row for (order, share), row in rows.items() if share == 1}
    apart = {*CONTROLS, *REFERENCES}
    periphery = whole.get("periphery_alone")
    shares: dict[str, dict[str, ByFixations]] = {}
    for (order, share), row in rows.items():
        if share < 1:
            shares.setdefault(order, {})[f"{share:g}"] = row
    return Recognition(
        fixations={order: row for order, row in whole.items() if order not in apart},
        controls={order: whole[order] for order in CONTROLS if order in whole},
        all_patches=whole["all_patches"][asking.run.model.num_patches],
        periphery_alone=None if periphery is None else periphery[0],
        label_shares=shares,
        label_images={f"{share:g}": used for share, used in asking.label_images.items()},
        notes=notes,
        correct=asking.correct,
        labels=asking.test.labels.numpy(),
        train_images=len(asking.train),
    )


def recognized(
    correct: dict[Answered, Bool[np.ndarray, " K"]], order: str, share: float, after: int
) -> Recognized:
    """Summarize all answers after some fixations of an order."""
    read_outs: dict[str, dict[str, Any]] = {}
    compared: dict[str, Any] = {}
    for asked, right in correct.items():
        if asked != (order, after, asked.read_out, asked.probe, share):
            continue
        found = read_outs.setdefault(asked.read_out, {})
        share_right, interval = score(right.astype(int), np.ones(len(right), dtype=int))
        found[asked.probe], found[f"{asked.probe}_ci95"] = share_right, interval
        policy = correct.get(asked._replace(order="policy"))
        is_main = asked.probe == compared.setdefault(asked.read_out, asked.probe)
        if policy is not None and order != "policy" and is_main:
            difference = right.astype(float) - policy
            found["minus_policy"], found["minus_policy_ci95"] = mean_interval(difference)
    first = next((found for name, found in read_outs.items() if name != "attentive"), {})
    attentive = read_outs.get("attentive", {})
    beside = {name: attentive[name] for name in ("attentive", "attentive_ci95") if attentive}
    each = {name: ProbeAccuracies(**found) for name, found in read_outs.items()}
    return Recognized(**({**first, **beside} if first else attentive), read_outs=each)

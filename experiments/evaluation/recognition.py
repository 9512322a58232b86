"""Recognition after k fixations: how well is an image known from what has been seen of it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool

from experiments.evaluation.intervals import mean_interval
from experiments.evaluation.probe_questions import Questions
from experiments.evaluation.recognition_options import (
    ORDERS,
    READ_OUTS,
    FixationProbe,
    ReadOut,
    RecognitionOptions,
)
from experiments.evaluation.recognition_paths import Scanners, Scanpaths
from experiments.evaluation.recognition_probes import Answer, Asked, Prober, Views, balanced_share
from experiments.evaluation.recognition_result import MAIN_PROBE, ByFixations, Known, Recognized
from experiments.runs import Run
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.probes import score
from foveate.probes.partial import (
    partial_features,
    path_features,
    pixels_after,
)


class Answered(NamedTuple):
    """What was asked: a name of ``correct`` in :class:`Recognition`."""

    order: str
    """Also a control, ``all_patches`` or ``periphery_alone``."""
    after: int
    """Fixations."""
    read_out: str
    probe: str
    """linear, knn or attentive."""
    label_share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """How well images are known after k fixations of every order."""

    fixations: dict[str, ByFixations]
    controls: dict[str, ByFixations]
    all_patches: Recognized
    periphery_alone: Recognized | None
    """None = the model is blind but for what it fixates."""
    label_shares: dict[str, dict[str, ByFixations]]
    """Of smaller shares of the labels, by share and order."""
    notes: dict[str, str]
    correct: dict[Answered, Bool[np.ndarray, " K"]]
    """Whether each test image was classified correctly, to pair over images and seeds."""
    labels: np.ndarray
    """Classes of the test images."""


def recognize(
    run: Run,
    *,
    after: tuple[int, ...],
    orders: tuple[str, ...] = ORDERS,
    read_outs: tuple[ReadOut, ...] = READ_OUTS,
    layer: int | None = None,
    probe: FixationProbe = "per_order",
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
        layer: encoder layer of the content, from 1; None = the mean of all, layer-normalized.
        probe: probes trained for each order and number, or once on random subsets.
        label_shares: shares of the training labels; 1 is always measured.
        controls: whether the controls are probed as well.
        train_limit: training images of the probes.
        test_limit: test images; None = all.
        seed: of the held-out images, the probes, the subsets and the untrained weights.

    Raises:
        NoLabels: there are no labels.
        ValueError: a number of fixations outside 1..budget, an unknown order, a layer that is not
            there, or a model that cannot scan.
    """
    raise NotImplementedError

"""What the answers of the study of knowing depend on, in words that are kept beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from experiments.evaluation.knowing.plan import KnowingQuestions
from experiments.evaluation.scanpaths import MOST_OF_VALIDATION
from experiments.runs import Run
from foveate.choices import sources_of
from foveate.tensors import digest

OF_FINE_TUNING = ("finetune_epochs",)
"""What frozen features do not depend on."""


def question_of(run: Run, asked: KnowingQuestions) -> str:
    """Write all that answers of frozen features depend on but the code."""
    options = {name: each for name, each in asdict(asked).items() if name not in OF_FINE_TUNING}
    # Of one's own orders the commit says nothing.
    own = {"own": found} if (found := sources_of(asked.orders)) else {}
    others = {
        "area": digest([run.split("test", asked.area_limit).images]),
        **validation_of(run, asked.orders),
    }
    about = {**subject_of(run), "images": images_of(run, asked)}
    return json.dumps({**options, **about, **own, "others": others})


def validation_of(run: Run, orders: Sequence[str]) -> dict[str, str]:
    """Return a digest of the validation images, if an order is made from them."""
    if "best_fixed" not in orders:
        return {}
    return {"val": digest([run.split("val", MOST_OF_VALIDATION).images])}


def subject_of(run: Run) -> dict[str, Any]:
    """Return whom every question is put to: a model and a policy, by their weights."""
    weights = {**run.model.state_dict(), **run.policy.state_dict(prefix="policy.")}
    return {"iteration": run.iteration, "weights": digest(weights.values()), **run.data_options}


def images_of(run: Run, asked: KnowingQuestions) -> list[str]:
    """Return digests of the training and test images of the probes."""
    images = [run.split("train", asked.train_limit), run.split("test", asked.test_limit)]
    return [digest((each.images, each.labels)) for each in images]

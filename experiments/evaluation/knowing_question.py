"""What the answers of the study of knowing depend on, in words that are kept beside them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from experiments.evaluation.knowing_plan import KnowingQuestions
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
    return json.dumps({**options, **_subject(run, asked), **own})


def subject_of(run: Run, asked: KnowingQuestions) -> str:
    """Write what every answer depends on, whatever is asked: the weights and the images."""
    return json.dumps(_subject(run, asked))


def _subject(run: Run, asked: KnowingQuestions) -> dict[str, Any]:
    weights = {**run.model.state_dict(), **run.policy.state_dict(prefix="policy.")}
    images = [run.split("train", asked.train_limit), run.split("test", asked.test_limit)]
    return {
        "iteration": run.iteration,
        "weights": digest(weights.values()),
        "images": [digest((each.images, each.labels)) for each in images],
        **run.data_options,
    }

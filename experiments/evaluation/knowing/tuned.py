"""What a run knows after k fixations once all its weights have learned to name what it sees."""

from __future__ import annotations

import json
from functools import lru_cache, partial

import numpy as np
from jaxtyping import Bool

from experiments.evaluation.kept import Kept
from experiments.evaluation.knowing.plan import KnowingQuestions
from experiments.evaluation.knowing.question import images_of, subject_of, validation_of
from experiments.evaluation.knowing.rows import Condition
from experiments.evaluation.progress import progress
from experiments.evaluation.questions import Questions
from experiments.evaluation.recognition.paths import PathMakers
from experiments.runs import Run
from foveate.choices import sources_of
from foveate.probes.finetuning import FineTuneConfig
from foveate.probes.recognizer import named_classes, tuned_recognizer

FINE_TUNED = "fine-tuned"
"""As a read-out."""
SEED = 0
"""Of the held-out images, the head's start and the batches; as that of frozen features."""


def fine_tuned(
    run: Run, asked: KnowingQuestions
) -> tuple[dict[Condition, Bool[np.ndarray, " I"]], tuple[str, ...]]:
    """Fine-tune a copy of the model for every order, and say which test images each names.

    The answers are kept in the run's folder, order by order. The images are those of frozen
    features, so that both can be paired.

    Args:
        run: its model is tuned, and its policy scans.
        asked: orders, numbers of fixations, images, and epochs.

    Returns:
        What is named rightly, and the commits of the code that found it.
    """
    makers = PathMakers.of(run, asked.orders)
    splits = run.split("train", asked.train_limit), run.split("test", asked.test_limit)
    questions = Questions.of(*splits, [], SEED)
    images = questions.train, questions.test
    # Not at all where every answer was kept.
    policy = lru_cache(1)(partial(makers.policy, *images))
    how = FineTuneConfig(epochs=asked.finetune_epochs)

    def measure(order: str) -> Bool[np.ndarray, "U I"]:
        """Return whether each test image is named rightly after each number of fixations."""
        train, test = images
        paths = makers.paths(order, train, test, policy())
        tuned, _, _ = tuned_recognizer(run.model, train, paths.train, asked.after, how, SEED)
        right = named_classes(tuned, test, paths.test) == test.labels.unsqueeze(1)
        return np.ascontiguousarray(right.numpy().T)

    kept = Kept(run.directory / "knowing_finetuned.npz", json.dumps(subject_of(run)))
    common = {"after": asked.after, "epochs": how.epochs, "images": images_of(run, asked)}
    found: dict[Condition, Bool[np.ndarray, " I"]] = {}
    with kept:
        for order in progress(asked.orders, f"fine-tuning {run.name} by fixations", "order"):
            made_of = {"own": sources_of([order]), **validation_of(run, [order])}
            question = json.dumps({"order": order, **common, **made_of})
            of_each = kept.answer(question, partial(measure, order))
            found |= {
                (order, k, FINE_TUNED): row for k, row in zip(asked.after, of_each, strict=True)
            }
    kept.say()
    return found, tuple(sorted(kept.commits))

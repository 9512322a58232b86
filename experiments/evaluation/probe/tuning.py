"""Fine-tuning by fixations: the policy and a network that classifies what it has seen so far."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial

from experiments.evaluation.probe.options import ProbeOptions
from experiments.evaluation.probe.result import FineTuned, TunedByFixations
from experiments.evaluation.probe.views import tuning
from experiments.evaluation.progress import progress
from experiments.evaluation.recognition.paths import PathMakers
from experiments.runs import Run
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.probes.recognizer import fine_tune_by_fixations

TUNED_ORDERS = ("policy", "random")
"""Orders that are fine-tuned for, if no others are asked for: each takes minutes."""


def tune_by_fixations(
    run: Run,
    untrained: AnyOrderTransformer,
    train: ImageSet,
    test: ImageSet,
    *,
    after: tuple[int, ...],
    orders: tuple[str, ...],
    options: ProbeOptions,
) -> TunedByFixations:
    """Fine-tune a copy of the run's model for every order, and one of an untrained model.

    All images are scanned beforehand by the run's policy, or as the order says.

    Args:
        run: its model is tuned, and its policy scans.
        untrained: the model with other weights, for the same scans.
        train: labeled images.
        test: labeled images.
        after: numbers of fixations.
        orders: names of orders and agents, or ``MODULE:NAME`` of one's own; repeats are dropped.
        options: epochs, learning rates and seed. There is no generative loss of a scan.
    """
    makers = PathMakers.of(run, orders)
    policy = makers.policy(train, test)
    how = replace(tuning(options, run, "causal"), generative_weight=0.0)
    tuned: TunedByFixations = {}
    starts = {"": run.model, "random_weights_": untrained}
    parts = [(order, start) for order in makers.asked for start in starts]
    # Both starts are tuned on the same scans, also of an order that is drawn.
    scans = lru_cache(1)(partial(makers.paths, train=train, test=test, policy=policy))
    for order, start in progress(parts, "fine-tuning by fixations", "network"):
        paths = scans(order)
        reached = fine_tune_by_fixations(
            starts[start], train, test, paths.train, paths.test, after, how, options.seed
        )
        tuned[f"{start}{order}"] = {
            number: FineTuned(**vars(each), **vars(how)) for number, each in reached.items()
        }
    return tuned

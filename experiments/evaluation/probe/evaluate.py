"""Probe a run: what do its frozen features, or its fine-tuned weights, know of the classes?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from experiments.evaluation.probe.options import Pooling, Probe, ProbeOptions
from experiments.evaluation.probe.result import ProbeResult, best_of
from experiments.evaluation.probe.tuning import TUNED_ORDERS, tune_by_fixations
from experiments.evaluation.probe.views import POOLINGS, Probing, Row, Variant, tuning
from experiments.evaluation.progress import Progress
from experiments.evaluation.questions import COLUMNS, TITLES, Questions, nothing_answers
from experiments.evaluation.recognition.evaluate import recognizable, recognize
from experiments.evaluation.recognition.options import (
    ORDERS,
    FixationsProbe,
    ReadOut,
)
from experiments.evaluation.recognition.paths import check_others
from experiments.run_folder import git_commit
from experiments.runs import Run
from foveate.data import ImageSet
from foveate.orders.semantic import model_ordering
from foveate.probes import Attention, States, pixel_features
from foveate.probes.attentive import token_bytes
from foveate.probes.finetuning import FineTuneConfig


def layers_to_concat(chosen: tuple[int, ...], depth: int) -> list[int]:
    """Resolve ``--concat-layers`` to layers counted from 0.

    Raises:
        ValueError: there are no such layers.
    """
    if min(chosen, default=0) < 1 or max(chosen) > depth or len({*chosen}) < len(chosen):
        raise ValueError(
            "concat_layers must be the number of last layers, or several different layers, in "
            f"1..{depth}, got {' '.join(map(str, chosen)) or 'none'}"
        )
    return list(range(depth - chosen[0], depth)) if len(chosen) == 1 else [i - 1 for i in chosen]


def check_generative(how: FineTuneConfig, run: Run, images: ImageSet) -> None:
    """Raise ValueError unless the model takes the generative loss of a fine-tuning."""
    if run.model.config.takes_features:
        raise ValueError(
            "this model predicts a teacher's features, for which fine-tuning has no teacher; "
            "leave out --generative-weight"
        )
    batch = images.batch(torch.arange(min(2, len(images))), device=torch.device(run.device))
    order = model_ordering(how.generative_order, run.model, **how.order_options)
    with torch.no_grad():
        run.model(batch, order(batch))


def probe_frozen(probing: Probing, variants: list[Variant]) -> dict[str, Any]:
    """Probe all frozen features; layers are chosen from the first view.

    Returns:
        Fields of the result.
    """
    rows: dict[str, Row] = {}
    first_view: dict[str, Row] = {}
    views = probing.views(variants)
    with Progress("probing", sum(map(probing.num_rows, views)), "layer") as shown:
        for view in views:
            for name, row in probing.rows(view):
                rows[name] = row
                shown.advance(1)
            first_view = first_view or dict(rows)
    pixels = probing.vectors(pixel_features(probing.train), pixel_features(probing.test))
    if pixels:
        rows["pixels"] = pixels
    found: dict[str, Any] = {
        column: {name: row[column] for name, row in rows.items() if column in row}
        for column in probing.columns
    }
    for field, column in (("best", "linear"), ("best_sgd", "sgd"), ("best_attentive", "attentive")):
        found[field] = best_of(first_view, column)
    if "attentive" in probing.columns:
        found["token_megabytes"] = tuple(
            token_bytes(probing.run.model, len(images)) / 1e6
            for images in (probing.train, probing.test)
        )
    return found


def probe_fixations(run: Run, options: ProbeOptions, notes: dict[str, str]) -> dict[str, Any]:
    """Probe what is known after k fixations; notes are added to those that there are.

    Returns:
        Fields of the result.
    """
    known = recognize(
        run,
        after=options.fixations,
        orders=options.orders or ORDERS,
        read_outs=options.asked_read_outs,
        probes=options.probes_of_vectors,
        layer=options.fixations_layer,
        probe=options.fixations_probe,
        label_shares=options.label_shares,
        train_limit=options.train_limit,
        test_limit=options.test_limit,
        seed=options.seed,
    )
    notes |= known.notes
    if not known.correct:
        return {}
    names = "fixations", "controls", "all_patches", "periphery_alone", "label_shares"
    return {name: getattr(known, name) for name in (*names, "label_images")}


def fine_tune_all(probing: Probing, variants: list[Variant]) -> dict[str, Any]:
    """Fine-tune a copy of every variant; and, if asked for, by fixations.

    Returns:
        Fields of the result.
    """
    found: dict[str, Any] = {"finetune": probing.fine_tune(variants)}
    options = probing.options
    if options.fixations:
        found["finetune_fixations"] = tune_by_fixations(
            probing.run,
            variants[-1].model,
            probing.train,
            probing.test,
            after=tuple(sorted({*options.fixations})),
            orders=options.orders or TUNED_ORDERS,
            options=options,
        )
    return found


def probe(
    run: Run,
    *,
    probes: tuple[Probe, ...] = ("linear", "knn"),
    attention: tuple[Attention, ...] = ("full", "causal"),
    stream: tuple[States, ...] = ("content",),
    pooling: tuple[Pooling, ...] = ("mean",),
    concat_layers: tuple[int, ...] = (4,),
    finetune_epochs: int = 5,
    finetune_lr: tuple[float, ...] = (1e-3, 3e-3),
    generative_weight: float = 0.0,
    generative_order: str | None = None,
    fixations: tuple[int, ...] = (),
    orders: tuple[str, ...] | None = None,
    read_outs: tuple[ReadOut, ...] | None = None,
    fixations_layer: int | None = None,
    fixations_probe: FixationsProbe = "per_order",
    label_shares: tuple[float, ...] = (1.0,),
    train_limit: int = 10000,
    test_limit: int | None = None,
    seed: int = 0,
) -> ProbeResult:
    """Probe the features of a run, beside raw pixels and untrained weights.

    :class:`~experiments.evaluation.probe.options.ProbeOptions` says what the options mean.

    Raises:
        NoLabels: there are no labels, but one class, or too few images for any number.
        ValueError: options that have no effect or do not fit.
    """
    options = ProbeOptions(
        probes=probes,
        attention=attention,
        stream=stream,
        pooling=pooling,
        concat_layers=concat_layers,
        finetune_epochs=finetune_epochs,
        finetune_lr=finetune_lr,
        generative_weight=generative_weight,
        generative_order=generative_order,
        fixations=fixations,
        orders=orders,
        read_outs=read_outs,
        fixations_layer=fixations_layer,
        fixations_probe=fixations_probe,
        label_shares=label_shares,
        train_limit=train_limit,
        test_limit=test_limit,
        seed=seed,
    )
    return probed(run, options)


def probed(run: Run, options: ProbeOptions) -> ProbeResult:
    """Probe as the options say; see :func:`probe`."""
    probing, notes = prepare(run, options)
    variants = probing.variants()
    found = probe_frozen(probing, variants) if probing.columns else {}
    if options.asks_fixations:
        found |= probe_fixations(run, options, notes)
    if "finetune" in options.probes and "finetune" not in notes:
        found |= fine_tune_all(probing, variants)
    measured = (*COLUMNS, "fixations", "finetune")
    if not any(found.get(name) for name in measured):
        raise nothing_answers(notes)
    return ProbeResult(
        **found,
        dataset=run.dataset(probing.test),
        train_images=len(probing.train),
        test_images=len(probing.test),
        pooling="; ".join(POOLINGS[kind] for kind in options.pooling),
        seed=options.seed,
        concat_layers=tuple(layer + 1 for layer in probing.concat) or None,
        commonest_class=probing.commonest_class,
        commit=git_commit(),
        iteration=run.iteration,
        notes=notes,
        options={**asdict(options), **run.data_options},
    )


def prepare(run: Run, options: ProbeOptions) -> tuple[Probing, dict[str, str]]:
    """Load the images. What a later probe would refuse is refused before the first.

    Returns:
        what is probed, and notes on what cannot be.
    """
    how = tuning(options, run, "full")
    orders = options.orders or (ORDERS if options.asks_fixations else TUNED_ORDERS)
    if options.fixations:
        after, layer = options.fixations, options.fixations_layer
        recognizable(run, after=after, orders=orders, layer=layer)
    depth, with_concat = run.model.config.depth, "concat" in options.pooling
    concat = layers_to_concat(options.concat_layers, depth) if with_concat else []
    train, test = run.split("train", options.train_limit), run.split("test", options.test_limit)
    asked = [name for name in TITLES if name.removesuffix("_10") in options.probes]
    questions = Questions.of(train, test, asked, options.seed)
    if options.fixations:
        check_others(orders, questions.train, questions.test)
        if run.without_policy is not None:
            questions.notes["policy"] = run.without_policy
    if how.generative_weight > 0:
        check_generative(how, run, questions.train)
    answered = [name for name in asked if name in COLUMNS and name not in questions.notes]
    probing = Probing(options, run, questions.train, questions.test, concat, answered)
    return probing, questions.notes

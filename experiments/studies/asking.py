"""What a finished run answers, image by image, so that answers pair over images and seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from experiments.evaluation.compare.evaluate import compare
from experiments.evaluation.questions import COLUMNS, NEIGHBORS, Questions, unanswerable
from experiments.evaluation.recognition.evaluate import recognize
from experiments.evaluation.recognition.paths import curves_of
from experiments.evaluation.recognition.probes import balanced_share
from experiments.evaluation.recognition.result import MAIN_PROBE
from experiments.metrics_file import read_metrics
from experiments.run_folder import git_commit
from experiments.runs import Run
from experiments.studies.answers import Answers, Facts, Values, add, keep_pictures
from experiments.studies.compute import StepCosts, step_costs
from experiments.studies.grid import Asked, Split
from experiments.studies.pictures import pictures_of
from experiments.training.who_learns import images_learned
from foveate.choices import blaming, lookup, told
from foveate.data import ImageSet
from foveate.probes import (
    Attention,
    extract_features,
    knn_classes,
    lidar,
    linear_classes,
    rank_me,
    views_of,
)
from foveate.probes.partial import check_layer
from foveate.tensors import digest

SEED = 0
"""Of what the probes draw: the same for all runs."""
LIDAR_IMAGES, LIDAR_VIEWS = 1000, 10
"""Training images, and random halves of each; the paper takes as many of the former."""
MOST_COMPARED = 400
"""Test images on which a policy is set against its controls."""


def answers_of(run: Run, asked: Asked | None, split: Split) -> Answers:
    """Ask a run; of one that is asked nothing, None, return what is known of its training.

    Raises:
        ValueError: it cannot be asked so.
    """
    if asked is None:
        return Answers({}, facts_of(run, step_costs(run.config)))
    print(f"asking {run.name} on {split} images", flush=True)
    return ask(run, asked, split)


def draw_and_keep(run: Run, number: int) -> None:
    """Keep pictures of so many scans in the run's folder, if it can be scanned."""
    if number and run.model.config.scannable:
        keep_pictures(run.directory, pictures_of(run, number))


def ask(run: Run, asked: Asked, split: Split) -> Answers:
    """Ask a run everything.

    Raises:
        ValueError: it cannot be asked so.
    """
    values, scanned = Values(), Values()
    notes: list[str] = []
    curves: dict[str, tuple[float, ...]] = {}
    signs: tuple[str, ...] = ()
    probe_images = 0
    if asked.probes:
        probe_images = ask_probes(run, asked, split, values, notes)
    for name in asked.own:
        ask_own(run, name, split, asked.test_limit, values)
    if run.model.config.scannable:
        curves = ask_areas(run, asked, split, scanned)
        ask_fixations(run, asked, scanned, notes)
        signs = (
            signs_of(run, min(MOST_COMPARED, asked.area_limit))
            if asked.signs and run.policy_has_learned
            else ()
        )
    elif asked.areas or asked.fixations:
        notes.append("its model cannot be scanned, so that fixations were not asked for")
    for measure, each in scanned.items():
        add(measure, each, values)
    check_values(values, run.name)
    signs += collapse_of_features(run)
    costs = step_costs(run.config) if asked.compute else None
    images = run.split(split, asked.most_images)
    facts = replace(
        facts_of(run, costs),
        probe_images=probe_images,
        loss_curve=loss_curve(run, costs),
        error_curves=curves,
        signs=signs,
        notes=tuple(dict.fromkeys(notes)),
        # Values of other images, or in another order, are not paired.
        asked_images=digest((images.images, images.labels))[:16],
    )
    return Answers(values, facts)


def check_values(values: Values, run: str) -> None:
    """Raise ValueError unless all values are finite: else no mean and no interval says anything."""
    for measure, each in values.items():
        if broken := int((~np.isfinite(each)).sum()):
            raise ValueError(
                f"{measure} of {run} is not finite in {broken} of {each.size} values; if the model "
                "has diverged, give the cell a lower model_lr and another name"
            )


def facts_of(run: Run, costs: StepCosts | None) -> Facts:
    """Return what is known of a run before it is asked anything."""
    return Facts(
        commit=git_commit(),
        parameters=sum(each.numel() for each in run.model.parameters()),
        num_patches=run.model.num_patches,
        iterations=(run.config.optimization.warmup_iterations, run.config.iterations),
        images=images_learned(run.config),
        train_seconds=run.train_seconds or 0.0,
        teraflops=None if costs is None else costs.until(run.config, run.iteration) / 1e12,
        probe_images=0,
    )


def ask_probes(run: Run, asked: Asked, split: Split, values: Values, notes: list[str]) -> int:
    """Probe frozen features, all patches visible; return the training images of the probes."""
    depth = run.model.config.depth
    check_layer(depth, asked.layer)
    layers = range(depth) if asked.layer is None else [asked.layer - 1]
    questions = Questions.of(
        run.split("train", asked.train_limit), run.split(split, asked.test_limit), [], SEED
    )
    notes += questions.notes.values()
    train, test = questions.train, questions.test
    for attention in asked.attention:
        seen = extract_features(run.model, train, attention=attention)
        unseen = extract_features(run.model, test, attention=attention)
        for share in asked.label_shares:
            chosen = balanced_share(train.labels, share, SEED)
            for probe in asked.probes:
                title = f"{COLUMNS[probe]}, {attention}"
                title += "" if share == 1 else f", {100 * share:.3g}% of the labels"
                if why := unanswerable(probe, train.take(chosen), SEED):
                    notes.append(f"{title}: {why}")
                    continue
                known = train.labels[chosen].numpy()
                right = [
                    CLASSIFIERS[probe](seen[layer][chosen.numpy()], known, unseen[layer])
                    == test.labels.numpy()
                    for layer in layers
                ]
                values[title] = np.mean(right, axis=0)
        ranks = [rank_me(seen[layer]) for layer in layers]
        values[f"RankMe, {attention}"] = np.array([np.mean(ranks)])
        ask_lidar(run, train.subset(LIDAR_IMAGES), attention, layers, values, notes)
    return len(train)


def ask_lidar(
    run: Run,
    images: ImageSet,
    attention: Attention,
    layers: Sequence[int],
    values: Values,
    notes: list[str],
) -> None:
    """Measure LiDAR of views of training images, mean over the probed layers."""
    if run.model.config.stream != "causal" or len(images) < 2:
        notes.append("LiDAR needs a causal stream, and 2 training images")
        return
    views = views_of(run.model, images, num_views=LIDAR_VIEWS, attention=attention, seed=SEED)
    values[f"LiDAR, {attention}"] = np.array([np.mean([lidar(views[each]) for each in layers])])


def _knn(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    k = NEIGHBORS["knn"]
    return knn_classes(train, labels, test, neighbors=(k,))[k]


Classify = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
CLASSIFIERS: dict[str, Classify] = {"linear": partial(linear_classes, seed=SEED), "knn": _knn}
"""Probes by name, of features and labels of the training images: they classify the others."""


def ask_own(run: Run, name: str, split: Split, limit: int | None, values: Values) -> None:
    """Ask a question of the user's own, and add what it answers.

    Raises:
        ValueError: it raises, or returns no values for images by names that are new.
    """
    question: Callable[..., object] = lookup("question", name, {})
    with blaming("question", name):
        found = question(run, split, limit)
        if not isinstance(found, Mapping):
            raise ValueError(f"it must return values by measure, got {told(found)}")
        for measure, each in found.items():
            key, array = str(measure), np.asarray(each, float)
            if array.ndim != 1 or not array.size:
                raise ValueError(f"{key} must have one value per image, got shape {array.shape}")
            add(key, array, values)


def ask_areas(run: Run, asked: Asked, split: Split, values: Values) -> dict[str, tuple[float, ...]]:
    """Measure the area under the error curve of each order; return the mean curves."""
    orders = tuple(name for name in asked.areas if name != "policy" or run.policy_has_learned)
    if not orders:
        return {}
    _, curves = curves_of(run, orders, run.split(split, asked.area_limit))
    for name, curve in curves.items():
        values[f"area, {name}"] = curve[:, 1:].mean(1)
    return {name: tuple(map(float, curve.mean(0).round(5))) for name, curve in curves.items()}


def ask_fixations(run: Run, asked: Asked, values: Values, notes: list[str]) -> None:
    """Ask what is known of test images after each number of fixations."""
    orders = tuple(name for name in asked.orders if name != "policy" or run.policy_has_learned)
    after = tuple(number for number in asked.fixations if number <= run.budget)
    if len(after) < len(asked.fixations):
        notes.append(f"it makes {run.budget} fixations, and was not asked about more")
    if not after or not orders:
        return
    known = recognize(
        run,
        after=after,
        orders=orders,
        read_outs=asked.read_outs,
        probes=("linear",),
        layer=asked.layer,
        controls=False,
        train_limit=asked.train_limit,
        test_limit=asked.test_limit,
        seed=SEED,
    )
    notes += known.notes.values()
    for read_out in asked.read_outs:
        probe = MAIN_PROBE.get(read_out, "linear")
        by = "" if read_out == asked.read_outs[0] else f", {read_out}"
        for each, right in known.correct.items():
            if each.order in orders and (each.read_out, each.probe) == (read_out, probe):
                values[f"known after {each.after} of {each.order}{by}"] = right.astype(float)


def signs_of(run: Run, limit: int) -> tuple[str, ...]:
    """Set a policy against its controls on test images; return what that says, in sentences."""
    least = max(2, limit)  # Differences of images need two.
    return compare(run, orders=("random",), limit=least, oracle_limit=least).tables()[0].notes


def collapse_of_features(run: Run) -> tuple[str, ...]:
    """Say whether the features that a model predicts tell images apart; nothing of pixels."""
    lines = read_metrics(run.directory / "metrics.jsonl")
    found = [line for line in lines if line.get("validation_feature_rank") is not None]
    if not found:
        return ()
    std, rank = (found[-1][f"validation_feature_{name}"] for name in ("std", "rank"))
    return (
        f"The predicted features have a standard deviation of {std:.3f} over images and take "
        f"{rank:.1f} of {run.model.config.embed_dim} dimensions.",
    )


def loss_curve(run: Run, costs: StepCosts | None) -> tuple[tuple[float, float], ...]:
    """Return the loss on held-out images over operations, 10^12, or else over iterations."""
    return tuple(
        (at if costs is None else costs.until(run.config, at) / 1e12, float(loss))
        for at, loss in _losses(run)
    )


def _losses(run: Run) -> Iterator[tuple[int, float]]:
    for line in read_metrics(run.directory / "metrics.jsonl"):
        if line.get("validation_loss") is not None:
            yield line["iteration"], line["validation_loss"]

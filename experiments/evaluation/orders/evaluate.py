"""Which order makes the best representation: a model is trained and probed for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from pydantic import TypeAdapter

from experiments.evaluation.equal_compute import saved_mb
from experiments.evaluation.orders.counted import CountedRun, at_equal_compute
from experiments.evaluation.orders.plan import plan_row
from experiments.evaluation.orders.result import OrderRow, OrderRun, OrdersResult
from experiments.evaluation.questions import Questions
from experiments.finished_run import finished_run
from experiments.run_folder import git_commit, of_kind, read_manifest
from experiments.runs import Run
from experiments.tables import json_text, read_json, write_json
from experiments.training.build import load_split, set_threads
from experiments.training.config import TrainConfig
from experiments.training.who_learns import images_learned
from foveate.data import ImageSet
from foveate.probes import Attention, extract_features, knn_probe, linear_probe
from foveate.tensors import digest

PROBES = ("linear", "knn")
"""What every run is probed with."""


@dataclass(frozen=True)
class BestLayer:
    """Accuracies of the layer that is best on held-out training images."""

    layer: int
    """From 1."""
    linear: float
    knn: float
    linear_per_layer: tuple[float, ...]


def compare_orders(
    common: TrainConfig,
    names: Sequence[str],
    *,
    of_recipes: bool = False,
    out: Path,
    seeds: tuple[int, ...] = (0, 1, 2),
    teraflops: float = 20.0,
    budget: int = 16,
    probe_train: int = 10_000,
    probe_test: int = 5_000,
) -> OrdersResult:
    """Train and probe a model for every order, or for every recipe, and every seed.

    Args:
        common: what the runs of all rows share: data, sizes, parts; a run on random orders.
        names: orders, or recipes; ``policy`` and ``untrained`` are rows as well.
        of_recipes: whether the names are of recipes.
        out: folder of the runs; finished ones are kept, others resumed.
        seeds: of training.
        teraflops: floating-point operations of each run, 10^12.
        budget: fixations per scan, in rows that can be scanned.
        probe_train: training images of the probes.
        probe_test: test images of the probes.

    Raises:
        ValueError: the data has no labels, a name is unknown, or the operations pay for no step.
    """
    set_threads(common.run.threads)
    check_answerable(common, probe_train, probe_test)
    counted = {}
    for name in names:
        plan = plan_row(common, name, of_recipes=of_recipes, budget=budget)
        counted[name] = at_equal_compute(plan, teraflops * 1e12)
    runs: dict[str, list[OrderRun]] = {name: [] for name in names}
    for seed in seeds:
        for name, each in counted.items():
            folder = out / f"{name.replace(':', '_')}_{seed}"
            own = replace(each, config=each.config.replace(out=folder, seed=seed))
            runs[name].append(measured(own, probe_train, probe_test))
    return OrdersResult(
        orders={name: OrderRow.of_runs(each) for name, each in runs.items()},
        data=Path(common.data.data).name,
        limit=common.data.limit,
        augment=common.data.augment,
        recipe=None if of_recipes else common.model.recipe,
        target=None if of_recipes else common.parts.target,
        memory=None if of_recipes else common.parts.memory,
        init=common.model.init,
        teraflops=teraflops,
        precision=common.optimization.precision,
        seeds=seeds,
        probe_train=probe_train,
        probe_test=probe_test,
        threads=torch.get_num_threads(),
        commit=git_commit(),
        options=json.loads(json_text(of_kind(common.flat()))),
    )


def check_answerable(common: TrainConfig, probe_train: int, probe_test: int | None) -> None:
    """Raise ValueError if the images that probes are to see cannot answer them.

    This is asked before the hours of training.
    """
    train, test = load_split(common, "train", probe_train), load_split(common, "test", probe_test)
    notes = Questions.of(train, test, list(PROBES), seed=0).notes
    for name, note in notes.items():
        if name in PROBES:
            raise ValueError(f"no order could be probed ({name}): {note}")
        print(f"note: {note}")


def measured(counted: CountedRun, probe_train: int, probe_test: int) -> OrderRun:
    """Train one run, or load it, and probe it."""
    run = finished_run(counted.config)
    train, test = run.split("train", probe_train), run.split("test", probe_test)
    questions = Questions.of(train, test, list(PROBES), seed=0)
    train, test = questions.train, questions.test
    asked_images = digest((train.images, train.labels, test.images, test.labels))
    asked_model = digest(run.model.state_dict().values())
    path = run.directory / "probe_orders.json"
    if path.is_file():
        stored = TypeAdapter(OrderRun).validate_python(read_json(path))
        if (stored.asked_images, stored.asked_model) == (asked_images, asked_model):
            return stored
    full, causal = (probe_best_layer(run, each, train, test) for each in ("full", "causal"))
    manifest, num_images = read_manifest(run.directory), images_learned(run.config)
    result = OrderRun(
        linear=full.linear,
        knn=full.knn,
        layer=full.layer,
        linear_per_layer=full.linear_per_layer,
        linear_causal=causal.linear,
        knn_causal=causal.knn,
        layer_causal=causal.layer,
        linear_per_layer_causal=causal.linear_per_layer,
        parameters=manifest["parameters"]["model"],
        patches=run.model.num_patches,
        target=run.model.config.target,
        train_seconds=manifest["train_seconds"],
        images=num_images,
        images_per_s=num_images / manifest["train_seconds"],
        saved_mb=saved_mb(run.config.replace(limit=1000)),
        iterations=(run.config.optimization.warmup_iterations, run.config.iterations),
        commit=manifest["commit"],
        teraflops=counted.operations / 1e12,
        probe_train=len(train),
        probe_test=len(test),
        asked_images=asked_images,
        asked_model=asked_model,
        probe_commit=git_commit(),
    )
    write_json(path, asdict(result))
    return result


def probe_best_layer(run: Run, attention: Attention, train: ImageSet, test: ImageSet) -> BestLayer:
    """Probe every layer linearly, and the best one by k-NN, on test images.

    The layer is best on held-out training images.
    """
    seen = extract_features(run.model, train, attention=attention)
    unseen = extract_features(run.model, test, attention=attention)
    known, wanted = train.labels.numpy(), test.labels.numpy()
    lines = {
        layer: linear_probe(seen[layer], known, unseen[layer], wanted, seed=0) for layer in seen
    }
    best = max(lines, key=lambda layer: lines[layer].validation_accuracy)
    return BestLayer(
        layer=best + 1,
        linear=lines[best].accuracy,
        knn=knn_probe(seen[best], known, unseen[best], wanted).accuracy,
        linear_per_layer=tuple(lines[layer].accuracy for layer in sorted(lines)),
    )

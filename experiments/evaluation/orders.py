"""The measurements behind ``experiments.orders``."""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from experiments.benchmarks.timing import count_flops, saved_megabytes
from experiments.evaluation.agents import finished
from experiments.evaluation.intervals import seed_interval
from experiments.evaluation.probe import check_labels
from experiments.evaluation.result_tables import ACCURACIES, is_distilled
from experiments.orders import POLICY, UNTRAINED
from experiments.runs import Run, git_commit, read_manifest, set_aside, write_json
from experiments.training.build import load_split, set_threads
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.presets import PIXEL_TOKENS, RECIPE_SIZES
from experiments.training.trainer import Trainer
from foveate.probes import Attention, extract_features, knn_probe, linear_probe

if TYPE_CHECKING:
    from experiments.orders import OrdersConfig

FREE_IN_TABLE = ("orders", "commit", "threads")
"""Parts of a result in which the rows of a table may differ."""
ATTENTIONS: dict[Attention, str] = {"full": "", "causal": "_causal"}
"""Attentions that are probed, and how their results are marked."""
NUM_COUNTED = 4
"""Steps whose operations are counted: with ties they differ from batch to batch."""


def compare_orders(config: OrdersConfig) -> dict[str, object]:
    """Train and probe a model for every order and seed, print the table, write orders.json."""
    set_threads(config.threads)
    for split in ("train", "test"):
        check_labels(load_split(base_config(config), split, 100), split)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in config.rows}
    plans = {name: planned(config, name) for name in config.rows}
    for seed in config.seeds:
        for name, (plan, operations) in plans.items():
            out = config.out / f"{name.replace(':', '_')}_{seed}"
            plan = plan.replace(out=out, seed=seed)
            rows[name].append(measured(config, plan, operations))
    summaries = {name: summary(runs) for name, runs in rows.items()}
    result: dict[str, object] = {
        "kind": "orders",
        "orders": summaries,
        "data": Path(config.data).name,
        "limit": config.limit,
        "augment": config.augment,
        "recipe": None if config.recipes else config.recipe,
        "target": None if config.recipes else config.target,
        "memory": None if config.recipes else config.parts.memory,
        "teraflops": config.teraflops,
        "precision": config.precision,
        "seeds": config.seeds,
        "probe_train": config.probe_train,
        "probe_test": config.probe_test,
        "threads": torch.get_num_threads(),
        "commit": git_commit(),
    }
    path = config.out / ("recipes.json" if config.recipes else "orders.json")
    summaries = result["orders"] = {**other_rows(path, result), **summaries}
    write_json(path, result)
    what = "recipe" if config.recipes else "order"
    print(f"{what:<28}" + "".join(f"{each:>15}{'95%':>11}" for each in ACCURACIES))
    # Distillations last, which are not to be compared with what sees pixels alone.
    for name, row in sorted(summaries.items(), key=lambda item: is_distilled(item[1])):
        if is_distilled(row):
            name += " (distilled)"
        cells = []
        for probe in ACCURACIES:
            interval = row[f"{probe}_ci95"]
            between = "" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"
            cells.append(f"{row[probe]:10.3f}{between:>16}")
        print(f"{name:<28}{''.join(cells)}")
    print(f"written: {path}")
    return result


def other_rows(path: Path, result: dict[str, object]) -> dict[str, dict[str, Any]]:
    """Rows of an earlier call with the same settings and seeds; a file of others is kept apart."""
    if not path.is_file():
        return {}
    earlier = json.loads(path.read_text())
    settings = json.loads(json.dumps({k: result[k] for k in result if k not in FREE_IN_TABLE}))
    same = all(earlier.get(key) == value for key, value in settings.items())
    rows: dict[str, dict[str, Any]] = earlier["orders"]
    # Rows from before the causal mask was probed do not fit beside new ones.
    if not same or any(not {*ACCURACIES} <= {*row} for row in rows.values()):
        set_aside(path)
        return {}
    return rows


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds' runs, with intervals of the accuracies."""
    row: dict[str, Any] = {"runs": runs}
    for key in ACCURACIES:
        values = [run[key] for run in runs]
        row[key] = statistics.mean(values)
        row[f"{key}_ci95"] = seed_interval(values) if len(values) > 1 else None
    return row


def measured(config: OrdersConfig, plan: TrainConfig, operations: float) -> dict[str, Any]:
    """Train one run, or load it, and probe it."""
    run = finished(plan)
    path = plan.run.out / "probe_orders.json"
    probed = {"probe_train": config.probe_train, "probe_test": config.probe_test}
    if path.is_file():
        stored: dict[str, Any] = json.loads(path.read_text())
        if probed.items() <= stored.items() and "linear_causal" in stored:
            return stored
    result = {
        **probe_best_layer(config, run),
        **compute(run),
        "teraflops": operations / 1e12,
        **probed,
    }
    write_json(path, result)
    return result


def base_config(config: OrdersConfig) -> TrainConfig:
    """What the runs of all rows have in common."""
    return TrainConfig().replace(
        precision=config.precision,
        threads=config.threads,
        data=config.data,
        data_root=config.data_root,
        image_size=config.image_size,
        limit=config.limit,
        augment=config.augment,
        patch_size=config.patch_size,
        embed_dim=config.embed_dim,
        depth=config.depth,
        periphery=0,
        prefix_share=0.0,
        warmup_batch_size=config.batch_size,
        warmup_iterations=1,
        iterations=0,
    )


def planned(config: OrdersConfig, name: str) -> tuple[TrainConfig, float]:
    """Return a row's config, its iterations chosen to fill the budget, and its operations.

    These are the same for all seeds: counted with seed 0.
    """
    untrained = name == UNTRAINED
    base = base_config(config)
    if config.recipes and not untrained:
        sizes = RECIPE_SIZES.get(name, {})
        sizes = {key: sizes[key] for key in PIXEL_TOKENS if key in sizes}
        base = base.replace(recipe=name, **sizes)
        learned = base.parts.queries == "unseen"
    else:
        learned = name == POLICY
        base = base.replace(
            recipe=config.recipe,
            order="random" if learned or untrained else name,
            target=config.target,
            memory=config.memory,
            decoder_depth=config.decoder_depth,
        )
    # In all rows that can be scanned scans are equally long.
    if base.parts.takes_budget:
        base = base.replace(budget=config.budget)
    if untrained:
        return base.replace(model_lr=0.0), 0.0
    total = config.teraflops * 1e12
    plain = flops_per_step(base, joint=False)
    if not learned:
        warmup = steps_within(total, plain, name)
        return base.replace(warmup_iterations=warmup), warmup * plain
    base = base.replace(iterations=1, batch_size=max(1, config.batch_size // 8))
    joint = flops_per_step(base, joint=True)
    warmup, iterations = (steps_within(total / 2, step, name) for step in (plain, joint))
    chosen = base.replace(warmup_iterations=warmup, iterations=iterations)
    return chosen, warmup * plain + iterations * joint


def steps_within(operations: float, per_step: float, name: str) -> int:
    """Training steps that so many operations pay for.

    Raises:
        ValueError: not one.
    """
    if operations < per_step:
        raise ValueError(
            f"{operations / 1e12:.2g} teraflops pay for no training step of {name}, which takes "
            f"{per_step / 1e12:.2g}; raise --teraflops"
        )
    return round(operations / per_step)


def flops_per_step(config: TrainConfig, *, joint: bool) -> float:
    """Count the operations of a training step: model, order, rollouts and policy."""
    with tempfile.TemporaryDirectory() as folder:
        plan = config.replace(
            out=Path(folder),
            warmup_iterations=0 if joint else NUM_COUNTED,
            iterations=NUM_COUNTED if joint else 0,
            limit=min(config.data.limit or 1000, 1000),
        )
        trainer = Trainer(plan, Processes.started(plan.run.device))

        def steps() -> None:
            for _ in range(NUM_COUNTED):
                trainer.step()

        return count_flops(steps) / NUM_COUNTED


def saved_mb(config: TrainConfig) -> float:
    """Memory of the activations that a step on the run's order saves, MB."""
    with tempfile.TemporaryDirectory() as folder:
        plan = config.replace(out=Path(folder), warmup_iterations=1, iterations=0)
        return saved_megabytes(Trainer(plan, Processes.started(plan.run.device)).step)


def probe_best_layer(config: OrdersConfig, run: Run) -> dict[str, Any]:
    """Probe the layer that is best on held-out training images; linear and k-NN on test images.

    With full attention, and (keys ``_causal``) with the mask of raster order.
    """
    train, test = run.split("train", config.probe_train), run.split("test", config.probe_test)
    result: dict[str, Any] = {}
    for attention, suffix in ATTENTIONS.items():
        seen = extract_features(run.model, train, attention=attention)
        unseen = extract_features(run.model, test, attention=attention)
        lines = {
            layer: linear_probe(
                seen[layer], train.labels.numpy(), unseen[layer], test.labels.numpy(), seed=0
            )
            for layer in seen
        }
        best = max(lines, key=lambda layer: lines[layer].validation_accuracy)
        near = knn_probe(seen[best], train.labels.numpy(), unseen[best], test.labels.numpy())
        result |= {
            f"linear{suffix}": lines[best].accuracy,
            f"knn{suffix}": near.accuracy,
            f"layer{suffix}": best + 1,
            f"linear_per_layer{suffix}": [lines[layer].accuracy for layer in sorted(lines)],
        }
    return result


def compute(run: Run) -> dict[str, Any]:
    """What the run took, its mean speed, and the memory of a step on its order."""
    manifest = read_manifest(run.directory)
    config = run.config.replace(limit=1000)
    images = config.optimization.warmup_batch_size * config.optimization.warmup_iterations
    images += config.iterations * config.num_learned
    if config.optimization.model_lr == 0:
        images = 0
    model = run.model.config
    return {
        "parameters": manifest["parameters"]["model"],
        "patches": run.model.num_patches,
        "target": model.target,
        "train_seconds": manifest["train_seconds"],
        "images": images,
        "images_per_s": images / manifest["train_seconds"],
        "saved_mb": saved_mb(config),
        "iterations": [config.optimization.warmup_iterations, config.iterations],
        "commit": manifest["commit"],
    }

"""The measurements behind ``experiments.probe``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from experiments.runs import Run, git_commit, load_run, write_result
from experiments.training.build import build, set_threads
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.orders.semantic import model_ordering
from foveate.probes import (
    Accuracy,
    Attention,
    ChosenAccuracy,
    Stream,
    extract_features,
    hold_out,
    knn_probes,
    linear_probe,
    pixel_features,
)
from foveate.probes.finetuning import FineTuneConfig, fine_tune_probe
from foveate.probes.heads import (
    MAX_TOKEN_BYTES,
    attentive_probe,
    frozen_tokens,
    sgd_probe,
    token_bytes,
)

if TYPE_CHECKING:
    from experiments.probe import ProbeConfig

Pooling = Literal["mean", "cls", "concat"]
POOLINGS: dict[Pooling, str] = {
    "mean": "mean over patches",
    "concat": "means of several layers",
    "cls": "start token",
}
"""In the order of the table, and what results call them."""
Row = dict[str, Accuracy]
"""What each probe makes of one kind of features."""
COLUMNS = {
    "linear": "linear",
    "sgd": "SGD",
    "attentive": "attentive",
    "knn": "k-NN",
    "knn_10": "10-NN",
}
"""Results in the order of the table, and its names for them."""


@dataclass(frozen=True)
class Source:
    """Weights to be probed, with one attention."""

    name: str
    """full, causal, or random_weights."""
    model: AnyOrderTransformer
    attention: Attention

    def label(self, features: str) -> str:
        """Name some of its features."""
        return features if self.name == "full" else f"{self.name}_{features}"


@dataclass(frozen=True)
class View:
    """What is probed of a source."""

    source: Source
    stream: Stream
    pooling: Pooling


@dataclass(frozen=True)
class Bench:
    """A run, its images, and what is to be made of them."""

    config: ProbeConfig
    run: Run
    train: ImageSet
    test: ImageSet
    concat: list[int]
    """Layers that are concatenated, from 0."""

    @property
    def columns(self) -> list[str]:
        """Columns of the table."""
        return [name for name in COLUMNS if name.removesuffix("_10") in self.config.probes]

    def sources(self) -> list[Source]:
        """The run's weights with every attention, full first, and untrained ones with the first."""
        torch.manual_seed(self.config.seed)
        untrained, _ = build(self.run.config, self.train.image_shape)
        # What is no weight, such as a palette, is the run's.
        untrained.load_state_dict(dict(self.run.model.named_buffers()), strict=False)
        kinds: list[Attention] = sorted(self.config.attention, reverse=True)
        sources = [Source(kind, self.run.model, kind) for kind in dict.fromkeys(kinds)]
        return [*sources, Source("random_weights", untrained, sources[0].attention)]

    def views(self, sources: list[Source]) -> list[View]:
        """All that is probed; layers are chosen from the first view."""
        views: list[View] = []
        for source in sources:
            for pooling in POOLINGS if "content" in self.config.stream else ():
                # A start token sees only itself with causal attention.
                blind = pooling == "cls" and source.attention == "causal"
                if pooling in self.config.pooling and not blind:
                    views.append(View(source, "content", pooling))
            if "query" in self.config.stream:
                views.append(View(source, "query", "mean"))
        return views

    def features(self, view: View, images: ImageSet) -> dict[str, np.ndarray]:
        """Features (M, D) by name, such as ``layer_1`` .. ``layer_depth``."""
        layers = extract_features(
            view.source.model,
            images,
            attention=view.source.attention,
            stream=view.stream,
            pooling="cls" if view.pooling == "cls" else "mean",
        )
        label = view.source.label
        if view.stream == "query":
            return {label("query"): layers[0]}
        if view.pooling == "concat":
            return {label("concat"): np.concatenate([layers[i] for i in self.concat], axis=1)}
        name = "layer" if view.pooling == "mean" else "cls_layer"
        return {label(f"{name}_{i + 1}"): values for i, values in layers.items()}

    def vectors(self, seen: np.ndarray, unseen: np.ndarray) -> Row:
        """Probe features that are one vector per image."""
        config, row = self.config, Row()
        data = seen, self.train.labels.numpy(), unseen, self.test.labels.numpy()
        if "linear" in config.probes:
            row["linear"] = linear_probe(*data, seed=config.seed)
        if "sgd" in config.probes:
            row["sgd"] = sgd_probe(*data, seed=config.seed, device=config.device)
        if "knn" in config.probes:
            near = knn_probes(*data)
            row["knn"], row["knn_10"] = near[20], near[10]
        return row

    def attentive(self, view: View, layer: int) -> Accuracy:
        """Probe the patch tokens of one layer."""
        source, stream = view.source, view.stream
        seen, unseen = (
            frozen_tokens(source.model, images, layer, attention=source.attention, stream=stream)
            for images in (self.train, self.test)
        )
        data = seen, self.train.labels.numpy(), unseen, self.test.labels.numpy()
        heads, seed, device = self.run.config.model.num_heads, self.config.seed, self.config.device
        return attentive_probe(*data, num_heads=heads, seed=seed, device=device)

    def rows(self, view: View) -> Iterator[tuple[str, Row]]:
        """Probe one view, layer by layer."""
        seen, unseen = (self.features(view, images) for images in (self.train, self.test))
        for layer, name in enumerate(seen):
            row = self.vectors(seen[name], unseen[name])
            if "attentive" in self.config.probes and view.pooling == "mean":
                row["attentive"] = self.attentive(view, layer)
            yield name, row

    @property
    def commonest_class(self) -> float:
        """Share of the test images that are of the commonest class."""
        return float(self.test.labels.bincount().max()) / len(self.test)

    def fine_tune(self, sources: list[Source]) -> dict[str, object]:
        """Fine-tune a copy of every source, and print how well it does."""
        print("\n" + table_line("accuracy, 95% interval", ["fine-tuned"]))
        results: dict[str, object] = {}
        for source in sources:
            how = tuning(self.config, self.run, source.attention)
            tuned = fine_tune_probe(source.model, self.train, self.test, how, seed=self.config.seed)
            print(table_line(source.name, [shown(tuned)]))
            if tuned.ci95[0] <= self.commonest_class:
                print(
                    f"    no better than the commonest class alone ({self.commonest_class:.3f}): "
                    "too short; raise --finetune-epochs or --train-limit"
                )
            results[source.name] = {**vars(tuned), **asdict(how)}
        return results


def concat_layers(chosen: tuple[int, ...], depth: int) -> list[int]:
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


def tuning(config: ProbeConfig, run: Run, attention: Attention) -> FineTuneConfig:
    """Return how to fine-tune."""
    parts = run.config.parts
    return FineTuneConfig(
        epochs=config.finetune_epochs,
        learning_rates=config.finetune_lr,
        generative_weight=config.generative_weight,
        generative_order=config.generative_order or parts.order,
        order_options=parts.order_options if config.generative_order is None else {},
        generative_budget=run.config.scan.budget if parts.queries == "unseen" else None,
        attention=attention,
    )


def check_labels(images: ImageSet, split: str) -> None:
    """Raise ValueError unless all images of a split have a label."""
    if int(images.labels.min()) < 0:
        raise ValueError(
            f"the {split} split of {images.name} has images without a label, so that nothing "
            "can be probed; train on --data with a label column"
        )


def check_generative(how: FineTuneConfig, run: Run, images: ImageSet) -> None:
    """Raise ValueError unless the model takes the generative loss of a fine-tuning."""
    if run.model.config.target == "features":
        raise ValueError(
            "this model predicts a teacher's features, for which fine-tuning has no teacher; "
            "leave out --generative-weight"
        )
    batch = images.batch(torch.arange(min(2, len(images))), device=run.config.run.device)
    order = model_ordering(how.generative_order, run.model, **how.order_options)
    with torch.no_grad():
        run.model(batch, order(batch))


def table_line(name: str, cells: list[str]) -> str:
    """Write one line of the table."""
    return f"{name:<26}" + "".join(f"{cell:>22}" for cell in cells)


def shown(accuracy: Accuracy | None) -> str:
    """Write an accuracy with its interval, or nothing."""
    if accuracy is None:
        return ""
    return f"{accuracy.accuracy:.3f} [{accuracy.ci95[0]:.3f}, {accuracy.ci95[1]:.3f}]"


def probe_frozen(bench: Bench, sources: list[Source]) -> dict[str, object]:
    """Probe all frozen features and print the table; layers are chosen from the first view."""
    columns = bench.columns
    if "attentive" in columns:
        sizes = [token_bytes(bench.run.model, len(images)) for images in (bench.train, bench.test)]
        train_mb, test_mb, limit_mb = (size / 1e6 for size in (*sizes, MAX_TOKEN_BYTES))
        print(
            f"tokens of a layer in float16: {train_mb:.0f} MB of train, {test_mb:.0f} MB of test; "
            f"above {limit_mb:.0f} MB they are recomputed per batch"
        )
    print("\n" + table_line("accuracy, 95% interval", [COLUMNS[column] for column in columns]))
    rows: dict[str, Row] = {}
    chosen_from: dict[str, Row] = {}
    for view in bench.views(sources):
        for name, row in bench.rows(view):
            rows[name] = row
            print(table_line(name, [shown(row.get(column)) for column in columns]))
        chosen_from = chosen_from or dict(rows)
    pixels = bench.vectors(pixel_features(bench.train), pixel_features(bench.test))
    if pixels:
        rows["pixels"] = pixels
        print(table_line("pixels", [shown(pixels.get(column)) for column in columns]))
    result: dict[str, object] = {
        column: {name: vars(row[column]) for name, row in rows.items() if column in row}
        for column in columns
    }
    for column in columns:
        # The layer is chosen on the held-out part of train: the test set is looked at once per
        # layer, never chosen on.
        found = {
            name: each
            for name, row in chosen_from.items()
            if isinstance(each := row.get(column), ChosenAccuracy)
        }
        if found:
            best = max(found, key=lambda name: found[name].validation_accuracy)
            key = "best" if column == "linear" else f"best_{column}"
            result[key] = {"layer": best, column: found[best].accuracy}
            print(
                f"best layer by held-out training images: {best}, {COLUMNS[column]} accuracy "
                f"{found[best].accuracy:.3f} on {len(bench.test)} test images"
            )
    return result


def probe(config: ProbeConfig) -> dict[str, object]:
    """Probe as configured, print the results, and write them."""
    set_threads(config.threads)
    run = load_run(config.run, config.device)
    # What fine-tuning would refuse fails now rather than after the frozen features.
    how = tuning(config, run, "full")
    with_concat = "concat" in config.pooling
    concat = concat_layers(config.concat_layers, run.config.model.depth) if with_concat else []
    train, test = run.split("train", config.train_limit), run.split("test", config.test_limit)
    for split, images in (("train", train), ("test", test)):
        check_labels(images, split)
    if how.generative_weight > 0:
        check_generative(how, run, train)
    if {*config.probes} != {"knn"}:
        hold_out(train.labels.numpy(), config.seed)
    bench = Bench(config, run, train, test, concat)
    sources = bench.sources()
    result = probe_frozen(bench, sources) if bench.columns else {}
    if "finetune" in config.probes:
        result["finetune"] = bench.fine_tune(sources)
    result |= {
        "dataset": run.config.data.data if run.config.data.data.isidentifier() else test.name,
        "train_images": len(train),
        "test_images": len(test),
        "pooling": "; ".join(POOLINGS[kind] for kind in config.pooling),
        "seed": config.seed,
        "commit": git_commit(),
        **({"concat_layers": [layer + 1 for layer in concat]} if with_concat else {}),
    }
    write_result(config.output, result, run, config)
    print(f"written: {config.output}")
    return result

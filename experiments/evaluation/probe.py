"""Probe a run: what do its frozen features, or its fine-tuned weights, know of the classes?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from experiments.evaluation.probe_options import Pooling, Probe, ProbeOptions
from experiments.evaluation.probe_result import COLUMNS, FineTuned, ProbeResult, best_of
from experiments.runs import Run, git_commit
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.orders.semantic import model_ordering
from foveate.probes import (
    Accuracy,
    Attention,
    Stream,
    extract_features,
    hold_out,
    knn_probes,
    linear_probe,
    pixel_features,
)
from foveate.probes.finetuning import FineTuneConfig, fine_tune_probe
from foveate.probes.heads import attentive_probe, frozen_tokens, sgd_probe, token_bytes

POOLINGS: dict[Pooling, str] = {
    "mean": "mean over patches",
    "concat": "means of several layers",
    "cls": "start token",
}
"""In the order of the table, and what results call them."""
Part = TypeVar("Part")
Row = dict[str, Accuracy]
"""What each probe makes of one kind of features."""


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

    options: ProbeOptions
    run: Run
    train: ImageSet
    test: ImageSet
    concat: list[int]
    """Layers that are concatenated, from 0."""

    @property
    def columns(self) -> list[str]:
        """Columns of the table."""
        return [name for name in COLUMNS if name.removesuffix("_10") in self.options.probes]

    def sources(self) -> list[Source]:
        """The run's weights with every attention, full first, and untrained ones with the first."""
        torch.manual_seed(self.options.seed)
        untrained = self.run.untrained_model(self.train.image_shape)
        kinds: list[Attention] = sorted(self.options.attention, reverse=True)
        sources = [Source(kind, self.run.model, kind) for kind in dict.fromkeys(kinds)]
        return [*sources, Source("random_weights", untrained, sources[0].attention)]

    def views(self, sources: list[Source]) -> list[View]:
        """All that is probed; layers are chosen from the first view."""
        views: list[View] = []
        for source in sources:
            for pooling in POOLINGS if "content" in self.options.stream else ():
                # A start token sees only itself with causal attention.
                blind = pooling == "cls" and source.attention == "causal"
                if pooling in self.options.pooling and not blind:
                    views.append(View(source, "content", pooling))
            if "query" in self.options.stream:
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
        options, row = self.options, Row()
        data = seen, self.train.labels.numpy(), unseen, self.test.labels.numpy()
        if "linear" in options.probes:
            row["linear"] = linear_probe(*data, seed=options.seed)
        if "sgd" in options.probes:
            row["sgd"] = sgd_probe(*data, seed=options.seed, device=self.run.device)
        if "knn" in options.probes:
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
        heads = self.run.model.config.num_heads
        return attentive_probe(
            *data, num_heads=heads, seed=self.options.seed, device=self.run.device
        )

    def rows(self, view: View) -> Iterator[tuple[str, Row]]:
        """Probe one view, layer by layer."""
        seen, unseen = (self.features(view, images) for images in (self.train, self.test))
        for layer, name in enumerate(seen):
            row = self.vectors(seen[name], unseen[name])
            if "attentive" in self.options.probes and view.pooling == "mean":
                row["attentive"] = self.attentive(view, layer)
            yield name, row

    @property
    def commonest_class(self) -> float:
        """Share of the test images that are of the commonest class."""
        return float(self.test.labels.bincount().max()) / len(self.test)

    def fine_tune(self, sources: list[Source]) -> dict[str, FineTuned]:
        """Fine-tune a copy of every source."""
        results: dict[str, FineTuned] = {}
        for source in progress(sources, "fine-tuning"):
            how = tuning(self.options, self.run, source.attention)
            seed = self.options.seed
            tuned = fine_tune_probe(source.model, self.train, self.test, how, seed=seed)
            results[source.name] = FineTuned(**vars(tuned), **vars(how))
        return results


def progress(parts: list[Part], what: str) -> Iterable[Part]:
    """Show a progress bar on a terminal."""
    bar: Iterable[Part] = tqdm(parts, desc=what, disable=None)
    return bar


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


def tuning(options: ProbeOptions, run: Run, attention: Attention) -> FineTuneConfig:
    """Return how to fine-tune."""
    parts = run.parts
    return FineTuneConfig(
        epochs=options.finetune_epochs,
        learning_rates=options.finetune_lr,
        generative_weight=options.generative_weight,
        generative_order=options.generative_order or parts.order,
        order_options=parts.order_options if options.generative_order is None else {},
        generative_budget=run.budget if parts.queries == "unseen" else None,
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
    batch = images.batch(torch.arange(min(2, len(images))), device=torch.device(run.device))
    order = model_ordering(how.generative_order, run.model, **how.order_options)
    with torch.no_grad():
        run.model(batch, order(batch))


def probe_frozen(bench: Bench, sources: list[Source]) -> dict[str, Any]:
    """Probe all frozen features; layers are chosen from the first view.

    Returns:
        Fields of the result.
    """
    rows: dict[str, Row] = {}
    first_view: dict[str, Row] = {}
    for view in progress(bench.views(sources), "probing"):
        rows |= dict(bench.rows(view))
        first_view = first_view or dict(rows)
    pixels = bench.vectors(pixel_features(bench.train), pixel_features(bench.test))
    if pixels:
        rows["pixels"] = pixels
    found: dict[str, Any] = {
        column: {name: row[column] for name, row in rows.items() if column in row}
        for column in bench.columns
    }
    for field, column in (("best", "linear"), ("best_sgd", "sgd"), ("best_attentive", "attentive")):
        found[field] = best_of(first_view, column)
    if "attentive" in bench.columns:
        found["token_megabytes"] = tuple(
            token_bytes(bench.run.model, len(images)) / 1e6 for images in (bench.train, bench.test)
        )
    return found


def probe(
    run: Run,
    *,
    probes: tuple[Probe, ...] = ("linear", "knn"),
    attention: tuple[Attention, ...] = ("full", "causal"),
    stream: tuple[Stream, ...] = ("content",),
    pooling: tuple[Pooling, ...] = ("mean",),
    concat_layers: tuple[int, ...] = (4,),
    finetune_epochs: int = 5,
    finetune_lr: tuple[float, ...] = (1e-3, 3e-3),
    generative_weight: float = 0.0,
    generative_order: str | None = None,
    train_limit: int = 10000,
    test_limit: int | None = None,
    seed: int = 0,
) -> ProbeResult:
    """Probe the features of a run, beside raw pixels and untrained weights.

    :class:`~experiments.evaluation.probe_options.ProbeOptions` says what the options mean.

    Raises:
        ValueError: options that have no effect or do not fit, or images without labels.
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
        train_limit=train_limit,
        test_limit=test_limit,
        seed=seed,
    )
    bench = prepare(run, options)
    sources = bench.sources()
    found = probe_frozen(bench, sources) if bench.columns else {}
    if "finetune" in probes:
        found["finetune"] = bench.fine_tune(sources)
    return ProbeResult(
        **found,
        dataset=run.dataset(bench.test),
        train_images=len(bench.train),
        test_images=len(bench.test),
        pooling="; ".join(POOLINGS[kind] for kind in pooling),
        seed=seed,
        concat_layers=tuple(layer + 1 for layer in bench.concat) or None,
        commonest_class=bench.commonest_class,
        commit=git_commit(),
        iteration=run.iteration,
        options=asdict(options),
    )


def prepare(run: Run, options: ProbeOptions) -> Bench:
    """Load the images. What a later probe would refuse is refused before the first."""
    how = tuning(options, run, "full")
    depth, with_concat = run.model.config.depth, "concat" in options.pooling
    concat = layers_to_concat(options.concat_layers, depth) if with_concat else []
    train, test = run.split("train", options.train_limit), run.split("test", options.test_limit)
    for split, images in (("train", train), ("test", test)):
        check_labels(images, split)
    if how.generative_weight > 0:
        check_generative(how, run, train)
    if {*options.probes} != {"knn"}:
        hold_out(train.labels.numpy(), options.seed)
    return Bench(options, run, train, test, concat)

"""Every view of a run that is probed: weights and attention, stream, and pooling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments.evaluation.probe.options import Pooling, ProbeOptions
from experiments.evaluation.probe.result import FineTuned
from experiments.evaluation.progress import progress
from experiments.evaluation.questions import NEIGHBORS
from experiments.runs import Run
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.probes import (
    Accuracy,
    Attention,
    States,
    check_features,
    extract_features,
    knn_probes,
    linear_probe,
)
from foveate.probes.attentive import attentive_probe, frozen_tokens
from foveate.probes.finetuning import FineTuneConfig, fine_tune_probe
from foveate.probes.heads import sgd_probe

POOLINGS: dict[Pooling, str] = {
    "mean": "mean over patches",
    "concat": "means of several layers",
    "cls": "start token",
}
"""In the order of the table, and what results call them."""
Row = dict[str, Accuracy]
"""What each probe makes of one kind of features."""


@dataclass(frozen=True)
class Variant:
    """Weights that are probed, with one attention."""

    name: str
    """full, causal, or random_weights."""
    model: AnyOrderTransformer
    attention: Attention

    def label(self, features: str) -> str:
        """Name some of its features."""
        return features if self.name == "full" else f"{self.name}_{features}"


@dataclass(frozen=True)
class View:
    """Features that are probed of a variant."""

    variant: Variant
    states: States
    pooling: Pooling


@dataclass(frozen=True)
class Probing:
    """What is probed: a run and its images, with the options."""

    options: ProbeOptions
    run: Run
    train: ImageSet
    test: ImageSet
    concat: list[int]
    """Layers that are concatenated, from 0."""
    columns: list[str]
    """What is probed of frozen features, as the table calls it."""

    def variants(self) -> list[Variant]:
        """The run's weights with every attention, full first, and untrained ones with the first."""
        untrained = self.run.untrained_model(self.train.image_shape, self.options.seed)
        kinds: list[Attention] = sorted(self.options.attention, reverse=True)
        variants = [Variant(kind, self.run.model, kind) for kind in dict.fromkeys(kinds)]
        return [*variants, Variant("random_weights", untrained, variants[0].attention)]

    def views(self, variants: list[Variant]) -> list[View]:
        """All that is probed; layers are chosen from the first view."""
        views: list[View] = []
        for variant in variants:
            for pooling in POOLINGS if "content" in self.options.stream else ():
                # A start token sees only itself with causal attention.
                blind = pooling == "cls" and variant.attention == "causal"
                if pooling in self.options.pooling and not blind:
                    views.append(View(variant, "content", pooling))
            if "query" in self.options.stream:
                views.append(View(variant, "query", "mean"))
        return views

    def num_rows(self, view: View) -> int:
        """Return how many rows :meth:`rows` makes of a view."""
        each_layer = view.states == "content" and view.pooling != "concat"
        return self.run.model.config.depth if each_layer else 1

    def features(self, view: View, images: ImageSet) -> dict[str, np.ndarray]:
        """Features (M, D) by name, such as ``layer_1`` .. ``layer_depth``."""
        layers = extract_features(
            view.variant.model,
            images,
            attention=view.variant.attention,
            states=view.states,
            pooling="cls" if view.pooling == "cls" else "mean",
        )
        label = view.variant.label
        if view.states == "query":
            return {label("query"): layers[0]}
        if view.pooling == "concat":
            return {label("concat"): np.concatenate([layers[i] for i in self.concat], axis=1)}
        name = "layer" if view.pooling == "mean" else "cls_layer"
        return {label(f"{name}_{i + 1}"): values for i, values in layers.items()}

    def vectors(self, seen: np.ndarray, unseen: np.ndarray) -> Row:
        """Probe features that are one vector per image."""
        check_features(seen, unseen)
        seed, row = self.options.seed, Row()
        data = seen, self.train.labels.numpy(), unseen, self.test.labels.numpy()
        if "linear" in self.columns:
            row["linear"] = linear_probe(*data, seed=seed)
        if "sgd" in self.columns:
            row["sgd"] = sgd_probe(*data, seed=seed, device=self.run.device)
        neighbors = {name: k for name, k in NEIGHBORS.items() if name in self.columns}
        if neighbors:
            near = knn_probes(*data, neighbors=tuple(neighbors.values()))
            row |= {name: near[k] for name, k in neighbors.items()}
        return row

    def attentive(self, view: View, layer: int) -> Accuracy:
        """Probe the patch tokens of one layer."""
        variant, states = view.variant, view.states
        seen, unseen = (
            frozen_tokens(variant.model, images, layer, attention=variant.attention, states=states)
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
            if "attentive" in self.columns and view.pooling == "mean":
                row["attentive"] = self.attentive(view, layer)
            yield name, row

    @property
    def commonest_class(self) -> float:
        """Share of the test images that are of the commonest class."""
        return float(self.test.labels.bincount().max()) / len(self.test)

    def fine_tune(self, variants: list[Variant]) -> dict[str, FineTuned]:
        """Fine-tune a copy of every variant."""
        results: dict[str, FineTuned] = {}
        for variant in progress(variants, "fine-tuning", "network"):
            how = tuning(self.options, self.run, variant.attention)
            seed = self.options.seed
            tuned = fine_tune_probe(variant.model, self.train, self.test, how, seed=seed)
            results[variant.name] = FineTuned(**vars(tuned), **vars(how))
        return results


def tuning(options: ProbeOptions, run: Run, attention: Attention) -> FineTuneConfig:
    """Return how to fine-tune; the generative loss is that which the model learned from."""
    parts, config = run.parts, run.config
    is_unseen = parts.queries == "unseen"
    return FineTuneConfig(
        epochs=options.finetune_epochs,
        learning_rates=options.finetune_lr,
        generative_weight=options.generative_weight,
        generative_order=options.generative_order or parts.order,
        order_options=parts.order_options if options.generative_order is None else {},
        generative_fixation_size=config.scan.fixation_size if parts.takes_budget else 1,
        generative_budget=run.budget if is_unseen else config.teaching.encode_first,
        attention=attention,
    )

"""The measurements behind ``experiments.probe``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from experiments.run import build, git_commit, load_run, set_threads, write_json
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.probes import extract_features, knn_probe, linear_probe, pixel_features

if TYPE_CHECKING:
    import numpy as np

    from experiments.probe import ProbeConfig


def probe(config: ProbeConfig) -> dict[str, object]:
    """Probe every layer, print the table, and write probe.json."""
    set_threads(config.threads)
    run = load_run(config.run, config.device)
    train, test = run.split("train", config.train_limit), run.split("test", config.test_limit)
    for split, images in (("train", train), ("test", test)):
        if int(images.labels.min()) < 0:
            raise ValueError(
                f"the {split} split of {images.name} has images without a label, so that nothing "
                "can be probed; train on --data with a label column"
            )

    torch.manual_seed(config.seed)
    untrained, _ = build(run.config, train.image_shape)
    sources: dict[str, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = {
        "full": (features(run.model, train, "full"), features(run.model, test, "full")),
        "causal": (features(run.model, train, "causal"), features(run.model, test, "causal")),
        "random_weights": (features(untrained, train, "full"), features(untrained, test, "full")),
        "pixels": ({"": pixel_features(train)}, {"": pixel_features(test)}),
    }
    linear: dict[str, object] = {}
    knn: dict[str, object] = {}
    accuracy: dict[str, tuple[float, float]] = {}
    print(f"\n{'features':<24}{'linear':>8}{'95% interval':>18}{'k-NN':>8}")
    for source, (seen, unseen) in sources.items():
        for layer, trained_on in seen.items():
            name = "_".join(part for part in (source if source != "full" else "", layer) if part)
            line = linear_probe(
                trained_on,
                train.labels.numpy(),
                unseen[layer],
                test.labels.numpy(),
                seed=config.seed,
            )
            near = knn_probe(trained_on, train.labels.numpy(), unseen[layer], test.labels.numpy())
            linear[name], knn[name] = vars(line), vars(near)
            accuracy[name] = (line.validation_accuracy, line.accuracy)
            low, high = line.ci95
            print(f"{name:<24}{line.accuracy:8.3f}    [{low:.3f}, {high:.3f}]{near.accuracy:8.3f}")
    # The layer is chosen on the held-out part of train: the test set is looked at once per layer,
    # never chosen on.
    layers = [name for name in accuracy if name.startswith("layer_")]
    best = max(layers, key=lambda name: accuracy[name][0])
    result: dict[str, object] = {
        "linear": linear,
        "knn": knn,
        "best": {"layer": best, "linear": accuracy[best][1]},
        "dataset": run.config.data if run.config.data.isidentifier() else test.name,
        "train_images": len(train),
        "test_images": len(test),
        "pooling": "mean over patches",
        "seed": config.seed,
        "commit": git_commit(),
    }
    write_json(config.run / "probe.json", result)
    print(
        f"best layer by held-out training images: {best}, "
        f"linear accuracy {accuracy[best][1]:.3f} on {len(test)} test images"
    )
    print(f"written: {config.run / 'probe.json'}")
    return result


def features(
    model: AnyOrderTransformer, images: ImageSet, attention: Literal["full", "causal"]
) -> dict[str, np.ndarray]:
    """Mean-pooled features, (M, D) for each ``layer_1`` .. ``layer_depth``."""
    layers = extract_features(model, images, attention=attention)
    return {f"layer_{layer + 1}": values for layer, values in layers.items()}

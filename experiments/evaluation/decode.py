"""The measurements behind ``experiments.decode``."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from experiments.evaluation.intervals import seed_interval
from experiments.runs import Run, git_commit, load_run, read_manifest, write_result
from experiments.training.build import set_threads
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.model.parallel_decoding import (
    Schedule,
    decode_in_order,
    decode_in_parallel,
    frechet_distance,
    search_schedule,
)
from foveate.orders import ordering, rank_to_order

if TYPE_CHECKING:
    from experiments.decode import DecodeConfig

Decode = Callable[[Float[Tensor, "B C H W"], torch.Generator], Float[Tensor, "B C H W"]]


def decode(config: DecodeConfig) -> dict[str, object]:
    """Generate by every schedule, print the table, write decode.json."""
    set_threads(config.threads)
    run, manifest = load_run(config.run), read_manifest(config.run)
    model = run.model
    if model.config.stream != "masked" or model.config.target != "colors":
        raise ValueError(
            f"the model in {config.run} decodes no palette from a masked stream; "
            "train one with: python -m experiments.train autonat"
        )
    most = max(*config.passes, config.search_passes if config.search else 1)
    if most > model.num_patches:
        raise ValueError(f"{model.num_patches} patches take at most as many passes, got {most}")
    other = None if config.against is None else load_run(config.against)
    if other is not None:
        check_comparable(other, run)
    reference = features(model, run.split("test", 2000))
    contenders = {
        f"parallel, {passes} passes": (passes, parallel(model, Schedule.cosine(passes)))
        for passes in config.passes
    }
    searched: dict[str, object] = {}
    if config.search:
        best, distances = searched_schedule(config, model, run.split("train", 2000))
        name = f"parallel, {config.search_passes} passes, searched"
        contenders[name] = config.search_passes, parallel(model, best)
        searched = {"schedule": dataclasses.asdict(best), "distances": distances}
    if config.one_by_one:
        number = model.num_patches
        contenders[f"one by one, {number} passes"] = number, one_by_one(model)
    if other is not None:
        number = other.model.num_patches
        name = f"autoregressive model, {number} passes"
        contenders[name] = number, one_by_one(other.model, "raster")
    rows: dict[str, dict[str, Any]] = {}
    print(f"{'decoding':<34}{'passes':>8}{'s/image':>10}{'distance':>12}{'95% interval':>24}")
    for name, (passes, run_decoding) in contenders.items():
        row = rows[name] = {"passes": passes, **measured(config, model, run_decoding, reference)}
        low, high = row["distance_ci95"]
        print(
            f"{name:<34}{passes:>8}{row['seconds_per_image']:>10.4f}{row['distance']:>12.3f}"
            f"{f'[{low:.3f}, {high:.3f}]':>24}"
        )
    result: dict[str, object] = {
        "kind": "decode",
        "decodings": rows,
        "searched": searched,
        "data": Path(run.config.data.data).name,
        "train_seconds": manifest.get("train_seconds"),
        "against_train_seconds": None
        if other is None
        else read_manifest(other.directory).get("train_seconds"),
        "num_patches": model.num_patches,
        "num_images": config.num_images,
        "repeats": config.repeats,
        "threads": torch.get_num_threads(),
        "seed": config.seed,
        "commit": git_commit(),
    }
    write_result(config.run / "decode.json", result, run, config)
    print(f"written: {config.run / 'decode.json'}")
    return result


def measured(
    config: DecodeConfig,
    model: AnyOrderTransformer,
    run_decoding: Decode,
    reference: Float[np.ndarray, "M D"],
) -> dict[str, Any]:
    """Seconds and distance of what a decoding generates, over repetitions."""
    distances, seconds = [], []
    for repeat in range(config.repeats):
        generator = torch.Generator().manual_seed(config.seed + 1 + repeat)
        started = time.perf_counter()
        images = generate(model, run_decoding, config.num_images, generator)
        seconds.append((time.perf_counter() - started) / config.num_images)
        distances.append(frechet_distance(pooled(model, images), reference))
    return {
        "seconds_per_image": statistics.median(seconds),
        "distance": statistics.mean(distances),
        "distance_ci95": seed_interval(distances),
    }


def parallel(model: AnyOrderTransformer, schedule: Schedule) -> Decode:
    """Return decoding by a schedule."""

    def run(canvas: Float[Tensor, "B C H W"], generator: torch.Generator) -> Tensor:
        hidden = torch.ones(len(canvas), model.num_patches, dtype=torch.bool)
        return decode_in_parallel(model, canvas, hidden, schedule, generator=generator)

    return run


def one_by_one(model: AnyOrderTransformer, name: str = "random") -> Decode:
    """Return decoding of one patch per pass, in an order of foveate.orders."""

    def run(canvas: Float[Tensor, "B C H W"], generator: torch.Generator) -> Tensor:
        order = rank_to_order(ordering(name, model.grid)(canvas, generator=generator))
        return decode_in_order(model, canvas, order, generator=generator)

    return run


def check_comparable(other: Run, run: Run) -> None:
    """Raise ValueError unless another model is autoregressive, of a palette and the same images."""
    parts = other.model.config
    kind = parts.stream == "causal" and parts.target == "colors"
    images = [
        (
            Path(each.config.data.data).name,
            each.model.config.in_chans,
            *each.model.config.image_size,
        )
        for each in (other, run)
    ]
    if not kind or images[0] != images[1]:
        data, *shape = images[1]
        raise ValueError(
            f"--against needs a causal model of a palette, as of recipe igpt, of {data} in shape "
            f"{tuple(shape)}; {other.directory} holds another"
        )


def generate(
    model: AnyOrderTransformer, run: Decode, num_images: int, generator: torch.Generator
) -> Float[Tensor, "B C H W"]:
    """Generate images from nothing."""
    shape = (model.config.in_chans, *model.config.image_size)
    parts = torch.zeros(num_images, *shape).split(64)
    return torch.cat([run(part, generator) for part in parts])


@torch.no_grad()
def pooled(
    model: AnyOrderTransformer, images: Float[Tensor, "B C H W"]
) -> Float[np.ndarray, "B D"]:
    """Mean features of images, as the model's palette shows them."""
    parts = [model.features(part)[-1].mean(1) for part in images.split(250)]
    values: Float[np.ndarray, "B D"] = torch.cat(parts).double().numpy()
    return values


def features(model: AnyOrderTransformer, images: ImageSet) -> Float[np.ndarray, "M D"]:
    """Mean features of a set."""
    return pooled(model, images.batch(torch.arange(len(images))))


def searched_schedule(
    config: DecodeConfig, model: AnyOrderTransformer, train: ImageSet
) -> tuple[Schedule, list[float]]:
    """Search for a schedule by the distance to training images."""
    reference = features(model, train)

    def distance(schedule: Schedule) -> float:
        generator = torch.Generator().manual_seed(config.seed)
        images = generate(model, parallel(model, schedule), config.num_images, generator)
        return frechet_distance(pooled(model, images), reference)

    return search_schedule(
        Schedule.cosine(config.search_passes), distance, num_updates=config.search
    )

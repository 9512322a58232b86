"""Quality and time of decodings: in parallel by a schedule, and one patch per pass."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from experiments.evaluation.generation import (
    Decoding,
    features,
    generate,
    parallel,
    patch_by_patch,
    pooled,
)
from experiments.evaluation.intervals import Interval, seed_interval
from experiments.evaluation.run_result import RunResult, minutes
from experiments.run_folder import git_commit
from experiments.runs import Run
from experiments.tables import Table, plural, short_commit, with_interval
from foveate.model import AnyOrderTransformer
from foveate.model.parallel_decoding import DecodingSchedule, frechet_distance, search_schedule


@dataclass(frozen=True, kw_only=True)
class DecodingScore:
    """What a decoding takes, and how good its images are."""

    passes: int
    """Forward passes."""
    seconds_per_image: float
    """Median over repetitions."""
    distance: float
    """Frechet distance of the model's mean features to those of test images."""
    distance_ci95: Interval | None
    """Over repetitions."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What the search for a schedule found."""

    schedule: DecodingSchedule | None = None
    """The best that it met; None = nothing was searched."""
    distances: tuple[float, ...] = ()
    """To training images, at its start and after every update."""


@dataclass(frozen=True, kw_only=True)
class DecodeResult(RunResult):
    """Decodings by their number of passes."""

    kind: ClassVar[str] = "decode"

    decodings: dict[str, DecodingScore]
    searched: Searched = Searched()
    data: str
    train_seconds: float | None
    against_train_seconds: float | None = None
    """Of the autoregressive model; None = there is none, or its time is unknown."""
    num_patches: int
    num_images: int
    """Generated in each repetition."""
    repeats: int
    threads: int
    seed: int
    commit: str

    def tables(self) -> list[Table]:
        """Return decodings by their number of passes."""
        trained = minutes(self.train_seconds)
        if self.against_train_seconds is not None:
            trained += f" (the autoregressive one for {minutes(self.against_train_seconds)})"
        return [
            Table(
                caption=f"A model of {self.data}, trained for {trained}: {self.num_images} "
                f"images of {self.num_patches} patches, {self.repeats} repetitions, "
                f"distances by this model's features, "
                f"{plural(self.threads, 'CPU thread')}, commit `{short_commit(self.commit)}`.",
                columns=(
                    "decoding",
                    "forward passes",
                    "s/image",
                    "Frechet distance, 95% interval",
                ),
                rows=tuple(
                    (
                        name,
                        str(row.passes),
                        f"{row.seconds_per_image:.4f}",
                        with_interval(row.distance, row.distance_ci95),
                    )
                    for name, row in self.decodings.items()
                ),
            )
        ]


def decode(
    run: Run,
    *,
    passes: tuple[int, ...] = (1, 2, 4, 8, 16),
    num_images: int = 256,
    repeats: int = 3,
    one_by_one: bool = True,
    against: Run | None = None,
    search: int = 0,
    search_passes: int = 4,
    seed: int = 0,
) -> DecodeResult:
    """Generate images by every decoding, and measure time and distance to test images.

    Args:
        run: its model has a masked stream and a palette.
        passes: numbers of forward passes, one or more.
        num_images: images generated for each distance, two or more.
        repeats: times that each is generated, with other noise, two or more.
        one_by_one: whether to decode one patch per pass as well.
        against: an autoregressive run of the same images; None = none.
        search: updates of the search for a schedule of ``search_passes``; 0 = no search.
        search_passes: passes of the schedule that is searched for.
        seed: of all noise.

    Raises:
        ValueError: a model is of another kind, or has fewer patches than passes, or there are none.
    """
    model = run.model
    check_decodable(run, (*passes, search_passes) if search and passes else passes)
    if against is not None:
        check_comparable(against, run)
    schedules = {f"parallel, {each} passes": DecodingSchedule.cosine(each) for each in passes}
    asked = run, search_passes, search, num_images, seed
    searched = searched_schedule(*asked) if search else Searched()
    if searched.schedule is not None:
        schedules[f"parallel, {search_passes} passes, searched"] = searched.schedule
    decodings = in_parallel(model, schedules) | sequential(model if one_by_one else None, against)
    seeds = range(seed + 1, seed + 1 + repeats)
    return DecodeResult(
        decodings=measured(run, decodings, num_images=num_images, seeds=seeds),
        searched=searched,
        against_train_seconds=None if against is None else against.train_seconds,
        num_images=num_images,
        repeats=repeats,
        threads=torch.get_num_threads(),
        seed=seed,
        **facts_of(run),
        options={
            "passes": passes,
            "num_images": num_images,
            "repeats": repeats,
            "one_by_one": one_by_one,
            "against": None if against is None else against.directory,
            "search": search,
            "search_passes": search_passes,
            "seed": seed,
            **run.data_options,
        },
    )


def facts_of(run: Run) -> dict[str, Any]:
    """Fields of a result that are the run's and the code's."""
    return {
        "data": run.data,
        "train_seconds": run.train_seconds,
        "num_patches": run.model.num_patches,
        "commit": git_commit(),
        "iteration": run.iteration,
    }


def in_parallel(
    model: AnyOrderTransformer, schedules: dict[str, DecodingSchedule]
) -> dict[str, tuple[int, Decoding]]:
    """Return decodings by schedules, with their passes."""
    return {name: (each.num_passes, parallel(model, each)) for name, each in schedules.items()}


def sequential(
    model: AnyOrderTransformer | None, other: Run | None
) -> dict[str, tuple[int, Decoding]]:
    """Return decodings of one patch per pass, with their passes: by a model, and by another run."""
    decodings = {}
    if model is not None:
        name = f"one by one, {model.num_patches} passes"
        decodings[name] = model.num_patches, patch_by_patch(model)
    if other is not None:
        name = f"autoregressive model, {other.model.num_patches} passes"
        decodings[name] = other.model.num_patches, patch_by_patch(other.model, "raster")
    return decodings


def measured(
    run: Run, decodings: dict[str, tuple[int, Decoding]], *, num_images: int, seeds: range
) -> dict[str, DecodingScore]:
    """Measure what decodings generate, once for every seed, against test images.

    Args:
        run: whose model measures the distance.
        decodings: passes, and what fills the canvas.
        num_images: images of each repetition.
        seeds: of the noise, one per repetition.
    """
    reference = features(run.model, run.split("test", 2000))
    results = {}
    for name, (passes, decoding) in decodings.items():
        distances, seconds = [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            started = time.perf_counter()
            images = generate(run.model, decoding, num_images, generator)
            if images.is_cuda:
                torch.cuda.synchronize(images.device)
            seconds.append((time.perf_counter() - started) / num_images)
            distances.append(frechet_distance(pooled(run.model, images), reference))
        results[name] = DecodingScore(
            passes=passes,
            seconds_per_image=statistics.median(seconds),
            distance=statistics.mean(distances),
            distance_ci95=seed_interval(distances),
        )
    return results


def check_decodable(run: Run, passes: tuple[int, ...]) -> None:
    """Raise ValueError unless a model decodes a palette from a masked stream, in so many passes."""
    if not passes or min(passes) < 1:
        raise ValueError("there must be one number of passes or more, and each at least 1")
    parts, num_patches = run.model.config, run.model.num_patches
    if parts.stream != "masked" or parts.target != "colors":
        raise ValueError(
            f"the model in {run.directory} decodes no palette from a masked stream; "
            "train one with: python -m experiments.train autonat"
        )
    if max(passes) > num_patches:
        raise ValueError(f"{num_patches} patches take at most as many passes, got {max(passes)}")


def check_comparable(other: Run, run: Run) -> None:
    """Raise ValueError unless a run is autoregressive, of a palette and of the same images.

    It decodes one patch after the other, row by row, and so must have learned, from the first to
    the last.
    """
    parts, learned = other.model.config, other.config.parts
    kind = (
        parts.stream == "causal"
        and parts.target == "colors"
        and parts.queries == "own"
        and parts.predict_first
        and other.config.teaching.encode_first is None
        and learned.order in ("raster", "random")
    )
    images = [
        (each.data, each.model.config.in_chans, *each.model.config.image_size)
        for each in (other, run)
    ]
    if not kind or images[0] != images[1]:
        data, *shape = images[1]
        raise ValueError(
            "--against needs a causal model of a palette that learned raster or random order, as "
            f"of recipe igpt, of {data} in shape "
            f"{tuple(shape)}; {other.directory} holds another"
        )


def searched_schedule(
    run: Run, passes: int, num_updates: int, num_images: int, seed: int
) -> Searched:
    """Search for a schedule by the distance to training images, with the same noise every time."""
    model = run.model
    reference = features(model, run.split("train", 2000))

    def distance(schedule: DecodingSchedule) -> float:
        generator = torch.Generator().manual_seed(seed)
        images = generate(model, parallel(model, schedule), num_images, generator)
        return frechet_distance(pooled(model, images), reference)

    schedule, distances = search_schedule(
        DecodingSchedule.cosine(passes), distance, num_updates=num_updates
    )
    return Searched(schedule=schedule, distances=tuple(distances))

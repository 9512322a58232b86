"""How much of an image's captions is known after k fixations, and whose fixations tell most."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from experiments.evaluation.caption.asking import CaptionAsking
from experiments.evaluation.caption.means import Told, found
from experiments.evaluation.caption.options import (
    CANDIDATES,
    FIXATIONS,
    ORDERS,
    check_caption_options,
)
from experiments.evaluation.caption.result import CaptionResult, Written
from experiments.evaluation.caption.retrieval import chances
from experiments.evaluation.recognition.paths import PathMakers
from experiments.evaluation.scanpaths import pixels_of
from experiments.evaluation.seeds import runs_of, several
from experiments.run_folder import git_commit, read_manifest
from experiments.runs import Run
from foveate.data import ImageSet
from foveate.data.subwords import normalized
from foveate.data.texts import captions_in, subwords_of
from foveate.orders import order_to_rank


@dataclass(frozen=True)
class CaptionExample:
    """An image with what was written of it, to be drawn."""

    image: Float[Tensor, "C H W"]
    order: Int[Tensor, "T *S"]
    grid: tuple[int, int]
    written: Written


def caption(
    run: Run | Sequence[Run],
    *,
    fixations: tuple[int, ...] = FIXATIONS,
    orders: tuple[str, ...] = ORDERS,
    limit: int = 1000,
    retrieval_limit: int = 1000,
    candidates: int = CANDIDATES,
    examples: int = 4,
    seed: int = 0,
) -> tuple[CaptionResult, list[CaptionExample]]:
    """Ask models about the captions of test images; images without captions are left out.

    What a model answered is kept in its run folder, and not asked again.

    Args:
        run: its model writes captions; several runs differ in their seeds alone.
        fixations: numbers of them after which it is asked; those above the budget are left out.
        orders: whose fixations beside the policy's.
        limit: test images.
        retrieval_limit: the first test images, which are retrieved; 0 = no retrieval.
        candidates: captions of an image, and images of a caption, that are asked about in full; the
            others are estimated from few. 0 = all are asked about.
        examples: the first test images, of which the first run writes captions.
        seed: of the images that others' captions and paths come from, and of the few.

    Raises:
        ValueError: the model writes no captions, the images have none, an option is wrong, or the
            runs are not of one kind or know other test images.
    """
    check_caption_options(fixations, limit, retrieval_limit, candidates, examples)
    runs = runs_of(run)
    if not runs:
        raise ValueError("run must be one or more runs, got none")
    after = within(runs[0].budget, fixations)
    makers = [PathMakers.of(each, orders) for each in runs]
    asking = [CaptionAsking.of(each, limit) for each in runs]
    check_same_images(asking)
    sizes = {"limit": limit, "retrieval_limit": retrieval_limit, "candidates": candidates}
    options: dict[str, Any] = {"fixations": list(after), "orders": list(orders), **sizes}
    options |= {"examples": examples, "seed": seed, **several(runs), **changes_of(runs)}
    number = min(retrieval_limit, len(asking[0].test))
    told: list[Told] = []
    shown: list[CaptionExample] = []
    for each, made in zip(asking, makers, strict=True):
        paths = paths_of(made, each.test, seed)
        told.append(each.told(paths, after, number, candidates, seed))
        if len(told) == 1:
            shown = write(each.run, each.test, paths["policy"], after, examples)
    few = asking[0].texts.among(number)
    result = CaptionResult(
        **found(told, chances(few) if number else None),
        retrieval_images=number,
        retrieval_captions=len(few.tokens),
        written=tuple(each.written for each in shown),
        **facts_of(asking),
        commits=tuple(sorted({commit for each in told for commit in each.commits})),
        options=options,
    )
    return result, shown


def within(budget: int, fixations: tuple[int, ...]) -> tuple[int, ...]:
    """Return different numbers of fixations, those above the budget left out.

    Raises:
        ValueError: none is left.
    """
    after = tuple(k for k in dict.fromkeys(fixations) if k <= budget)
    if not after:
        raise ValueError(f"fixations must lie in 0..{budget}, the budget; got {fixations}")
    return after


def check_same_images(asking: Sequence[CaptionAsking]) -> None:
    """Raise ValueError unless runs are asked about the same images and captions."""
    first = asking[0]
    for each in asking[1:]:
        same = torch.equal(first.test.images, each.test.images)
        if not same or first.test.captions != each.test.captions:
            raise ValueError(
                f"several runs are asked about the same test images, {first.run.directory} and "
                f"{each.run.directory} have others or other captions; name the place of the former "
                "with --data, or compare each by itself"
            )


def changes_of(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return what changed of the images since the training of any run, as of one run."""
    lines = [line for run in runs for line in run.data_options.get("data_changes", [])]
    return {"data_changes": list(dict.fromkeys(lines))} if lines else {}


def paths_of(makers: PathMakers, test: ImageSet, seed: int) -> dict[str, Int[Tensor, "M T *S"]]:
    """Return the policy's scanpaths, and all that are asked for."""
    paths = {name: scan(test.images) for name, scan in makers.scans.items()}
    made = [name for name in makers.asked if name not in paths]
    return paths | {name: makers.made_of(paths["policy"], name, seed) for name in made}


def facts_of(asking: Sequence[CaptionAsking]) -> dict[str, Any]:
    """Fields of a CaptionResult that are the runs', the captions' and the code's."""
    first, runs = asking[0], [each.run for each in asking]
    without = [why for run in runs if (why := run.without_policy) is not None]
    return {
        "captions": len(first.texts.tokens),
        "without_captions": first.without,
        "test_images": len(first.test),
        "train_seconds": mean_of_known([run.train_seconds for run in runs]),
        "start_seconds": mean_of_known(
            [read_manifest(run.directory).get("start_seconds") for run in runs]
        ),
        "periphery": first.run.model.config.periphery,
        "without_policy": without[0] if without else None,
        "data": first.run.dataset(first.test),
        "seed": first.run.seed if len(runs) == 1 else None,
        "seeds": tuple(run.seed for run in runs),
        "budget": first.run.budget,
        "num_patches": first.run.model.num_patches,
        "commit": git_commit(),
        "iteration": first.run.iteration,
    }


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """Return the mean; None = a value is missing."""
    known = [each for each in values if each is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def write(
    run: Run, test: ImageSet, order: Int[Tensor, "M T *S"], after: tuple[int, ...], number: int
) -> list[CaptionExample]:
    """Write the most probable words of the first images after fixations of the policy."""
    model, number = run.model, min(number, len(test))
    if number == 0:
        return []
    order = order[:number]
    images = pixels_of(test.images[:number], run.device)
    rank = order_to_rank(order, model.num_patches).to(images.device)
    subwords = subwords_of(model.config)
    said: dict[int, list[str]] = {}
    for steps in (*after, model.num_patches):
        visible = torch.full_like(rank[:, 0], steps)
        numbers = model.reader.read(model, images, None, rank, visible)
        said[steps] = [subwords.decode(row) for row in numbers[:, 0].cpu()]
    captions = captions_in(test)
    return [
        CaptionExample(
            images[image].cpu(),
            order[image].cpu(),
            model.grid,
            Written(
                image=image,
                captions=tuple(text for text in captions[image] if normalized(text)),
                after={k: said[k][image] for k in after},
                whole=said[model.num_patches][image],
            ),
        )
        for image in range(number)
    ]

"""How much of an image's captions is known after k fixations, and whose fixations tell most."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from experiments.evaluation.caption_likelihood import bits_per_word, nats_of_own
from experiments.evaluation.caption_options import (
    CANDIDATES,
    FIXATIONS,
    ORDERS,
    check_caption_options,
)
from experiments.evaluation.caption_result import Bits, CaptionResult, Written
from experiments.evaluation.caption_retrieval import retrieve
from experiments.evaluation.intervals import mean_interval
from experiments.evaluation.recognition_paths import PathMakers
from experiments.evaluation.scanpaths import of_another_image, pixels_of
from experiments.run_folder import git_commit, read_manifest
from experiments.runs import Run
from foveate.data import ImageSet
from foveate.data.subwords import Subwords
from foveate.data.texts import ImageTexts, captions_in, texts_for
from foveate.model.tracks import NOTHING
from foveate.orders import order_to_rank


@dataclass(frozen=True)
class Example:
    """An image with what was written of it, to be drawn."""

    image: Float[Tensor, "C H W"]
    order: Int[Tensor, "T *S"]
    grid: tuple[int, int]
    written: Written


def caption(
    run: Run,
    *,
    fixations: tuple[int, ...] = FIXATIONS,
    orders: tuple[str, ...] = ORDERS,
    limit: int = 1000,
    retrieval_limit: int = 1000,
    candidates: int = CANDIDATES,
    examples: int = 4,
    seed: int = 0,
) -> tuple[CaptionResult, list[Example]]:
    """Ask a model about the captions of test images; images without captions are left out.

    Args:
        run: its model writes captions.
        fixations: numbers of them after which it is asked; those above the budget are left out.
        orders: whose fixations beside the policy's.
        limit: test images.
        retrieval_limit: the first test images, which are retrieved; 0 = no retrieval.
        candidates: captions of an image, and images of a caption, that are asked about in full; the
            others are estimated from few. 0 = all are asked about.
        examples: the first test images, of which captions are written.
        seed: of the images that others' captions and paths come from, and of the few.

    Raises:
        ValueError: the model writes no captions, the images have none, or an option is wrong.
    """
    check_caption_options(fixations, limit, retrieval_limit, candidates, examples)
    after = tuple(k for k in dict.fromkeys(fixations) if k <= run.budget)
    if not after:
        raise ValueError(f"fixations must lie in 0..{run.budget}, the budget; got {fixations}")
    makers = PathMakers.of(run, orders)
    test, texts, without = captioned(run, limit)
    paths = _paths(run, makers, test, seed)
    shown = write(run, test, paths["policy"], after, examples)
    sizes = {"limit": limit, "retrieval_limit": retrieval_limit, "candidates": candidates}
    options: dict[str, Any] = {"fixations": list(after), "orders": list(orders), **sizes}
    options |= {"examples": examples, "seed": seed, **run.data_options}
    retrieved = min(retrieval_limit, len(test)), candidates, seed
    result = CaptionResult(
        **known(run, test, texts, paths, after, seed),
        **retrieve(run, test, texts, paths["policy"], *retrieved),
        written=tuple(each.written for each in shown),
        captions=len(texts.tokens),
        without_captions=without,
        cut=texts.num_cut,
        test_images=len(test),
        train_seconds=read_manifest(run.directory).get("train_seconds"),
        data=run.dataset(test),
        seed=run.seed,
        budget=run.budget,
        num_patches=run.model.num_patches,
        commit=git_commit(),
        iteration=run.iteration,
        options=options,
    )
    return result, shown


def captioned(run: Run, limit: int) -> tuple[ImageSet, ImageTexts, int]:
    """Return test images that have captions, these as the model writes them, and how many have not.

    Raises:
        ValueError: the model writes no captions, or less than two images have some.
    """
    config = run.model.config
    test = run.split("test", limit)
    texts = texts_for(config, test)
    if texts is None:
        raise ValueError(
            f"the model in {run.directory} writes no captions; "
            "train one with: python -m experiments.train caption"
        )
    kept = texts.count.nonzero().squeeze(1)
    if len(kept) < 2:
        raise ValueError(f"only {len(kept)} of {len(test)} test images have a caption; give more")
    if len(kept) == len(test):
        return test, texts, 0
    some = test.take(kept)
    without = len(test) - len(kept)
    return some, ImageTexts.of(captions_in(some), texts.subwords, config.max_words), without


def _paths(
    run: Run, makers: PathMakers, test: ImageSet, seed: int
) -> dict[str, Int[Tensor, "M T *S"]]:
    """Return the policy's scanpaths, and all that are asked for."""
    paths = {name: scan(test.images) for name, scan in makers.scans.items()}
    made = {
        "other_image": lambda: of_another_image(paths["policy"], seed),
        "best_fixed": lambda: makers.best_fixed().expand(len(test), *paths["policy"].shape[1:]),
    }
    for name in makers.asked:
        if name in made:
            paths[name] = made[name]()
    return paths


def bits(values: Float[np.ndarray, " M"], reference: Float[np.ndarray, " M"] | None = None) -> Bits:
    """Return the mean of bits per word, and of their difference to a reference."""
    mean, interval = mean_interval(values)
    if reference is None:
        return Bits(bits_per_word=mean, bits_per_word_ci95=interval)
    less, less_interval = mean_interval(values - reference)
    return Bits(
        bits_per_word=mean,
        bits_per_word_ci95=interval,
        minus_policy=less,
        minus_policy_ci95=less_interval,
    )


def known(
    run: Run,
    test: ImageSet,
    texts: ImageTexts,
    paths: dict[str, Int[Tensor, "M T *S"]],
    after: tuple[int, ...],
    seed: int,
) -> dict[str, Any]:
    """Return what of a CaptionResult says how surprising captions are."""
    number = run.model.num_patches
    rank = {name: order_to_rank(path, number).cpu() for name, path in paths.items()}

    def ask(
        order: Int[Tensor, "M N"], steps: int, images: Tensor = test.images
    ) -> Float[np.ndarray, " M"]:
        return bits_per_word(nats_of_own(run.model, images, texts, order, steps), texts)

    policy = rank["policy"]
    whole, alone = ask(policy, number), ask(policy, NOTHING)
    others = of_another_image(torch.arange(len(test)).unsqueeze(1), seed).squeeze(1)
    told, told_ci95 = mean_interval((alone - whole) * math.log(2))
    return {
        "orders": by_fixations(ask, rank, after),
        "whole": bits(whole),
        "alone": bits(alone, whole),
        "shuffled": bits(ask(policy[others], number, test.images[others]), whole),
        "image_nats_per_word": told,
        "image_nats_per_word_ci95": told_ci95,
    }


def by_fixations(
    ask: Callable[[Tensor, int], Float[np.ndarray, " M"]],
    rank: dict[str, Int[Tensor, "M N"]],
    after: tuple[int, ...],
) -> dict[str, dict[int, Bits]]:
    """Ask after fixations of each order, and compare with the policy's after as many.

    Before the first fixation all have seen the same.
    """
    found: dict[str, dict[int, Float[np.ndarray, " M"]]] = {}
    for name in ("policy", *(name for name in rank if name != "policy")):
        known = {0: found["policy"][0]} if name != "policy" and 0 in after else {}
        found[name] = {k: known[k] if k in known else ask(rank[name], k) for k in after}
    policy = found["policy"]
    return {
        name: {k: bits(row[k], None if name == "policy" else policy[k]) for k in after}
        for name, row in found.items()
    }


def write(
    run: Run, test: ImageSet, order: Int[Tensor, "M T *S"], after: tuple[int, ...], number: int
) -> list[Example]:
    """Write the most probable words of the first images after fixations of the policy."""
    model, number = run.model, min(number, len(test))
    if number == 0:
        return []
    config, order = model.config, order[:number]
    images = pixels_of(test.images[:number], run.device)
    rank = order_to_rank(order, model.num_patches).to(images.device)
    subwords = Subwords(tuple(config.vocabulary), tuple(config.merges))
    said: dict[int, list[str]] = {}
    for steps in (*after, model.num_patches):
        visible = torch.full_like(rank[:, 0], steps)
        numbers = model.reader.read(model, images, None, rank, visible)
        said[steps] = [subwords.decode(row) for row in numbers[:, 0].cpu()]
    captions = captions_in(test)
    return [
        Example(
            images[image].cpu(),
            order[image].cpu(),
            model.grid,
            Written(
                image=image,
                captions=captions[image],
                after={k: said[k][image] for k in after},
                whole=said[model.num_patches][image],
            ),
        )
        for image in range(number)
    ]

"""Which caption belongs to which image, without asking about every pair.

A likelihood is asked of a pair, so that all pairs of 1,000 images and 5,000 captions are a thousand
times the work of a pass over the captions. Few pairs are enough to choose candidates: those of some
images with all captions, and of some captions with all images. A score of pairs has few dimensions,
so that these rows and columns tell the others. The best candidates are then asked about in full.

Reference: ANNCUR (Yadav et al. 2022, arXiv 2210.12579), for retrieval by a model of pairs. Differs:
the linear map is found by ridge regression instead of a pseudo-inverse, which small singular values
spoil.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from experiments.evaluation.caption.means import RECALLS, Retrieved
from foveate.data.texts import ImageTexts

ROWS_PER_CANDIDATE, COLUMNS_PER_CANDIDATE = 2, 4
"""Images, and captions, of the first pass for each candidate; a column is as long as there are
images, and there are several captions of each."""
RIDGE = 0.01
"""Of the regression, times the mean square of a column."""

Ask = Callable[[Tensor], Tensor]
"""From which pairs are wanted, (M, S), to the scores of these, (M, S); anything elsewhere."""


@dataclass(frozen=True)
class Scores:
    """How well captions fit images, of candidates alone; -inf = no candidate."""

    of_image: Float[Tensor, "M S"]
    """Candidates are captions, of each image."""
    of_caption: Float[Tensor, "M S"]
    """Candidates are images, of each caption."""
    num_pairs: int
    """Pairs that the model was asked about."""


def scores(
    ask: Ask, num_images: int, num_captions: int, candidates: int, generator: torch.Generator
) -> Scores:
    """Ask about every pair, or choose candidates first.

    Args:
        ask: returns scores; larger = fits better.
        num_images: M.
        num_captions: S.
        candidates: of each image, and of each caption; 0 = every pair. All pairs are asked about as
            well where the first pass would be as much work.
        generator: draws the images and captions of the first pass.
    """
    rows, columns = ROWS_PER_CANDIDATE * candidates, COLUMNS_PER_CANDIDATE * candidates
    if candidates == 0 or rows >= num_images or columns >= num_captions:
        score = ask(torch.ones(num_images, num_captions, dtype=torch.bool))
        return Scores(score, score, num_images * num_captions)
    row = torch.randperm(num_images, generator=generator)[:rows]
    column = torch.randperm(num_captions, generator=generator)[:columns]
    first = torch.zeros(num_images, num_captions, dtype=torch.bool)
    first[row], first[:, column] = True, True
    known = ask(first)
    guess = torch.where(first, known, estimated(known[row], known[:, column], column))
    of_image, of_caption = (among_best(guess, candidates, dim) for dim in (1, 0))
    wanted = (of_image | of_caption) & ~first
    score = torch.where(first, known, ask(wanted))
    return Scores(
        score.masked_fill(~of_image, -math.inf),
        score.masked_fill(~of_caption, -math.inf),
        int((first | wanted).sum()),
    )


def estimated(
    some_images: Float[Tensor, "R S"],
    some_captions: Float[Tensor, "M C"],
    column: Int[Tensor, " C"],
) -> Float[Tensor, "M S"]:
    """Estimate all scores from those of some images with all captions, and the reverse.

    Of every caption the scores are a linear function of those of the chosen captions, which the
    chosen images tell.

    Args:
        some_images: scores of the chosen images with all captions.
        some_captions: scores of all images with the captions ``column``.
        column: numbers of the chosen captions.
    """
    both = some_images[:, column].double()
    square = both.T @ both
    square.diagonal().add_(RIDGE * square.diagonal().mean().clamp_min(1e-12))
    weights = torch.linalg.solve(square, both.T @ some_images.double())
    return (some_captions.double() @ weights).to(some_images.dtype)


def among_best(score: Float[Tensor, "M S"], number: int, dim: int) -> Bool[Tensor, "M S"]:
    """Mark the largest entries along a dimension (True = among them)."""
    best = score.topk(number, dim).indices
    return torch.zeros_like(score, dtype=torch.bool).scatter(dim, best, True)


def ranks_of_right(
    found: Scores, owner: Int[Tensor, " S"]
) -> tuple[Int[Tensor, " M"], Int[Tensor, " S"]]:
    """Return how many wrong answers come before the right one, ties counted as before it.

    A right answer that is no candidate comes after all others.

    Args:
        found: scores of each caption for each image.
        owner: the image of each caption; every image has one or more.

    Returns:
        Of each image, before the best of its own captions; of each caption, before its image.
    """
    own = owner == torch.arange(len(found.of_image)).unsqueeze(1)
    best = found.of_image.masked_fill(~own, -math.inf).amax(1, keepdim=True)
    of_image = ((found.of_image >= best) & ~own).sum(1)
    right = found.of_caption.gather(0, owner.unsqueeze(0))
    of_caption = ((found.of_caption >= right) & ~own).sum(0)
    return of_image, of_caption


def retrieved(ask: Ask, texts: ImageTexts, candidates: int, seed: int) -> Retrieved:
    """Find the captions of images, and the images of captions.

    Args:
        ask: returns scores; larger = fits better.
        texts: the captions of all images.
        candidates: see :func:`scores`.
        seed: of the first pass.
    """
    number, generator = len(texts), torch.Generator().manual_seed(seed)
    found = scores(ask, number, len(texts.tokens), candidates, generator)
    of_image, of_caption = ranks_of_right(found, texts.owner)

    def of_captions(right: Bool[Tensor, " S"]) -> Float[np.ndarray, " R"]:
        # A caption is a question; an image with its captions is what is sampled.
        total = torch.zeros(number, dtype=torch.double)
        return (total.index_add(0, texts.owner, right.double()) / texts.count).numpy()

    return Retrieved(
        {k: (of_image < k).double().numpy() for k in RECALLS},
        {k: of_captions(of_caption < k) for k in RECALLS},
        found.num_pairs,
    )


def chances(texts: ImageTexts) -> tuple[dict[int, float], dict[int, float]]:
    """Return the recalls of guessing: of a caption for each image, and of an image for each."""
    own, total = texts.count.double(), len(texts.tokens)
    # Of S captions K are right: one is among the first k unless all of these are wrong.
    wrong = [((total - own - place) / max(1, total - place)) for place in range(max(RECALLS))]
    missed = {k: torch.stack(wrong[:k]).clamp_min(0).prod(0) for k in RECALLS}
    return (
        {k: 1 - float(each.mean()) for k, each in missed.items()},
        {k: min(1.0, k / len(texts)) for k in RECALLS},
    )

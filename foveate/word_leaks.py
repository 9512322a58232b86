"""What a word depends on: the check that it sees the visible patches and earlier words alone.

For models of this project, and for any function that writes words about images.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foveate.dependence import (
    ROUNDING,
    Probe,
    different,
    distance,
    first_wrong,
    frozen_periphery,
    owner_of_pixels,
)
from foveate.model import AnyOrderTransformer
from foveate.model.tracks import NOTHING
from foveate.orders import check_rank

Write = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""From images (B, C, H, W), a rank (B, N), steps (B,) and words (B, L) to logits (B, L, V)."""


def assert_no_word_leak(
    write: AnyOrderTransformer | Write,
    images: Float[Tensor, "B C H W"],
    rank: Int[Tensor, "B N"],
    words: Int[Tensor, "B L"],
    *,
    grid: tuple[int, int],
    complete: bool = True,
) -> None:
    """Assert that a word depends on the visible patches and on earlier words alone.

    After every number of steps k: on patches of rank < k, and after -1 on nothing at all, not even
    a periphery; never on another image of the batch, of which there should be two or more.

    Args:
        write: a model of ours that writes words, whose periphery shows all to all and is left out
            from k = 0 on; or any function from images, ranks, steps and words to the logits of each
            word, (B, L, V).
        images: pixels in [0, 1].
        rank: decoding step of every patch, from 0.
        words: numbers from 0, two or more different ones, without padding.
        grid: rows and columns of patches.
        complete: also assert that all that is visible has an influence.

    Raises:
        AssertionError: a word depends on more, or, with ``complete``, on less; names the first.
        ValueError: the rank is none, the words are all the same, or what is written is random.
    """
    check_rank(rank, rank.shape[1])
    if int(words.min()) == int(words.max()):
        raise ValueError("words must hold two or more different numbers, so that one can change")
    others = different(images)[:1]
    ask = _asked(write) if isinstance(write, AnyOrderTransformer) else write
    for step in range(NOTHING, int(rank.max()) + 2):
        place, steps = f"after {step} steps", torch.full_like(rank[:, 0], step)
        still: AbstractContextManager[object] = nullcontext()
        if isinstance(write, AnyOrderTransformer) and step != NOTHING:
            still = frozen_periphery(write, images)

        def logits(seen: Tensor, given: Tensor, steps: Tensor = steps) -> Tensor:
            return ask(seen, rank, steps, given)

        with still:
            predict = partial(_predictions, logits, words)
            probe = Probe(predict, images, owner_of_pixels(images, grid), others)
            probe.check_images(f"{place}: word")
            _check_patches(probe, rank, step, place, complete)
            _check_words(partial(logits, images), words, place, complete)


def _predictions(
    logits: Callable[[Tensor, Tensor], Tensor], words: Int[Tensor, "B L"], seen: Tensor
) -> list[Tensor]:
    """Return what is predicted of images, as a probe takes it."""
    return [logits(seen, words)]


def _asked(model: AnyOrderTransformer) -> Write:
    def write(seen: Tensor, rank: Tensor, steps: Tensor, words: Tensor) -> Tensor:
        logits: Tensor = model.reader(model, seen, None, words.unsqueeze(1), rank, steps)
        return logits.squeeze(1)

    return write


def _check_patches(
    probe: Probe, rank: Int[Tensor, "B N"], step: int, place: str, complete: bool
) -> None:
    """Assert that words depend on the patches of lower rank, and on no other."""
    (strength,) = probe.strengths()
    visible = (rank < step).unsqueeze(1).expand_as(strength)
    if found := first_wrong(strength, visible, complete=complete):
        image, word, patch, verb = found
        raise AssertionError(
            f"image {image}, {place}: word {word} {verb} on patch {patch} "
            f"(rank {int(rank[image, patch])})"
        )


@torch.no_grad()
def _check_words(
    write: Callable[[Tensor], Tensor], words: Int[Tensor, "B L"], place: str, complete: bool
) -> None:
    """Assert that words depend on the words before them, and on no other."""
    before, (low, high) = write(words), words.aminmax()
    for changed in range(words.shape[1]):
        others = words.clone()
        others[:, changed] = torch.where(words[:, changed] == high, low, high)
        for word, far in enumerate(distance(before, write(others)).unbind(1)):
            depends, may = bool((far > ROUNDING).any()), changed < word
            if depends > may or (complete and depends < may):
                verb = "leaks: depends" if depends else "misses: does not depend"
                raise AssertionError(f"{place}: word {word} {verb} on word {changed}")

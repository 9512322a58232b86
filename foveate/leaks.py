"""Which patches a prediction depends on: the check that no mask or shift leaks.

For models of this project, and for any function from images and ranks to predictions. A dependence
is found by gradient, and by replacing a patch: what is rounded or looked up has no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foveate.dependence import (
    Probe,
    different,
    first_wrong,
    frozen_periphery,
    owner_of_pixels,
)
from foveate.model import AnyOrderTransformer
from foveate.orders import check_rank
from foveate.orders.semantic import model_ordering
from foveate.recipes import Recipe
from foveate.word_leaks import assert_no_word_leak

Dependence = tuple[Bool[Tensor, "B N N"], Bool[Tensor, "B N N"] | None]
Predict = Callable[[Tensor, Tensor], Tensor]
"""From images (B, C, H, W), or patches (B, N, P), and a rank (B, N) to predictions (B, N, *)."""

CHECKED_WORDS = 4
"""Words of a track that are checked, at most."""


def dependence(
    model: AnyOrderTransformer, images: Float[Tensor, "B C H W"], rank: Int[Tensor, "B N"]
) -> Dependence:
    """Whether the prediction of patch i depends on the pixels of patch j (True = depends).

    Of what ``model.predict_in_turn`` says, by gradient, and by replacing patches, which finds what
    has none: the ids of a palette, rounding, ``detach``. The periphery, which shows all to all, is
    left out.

    Returns:
        Of the predictions in turn, and of those of the second decoder, if there is one.
    """
    found = [each > 0 for each in _probe_of_model(model, images, rank).strengths()]
    return found[0], found[1] if len(found) > 1 else None


def _probe_of_model(model: AnyOrderTransformer, images: Tensor, rank: Tensor) -> Probe:
    """Ask ``predict_in_turn`` of a model of ours."""

    def predict(seen: Tensor) -> list[Tensor]:
        with frozen_periphery(model, images):
            turn = model.predict_in_turn(seen, rank)
        return [each.values for each in (turn.prediction, turn.seen) if each is not None]

    others = different(images)
    if model.config.reads_colors:
        colors = model.patchify(images).unflatten(-1, (-1, model.config.in_chans))
        # The farthest color is another one, whatever the palette repeats.
        farthest = model.palette[torch.cdist(colors, model.palette).argmax(-1)].flatten(2)
        others = (model.unpatchify(farthest),)
    return Probe(predict, images, owner_of_pixels(images, model.grid), others)


def _owner(inputs: Tensor, num_patches: int, grid: tuple[int, int] | None) -> Tensor:
    """Say which patch each value belongs to, of images or of patches.

    Raises:
        ValueError: the inputs cannot be cut into so many patches.
    """
    shape = tuple(inputs.shape)
    if not inputs.is_floating_point() or inputs.ndim not in (3, 4):
        raise ValueError(
            "assert_no_leak takes float images (B, C, H, W) or patches (B, N, P), got "
            f"{inputs.dtype} {shape}; turn ids into images inside the function that predicts"
        )
    if inputs.ndim == 3:
        if inputs.shape[1] != num_patches:
            raise ValueError(f"the rank is of {num_patches} patches, the patches are {shape}")
        return torch.arange(num_patches, device=inputs.device).unsqueeze(1)
    height, width = shape[2:]
    if grid is None:
        side = math.isqrt(height * width // num_patches) or 1
        grid = height // side, width // side
    rows, cols = grid
    if rows * cols != num_patches or height % rows or width % cols:
        raise ValueError(
            f"images of {height}x{width} cannot be cut into {num_patches} equal patches on a "
            f"{rows}x{cols} grid; give the grid of the rank: grid=(rows, columns)"
        )
    return owner_of_pixels(inputs, grid)


def _probe_of(
    predict: Predict, inputs: Tensor, rank: Tensor, grid: tuple[int, int] | None
) -> Probe:
    """Ask a function of somebody else's."""
    check_rank(rank, rank.shape[1])
    owner, wanted = _owner(inputs, rank.shape[1], grid), tuple(rank.shape)

    def checked(seen: Tensor) -> list[Tensor]:
        values = predict(seen, rank)
        if not isinstance(values, Tensor) or values.shape[:2] != wanted:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"what predicts must return a tensor {(*wanted, 'values')}, one prediction of "
                f"every patch in raster order, got {got}"
            )
        return [values if values.ndim > 2 else values.unsqueeze(-1)]

    return Probe(checked, inputs, owner, different(inputs))


def assert_no_leak(
    model: AnyOrderTransformer | Predict,
    images: Recipe | Float[Tensor, "B C H W"] | Float[Tensor, "B N P"],
    rank: Int[Tensor, "B N"] | None = None,
    *,
    grid: tuple[int, int] | None = None,
    complete: bool | None = None,
) -> None:
    """Assert that a prediction depends on no patch but those that its rank allows.

    Those of lower rank; for a decoder of visible patches, those of its own rank as well. Nor on
    another image of the batch, of which there should be two or more. Of a model of ours that writes
    words, also what :func:`foveate.word_leaks.assert_no_word_leak` asserts.

    Args:
        model: what predicts: a model of ours, or any function from images and a rank to
            predictions, (B, N, *), in raster order. A patch without a prediction has zeros.
        images: pixels in [0, 1], or patches; for a model of ours also a recipe, whose order is
            drawn on two random images.
        rank: decoding step of every patch of the images, from 0.
        grid: rows and columns of patches; None = those of square patches.
        complete: also assert that every patch that is allowed has an influence; None = of models of
            ours.

    Raises:
        AssertionError: a prediction depends on more, or, with ``complete``, on less; names the
            first.
        ValueError: images without a rank, images that the rank does not fit, predictions of
            another shape, or predictions that are random.
    """
    if isinstance(images, Recipe):
        if not isinstance(model, AnyOrderTransformer):
            raise ValueError("a recipe goes with a model of ours; give images and a rank")
        if rank is not None:
            raise ValueError("a recipe draws its own rank; give it alone, or images and a rank")
        images, rank = _drawn(model, images)
    if rank is None:
        raise ValueError("images need a rank: assert_no_leak(model, images, rank)")
    complete = isinstance(model, AnyOrderTransformer) if complete is None else complete
    _check_turns(model, images, rank, grid, complete)
    if isinstance(model, AnyOrderTransformer):
        _check_asked(model, images, rank)
        _check_words(model, images, rank, complete)


def _check_turns(
    model: AnyOrderTransformer | Predict,
    images: Tensor,
    rank: Tensor,
    grid: tuple[int, int] | None,
    complete: bool,
) -> None:
    """Check what is predicted of every patch at its turn."""
    before = rank.unsqueeze(1) < rank.unsqueeze(2)
    if isinstance(model, AnyOrderTransformer):
        with torch.no_grad():
            counted = model.predict_in_turn(images, rank).predicted
        probe = _probe_of_model(model, images, rank)
        last = rank.amax(1, keepdim=True)
        up_to = (rank.unsqueeze(1) <= rank.unsqueeze(2)) & (rank < last).unsqueeze(1)
        checks = [("prediction", before, counted), ("visible prediction", up_to, rank < last)]
    else:
        probe = _probe_of(model, images, rank, grid)
        checks = [("prediction", before, torch.ones_like(rank, dtype=torch.bool))]
    probe.check_images()
    strengths = probe.strengths()
    _check_not_blind(strengths[0], before)
    for (what, allowed, counted), strength in zip(checks, strengths, strict=False):
        if found := first_wrong(strength, allowed, counted, complete=complete):
            number, i, j, verb = found
            first, second = (f"patch {k} (rank {int(rank[number, k])})" for k in (i, j))
            raise AssertionError(f"image {number}: the {what} of {first} {verb} on {second}")


def _check_not_blind(strength: Float[Tensor, "B N N"], allowed: Bool[Tensor, "B N N"]) -> None:
    """Raise ValueError if nothing depends on anything, so that no leak could show."""
    if bool(allowed.any()) and not bool(strength.any()):
        raise ValueError(
            "predictions depend on nothing at all, as of an output layer that starts at zero; give "
            "it random weights, so that a leak can show"
        )


def _check_asked(model: AnyOrderTransformer, images: Tensor, rank: Tensor) -> None:
    """Assert the same of what is asked in training after each step, of a few unseen patches.

    By gradient alone, as ``predict_in_turn`` reads the same embedding.
    """
    if model.config.queries != "unseen":
        return
    num_ranks = int(rank.max()) + 1
    steps = torch.arange(num_ranks, device=rank.device).repeat_interleave(model.config.num_targets)
    # Of an image that has no more steps the last one is asked again, which sees no more.
    visible = rank.unsqueeze(1) < steps.view(1, -1, 1)

    def asked(seen: Tensor) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        with frozen_periphery(model, images):
            prediction, positions, _ = model.predict_unseen(
                seen, rank, None, None, None, generator, None
            )
        return prediction.values, positions

    with torch.no_grad():
        positions = asked(images)[1]
    probe = Probe(lambda seen: [asked(seen)[0]], images, owner_of_pixels(images, model.grid), ())
    if found := first_wrong(probe.strengths()[0], visible):
        number, query, j, verb = found
        raise AssertionError(
            f"image {number}: what is asked of patch {int(positions[number, query])} after "
            f"{int(steps[query])} steps {verb} on patch {j} (rank {int(rank[number, j])})"
        )


def _drawn(model: AnyOrderTransformer, row: Recipe) -> tuple[Tensor, Tensor]:
    """Draw two random images and a recipe's order of their patches."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, model.config.in_chans, *model.config.image_size)
    images = torch.rand(shape, generator=generator).to(next(model.parameters()))
    order = model_ordering(row.order, model, **row.order_options)
    return images, order(images, generator=generator)


def _check_words(model: AnyOrderTransformer, images: Tensor, rank: Tensor, complete: bool) -> None:
    """Check a few random words of each image, all different, of a model of ours that writes."""
    if not model.config.vocabulary:
        return
    generator, config = torch.Generator().manual_seed(0), model.config
    drawn = torch.rand(len(rank), len(config.vocabulary), generator=generator).argsort(1)
    words = drawn[:, : min(CHECKED_WORDS, config.max_words)].to(rank.device)
    assert_no_word_leak(model, images, rank, words, grid=model.grid, complete=complete)

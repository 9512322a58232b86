"""Which patches a prediction depends on: the check that no mask or shift leaks."""

from __future__ import annotations

from unittest import mock

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foveate.model import AnyOrderTransformer, InTurn
from foveate.orders.semantic import model_ordering
from foveate.recipes import Recipe

Dependence = tuple[Bool[Tensor, "B N N"], Bool[Tensor, "B N N"] | None]


def dependence(
    model: AnyOrderTransformer, images: Float[Tensor, "B C H W"], rank: Int[Tensor, "B N"]
) -> Dependence:
    """Whether the prediction of patch i depends on the pixels of patch j (True = depends).

    By the gradient of a random mixture of what ``model.predict_in_turn`` says; the periphery, which
    shows all to all, is left out. Of a palette, whose ids have no gradient, by replacing the pixels
    of each patch.

    Returns:
        Of the predictions in turn, and of those of the second decoder, if there is one.
    """
    by = _by_replacement if model.config.reads_colors else _by_gradient
    return by(model, images, rank)


def _values(turn: InTurn) -> list[Float[Tensor, "B N T"]]:
    return [each.values for each in (turn.prediction, turn.seen) if each is not None]


def _as_pair(found: list[Bool[Tensor, "B N N"]]) -> Dependence:
    return found[0], found[1] if len(found) > 1 else None


def _by_gradient(model: AnyOrderTransformer, images: Tensor, rank: Tensor) -> Dependence:
    images = images.detach().requires_grad_()
    embed = model.embed

    def without_periphery(seen: Tensor) -> tuple[Tensor, Tensor]:
        always, patches = embed(seen)
        return torch.cat([always[:, :1], always[:, 1:].detach()], dim=1), patches

    with mock.patch.object(model, "embed", without_periphery):
        turn = model.predict_in_turn(images, rank)
    found = []
    for values in _values(turn):
        mixture = torch.randn(values.shape[-1], generator=torch.Generator().manual_seed(0))
        mixed = values @ mixture.to(values)
        rows = []
        for i in range(mixed.shape[1]):
            (gradient,) = torch.autograd.grad(
                mixed[:, i].sum(), images, retain_graph=True, materialize_grads=True
            )
            rows.append(model.patchify(gradient).abs().sum(-1) > 0)
        found.append(torch.stack(rows, dim=1))
    return _as_pair(found)


@torch.no_grad()
def _by_replacement(model: AnyOrderTransformer, images: Tensor, rank: Tensor) -> Dependence:
    pixels = model.patchify(images)
    colors = pixels.unflatten(-1, (-1, model.config.in_chans))
    # The farthest color is another one, whatever the palette repeats.
    other = model.palette[torch.cdist(colors, model.palette).argmax(-1)].flatten(2)
    before = _values(model.predict_in_turn(images, rank))
    columns: list[list[Tensor]] = [[] for _ in before]
    for j in range(model.num_patches):
        replaced = pixels.clone()
        replaced[:, j] = other[:, j]
        after = _values(model.predict_in_turn(model.unpatchify(replaced), rank))
        for column, one, two in zip(columns, before, after, strict=True):
            column.append((one != two).any(-1))
    return _as_pair([torch.stack(column, dim=2) for column in columns])


def assert_no_leak(
    model: AnyOrderTransformer,
    images: Recipe | Float[Tensor, "B C H W"],
    rank: Int[Tensor, "B N"] | None = None,
) -> None:
    """Assert that every prediction depends on exactly the patches that its rank allows.

    Those of lower rank; for a decoder of visible patches, those of its own rank as well.

    Args:
        model: what predicts.
        images: pixels in [0, 1]; or a recipe, whose order is drawn on two random images.
        rank: decoding step of every patch of the images.

    Raises:
        AssertionError: a prediction depends on more, or on less; names the first.
        ValueError: images without a rank.
    """
    if isinstance(images, Recipe):
        row, generator = images, torch.Generator().manual_seed(0)
        shape = (2, model.config.in_chans, *model.config.image_size)
        images = torch.rand(shape, generator=generator).to(next(model.parameters()))
        order = model_ordering(row.order, model, **row.order_options)
        rank = order(images, generator=generator)
    if rank is None:
        raise ValueError("images need a rank: assert_no_leak(model, images, rank)")
    with torch.no_grad():
        turn = model.predict_in_turn(images, rank)
    in_turn, seen = dependence(model, images, rank)
    before = rank.unsqueeze(1) < rank.unsqueeze(2)
    up_to = (rank.unsqueeze(1) <= rank.unsqueeze(2)) & (
        rank.unsqueeze(1) < rank.amax(1)[:, None, None]
    )
    not_last = rank < rank.amax(1, keepdim=True)
    checks = [("prediction", in_turn, before, turn.predicted)]
    if seen is not None:
        checks.append(("visible prediction", seen, up_to, not_last))
    for what, depends, allowed, counted in checks:
        wrong = (depends != allowed) & counted.unsqueeze(-1)
        if bool(wrong.any()):
            number, i, j = (int(index) for index in wrong.nonzero()[0])
            verb = "leaks: depends" if bool(depends[number, i, j]) else "misses: does not depend"
            first, second = (f"patch {k} (rank {int(rank[number, k])})" for k in (i, j))
            raise AssertionError(f"image {number}: the {what} of {first} {verb} on {second}")

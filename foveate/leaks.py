"""Which patches a prediction depends on, by autograd: the check that no mask or shift leaks."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foveate.decoder import Prediction
from foveate.model import AnyOrderTransformer
from foveate.recipes import Recipe
from foveate.semantic_orders import model_ordering


def dependence(
    model: AnyOrderTransformer, images: Float[Tensor, "B C H W"], rank: Int[Tensor, "B N"]
) -> tuple[Bool[Tensor, "B N N"], Bool[Tensor, "B N N"] | None]:
    """Whether the prediction of patch i depends on the content of patch j (True = depends).

    By the gradient of a random mixture of what ``model.predict_in_turn`` says, with respect to the
    pixels; the periphery, which shows all to all, is left out. Of a palette, whose ids have no
    gradient, with respect to the embedded patches, each of which holds its own pixels alone.

    Returns:
        Of the predictions in turn, and of those of the second decoder, if there is one.

    Raises:
        AssertionError: the start token depends on the images (of a palette).
    """
    images = images.detach().requires_grad_()
    always, patches = model.embed(images)
    if model.config.target == "colors":
        if not torch.equal(always, model.embed(1 - images)[0]):
            raise AssertionError("the start token leaks: depends on the image")
        leaf = patches = patches.detach().requires_grad_()
        by_patch: Callable[[Tensor], Tensor] = torch.nn.Identity()
    else:
        leaf, by_patch = images, model.patchify
    always = torch.cat([always[:, :1], always[:, 1:].detach()], dim=1)
    with mock.patch.object(model, "embed", return_value=(always, patches)):
        turn = model.predict_in_turn(images, rank)

    def rows(prediction: Prediction) -> Bool[Tensor, "B N N"]:
        mixture = torch.randn(
            prediction.values.shape[-1], generator=torch.Generator().manual_seed(0)
        )
        mixed = prediction.values @ mixture.to(prediction.values)
        gradients = [
            torch.autograd.grad(mixed[:, i].sum(), leaf, retain_graph=True, allow_unused=True)[0]
            for i in range(mixed.shape[1])
        ]
        return torch.stack(
            [
                torch.zeros(rank.shape, dtype=torch.bool, device=leaf.device)
                if gradient is None
                else by_patch(gradient).abs().sum(-1) > 0
                for gradient in gradients
            ],
            dim=1,
        )

    return rows(turn.prediction), None if turn.seen is None else rows(turn.seen)


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

"""Emphasis: the loss is the weighted mean, draws follow the preference, and no gradient leaks."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from foveate.config import ModelConfig
from foveate.model import AnyOrderTransformer
from foveate.model.asking import AskedPatches, Emphasis, easier, harder
from foveate.model.decoder import Prediction
from foveate.orders import ordering

ODDS = torch.tensor([0.5, 0.2, 0.1, 0.1, 0.1])
"""Of the five patches that are asked after each step."""


def by_place(asked: AskedPatches) -> Tensor:
    """Prefer by the place among those asked, whatever they are."""
    return ODDS.log().expand(asked.positions.shape)


def asked_of(log_error: Tensor) -> AskedPatches:
    shape = log_error.shape
    return AskedPatches(
        positions=torch.arange(shape[2]).expand(shape),
        states=torch.zeros(*shape, 4),
        log_error=log_error,
        content=None,
        num_seen=None,
    )


@pytest.fixture
def rank(model: AnyOrderTransformer, images: Tensor) -> Tensor:
    return ordering("random", model.grid)(images, generator=torch.Generator().manual_seed(0))


def own(**parts: Any) -> AnyOrderTransformer:
    """Return a model that predicts each patch once, on a 3 x 4 grid."""
    torch.manual_seed(0)
    config = ModelConfig(
        image_size=(6, 8), in_chans=2, patch_size=2, embed_dim=16, depth=2, num_heads=2,
        queries="own", **parts,
    )  # fmt: skip
    return AnyOrderTransformer(config).eval()


# --- the distribution


def test_an_even_choice_and_a_preference_are_mixed_by_their_shares() -> None:
    """Expected errors 1, 2, 5 and 8; a quarter each, and 1/16, 2/16, 5/16, 8/16."""
    asked = asked_of(torch.tensor([[[1.0, 2.0, 5.0, 8.0]]]).log())
    chances = Emphasis(harder, share=0.5).distribution(asked)
    torch.testing.assert_close(chances, torch.tensor([[[5.0, 6.0, 9.0, 12.0]]]) / 32)
    weights = Emphasis(harder, share=1.0).weights(asked)
    torch.testing.assert_close(weights, torch.tensor([[[0.25, 0.5, 1.25, 2.0]]]))
    inverse = 1 / torch.tensor([[[1.0, 2.0, 5.0, 8.0]]])
    torch.testing.assert_close(
        Emphasis(easier, share=1.0).distribution(asked), inverse / inverse.sum()
    )
    assert (Emphasis(harder, share=0.0).weights(asked) == 1).all()


def test_what_does_not_count_has_no_part_in_the_mean() -> None:
    asked = asked_of(torch.tensor([[[1.0, 2.0, 100.0, 6.0]]]).log())
    counted = torch.tensor([[[True, True, False, True]]])
    weights = Emphasis(harder, share=0.5).weights(asked, counted)
    torch.testing.assert_close(weights, torch.tensor([[[2.0, 2.5, 0.0, 4.5]]]) / 3)


def test_draws_follow_the_distribution_and_take_each_patch_once() -> None:
    """10,000 draws of 2 among 3; the first is one of 0.2, 0.3 and 0.5."""
    asked = asked_of(torch.tensor([0.2, 0.3, 0.5]).log().expand(10_000, 1, 3))
    emphasis = Emphasis(harder, share=1.0, by="ask")
    drawn = emphasis.draw(asked, 2, torch.Generator().manual_seed(0)).squeeze(1)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    share = torch.bincount(drawn[:, 0]) / 10_000
    assert (share - torch.tensor([0.2, 0.3, 0.5])).abs().max() < 4 * math.sqrt(0.25 / 10_000)
    with pytest.raises(ValueError, match="4 patches cannot be drawn among 3"):
        emphasis.draw(asked, 4, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 1.5}, "share must lie in 0..1"),
        ({"share": 0.5, "among": 0}, "among must be at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Emphasis(harder, **options)


# --- the loss


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_is_the_mean_weighted_by_the_known_distribution(
    share: float, model: AnyOrderTransformer, images: Tensor, rank: Tensor
) -> None:
    """The expected error is learned as without weights: only the first term changes."""
    parts: list[Tensor] = []
    loss_of = model.target.loss

    def record(values: Tensor, targets: Tensor) -> Tensor:
        parts.append(loss_of(values, targets))
        return parts[-1]

    model.target.loss = record  # type: ignore[method-assign]
    emphasis = Emphasis(by_place, share=share)
    generators = (torch.Generator().manual_seed(3) for _ in range(2))
    plain = model(images, rank, generator=next(generators))
    weighted = model(images, rank, generator=next(generators), emphasis=emphasis)
    assert torch.equal(*parts), "the same patches are asked"
    error = parts[0].unflatten(1, (-1, 5))
    mean = ((1 - share) / 5 + share * ODDS).mul(error).sum(-1).mean()
    torch.testing.assert_close(weighted - plain, mean - error.mean())


@pytest.mark.parametrize("target", ["pixels", "patch_norm", "features"])
def test_patches_in_turn_are_weighted_over_the_image(target: str, images: Tensor) -> None:
    """Twelve patches; the model learns its expected error of normalized targets as well."""
    parts = {"feature_dim": 7} if target == "features" else {}
    model = own(target=target, learns_error=True, **parts)
    rank = ordering("random", model.grid)(images, generator=torch.Generator().manual_seed(0))
    features = torch.randn(5, 12, 7) if parts else None
    turn = model.predict_in_turn(images, rank)
    assert turn.prediction.log_error is not None
    errors = model.target.loss(turn.prediction.values, model.targets(images, features))
    share = turn.prediction.log_error.softmax(1)
    difference = model(
        images, rank, features=features, emphasis=Emphasis(harder, share=0.5)
    ) - model(images, rank, features=features)
    wanted = (0.5 * (12 * share - 1) * errors).mean()
    torch.testing.assert_close(difference, wanted, atol=1e-6, rtol=1e-4)


def test_a_model_without_expected_error_cannot_be_emphasized_by_it(images: Tensor) -> None:
    model = own(target="patch_norm")
    rank = ordering("random", model.grid)(images)
    with pytest.raises(ValueError, match="give its config learns_error=True"):
        model(images, rank, emphasis=Emphasis(harder, share=0.5))
    with pytest.raises(ValueError, match="queries='own' ask for every patch once"):
        model(images, rank, emphasis=Emphasis(harder, share=0.5, by="ask"))


def test_a_weight_passes_no_gradient_on() -> None:
    """A planted fault: a preference that keeps its graph would move what it looks at."""
    seen = torch.zeros(1, 1, 3, requires_grad=True)
    weights = Emphasis(lambda asked: seen * 2, share=1.0).weights(asked_of(torch.zeros(1, 1, 3)))
    assert not weights.requires_grad


def test_what_a_preference_sees_is_of_each_step(
    model: AnyOrderTransformer, images: Tensor, rank: Tensor
) -> None:
    """States and expected errors are those of a decoder pass, the content of the newest patch."""
    seen: list[AskedPatches] = []

    def look(asked: AskedPatches) -> Tensor:
        seen.append(asked)
        return torch.zeros(asked.positions.shape)

    model(images, rank.clamp(max=4), emphasis=Emphasis(look, share=1.0))
    (asked,) = seen
    assert asked.content is not None
    assert asked.num_seen is not None
    assert asked.log_error is not None
    assert not any(each.requires_grad for each in (asked.states, asked.log_error, asked.content))
    assert torch.equal(asked.num_seen, torch.arange(5).expand(5, -1))
    order = rank.argsort(1)
    for step in range(5):
        visible = order[:, :step]
        counts = torch.arange(1, step + 1).expand(5, -1)
        layers = model.encode(images, visible, counts)
        torch.testing.assert_close(asked.content[:, step], layers[-1][:, -1])
        said: Prediction = model.decode(layers, asked.positions[:, step], torch.full((5, 5), step))
        torch.testing.assert_close(asked.states[:, step], said.states)
        torch.testing.assert_close(asked.log_error[:, step], said.log_error)


# --- what is asked


def test_the_preferred_patches_are_asked(
    model: AnyOrderTransformer, images: Tensor, rank: Tensor
) -> None:
    """Patch 7 above all: it is asked after every step that has not seen it, and only once."""
    positions: list[Tensor] = []

    def seven(asked: AskedPatches) -> Tensor:
        positions.append(asked.positions)
        return 50.0 * (asked.positions == 7)

    asked_for: list[Tensor] = []
    decode = model.decode
    model.decode = lambda layers, places, counts: (  # type: ignore[method-assign]
        asked_for.append(places), decode(layers, places, counts)
    )[1]  # fmt: skip
    emphasis = Emphasis(seven, share=1.0, by="ask", among=12)
    model(images, rank, emphasis=emphasis, generator=torch.Generator().manual_seed(0))
    among, chosen = (places.unflatten(1, (12, -1)) for places in asked_for)
    assert among.shape == (5, 12, 12)
    assert chosen.shape == (5, 12, 5)
    unseen = rank[:, 7].unsqueeze(1) >= torch.arange(12)
    times = (chosen == 7).sum(-1)
    assert (times[:, :8][unseen[:, :8]] == 1).all(), "once, while there are five others"
    assert not times[~unseen].any()
    # As long as five are unseen, five different ones are asked.
    for step in range(8):
        assert all(len(row.unique()) == 5 for row in chosen[:, step])


def test_no_gradient_is_lost_to_the_pass_that_chooses(
    model: AnyOrderTransformer, images: Tensor, rank: Tensor
) -> None:
    """In bfloat16, whose weights autocast keeps: those cast without gradient must not be used."""
    emphasis = Emphasis(harder, share=0.5, by="ask", among=6)
    with torch.autocast("cpu", torch.bfloat16):
        model(images, rank, emphasis=emphasis).backward()
    for name, parameter in model.named_parameters():
        if "periphery" not in name:
            assert parameter.grad is not None, name


def test_learning_an_error_makes_no_model_scannable() -> None:
    model = own(target="patch_norm", learns_error=True)
    assert not model.config.scannable
    plain = dataclasses.replace(model.config, learns_error=False)
    assert AnyOrderTransformer(plain).decoder.error_head is None

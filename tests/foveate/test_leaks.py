"""Leaks planted into models of somebody else's are found; a model without one passes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate import assert_no_leak
from foveate.config import ModelConfig
from foveate.model import AnyOrderTransformer
from foveate.model.tracks import Prefix
from foveate.patches import patchify
from foveate.recipes import RECIPES
from foveate.word_leaks import assert_no_word_leak

RASTER = torch.arange(16).repeat(2, 1)


class Raster(nn.Module):
    """Predicts each patch of 8 x 8 images from those before it, with a leak of a given kind."""

    def __init__(self, leak: str | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.leak = leak
        self.embed, self.head = nn.Linear(4, 16), nn.Linear(16, 4)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.start = nn.Parameter(torch.randn(16))

    def forward(self, images: Tensor, rank: Tensor) -> Tensor:
        patches = patchify(images, 2)
        content = patches
        if self.leak == "normalized over patches":
            content = F.layer_norm(patches, patches.shape[1:])
        if self.leak == "statistics of the batch":
            content = patches - patches.mean(0)
        tokens = self.embed(content)
        if self.leak != "no shift":
            tokens = torch.cat([self.start.expand(2, 1, -1), tokens[:, :-1]], dim=1)
        hidden = torch.ones(16, 16, dtype=torch.bool).triu(1)
        if self.leak == "a mask that is turned around":
            hidden = hidden.T
            hidden = hidden & ~torch.eye(16, dtype=torch.bool)
        states = tokens + self.attention(tokens, tokens, tokens, attn_mask=hidden)[0]
        values: Tensor = self.head(states)
        if self.leak == "a rounded look ahead":
            values = values + (patches.roll(-1, 1).mean(-1, keepdim=True) > 0.5).float()
        if self.leak == "a look ahead without gradient":
            values = values + patches.roll(-1, 1).detach()
        return values


LEAKS = (
    "no shift",
    "a mask that is turned around",
    "normalized over patches",
    "a rounded look ahead",
    "a look ahead without gradient",
)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_model_without_a_leak_passes(images: Tensor) -> None:
    assert_no_leak(Raster(), images, RASTER)
    with torch.no_grad():
        assert_no_leak(Raster(), images, RASTER, complete=True)


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_is_found(leak: str, images: Tensor) -> None:
    with pytest.raises(AssertionError, match=r"image 0: .* leaks: depends on patch \d+ \(rank"):
        assert_no_leak(Raster(leak), images, RASTER)


class Peeking(AnyOrderTransformer):
    """Adds what an image shows to all predictions, by a way without a gradient."""

    def predict_in_turn(self, images: Tensor, rank: Tensor, **options: Any) -> Any:
        turn = super().predict_in_turn(images, rank, **options)
        values = turn.prediction.values + 0.1 * self.patchify(images)[:, -1:].detach()
        return replace(turn, prediction=replace(turn.prediction, values=values))


def test_a_leak_without_gradient_that_a_subclass_adds_is_found(images: Tensor) -> None:
    config = ModelConfig(
        image_size=(8, 8), in_chans=1, patch_size=2, embed_dim=16, depth=1, num_heads=2
    )
    assert_no_leak(AnyOrderTransformer(config).eval(), images, RASTER)
    with pytest.raises(AssertionError, match="leaks: depends on patch 15"):
        assert_no_leak(Peeking(config).eval(), images, RASTER)


def test_what_flows_between_the_images_of_a_batch_is_a_leak(images: Tensor) -> None:
    with pytest.raises(AssertionError, match="leaks: depends on image 0 of the batch"):
        assert_no_leak(Raster("statistics of the batch"), images, RASTER)


def test_a_residual_shows_each_patch_to_itself(images: Tensor) -> None:
    def residual(images: Tensor, rank: Tensor) -> Tensor:
        return Raster()(images, rank) + 1e-3 * patchify(images, 2)

    with pytest.raises(AssertionError, match=r"patch 0 \(rank 0\) leaks: depends on patch 0 "):
        assert_no_leak(residual, images, RASTER)


def test_patches_serve_as_well_as_images_and_any_order_as_raster() -> None:
    patches, rank = torch.rand(2, 6, 3), torch.tensor([[3, 1, 1, 0, 2, 2], [0, 1, 2, 3, 4, 5]])

    def means(patches: Tensor, rank: Tensor) -> Tensor:
        seen = (rank.unsqueeze(1) < rank.unsqueeze(2)).float()
        return seen @ patches / seen.sum(-1, keepdim=True).clamp_min(1)

    assert_no_leak(means, patches, rank, complete=True)

    def with_ties(patches: Tensor, rank: Tensor) -> Tensor:
        seen = rank.unsqueeze(1) <= rank.unsqueeze(2)
        return (seen & ~torch.eye(6, dtype=torch.bool)).float() @ patches

    with pytest.raises(AssertionError, match=r"patch 1 \(rank 1\) leaks: depends on patch 2 "):
        assert_no_leak(with_ties, patches, rank)


def test_what_sees_less_passes_unless_all_is_asked_for(images: Tensor) -> None:
    def last(images: Tensor, rank: Tensor) -> Tensor:
        return F.pad(patchify(images, 2)[:, :-1], (0, 0, 1, 0))

    assert_no_leak(last, images, RASTER)
    with pytest.raises(AssertionError, match=r"patch 2 \(rank 2\) misses: does not depend on"):
        assert_no_leak(last, images, RASTER, complete=True)


def by_their_spread(images: Tensor, rank: Tensor) -> Tensor:
    """Sees its own patch, divided by a spread that is 0 of a flat one."""
    patches = patchify(images, 2)
    return patches / patches.std(-1, keepdim=True)


def with_a_value_ruled_out(images: Tensor, rank: Tensor) -> Tensor:
    """Sees its own patch; one logit is minus infinity."""
    return torch.cat([patchify(images, 2), torch.full((2, 16, 1), -torch.inf)], dim=-1)


@pytest.mark.parametrize("predict", [by_their_spread, with_a_value_ruled_out])
def test_what_is_not_finite_hides_no_leak(
    predict: Callable[[Tensor, Tensor], Tensor], images: Tensor
) -> None:
    with pytest.raises(AssertionError, match=r"patch 0 \(rank 0\) leaks: depends on patch 0"):
        assert_no_leak(predict, images, RASTER)


def test_a_correct_model_whose_flat_patches_are_not_finite_passes(images: Tensor) -> None:
    """Attention hands what is not finite to all, so that such a replacement says nothing."""

    def raster(images: Tensor, rank: Tensor) -> Tensor:
        patches = patchify(images, 2)
        shifted = F.pad(patches / patches.std(-1, keepdim=True), (0, 0, 1, 0))[:, :-1]
        return torch.ones(16, 16).tril() @ shifted

    assert_no_leak(raster, images, RASTER, complete=True)


def test_what_could_show_no_leak_is_refused(images: Tensor) -> None:
    def rooted(images: Tensor, rank: Tensor) -> Tensor:
        return patchify(images, 2).square().sum(-1, keepdim=True).sqrt()

    black = images.clone()
    black[:, :, :2, :2] = 0
    with pytest.raises(ValueError, match="the gradient of a prediction is not finite"):
        assert_no_leak(rooted, black, RASTER)
    with pytest.raises(ValueError, match="predictions depend on nothing at all"):
        assert_no_leak(lambda images, rank: 0 * patchify(images, 2), images, RASTER)
    with pytest.raises(ValueError, match="all values of the images are the same"):
        assert_no_leak(Raster(), torch.zeros(2, 1, 8, 8), RASTER)


class AskedTooMuch(AnyOrderTransformer):
    """Shows each query of the training one patch more than has been seen."""

    def _decode_after(self, layers: Any, positions: Tensor, counts: Tensor, agree: Any) -> Any:
        return super()._decode_after(layers, positions, (counts + 1).clamp_max(15), agree)


def test_a_leak_in_what_training_asks_alone_is_found() -> None:
    config = RECIPES["foveate"].model_config(
        image_size=(8, 8), in_chans=1, patch_size=2, embed_dim=16, depth=1, num_heads=2
    )
    torch.manual_seed(0)
    assert_no_leak(AnyOrderTransformer(config).eval(), RECIPES["foveate"])
    with pytest.raises(AssertionError, match=r"what is asked of patch \d+ after \d+ steps leaks"):
        assert_no_leak(AskedTooMuch(config).eval(), RECIPES["foveate"])


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (lambda images, rank: images, r"must return a tensor \(2, 16, 'values'\)"),
        (lambda images, rank: [images], "got list"),
        (lambda images, rank: torch.rand(2, 16, 4), "call model.eval()"),
        (lambda images, rank: torch.full((2, 16, 4), torch.nan), "predictions hold NaN"),
    ],
)
def test_what_cannot_be_checked_is_told(
    predict: Callable[[Tensor, Tensor], Tensor], message: str, images: Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        assert_no_leak(predict, images, RASTER)


def test_images_that_the_rank_does_not_fit_are_told(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"8x8 cannot be cut into 3 .* give the grid of the rank"):
        assert_no_leak(Raster(), images, RASTER[:, :3])
    with pytest.raises(ValueError, match="float images"):  # Without the shape checks of tests.
        inspect.unwrap(assert_no_leak)(Raster(), (images * 255).to(torch.uint8), RASTER)
    with pytest.raises(ValueError, match="model of ours"):
        assert_no_leak(Raster(), RECIPES["saim"])
    with pytest.raises(ValueError, match="a recipe draws its own rank"):
        assert_no_leak(writer(), RECIPES["caption"], RASTER)
    wide = torch.rand(2, 1, 4, 8)

    def last(images: Tensor, rank: Tensor) -> Tensor:
        means = images.unflatten(3, (4, 2)).mean((1, 2, 4))
        return F.pad(means[:, :-1], (1, 0)).unsqueeze(-1)

    assert_no_leak(last, wide, RASTER[:, :4], grid=(1, 4))


def writer(**parts: object) -> AnyOrderTransformer:
    """A small model of captions with weights that let every dependence show."""
    torch.manual_seed(0)
    sizes = {"image_size": (4, 6), "patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 2}
    words = {"vocabulary": tuple("abcde"), "max_words": 4}
    return AnyOrderTransformer(RECIPES["caption"].model_config(**{**sizes, **words, **parts}))


@pytest.mark.parametrize("periphery", [0, 1])
@pytest.mark.parametrize("prefix", ["bidirectional", "causal"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_word_depends_on_visible_patches_and_earlier_words(
    prefix: str, periphery: int, tied: bool
) -> None:
    rank = torch.tensor([[3, 0, 5, 1, 4, 2], [0, 1, 2, 3, 4, 5]]) // (2 if tied else 1)
    model = writer(words_prefix=prefix, periphery=periphery)
    assert_no_leak(model, torch.rand(2, 1, 4, 6), rank)


def planted(fault: str) -> Callable[[object], object]:
    """What a mask of a prefix becomes with a fault."""

    def change(prefix: Prefix) -> Prefix:
        visible, may_attend = prefix.visible.clone(), prefix.may_attend.clone()
        if fault == "one patch too many":
            visible[:] = True
        elif fault == "through another patch":
            may_attend[:] = True
        elif fault == "one too few":
            visible[:, -1] = False
        return replace(prefix, visible=visible, may_attend=may_attend)

    return change


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("one patch too many", "leaks: depends on patch"),
        ("through another patch", "leaks: depends on patch"),
        ("one too few", "misses: does not depend on patch"),
    ],
)
def test_a_planted_fault_in_what_words_see_is_found(
    fault: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, of = writer(words_prefix="causal"), Prefix.of
    # Images differ in what is visible, so that a prefix holds patches that are not.
    rank = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 2, 3]])
    monkeypatch.setattr(Prefix, "of", lambda *given: planted(fault)(of(*given)))
    with pytest.raises(AssertionError, match=found):
        assert_no_leak(model, torch.rand(2, 1, 4, 6), rank)


def test_a_word_that_sees_itself_is_found() -> None:
    def write(images: Tensor, rank: Tensor, steps: Tensor, words: Tensor) -> Tensor:
        return words.unsqueeze(-1).float() + torch.zeros(5)

    images, rank, words = torch.rand(2, 1, 4, 6), torch.arange(6).repeat(2, 1), torch.eye(2).long()
    with pytest.raises(AssertionError, match="after -1 steps: word 0 leaks: depends on word 0"):
        assert_no_word_leak(write, images, rank, words, grid=(2, 3), complete=False)


def test_a_word_that_is_ruled_out_hides_no_leak() -> None:
    def write(images: Tensor, rank: Tensor, steps: Tensor, words: Tensor) -> Tensor:
        seen = words.unsqueeze(-1) + images.sum((1, 2, 3)).view(-1, 1, 1)
        return torch.cat([seen, torch.full_like(seen, -torch.inf)], dim=-1)

    images, rank, words = torch.rand(2, 1, 4, 6), torch.arange(6).repeat(2, 1), torch.eye(2).long()
    with pytest.raises(AssertionError, match="after -1 steps: word 0 leaks: depends on patch 0"):
        assert_no_word_leak(write, images, rank, words, grid=(2, 3), complete=False)

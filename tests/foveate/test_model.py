"""Laws of the any-order transformer: who depends on what, timm identity, training loss by hand."""

from __future__ import annotations

from typing import Any

import jaxtyping
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from foveate.config import ModelConfig
from foveate.model import AnyOrderTransformer
from foveate.model.attention import (
    attend,
    prefix_block_mask,
    prefix_may_attend,
)
from foveate.orders import ORDERINGS, order_to_rank, ordering, rank_to_order, tie_prefix

ORDER_KINDS = [*sorted(ORDERINGS), "tied_prefix", "scanpath"]


def make_rank(kind: str, model: AnyOrderTransformer, images: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    random = ordering("random", model.grid)(images, generator=generator)
    if kind == "tied_prefix":
        return tie_prefix(random, 5)
    if kind == "scanpath":
        return order_to_rank(rank_to_order(random)[:, :4], model.num_patches)
    return ordering(kind, model.grid)(images, generator=generator)


def ranked_leaf(kind: str) -> tuple[AnyOrderTransformer, Tensor, Tensor]:
    """A blind model, images that take gradients, and their ranks."""
    torch.manual_seed(0)
    config = ModelConfig(
        image_size=(6, 8), in_chans=1, patch_size=2, embed_dim=16, depth=2, num_heads=2
    )
    model = AnyOrderTransformer(config).eval()
    images = torch.rand(2, 1, 6, 8).requires_grad_()
    rank = make_rank(kind, model, images)
    return model, images, rank


@pytest.mark.parametrize("kind", ORDER_KINDS)
def test_a_prediction_depends_on_exactly_the_patches_of_earlier_rank(kind: str) -> None:
    model, images, rank = ranked_leaf(kind)
    predicted = model.predict_scan(images, rank, int(rank.max()))
    for row in range(2):
        for step in range(int(rank.max()) + 1):
            for target in (0, 7):
                (gradient,) = torch.autograd.grad(
                    predicted[row, step, target].sum(), images, retain_graph=True
                )
                depends = model.patchify(gradient).abs().sum(-1) > 0
                assert torch.equal(depends[row], rank[row] < step), (
                    f"{kind}: row {row}, step {step}"
                )
                assert not depends[1 - row].any()


def test_the_training_loss_uses_those_very_predictions(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    """Poison what may not be seen: the loss at step 0 ignores every pixel but the targets."""
    rank = torch.zeros(5, model.num_patches, dtype=torch.long)  # all tied: nothing is ever visible
    leaf = images.clone().requires_grad_()
    prediction_only = model(leaf, rank, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(prediction_only, leaf)
    moved = (model.patchify(gradient).abs().sum(-1) > 0).sum(1)
    least, most = int(moved.min()), int(moved.max())
    if model.config.periphery == 0:
        assert 1 <= least <= most <= model.config.num_targets
    else:
        assert least == model.num_patches, "the thumbnail is made of all pixels"


@pytest.mark.parametrize("kind", ["random", "random_squares", "tied_prefix", "scanpath"])
def test_predictions_in_training_depend_on_exactly_their_prefix(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images, rank = ranked_leaf(kind)
    captured = []
    decode = model.decode

    def capture(layers: object, positions: Tensor, counts: Tensor) -> object:
        captured.append((positions, counts, decode(layers, positions, counts)))
        return captured[-1][2]

    monkeypatch.setattr(model, "decode", capture)
    model(images, rank, num_steps=3, generator=torch.Generator().manual_seed(0))
    ((positions, counts, prediction),) = captured
    assert positions.shape[1] == 3 * model.config.num_targets
    for row in range(2):
        for query in range(0, positions.shape[1], 5):
            (gradient,) = torch.autograd.grad(
                prediction.values[row, query].sum(), images, retain_graph=True
            )
            depends = model.patchify(gradient).abs().sum(-1) > 0
            seen = rank_to_order(rank)[row, : counts[row, query]]
            expected = torch.zeros(model.num_patches, dtype=torch.bool)
            expected[seen] = True
            assert torch.equal(depends[row], expected)
            assert not expected[positions[row, query]]
            assert not depends[1 - row].any()
            # What is visible is all that was revealed at some step, not a part of a tie.
            assert len(seen) in {int((rank[row] < step).sum()) for step in range(13)}


def test_the_loss_is_the_mean_over_all_unseen_patches(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    """With as many targets as patches, every unseen patch is drawn equally often at step 0."""
    rank = torch.zeros(len(images), model.num_patches, dtype=torch.long)
    torch.manual_seed(0)
    full = AnyOrderTransformer(
        ModelConfig(
            **{**vars(model.config), "num_targets": model.num_patches, "error_loss_weight": 0.0}
        )
    ).eval()
    loss = full(images, rank)
    targets = full.patchify(full.normalize(images))
    expected = (full.predict_scan(images, rank, 0)[:, 0] - targets).square().mean()
    torch.testing.assert_close(loss, expected)


def test_a_prefix_holds_the_patches_of_lower_rank() -> None:
    """With ties for content, without them for queries."""
    sorted_rank = torch.tensor([[0, 1, 1]])
    through = torch.searchsorted(sorted_rank, sorted_rank, right=True)
    assert prefix_may_attend(through, 3, 0)[0, 0].tolist() == [
        [True, False, False],
        [True, True, True],
        [True, True, True],
    ]
    before = torch.searchsorted(sorted_rank, sorted_rank)
    assert prefix_may_attend(before, 3, 0)[0, 0].tolist() == [
        [False, False, False],
        [True, False, False],
        [True, False, False],
    ]


def test_the_start_token_sees_only_itself(images: Tensor) -> None:
    torch.manual_seed(0)
    model = AnyOrderTransformer(
        ModelConfig(image_size=(6, 8), in_chans=2, patch_size=2, embed_dim=16, depth=2, num_heads=2)
    ).eval()
    order = torch.arange(12).expand(5, -1)
    tokens = model.encode(images, order, torch.arange(1, 13).expand(5, -1))[-1]
    assert tokens[:, 0].std(0).max() < 1e-6
    assert tokens[:, 1].std(0).max() > 1e-3


def test_encoder_loads_strictly_into_timm_with_identical_features(images: Tensor) -> None:
    torch.manual_seed(0)
    model = AnyOrderTransformer(
        ModelConfig(image_size=(6, 8), in_chans=2, patch_size=2, embed_dim=16, depth=3, num_heads=2)
    ).eval()
    vit = VisionTransformer(
        img_size=(6, 8), patch_size=2, in_chans=2, num_classes=0, embed_dim=16, depth=3, num_heads=2
    ).eval()
    vit.load_state_dict(model.encoder.state_dict(), strict=True)
    expected = vit.forward_features(model.normalize(images))[:, 1:]
    torch.testing.assert_close(model.features(images)[-1], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("attention", ["full", "causal"])
def test_features_return_in_raster_order(
    attention: str, model: AnyOrderTransformer, images: Tensor
) -> None:
    """Full attention is blind to the order; causally, the first patch sees itself alone."""
    rank = ordering("random", model.grid)(images, generator=torch.Generator().manual_seed(0))
    features = model.features(images, attention, rank)  # type: ignore[arg-type]
    if attention == "full":
        torch.testing.assert_close(features[-1], model.features(images)[-1], atol=1e-5, rtol=1e-4)
    else:
        changed = images.roll(1, 0)
        other = model.features(changed, "causal", rank)
        same = (features[0] - other[0]).abs().amax(-1) < 1e-6
        assert not same.any()
        leaf = images.clone().requires_grad_()
        first = rank.argmin(1)
        state = model.features(leaf, "causal", rank)[-1][torch.arange(5), first, 0].sum()
        (gradient,) = torch.autograd.grad(state, leaf)
        depends = model.patchify(gradient).abs().sum(-1) > 0
        if model.config.periphery == 0:
            assert torch.equal(depends, rank == 0)
        with pytest.raises(ValueError, match="must not hold ties"):
            model.features(images, "causal", torch.zeros_like(rank))


def test_patchify_round_trip(model: AnyOrderTransformer, images: Tensor) -> None:
    patches = model.patchify(images)
    assert patches.shape == (5, 12, 8)
    torch.testing.assert_close(model.unpatchify(patches), images)
    torch.testing.assert_close(
        patches[:, 5].reshape(5, 2, 2, 2).permute(0, 3, 1, 2), images[:, :, 2:4, 2:4]
    )


def test_error_curve_by_hand(model: AnyOrderTransformer, images: Tensor) -> None:
    order = torch.tensor([[3, 0], [1, 2], [5, 11], [7, 4], [9, 8]])
    curve = model.error_curve(images, order)
    targets = model.patchify(model.normalize(images))
    predicted = model.predict_scan(images, order_to_rank(order, 12), 2)
    for row in range(5):
        left = [n for n in range(12) if n not in order[row].tolist()]
        last = (predicted[row, 2, left] - targets[row, left]).square().mean(-1).sum()
        first = (predicted[row, 0] - targets[row]).square().mean(-1).sum()
        torch.testing.assert_close(curve[row, 2], last / first)
    torch.testing.assert_close(curve[:, 0], torch.ones(5))


def test_reconstructions_show_the_truth_where_seen(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    order = torch.tensor([[3, 0]]).expand(5, -1)
    canvas = model.reconstructions(images, order)
    truth = model.patchify(images)
    seen = model.patchify(canvas[:, 2])[:, [0, 3]]
    torch.testing.assert_close(seen, truth[:, [0, 3]])
    assert not torch.allclose(model.patchify(canvas[:, 1])[:, 0], truth[:, 0])


def test_the_expected_error_is_what_the_second_loss_term_is_smallest_at(
    model: AnyOrderTransformer,
) -> None:
    from foveate.model.transformer import Prediction

    targets = torch.zeros(1, 2, 8)
    pixels = torch.tensor([1.0, 3.0]).view(1, 2, 1).expand(1, 2, 8)

    def loss(log_error: float) -> float:
        told = torch.full((1, 2), log_error)
        return float(model.loss(Prediction(pixels, told, pixels), targets))

    best = float(torch.log(torch.tensor(5.0)))  # mean of 1 and 9
    assert loss(best) < min(loss(best - 0.1), loss(best + 0.1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 5}, "does not divide"),
        ({"num_heads": 5}, "no multiple"),
        ({"periphery": 9}, "periphery must lie in"),
        ({"embed_dim": 30}, "multiple of 4"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"in_chans": 0}, "in_chans must be at least 1"),
        ({"periphery": 1.5}, "periphery must be at least 0, a whole number, got 1.5"),
        ({"decoder_depth": None}, "decoder_depth must be at least 0, a whole number, got None"),
        ({"max_words": -1}, "max_words must be at least 0"),
        ({"decoder_mlp_ratio": -1}, "decoder_mlp_ratio must be above 0, got -1"),
        ({"image_size": 32}, r"image_size must be \(height, width\) in whole pixels.*, got 32"),
        ({"image_size": (32,)}, r"image_size must be \(height, width\)"),
        ({"image_size": (32.0, 32.0)}, r"image_size must be \(height, width\)"),
        ({"image_size": (0, 0)}, r"image_size must be \(height, width\)"),
        ({"memory": None}, "memory must be one of last, layers, mixed, taps, got None"),
        ({"target": 3}, "target must be one of pixels, .*, got 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        ModelConfig(**change)


def test_pixels_that_were_not_divided_by_255_are_refused(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    order = torch.tensor([[3, 0]]).expand(5, -1)
    for judge in (model.error_curve, model.reconstructions):
        judge(images, order)
        with pytest.raises(ValueError, match=r"pixels in \[0, 1\], got .*; divide 0..255 by 255"):
            judge(images * 255, order)
        with pytest.raises(ValueError, match="got nan"):
            judge(images * torch.nan, order)


def test_images_of_another_shape_are_refused(model: AnyOrderTransformer) -> None:
    with pytest.raises(ValueError, match="takes images of shape"):
        model(torch.rand(2, 1, 6, 8), torch.zeros(2, 12, dtype=torch.long))


@pytest.mark.filterwarnings("ignore:.*flex_attention")
def test_flex_attention_agrees_with_the_dense_mask(model: AnyOrderTransformer) -> None:
    """What a GPU computes for ties, on the CPU: slowly, but the same."""
    rank = ordering("random_squares", model.grid)(torch.zeros(3, 1, 2, 2))
    order = rank_to_order(rank)
    sorted_rank = rank.gather(1, order)
    counts = torch.searchsorted(sorted_rank, sorted_rank, right=True)
    length = model.num_always + model.num_patches
    tokens = torch.randn(3, length, model.config.embed_dim)
    dense = torch.ones(3, 1, length, length, dtype=torch.bool).tril()
    dense[:, :, model.num_always :] = prefix_may_attend(counts, model.num_patches, model.num_always)
    blocks = prefix_block_mask(counts, model.num_always)
    with torch.no_grad():
        for attention in (block.attn for block in model.encoder_blocks()):
            torch.testing.assert_close(
                attention(tokens, attn_mask=blocks), attention(tokens, attn_mask=dense)
            )


@pytest.mark.parametrize("is_causal", [True, False])
def test_attention_in_bfloat16_is_that_of_float32(is_causal: bool) -> None:
    parts = torch.randn(3, 2, 2, 7, 4, generator=torch.Generator().manual_seed(0))
    expected = attend(*parts, is_causal=is_causal)
    half = attend(*parts.bfloat16().unbind(), is_causal=is_causal)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=2e-2, rtol=2e-2)

"""Features after k fixations: one pass says the same as a pass of what was seen alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.model.scanning import Scan
from foveate.probes.attentive import AttentiveHead
from foveate.probes.partial import (
    features_after,
    partial_features,
    path_features,
    pixels_after,
    seen_after,
    token_places,
)

AFTER = (0, 1, 3, 4)
SINGLE = torch.tensor([[7, 0, 5, 11]]).repeat(5, 1)
SEGMENTS = torch.tensor([[[7, 3], [0, -1], [5, 1], [11, -1]]]).repeat(5, 1, 1)
SEGMENTS[1, 1] = torch.tensor([2, 4])


@pytest.mark.parametrize("order", [SINGLE, SEGMENTS], ids=["single", "segments"])
@pytest.mark.parametrize("layer", [None, 1, 2])
def test_features_are_those_of_what_was_seen_alone(
    model: AnyOrderTransformer, images: Tensor, order: Tensor, layer: int | None
) -> None:
    together = features_after(model, images, order, AFTER, layer=layer)
    assert together.tokens is not None
    for entry, number in enumerate(AFTER):
        if number == 0:
            continue
        alone = features_after(model, images, order[:, :number], (number,), layer=layer)
        for name, values in together.pooled.items():
            torch.testing.assert_close(
                values[:, entry], alone.pooled[name][:, 0], atol=1e-5, rtol=0
            )
        seen = together.read_tokens(entry)(torch.arange(5))
        torch.testing.assert_close(seen, alone.read_tokens(0)(torch.arange(5)), atol=2e-3, rtol=0)


def test_the_last_state_and_the_queries_are_those_of_a_stepwise_scan(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    after = (1, 2, 3, 4)
    features = features_after(model, images, SINGLE, after, layer=2)
    scan = Scan.start(model, images, budget=4)
    for entry in range(4):
        scan.reveal(SINGLE[:, entry : entry + 1])
        last, queries = features.pooled["last"][:, entry], features.pooled["queries"][:, entry]
        torch.testing.assert_close(last, scan.content, atol=1e-5, rtol=0)
        torch.testing.assert_close(queries, scan.predict().states.mean(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("model", [0], indirect=True)
def test_what_was_not_seen_changes_nothing(model: AnyOrderTransformer, images: Tensor) -> None:
    def features(pixels: Tensor) -> list[Tensor]:
        found = features_after(model, pixels, SINGLE, AFTER)
        tokens = [found.read_tokens(k)(torch.arange(5)) for k in range(len(AFTER))]
        return [torch.cat([each[:, k] for each in found.pooled.values()], 1) for k in range(4)] + [
            each.float() for each in tokens
        ]

    before = features(images)
    patches = model.patchify(images)
    for seen_from, patch in ((1, 7), (2, 5), (4, 2)):
        changed = patches.clone()
        changed[:, patch] += 1
        after = features(model.unpatchify(changed))
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        # Entry k has seen AFTER[k] fixations: patch 7 is the first of them, 5 the third, 2 none.
        expected = [entry < seen_from for entry in range(4)]
        assert same == expected * 2


def test_read_outs_by_hand(model: AnyOrderTransformer, images: Tensor) -> None:
    features = features_after(model, images, SINGLE, (0, 2), layer=1)
    counts = torch.tensor([[1, 2, 3, 4]]).repeat(5, 1)
    states = model.encode(images, SINGLE, counts)[0]
    always = model.num_always
    # Periphery and patches seen, not the start token, unless it is all that there is.
    nothing = states[:, 1:always].mean(1) if always > 1 else states[:, 0]
    torch.testing.assert_close(features.pooled["seen"][:, 0], nothing, atol=1e-5, rtol=0)
    seen = states[:, 1 : always + 2].mean(1)
    torch.testing.assert_close(features.pooled["seen"][:, 1], seen, atol=1e-5, rtol=0)
    # 3 x 4 patches: quarters of 2 x 2 patches that share the middle row.
    quarters = features.pooled["queries_2x2"][:, 1].unflatten(1, (16, 2, 2))
    rank = torch.arange(12).view(3, 4)
    layers = model.encode(images, SINGLE, counts)
    every = torch.arange(12).expand(5, -1)
    queries = model.decode(layers, every, torch.full_like(every, 2)).states
    corner = queries[:, rank[:2, 2:].flatten()].mean(1)
    torch.testing.assert_close(quarters[:, :, 0, 1], corner, atol=1e-5, rtol=0)


def test_tokens_bring_their_places(model: AnyOrderTransformer, images: Tensor) -> None:
    features = features_after(model, images, SINGLE, (1, 4))
    width = model.config.embed_dim
    tokens, places = features.read_tokens(1)(torch.arange(5)), token_places(model)
    where = torch.cat([torch.arange(model.num_always), SINGLE[0] + model.num_always])
    torch.testing.assert_close(tokens[0, :, width:].float(), places[where], atol=1e-3, rtol=0)
    assert not places[0].any()
    mixed = features.read_tokens(torch.tensor([0, 1, 0, 1, 0]))(torch.arange(5))
    assert mixed.any(2).sum(1).tolist() == [model.num_always + k for k in (1, 4, 1, 4, 1)]


def test_padding_has_no_effect_on_the_attentive_head() -> None:
    torch.manual_seed(0)
    head, tokens = AttentiveHead(8, 3, num_heads=2), torch.randn(6, 5, 8)
    padded = torch.cat([tokens, torch.zeros(6, 2, 8)], dim=1)
    torch.testing.assert_close(head.train()(padded), head(tokens))
    torch.testing.assert_close(head.eval()(padded), head(tokens))


def test_every_row_of_the_attentive_head_has_its_own_padding() -> None:
    torch.manual_seed(0)
    head, tokens = AttentiveHead(8, 3, num_heads=2).eval(), torch.randn(4, 5, 8)
    numbers = (2, 5, 1, 4)
    ragged = tokens * (torch.arange(5) < torch.tensor(numbers).unsqueeze(1)).unsqueeze(2)
    alone = [head(tokens[[row], :number]) for row, number in enumerate(numbers)]
    torch.testing.assert_close(head(ragged), torch.cat(alone))


def test_many_images_are_those_one_batch_at_a_time(
    model: AnyOrderTransformer, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.probes.partial.QUERIES_AT_ONCE", 2 * 12 * 2)
    pixels = (images * 255).to(torch.uint8)
    data = ImageSet(pixels, torch.zeros(5, dtype=torch.long), ("a",), "toy")
    found = partial_features(model, data, SEGMENTS, (1, 2))
    whole = features_after(model, pixels.float() / 255, SEGMENTS, (1, 2))
    for name, values in whole.pooled.items():
        torch.testing.assert_close(found.pooled[name], values, atol=1e-5, rtol=0)
    for each in range(2):
        expected = whole.read_tokens(each)(torch.arange(5))
        tokens = found.read_tokens(each)(torch.arange(5))
        torch.testing.assert_close(tokens, expected, atol=1e-3, rtol=0)


def test_controls_by_hand() -> None:
    order = torch.tensor([[5, 0]])
    assert seen_after(order, (0, 1, 2), 6)[0].nonzero().tolist() == [[1, 5], [2, 0], [2, 5]]
    _, second = path_features(order, (1, 2), (2, 3))
    np.testing.assert_array_equal(second, [[1, 0, 0, 0, 0, 1, 1, 2, 0, 0]])
    segment, _ = path_features(torch.tensor([[[0, 2], [5, -1]]]), (1, 2), (2, 3))
    np.testing.assert_array_equal(segment, [[1, 0, 1, 0, 0, 0, 0, 1]])
    patches = torch.arange(1.0, 13).view(1, 6, 2)
    np.testing.assert_array_equal(
        pixels_after(patches, order, 1), [[*[0.0] * 10, 11, 12, 0, 0, 0, 0, 0, 1]]
    )


def test_what_has_no_meaning_is_refused(model: AnyOrderTransformer, images: Tensor) -> None:
    for after, got in (((), "none"), ((5,), "5"), ((-1, 2), "-1 2")):
        with pytest.raises(ValueError, match=rf"must lie in 0\.\.4.*got {got}"):
            features_after(model, images, SINGLE, after)
    with pytest.raises(ValueError, match=r"fixations_layer must lie in 1\.\.2, got 3"):
        features_after(model, images, SINGLE, (1,), layer=3)

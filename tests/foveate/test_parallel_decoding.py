"""Parallel decoding: each pass decodes something, what is visible stays, schedules are searched."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from foveate.model import AnyOrderTransformer, parallel_decoding
from foveate.model.parallel_decoding import (
    CachedStream,
    DecodingSchedule,
    decode_in_order,
    decode_in_parallel,
    frechet_distance,
    search_schedule,
)
from foveate.orders import ordering, rank_to_order
from foveate.recipes import recipe

COLORS = torch.tensor([[0.0], [0.25], [1.0]])


def build(name: str) -> AnyOrderTransformer:
    torch.manual_seed(0)
    model = AnyOrderTransformer(
        recipe(name).model_config(
            depth=2, image_size=(4, 4), patch_size=1, embed_dim=16, num_heads=2, num_colors=3
        )
    )
    model.palette.copy_(COLORS)
    return model.eval()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("passes", [1, 2, 5, 16])
def test_visible_patches_stay_and_hidden_ones_become_colors(passes: int) -> None:
    model = build("autonat")
    canvas = COLORS[torch.randint(3, (3, 1, 4, 4))].squeeze(-1)
    hidden = torch.rand(3, 16, generator=generator()) < 0.7
    decoded = decode_in_parallel(
        model, canvas, hidden, DecodingSchedule.cosine(passes), generator=generator()
    )
    before, after = model.patchify(canvas), model.patchify(decoded)
    assert torch.equal(before[~hidden], after[~hidden])
    assert set(after.unique().tolist()) <= set(COLORS.flatten().tolist())


def test_every_pass_decodes_and_leaves_something(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = build("autonat"), []
    predict = model.predict_in_turn

    def watched(images: torch.Tensor, rank: torch.Tensor) -> object:
        seen.append(int(rank.sum()))
        return predict(images, rank)

    monkeypatch.setattr(model, "predict_in_turn", watched)
    canvas, hidden = torch.zeros(1, 1, 4, 4), torch.ones(1, 16, dtype=torch.bool)
    decode_in_parallel(model, canvas, hidden, DecodingSchedule.cosine(4), generator=generator())
    assert seen == [16, int(16 * 0.92388), int(16 * 0.70711), int(16 * 0.38268)]


@pytest.mark.parametrize("temperature", [0.1, 10.0])
def test_what_stays_hidden_is_what_maskgit_hides(
    monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    """The lowest log-probabilities of what was sampled, not tempered, plus noise (NATSchedule)."""
    model, seen = build("autonat"), []
    logits = torch.randn(1, 16, 3, generator=generator())
    drawn = torch.randint(3, (1, 16, 1), generator=generator())
    noise = torch.randn(1, 16, generator=generator())

    def predicted(images: torch.Tensor, rank: torch.Tensor) -> object:
        seen.append(rank[0].bool())
        return SimpleNamespace(prediction=SimpleNamespace(values=logits))

    monkeypatch.setattr(model, "predict_in_turn", predicted)
    monkeypatch.setattr(parallel_decoding, "sample", lambda *_: drawn)
    monkeypatch.setattr(parallel_decoding, "gumbel", lambda *_: noise)
    confidence = logits.log_softmax(-1).gather(-1, drawn).squeeze(-1)
    sets = []
    for choice in (1e-9, 0.5, 1e9):
        schedule = DecodingSchedule((0.5,), (choice,), (temperature, temperature))
        canvas, hidden = torch.zeros(1, 1, 4, 4), torch.ones(1, 16, dtype=torch.bool)
        decode_in_parallel(model, canvas, hidden, schedule)
        lowest = (confidence + choice * noise)[0].argsort()[:8]
        sets.append(set(seen[-1].nonzero().flatten().tolist()))
        assert sets[-1] == set(lowest.tolist())
    assert sets[0] != sets[1] != sets[2], "noise decides more and more"


@pytest.mark.parametrize("name", ["autonat", "igpt"])
def test_one_patch_per_pass_sees_what_was_sampled(name: str) -> None:
    """With temperature near 0 the last patch is the most probable given all others."""
    model = build(name)
    canvas = torch.zeros(2, 1, 4, 4)
    order = rank_to_order(ordering("raster", model.grid)(canvas))
    decoded = decode_in_order(model, canvas, order, temperature=1e-6, generator=generator())
    rank = torch.zeros(2, 16, dtype=torch.long) if name == "autonat" else order.argsort(1)
    rank[:, 15] = 1 if name == "autonat" else 15
    logits = model.predict_in_turn(decoded, rank).prediction.values[:, 15]
    expected = COLORS[logits.argmax(-1)]
    assert torch.equal(model.patchify(decoded)[:, 15], expected)


def test_what_cannot_be_decoded_in_order_is_refused() -> None:
    model, canvas = build("igpt"), torch.zeros(1, 1, 4, 4)
    order = torch.arange(16).unsqueeze(0)
    with pytest.raises(ValueError, match=r"must be above 0 and finite, got 0"):
        decode_in_order(model, canvas, order, temperature=0.0)
    with pytest.raises(ValueError, match="decodes all 16 patches in order, got 3"):
        decode_in_order(model, canvas, order[:, :3])
    with pytest.raises(ValueError, match="above 0 and finite"):
        DecodingSchedule((), (), (0.0,))


def test_a_cached_stream_predicts_as_the_whole_pass() -> None:
    model, images = build("igpt"), torch.rand(3, 1, 4, 4)
    rank = ordering("random", model.grid)(images, generator=generator())
    order, rows = rank_to_order(rank), torch.arange(3)
    cached = CachedStream(model, images)
    with torch.no_grad():
        whole = model.predict_in_turn(images, rank).prediction.values
        for patch in order.unbind(1):
            one = cached.predict(patch)
            torch.testing.assert_close(one, whole[rows, patch], atol=1e-5, rtol=1e-5)
            cached.read(patch, model.color_ids(images)[rows, patch])


def test_frechet_distance_of_gaussians_by_hand() -> None:
    """Equal covariances: the squared distance of the means. Scaled ones: (s - 1)^2 per axis."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4000, 3))
    assert frechet_distance(values, values + 2.0) == pytest.approx(12.0, abs=1e-6)
    scaled = frechet_distance(values - values.mean(0), 3 * (values - values.mean(0)))
    assert scaled == pytest.approx(4 * np.trace(np.cov(values, rowvar=False)), rel=1e-6)


def test_one_image_has_no_distance() -> None:
    with pytest.raises(ValueError, match="two or more of each, got 1, 4"):
        frechet_distance(np.ones((1, 2)), np.ones((4, 2)))


def test_a_search_finds_a_better_schedule() -> None:
    target = np.array([0.6, 0.3, 2.0, 1.0, 0.5, 0.5, 0.5])

    def distance(schedule: DecodingSchedule) -> float:
        return float(np.square(schedule.to_array() - target).sum())

    best, distances = search_schedule(DecodingSchedule.cosine(3), distance, num_updates=20)
    assert distance(best) == min(distances) < 0.3 * distances[0]


def test_a_search_leaves_the_largest_shares() -> None:
    """A first share of 0.991, that of MaskGIT's 12 passes: a step up from there changes nothing."""

    def distance(schedule: DecodingSchedule) -> float:
        return float(np.square(schedule.to_array()[:11] - 0.5).sum())

    start = DecodingSchedule.cosine(12)
    assert start.hidden[0] > 0.99
    best, _ = search_schedule(start, distance, num_updates=5)
    assert best.hidden[0] < 0.97


def test_schedules_keep_their_lengths() -> None:
    schedule = DecodingSchedule.cosine(5)
    assert DecodingSchedule.from_array(schedule.to_array()) == schedule
    with pytest.raises(ValueError, match="T - 1 shares"):
        DecodingSchedule((0.5,), (), (1.0, 1.0))
    canvas = torch.rand(2, 1, 4, 4)
    nothing = torch.tensor([[True], [False]]).expand(2, 16)
    with pytest.raises(ValueError, match="every image needs a hidden patch"):
        decode_in_parallel(build("autonat"), canvas, nothing, schedule)
    with pytest.raises(ValueError, match="needs a model with stream='masked'"):
        decode_in_parallel(
            build("igpt"), torch.zeros(1, 1, 4, 4), torch.ones(1, 16, dtype=torch.bool), schedule
        )

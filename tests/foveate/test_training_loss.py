"""The training loss of unseen queries: which patches are asked, when, and what each weighs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from unchecked import unchecked

from foveate.config import ModelConfig
from foveate.errors import expected_error_loss
from foveate.model import AnyOrderTransformer
from foveate.model.decoder import Prediction
from foveate.orders import ordering, rank_to_order

Asked = Callable[..., tuple[Tensor, Tensor]]
"""Positions asked, (B, S, M), and patches visible to each step, (B, S)."""


@pytest.fixture
def asked(model: AnyOrderTransformer, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Ask the model with a seed, and return what it asked itself."""
    decode = model.decode
    calls: list[tuple[Tensor, Tensor]] = []

    def record(layers: tuple[Tensor, ...], positions: Tensor, counts: Tensor) -> Prediction:
        calls.append((positions, counts))
        return decode(layers, positions, counts)

    monkeypatch.setattr(model, "decode", record)

    def ask(rank: Tensor, seed: int, num_steps: int | None = None) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            model(images, rank, num_steps=num_steps, generator=generator)
        number = model.config.num_targets
        positions, counts = (each.unflatten(1, (-1, number)) for each in calls.pop())
        assert (counts == counts[..., :1]).all()
        return positions, counts[..., 0]

    return ask


@pytest.fixture
def rank(model: AnyOrderTransformer, images: Tensor) -> Tensor:
    return ordering("random", model.grid)(images, generator=torch.Generator().manual_seed(0))


def test_every_unseen_patch_is_asked_equally_often_and_no_seen_one(
    asked: Asked, rank: Tensor
) -> None:
    """Over 400 draws; a share of 5 of n patches may be off by four standard deviations."""
    draws, number = 400, 5
    times = torch.zeros(5, 12, 12)
    with unchecked():
        for seed in range(draws):
            positions, counts = asked(rank, seed)
            assert torch.equal(counts, torch.arange(12).expand(5, -1)), "all steps, in turn"
            times.scatter_add_(2, positions, torch.ones(positions.shape))
    seen = rank.unsqueeze(1) < torch.arange(12).view(1, -1, 1)
    assert not times[seen].any()
    for step in range(12):
        num_unseen = 12 - step
        expected = draws * number / num_unseen
        # Where few are left each is asked several times: the rounding alone is random.
        spread = 4 * (draws * min(1, number / num_unseen)) ** 0.5
        each = times[:, step][~seen[:, step]]
        assert (each - expected).abs().max() < spread, f"step {step}"


def test_unseen_patches_are_asked_at_random_row_by_row_and_step_by_step(
    asked: Asked, rank: Tensor
) -> None:
    raster = torch.arange(12).expand(5, -1)
    first, again, other = (asked(raster, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(torch.unique(first[:, 0], dim=0)) > 1, "rows differ"
    assert len({tuple(row) for row in asked(rank * 0, 0)[0][:, 0].tolist()}) > 1


def test_no_patch_is_asked_twice_while_there_are_others(asked: Asked, rank: Tensor) -> None:
    for seed in range(20):
        positions, counts = asked(rank, seed)
        for row, step in ((row, step) for row in range(5) for step in range(12)):
            distinct = len(set(positions[row, step].tolist()))
            assert distinct == min(5, 12 - int(counts[row, step]))


def test_steps_are_drawn_without_repetition_and_row_by_row(asked: Asked, rank: Tensor) -> None:
    with unchecked():
        drawn = torch.stack([asked(rank, seed, num_steps=3)[1] for seed in range(200)])
    assert all(len(set(steps)) == 3 for steps in drawn.flatten(0, 1).tolist())
    assert len(torch.unique(drawn[0].sort(1).values, dim=0)) > 1
    # 1000 draws of 3 of 12 steps: 250 of each, give or take four standard deviations of 14.
    times = torch.bincount(drawn.flatten(), minlength=12)
    assert ((times - 250).abs() < 56).all()
    assert asked(rank, 0, num_steps=12)[1].tolist() == [list(range(12))] * 5


def test_the_last_rank_is_never_revealed(asked: Asked, rank: Tensor) -> None:
    """Rows of fewer ranks than others repeat their last step."""
    short = rank.clone()
    short[0] = rank[0].clamp(max=3)
    positions, counts = asked(short, 0)
    assert counts[0].tolist() == [0, 1, 2, *[3] * 9]
    assert counts[1].tolist() == list(range(12))
    seen = set(rank_to_order(rank)[0, :3].tolist())
    assert not seen & set(positions[0, 3:].flatten().tolist())


def prediction_of(values: list[float], log_error: list[float]) -> Prediction:
    """Patches of 8 equal values."""
    pixels = torch.tensor(values).view(1, -1, 1).repeat(1, 1, 8).requires_grad_()
    told = torch.tensor([log_error]).requires_grad_()
    return Prediction(pixels, told, pixels)


def test_a_prediction_that_is_far_too_sure_is_put_right() -> None:
    """Of patches with errors of .5, .5 and 0; the first is expected to be e^-7, the others less."""
    error = torch.tensor([[0.5, 0.5, 0.0]])
    told = torch.tensor([[-7.0, -20.0, -20.0]], requires_grad=True)
    loss = expected_error_loss(error, told)
    (gradient,) = torch.autograd.grad(loss.sum(), told)
    torch.testing.assert_close(
        gradient, torch.tensor([[1 - 0.5 * math.e**7, 1 - 0.5 * math.e**8, 0]])
    )
    torch.testing.assert_close(loss[:, 1:], torch.tensor([[0.5 * math.e**8 - 8, 1 - 8.0]]))


def test_the_uncertainty_weighs_a_twentieth_of_the_pixels(model: AnyOrderTransformer) -> None:
    """Errors of 1 and 9, whose logs are said to be 0 and 2."""
    prediction, targets = prediction_of([1.0, 3.0], [0.0, 2.0]), torch.zeros(1, 2, 8)
    calibration = ((1 + 0) + (9 * torch.tensor(-2.0).exp() + 2)) / 2
    loss = model.loss(prediction, targets)
    torch.testing.assert_close(loss, 5 + 0.05 * calibration)
    assert ModelConfig().error_loss_weight == 0.05
    # Where it is 0 nothing but the pixels counts, and their gradient is the same.
    (gradient,) = torch.autograd.grad(loss, prediction.values)
    torch.testing.assert_close(gradient, 2 * prediction.values.detach() / 16)


def test_predictions_that_do_not_count_are_without_weight(model: AnyOrderTransformer) -> None:
    prediction, targets = prediction_of([1.0, 3.0], [0.0, 2.0]), torch.zeros(1, 2, 8)
    predicted = torch.tensor([[True, False]])
    loss = model.loss(prediction, targets, predicted)
    torch.testing.assert_close(loss, torch.tensor(1 + 0.05))
    assert float(model.loss(prediction, targets, predicted & False).detach()) == 0


def test_a_claim_of_hardly_any_error_costs_no_more_than_a_floor(
    model: AnyOrderTransformer,
) -> None:
    """One flat patch must not blow the loss up."""
    targets = torch.zeros(1, 1, 8)
    costs = [
        float(model.loss(prediction_of([1.0], [claim]), targets).detach())
        for claim in (-8.0, -50.0)
    ]
    assert costs[0] == costs[1] == pytest.approx(1 + 0.05 * (2980.958 - 8), rel=1e-4)


def test_the_loss_is_of_what_the_decoder_says_of_the_patches_asked(
    model: AnyOrderTransformer, images: Tensor, rank: Tensor, asked: Asked
) -> None:
    """Recomputed from the parallel pass that evaluates scans."""
    blank = AnyOrderTransformer(dataclasses.replace(model.config, error_loss_weight=0.0)).eval()
    blank.load_state_dict(model.state_dict())
    positions, counts = asked(rank, 4, num_steps=3)
    loss = blank(images, rank, num_steps=3, generator=torch.Generator().manual_seed(4))
    predicted = blank.predict_scan(images, rank, 11)
    targets = blank.patchify(blank.normalize(images))
    rows = torch.arange(5).view(-1, 1, 1)
    error = predicted[rows, counts.unsqueeze(-1), positions] - targets[rows, positions]
    torch.testing.assert_close(loss, error.square().mean(), atol=1e-5, rtol=1e-4)

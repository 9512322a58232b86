"""What the model learns from after the warm-up: shares that change, and scans decoded backwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.mixing import Mixer, check_shares
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer
from foveate.orders.segments import Fixations

TINY = PRESETS["smoke"][1].replace(
    embed_dim=16,
    num_heads=2,
    depth=1,
    limit=32,
    warmup_iterations=2,
    warmup_batch_size=2,
    iterations=5,
    batch_size=4,
    group=2,
    budget=3,
    prefix_share=0,
)


def trainer_of(config: TrainConfig) -> Trainer:
    return Trainer(config, Processes.started("cpu"))


def mixer_of(config: TrainConfig) -> Mixer:
    assert config.policy is not None
    return Mixer(config, config.policy, trainer_of(config).model_learner)


SCANS = torch.tensor([[0, 1, 2], [5, 4, 3], [7, 8, 9], [2, 1, 0], [6, 0, 1], [9, 8, 7]])
"""Of three images, two of each."""


def drawn(mixer: Mixer, number: int = 3) -> tuple[Tensor, Tensor]:
    shape = mixer.learner.images.held.image_shape
    images = torch.arange(number).view(-1, 1, 1, 1).expand(-1, *shape) / 10
    return images, torch.arange(number)


# --- the share of random orders


@pytest.mark.parametrize(
    ("first", "last", "scanned"),
    [(1.0, 0.5, [0, 2, 4, 6, 8]), (0.5, 1.0, [8, 6, 4, 2, 0]), (0.0, 0.75, [8, 6, 5, 4, 2])],
)
def test_the_share_of_random_orders_goes_along_a_line_in_batches_of_one_size(
    first: float, last: float, scanned: list[int]
) -> None:
    """8 scans of 4 images; the warm-up of 2 iterations has no part in it.

    A quarter of 8 images, and half of 8 + 8, are what the smaller share says.
    """
    config = TINY.replace(random_share=first, random_share_end=last)
    mixer = mixer_of(config)
    assert [mixer.random_share(at) for at in (0, 2, 4, 6, 9)] == pytest.approx(
        [first, first, (first + last) / 2, last, last]
    )
    scans = torch.rand(8, 9).argsort(1)[:, :3]
    generator = torch.Generator().manual_seed(0)
    size = 16 if min(first, last) == 0.5 else 8
    for at, number in zip(range(2, 7), scanned, strict=True):
        parts = mixer.batch(at, (drawn(mixer, 4), scans), generator)
        assert [len(part.rank) for part in parts] == [n for n in (number, size - number) if n]
    assert config.num_learned == size


def test_the_scans_that_are_taken_are_of_as_many_images_as_can_be() -> None:
    mixer = mixer_of(TINY.replace(batch_size=3, random_share=1.0, random_share_end=0.0))
    generator = torch.Generator().manual_seed(0)
    parts = mixer.batch(4, (drawn(mixer), SCANS), generator)
    assert torch.equal(parts[0].index, torch.tensor([0, 1, 2])), "one of each image"
    taken = parts[0].rank.argsort(dim=1, stable=True)[:, :3]
    assert torch.equal(taken, SCANS[[0, 2, 4]])
    assert torch.equal(parts[0].images[:, 0, 0, 0], torch.tensor([0.0, 0.1, 0.2]))


def test_a_changing_share_is_resumed_where_it_was() -> None:
    config = TINY.replace(random_share=1.0, random_share_end=0.5)
    whole, halves = trainer_of(config), trainer_of(config)
    for _ in range(7):
        whole.step()
    for _ in range(4):
        halves.step()
    state = halves.state()
    again = trainer_of(config)
    again.load(state)
    for _ in range(3):
        again.step()
    assert again.measured == whole.measured
    for one, other in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


# --- what was scanned comes last


def test_backwards_the_first_fixation_is_decoded_last_and_what_was_left_out_first() -> None:
    rank = torch.tensor([[2, 0, 2, 2, 1, 2]]).expand(50, -1)
    turned = Fixations.single(6).reversed(rank, torch.Generator().manual_seed(0))
    assert (turned[:, 1] == 5).all()
    assert (turned[:, 4] == 4).all()
    others = turned[:, [0, 2, 3, 5]]
    assert torch.equal(others.sort(1).values, torch.arange(4).expand(50, -1))
    assert len(others.unique(dim=0)) > 10, "at random"


def test_backwards_squares_stay_whole() -> None:
    """On a grid of 4 x 4, a scan that opened the last square, then the first."""
    fixations = Fixations.squares((4, 4), 2)
    rank = torch.full((1, 16), 2)
    rank[:, [10, 11, 14, 15]], rank[:, [0, 1, 4, 5]] = 0, 1
    turned = fixations.reversed(rank, torch.Generator().manual_seed(0))[0]
    assert turned[[10, 11, 14, 15]].tolist() == [3] * 4
    assert turned[[0, 1, 4, 5]].tolist() == [2] * 4
    (upper_right,), (lower_left,) = turned[[2, 3, 6, 7]].unique(), turned[[8, 9, 12, 13]].unique()
    assert {int(upper_right), int(lower_left)} == {0, 1}


@pytest.mark.parametrize(
    "change",
    [{}, {"recipe": "saim", "target": "pixels"}, {"target": "patch_norm", "iterations": 0}],
)
def test_models_of_scans_by_squares_learn_from_orders_of_squares(change: dict[str, Any]) -> None:
    config = TINY.replace(fixation_size=2, decoder_depth=None, **change)
    learner = Trainer(config, Processes.started("cpu")).model_learner
    part = learner.in_order(torch.rand(2, 1, 32, 32), torch.arange(2), torch.Generator())
    assert part.ties
    for square in learner.fixations.patches:
        assert (part.rank[:, square] == part.rank[:, square[:1]]).all()


@pytest.mark.parametrize(
    ("change", "most"),
    [
        ({}, 3),
        ({"recipe": "saim", "target": "pixels", "decoder_depth": None}, 63),
        ({"fixation_size": 2}, 3),
        ({"fixation_size": 2, "recipe": "saim", "target": "pixels", "decoder_depth": None}, 15),
    ],
)
def test_the_model_is_asked_for_what_was_scanned_last(change: dict[str, Any], most: int) -> None:
    """Own queries take the whole order; of unseen ones it is a scan of the budget's length."""
    config = TINY.replace(scan_direction="reversed", batch_size=2, random_share=0.0, **change)
    mixer = mixer_of(config)
    fixations = mixer.learner.fixations
    chosen = torch.rand(4, len(fixations)).argsort(1)[:, :3]
    scans = drawn(mixer, 2), fixations.scanpath(chosen)
    (part,) = mixer.batch(2, scans, torch.Generator().manual_seed(0))
    assert part.last_rank == (None if "fixation_size" in change else most)
    assert part.ties is ("fixation_size" in change)
    assert (part.rank.amax(1) == most).all()
    opened = fixations.patches[chosen]
    steps = part.rank.unsqueeze(1).expand(-1, 3, -1).gather(2, opened)
    last = torch.tensor([most, most - 1, most - 2]) if most > 3 else torch.tensor([3, 3, 3])
    assert torch.equal(steps, last.view(1, 3, 1).expand_as(steps))
    loss = mixer.learner.loss_of(part, torch.Generator().manual_seed(0))
    assert loss.isfinite()


def test_a_direction_of_scans_that_nobody_learns_from_is_refused() -> None:
    with pytest.raises(ValueError, match="scan_direction has no effect with --random-share 1"):
        TINY.replace(scan_direction="reversed", random_share=1.0)
    with pytest.raises(ValueError, match=r"random_share_end must lie in 0..1, got 2"):
        TINY.replace(random_share_end=2.0)


def test_a_share_that_comes_to_no_random_order_is_refused() -> None:
    """Sixteen micro-batches of one image have four scans each, of which a tenth is none."""

    def check(**options: Any) -> None:
        config = TrainConfig().replace(batch_size=16, group=4, **options)
        assert config.policy is not None
        check_shares(config, config.policy)

    with pytest.raises(ValueError, match=r"random_share 0.1 comes to no random order, as each of"):
        check(random_share=0.1, micro_batches=16)
    check(random_share=0.0, micro_batches=16)
    check(random_share=0.1, micro_batches=1)

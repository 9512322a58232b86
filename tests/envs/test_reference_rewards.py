"""Rewards against a reference: by hand on error curves, in scans of patches and of squares."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import envs
from envs.episode import Episode
from envs.reference import progress, reducible
from envs.rewards import name_of, reward_named
from foveate.model import AnyOrderTransformer
from foveate.orders import order_to_rank
from foveate.orders.segments import Fixations


@pytest.fixture
def reference(model: AnyOrderTransformer) -> AnyOrderTransformer:
    """The same model with other weights."""
    torch.manual_seed(5)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        nn.init.normal_(parameter, std=0.1)
    return other


def errors_before(
    model: AnyOrderTransformer, images: Tensor, opened: Tensor, num_steps: int
) -> Tensor:
    """Error of the patches of each step before they are seen, by the parallel pass."""
    rank = order_to_rank(opened, model.num_patches)
    values = model.predict_scan(images, rank, num_steps)
    errors = model.target.loss(values, model.targets(images).unsqueeze(1))
    # (B, T, N): entry t has seen the patches of rank < t.
    return torch.stack([(errors[:, t] * (rank == t)).sum(1) for t in range(num_steps)], 1)


@pytest.mark.parametrize("side", [1, 2])
def test_it_pays_the_difference_of_both_errors_of_what_is_opened(
    side: int, model: AnyOrderTransformer, reference: AnyOrderTransformer, images: Tensor
) -> None:
    fixations = Fixations.squares(model.grid, side)
    paid: dict[str, list[Tensor]] = {}
    order = torch.stack([torch.randperm(len(fixations))[:4] for _ in range(5)])
    for name, reward in (("reducible", reducible), ("progress", progress)):
        episode = Episode(
            model,
            images,
            budget=4,
            reward=partial(reward, reference=reference),
            fixations=fixations,
        )
        paid[name] = [episode.step(episode.opens(order[:, t])) for t in range(4)]
    opened = fixations.scanpath(order)
    initial = model.target.loss(
        model.predict_scan(images, order_to_rank(opened, 12), 0)[:, 0], model.targets(images)
    ).sum(1)
    ours, theirs = (
        errors_before(each, images, opened, 4) / initial.unsqueeze(1) for each in (model, reference)
    )
    assert (ours - theirs).abs().min() > 1e-4
    reward_t = torch.stack(paid["reducible"], 1)
    torch.testing.assert_close(reward_t, ours - theirs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.stack(paid["progress"], 1), -reward_t)


def test_against_itself_nothing_is_paid(model: AnyOrderTransformer, images: Tensor) -> None:
    """Also where a patch is looked at again, and where a row is at its first step beside others."""
    reward = partial(reducible, reference=model)
    episode = Episode(model, images, budget=4, reward=reward, revisit_penalty=0.0)
    for patches in ([3, 3, 3, 3, 3], [3, 1, 2, 5, 3], [3, 6, 3, 7, 8]):
        paid = episode.step(torch.tensor(patches))
        torch.testing.assert_close(paid, torch.zeros(5), atol=1e-5, rtol=0)
    episode.restart(torch.tensor([True, False, False, False, True]), images[:2])
    paid = episode.step(torch.tensor([3, 9, 9, 9, 4]))
    torch.testing.assert_close(paid, torch.zeros(5), atol=1e-5, rtol=0)


def test_the_first_look_at_a_patch_is_the_one_that_counts() -> None:
    opened = torch.tensor([[[3], [1], [3], [-1]], [[2], [-1], [-1], [-1]]])
    steps = order_to_rank(opened, 4, check=False)
    assert steps.tolist() == [[4, 1, 4, 0], [4, 4, 0, 4]]


def test_environments_take_the_reference_as_an_option(
    model: AnyOrderTransformer, reference: AnyOrderTransformer, images: Tensor
) -> None:
    pixels = (images * 255).round().to(torch.uint8)
    options = {"reference": reference}
    env = envs.ImageScanVectorEnv(
        2, model=model, data=pixels, budget=3, reward="reducible", reward_options=options
    )
    env.reset(seed=0)
    assert (env.step(env.action_space.sample())[1] != 0).all()
    assert name_of(partial(reward_named("progress"), reference=model)) == "progress"
    for given, message in (
        (None, "needs a model to compare with"),
        ({"other": 1}, "takes no reward_options"),
        ({"reference": "runs/demo"}, "reference must be an AnyOrderTransformer, got str"),
    ):
        with pytest.raises(ValueError, match=message):
            envs.ImageScanVectorEnv(
                2, model=model, data=pixels, budget=3, reward="progress", reward_options=given
            )


def test_a_reference_that_predicts_something_else_is_refused(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    config = copy.deepcopy(model.config)
    object.__setattr__(config, "pixel_units", "imagenet")
    other = copy.deepcopy(model)
    other.config = config
    reward = partial(progress, reference=other)
    episode = Episode(model, images, budget=2, reward=reward)
    with pytest.raises(ValueError, match="the reference has pixel_units imagenet, not centered"):
        episode.step(torch.zeros(5, dtype=torch.long))

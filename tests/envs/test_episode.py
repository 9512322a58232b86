"""The scanning episode: masks, budget, rewards by hand, and nothing leaks from unseen patches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.episode import Episode
from envs.rewards import REVISIT_PENALTY, REWARDS
from foveate.model import AnyOrderTransformer
from foveate.model.encoder import take
from foveate.orders import order_to_rank


def test_rewards_by_hand() -> None:
    fixation: Any = SimpleNamespace(
        before=torch.tensor([0.9]), after=torch.tensor([0.6]), decoded=torch.tensor([0.2])
    )
    expected = {"auc": -0.6, "gain": 0.3, "surprise": 0.2, "ease": -0.2}
    assert {name: round(float(reward(fixation)), 6) for name, reward in REWARDS.items()} == expected


@pytest.mark.parametrize("reward", sorted(REWARDS))
def test_errors_equal_the_parallel_error_curve(
    reward: str, model: AnyOrderTransformer, images: Tensor
) -> None:
    order = torch.tensor([[3, 0, 11], [1, 2, 3], [5, 11, 0], [7, 4, 1], [9, 8, 2]])
    episode = Episode(model, images, budget=3, reward=reward)
    rewards = torch.stack([episode.step(order[:, t]) for t in range(3)], 1)
    curve = model.error_curve(images, order)
    # What each patch was predicted as, just before it was seen.
    predicted = model.predict_scan(images, order_to_rank(order, 12), 3)
    targets = model.patchify(model.normalize(images))
    rows, steps = torch.arange(5).unsqueeze(1), torch.arange(3)
    first = (predicted[:, 0] - targets).square().mean(-1).sum(1, keepdim=True)
    decoded = (predicted[rows, steps, order] - targets[rows, order]).square().mean(-1) / first
    torch.testing.assert_close(episode.error, curve[:, -1], atol=1e-5, rtol=1e-4)
    if reward == "auc":
        torch.testing.assert_close(rewards, -curve[:, 1:], atol=1e-5, rtol=1e-4)
    if reward in ("surprise", "ease"):
        sign = 1 if reward == "surprise" else -1
        torch.testing.assert_close(rewards, sign * decoded, atol=1e-5, rtol=1e-4)
    if reward == "gain":
        torch.testing.assert_close(rewards, curve[:, :-1] - curve[:, 1:], atol=1e-5, rtol=1e-4)
        # The trap: undiscounted, only the end counts, whatever the way there.
        torch.testing.assert_close(rewards.sum(1), 1 - curve[:, -1], atol=1e-5, rtol=1e-4)


def test_an_image_that_is_predicted_without_error_yields_finite_rewards(
    model: AnyOrderTransformer,
) -> None:
    """All at the pixel mean, which a head of zeros predicts."""
    torch.nn.init.zeros_(model.decoder.head.weight)
    torch.nn.init.zeros_(model.decoder.head.bias)
    episode = Episode(model, torch.full((2, 2, 6, 8), 0.5), budget=2)
    rewards = [episode.step(torch.tensor([t, t])) for t in range(2)]
    assert torch.stack(rewards).eq(0).all()
    assert episode.error.eq(0).all()


def test_visited_patches_are_not_selectable_and_the_budget_ends_it(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    episode = Episode(model, images, budget=2)
    first = torch.tensor([0, 1, 2, 3, 4])
    assert episode.observe().selectable.all()
    assert episode.observe().remaining.tolist() == [1.0] * 5
    episode.step(first)
    assert episode.observe().remaining.tolist() == [0.5] * 5
    assert not episode.observe().selectable[torch.arange(5), first].any()
    assert int(episode.observe().selectable.sum()) == 5 * 11
    with pytest.raises(ValueError, match=r"must lie in 0\.\.11"):
        episode.step(first + 10)
    episode.step(first + 1)
    assert episode.done.all()
    assert episode.order.tolist() == [[n, n + 1] for n in range(5)]
    with pytest.raises(ValueError, match="budget of 2 fixations is spent"):
        episode.step(first + 2)


def test_a_revisit_spends_a_step_and_shows_nothing(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    """The other rows go on as if nothing had happened."""
    episode, alone = (Episode(model, images, budget=3) for _ in range(2))
    for patch in ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9]):
        alone.step(torch.tensor(patch))
    episode.step(torch.tensor([0, 1, 2, 3, 4]))
    error = episode.error
    reward = episode.step(torch.tensor([5, 1, 7, 8, 9]))
    others = [0, 2, 3, 4]
    torch.testing.assert_close(episode.error[others], alone.error[others], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(episode.error[1], error[1], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(reward[1], -error[1] - REVISIT_PENALTY, atol=1e-6, rtol=1e-5)
    assert episode.num_steps.tolist() == [2] * 5
    assert int(episode.selectable[1].sum()) == 11


@pytest.mark.parametrize("rows", [[True] * 5, [False, True, False, False, True]])
def test_restarted_rows_equal_new_episodes(
    rows: list[bool], model: AnyOrderTransformer, images: Tensor
) -> None:
    again = torch.tensor(rows)
    fresh = images.flip(0)[: int(again.sum())]
    episode, alone = Episode(model, images, budget=3), Episode(model, fresh, budget=3)
    for patch in (2, 6):
        episode.step(torch.full((5,), patch))
    before = episode.error
    episode.restart(again, fresh)
    for name in ("error", "num_steps", "selectable", "order", "initial_error"):
        torch.testing.assert_close(getattr(episode, name)[again], getattr(alone, name))
    torch.testing.assert_close(episode.error[~again], before[~again])
    reward = episode.step(torch.full((5,), 9))
    torch.testing.assert_close(reward[again], alone.step(torch.full((len(fresh),), 9)))


def test_rows_restart_after_a_scan_made_more_room_than_there_are_patches(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    """Room is made for a whole segment, of which some may have been seen."""
    episode = Episode(model, images, budget=3)
    for _ in range(2):
        episode.step(torch.arange(10).expand(5, -1))
    episode.restart(torch.ones(5, dtype=torch.bool), images)
    assert torch.equal(episode.error, torch.ones(5))


def test_candidates_are_unseen_and_predicted_as_among_all(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    full = Episode(model, images, budget=3, group=2)
    few = Episode(
        model,
        images,
        budget=3,
        group=2,
        num_candidates=4,
        generator=torch.Generator().manual_seed(0),
    )
    torch.testing.assert_close(few.initial_error, full.initial_error)
    for _ in range(3):
        seen, everything = few.observe(), full.observe()
        assert seen.selectable.all()
        assert few.selectable.gather(1, few.candidates).all()
        assert few.candidates.shape == (10, 4)
        assert all(len(set(row)) == 4 for row in few.candidates.tolist())
        torch.testing.assert_close(
            seen.query_states, take(everything.query_states, few.candidates), atol=1e-5, rtol=1e-4
        )
        patch = few.candidates[:, 1]
        few.step(patch)
        full.step(patch)
    # As scans of an image begin with the same candidates, they have come the same way.
    assert torch.equal(few.order[0::2], few.order[1::2])


def test_candidates_estimate_the_error_without_bias(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    draws = 300

    def share(num_candidates: int) -> Tensor:
        """Estimates of each image's error over the error, (draws, B)."""
        generator = torch.Generator().manual_seed(0)
        episode = Episode(
            model,
            images.repeat(draws, 1, 1, 1),
            budget=2,
            num_candidates=num_candidates,
            generator=generator,
        )
        return (episode.remaining_error() / episode.initial_error).view(draws, -1)

    torch.testing.assert_close(share(12), torch.ones(draws, 5))
    drawn = share(3)
    assert (drawn.std(0) > 0).all()
    deviation = (drawn.mean(0) - 1) / (drawn.std(0) / draws**0.5)
    # Of five independent ones, another seed would exceed 4 once in 3000 times.
    assert (deviation.abs() < 4).all()


def test_a_fixation_must_be_a_candidate(model: AnyOrderTransformer, images: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    episode = Episode(model, images, budget=2, num_candidates=3, generator=generator)
    other = [min({*range(12)} - set(row)) for row in episode.candidates.tolist()]
    with pytest.raises(ValueError, match="must be one of the candidates"):
        episode.step(torch.tensor(other))
    with pytest.raises(ValueError, match="num_candidates must be at least 1"):
        Episode(model, images, budget=2, num_candidates=0)


def test_observations_do_not_depend_on_unseen_patches(images: Tensor) -> None:
    torch.manual_seed(0)
    from foveate.config import ModelConfig

    model = AnyOrderTransformer(
        ModelConfig(image_size=(6, 8), in_chans=2, patch_size=2, embed_dim=16, depth=2, num_heads=2)
    ).eval()
    order = torch.tensor([[3, 0]]).expand(5, -1)
    seen = torch.zeros(12, 8)
    seen[[3, 0]] = 1
    changed = torch.where(
        model.unpatchify(seen.expand(5, -1, -1)) > 0, images, torch.rand_like(images)
    )
    observations = []
    for world in (images, changed):
        episode = Episode(model, world, budget=3)
        for t in range(2):
            episode.step(order[:, t])
        observations.append(episode.observe())
    for field in ("query_states", "content_state", "log_error", "selectable", "remaining"):
        assert torch.equal(getattr(observations[0], field), getattr(observations[1], field)), field


@pytest.mark.parametrize("reward", ["auc", "gain"])
def test_a_saccade_costs_by_its_length(
    reward: str, model: AnyOrderTransformer, images: Tensor
) -> None:
    """On 3 x 4 patches: the first is free, then by hand; a new image begins anew."""
    options = {"budget": 4, "reward": reward}
    free = Episode(model, images, **options)
    costly = Episode(model, images, **options, saccade_cost=0.5)
    # From the corner two to the right, down and left by (1, 2), and there again.
    for patch, length in ((0, 0.0), (2, 2.0), (4, 5**0.5), (4, 0.0)):
        observed = costly.observe().distance
        assert observed is not None
        torch.testing.assert_close(observed[:, patch], torch.full((5,), length))
        chosen = torch.full((5,), patch)
        torch.testing.assert_close(costly.step(chosen), free.step(chosen) - 0.5 * length)
    again = torch.tensor([True, False, True, True, True])
    costly.restart(~again, images[:1])
    observed = costly.observe().distance
    assert observed is not None
    assert observed[1].eq(0).all()
    assert observed[0, 11] == pytest.approx(10**0.5)


def test_the_expected_gain_is_a_share_of_the_first_error_for_each_fixation_left(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    """Before the first fixation all patches together gain the budget; so does a new image."""

    def gain(episode: Episode) -> Tensor:
        expected = episode.observe().expected_gain
        assert expected is not None
        return expected

    episode = Episode(model, images, budget=3)
    total = episode.observe().log_error.exp().sum(1, keepdim=True)
    torch.testing.assert_close(gain(episode).sum(1), torch.full((5,), 3.0))
    episode.step(torch.arange(5))
    expected = 2 * episode.observe().log_error.exp() / total
    torch.testing.assert_close(gain(episode), expected)
    episode.restart(torch.arange(5) < 2, images[2:4])
    torch.testing.assert_close(gain(episode)[:2].sum(1), torch.full((2,), 3.0))
    torch.testing.assert_close(gain(episode)[2:], expected[2:])


def test_unknown_rewards_are_refused_with_a_suggestion(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    with pytest.raises(ValueError, match="did you mean 'gain'"):
        Episode(model, images, budget=2, reward="gian")


def test_the_last_unseen_patch_counts_as_all_others_do(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    """Eleven of twelve patches are seen, with all candidates and with drawn ones."""
    order = torch.stack([torch.randperm(12) for _ in range(5)])[:, :11]
    episode = Episode(model, images, budget=11)
    for patch in order.unbind(1):
        episode.step(patch)
    curve = model.error_curve(images, order)
    torch.testing.assert_close(episode.error, curve[:, -1], atol=1e-5, rtol=1e-4)
    few = Episode(model, images, budget=12, num_candidates=3)
    for left in range(12, 0, -1):
        assert few.candidates.shape == (5, min(3, left))
        assert few.observe().selectable.all()
        few.step(few.candidates[:, 0])

"""Segments: a fixation may open several patches, in episodes, agents, environments and pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from matplotlib.figure import Figure
from sb3_contrib import MaskablePPO
from stable_baselines3.common.env_checker import check_env as check_sb3_env
from torch import Tensor

import envs
from agents.baselines import (
    AgentOrdering,
    GreedyOracleAgent,
    OrderAgent,
    SaliencyAgent,
    UncertaintyAgent,
    error_after,
    scan_with,
)
from agents.group_relative import policy_step
from agents.joint_ppo import AfterRollout
from agents.policies import PointerPolicy, PolicyAgent, PolicyConfig
from agents.sb3 import PointerActorCriticPolicy, ScanVecEnv
from envs.episode import Episode
from envs.rewards import REVISIT_PENALTY
from foveate.data import ImageSet
from foveate.drawing import (
    border_lines,
    draw_scanpath,
    fixation_shares,
    scanpath_animation,
    scanpath_sheet,
)
from foveate.model import AnyOrderTransformer
from foveate.orders import order_to_rank, ordering
from foveate.orders.segments import Fixations, borders

SQUARES = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, -1, -1], [10, 11, -1, -1]]
"""Squares of 2 x 2 patches on the 3 x 4 grid of the test model: the lower ones are cut."""


@pytest.fixture
def squares() -> Fixations:
    return Fixations.squares((3, 4), 2)


@pytest.fixture
def policy(model: AnyOrderTransformer) -> PointerPolicy:
    torch.manual_seed(2)
    policy = PointerPolicy(model.config.embed_dim, PolicyConfig(hidden_dim=8))
    torch.nn.init.normal_(policy.score.weight)
    return policy


def rank_to_segments(rank: Tensor, num_steps: int) -> Tensor:
    """List the patches of each of the first steps, (B, T, S), padded with -1."""
    opened = rank.unsqueeze(1) == torch.arange(num_steps).view(1, -1, 1)
    place = opened.int().argsort(dim=2, descending=True, stable=True)
    place = place[..., : int(opened.sum(2).max())]
    return place.masked_fill(~opened.gather(2, place), -1)


class CrossAgent:
    """An agent of one's own: it opens a patch and its four neighbors, here or there."""

    def __call__(self, episode: Episode, generator: torch.Generator | None = None) -> Tensor:
        rows, cols = episode.scan.model.grid
        center = episode.of_fixations(torch.ones(episode.unseen.shape)).argmax(1)
        row, col = center // cols, center % cols
        cross = []
        for down, right in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
            inside = (0 <= row + down) & (row + down < rows) & (0 <= col + right)
            inside &= col + right < cols
            cross.append(torch.where(inside, center + down * cols + right, -1))
        return torch.stack(cross, 1)


# --- ranks


def test_squares_cover_the_grid_once(squares: Fixations) -> None:
    assert squares.patches.tolist() == SQUARES
    assert not squares.is_partition, "those at the edge are smaller"
    assert Fixations.squares((4, 6), 2).is_partition
    assert Fixations.squares((3, 4), 1).is_single
    for side in (0, 4):
        with pytest.raises(ValueError, match=r"must lie in 1\.\.3 patches"):
            Fixations.squares((3, 4), side)
    with pytest.raises(ValueError, match="repeats 3"):
        Fixations(torch.tensor([[3, 3]]), 12)
    with pytest.raises(ValueError, match="row 1 is padding alone"):
        Fixations(torch.tensor([[3, -1], [-1, -1]]), 12)


def test_a_table_on_another_device_is_not_looked_at_again(squares: Fixations) -> None:
    moved = squares.to("meta")
    assert moved.patches.is_meta
    assert not moved.is_single
    assert not moved.is_partition
    assert Fixations.single(12).to("meta").is_single
    assert squares.to("cpu") is squares


def test_scanpaths_of_segments_are_ranks() -> None:
    order = torch.tensor([[[5, -1, -1], [0, 1, 4]], [[2, 3, 0], [7, -1, -1]]])
    rank = order_to_rank(order, 8)
    assert rank.tolist() == [[1, 1, 2, 2, 1, 0, 2, 2], [0, 2, 0, 0, 2, 2, 2, 1]]
    again = rank_to_segments(rank, 2)
    assert [[sorted(s) for s in row] for row in again.tolist()] == [
        [sorted(s) for s in row] for row in order.tolist()
    ]
    with pytest.raises(ValueError, match="row 0 repeats 5"):
        order_to_rank(torch.tensor([[[5, 1], [5, -1]]]), 8)
    with pytest.raises(ValueError, match=r"patches 0\.\.7; row 0"):
        order_to_rank(torch.tensor([[[8, 1]]]), 8)


def test_one_patch_per_segment_is_the_same_rank(images: Tensor) -> None:
    order = torch.tensor([[3, 0, 7]])
    assert torch.equal(order_to_rank(order, 8), order_to_rank(order.unsqueeze(2), 8))


# --- episodes


def test_errors_of_segments_equal_the_parallel_error_curve(
    model: AnyOrderTransformer, images: Tensor, squares: Fixations
) -> None:
    """For every reward's ground: what a step shows, and what is left."""
    episode = Episode(model, images, budget=3, fixations=squares)
    chosen = torch.tensor([[0, 2, 1], [3, 1, 0], [2, 3, 1], [1, 0, 2], [0, 1, 3]])
    rewards = torch.stack([episode.step(episode.opens(chosen[:, t])) for t in range(3)], 1)
    assert episode.order.shape == (5, 3, 4)
    assert torch.equal(episode.order, squares.patches[chosen])
    curve = model.error_curve(images, episode.order)
    torch.testing.assert_close(rewards, -curve[:, 1:], atol=1e-5, rtol=1e-4)
    rank = order_to_rank(episode.order, 12)
    parallel = model.predict_scan(images, rank, 3)[:, -1]
    torch.testing.assert_close(episode.prediction.values, parallel, atol=1e-5, rtol=1e-5)
    assert torch.equal(episode.unseen, rank == 3)


def test_a_square_is_seen_by_its_patches_means_and_sums(
    model: AnyOrderTransformer, images: Tensor, squares: Fixations
) -> None:
    """Counted over the patches that are still unseen."""
    episode = Episode(model, images, budget=2, fixations=squares)
    episode.step(torch.full((5,), 5))
    seen, single = episode.observe(), episode.prediction
    assert seen.query_states.shape == (5, 4, 16)
    assert single.log_error is not None
    for number, members in enumerate(([0, 1, 4], [2, 3, 6, 7], [8, 9], [10, 11])):
        torch.testing.assert_close(
            seen.query_states[:, number], single.states[:, members].mean(1), atol=1e-6, rtol=1e-5
        )
        torch.testing.assert_close(
            seen.log_error[:, number].exp(), single.log_error[:, members].exp().sum(1)
        )
    assert seen.selectable.all()
    episode.step(episode.opens(torch.zeros(5, dtype=torch.long)))
    assert episode.observe().selectable.tolist() == [[False, True, True, True]] * 5
    assert torch.isfinite(episode.observe().log_error).all()


def test_what_a_segment_has_shown_before_is_no_news(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    once, twice = (Episode(model, images, budget=3) for _ in range(2))
    for patches in ([[3, 7]], [[7, 2, -1, 3]]):
        twice.step(torch.tensor(patches * 5))
    for patches in ([[3, 7]], [[2]]):
        once.step(torch.tensor(patches * 5))
    torch.testing.assert_close(twice.error, once.error, atol=1e-5, rtol=1e-5)
    error = twice.error
    reward = twice.step(torch.tensor([[7, 3]] * 5))
    torch.testing.assert_close(reward, -error - REVISIT_PENALTY, atol=1e-5, rtol=1e-5)
    assert twice.order.tolist() == [[[3, 7, -1, -1], [-1, 2, -1, -1], [-1, -1, -1, -1]]] * 5
    assert twice.newest.tolist() == [[7, 3]] * 5
    with pytest.raises(ValueError, match="row 0 opens a patch twice at once"):
        Episode(model, images, budget=3).step(torch.tensor([[3, 3]] * 5))


def test_a_step_that_is_stated_to_be_new_is_the_step_that_looks(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    stated, looking = (Episode(model, images, budget=2) for _ in range(2))
    for patches in ([[3, 7]], [[2, 0]]):
        one = stated.step(torch.tensor(patches * 5), all_new=True)
        assert torch.equal(one, looking.step(torch.tensor(patches * 5)))
    assert torch.equal(stated.order, looking.order)


def test_candidate_squares_are_selectable_and_estimate_the_error(
    model: AnyOrderTransformer, images: Tensor, squares: Fixations
) -> None:
    draws, generator = 300, torch.Generator().manual_seed(0)
    many = images.repeat(draws, 1, 1, 1)
    few = Episode(model, many, budget=3, fixations=squares, num_candidates=2, generator=generator)
    share = (few.remaining_error() / few.initial_error).view(draws, -1)
    # Squares differ in size, so that the ratio is unbiased only as the draws grow; ten percent.
    assert (share.mean(0) - 1).abs().max() < 0.1
    full = Episode(model, many, budget=3, fixations=squares)
    choice = few.candidates[:, 1]
    few.step(few.patch_of(torch.ones_like(choice)))
    full.step(full.opens(choice))
    assert few.selectable.gather(1, few.candidates).all()
    expected = full.observe()
    for name in ("query_states", "log_error"):
        value = getattr(expected, name)
        index = few.candidates.view(*few.candidates.shape, *[1] * (value.ndim - 2))
        torch.testing.assert_close(
            getattr(few.observe(), name),
            value.gather(1, index.expand(-1, -1, *value.shape[2:])),
            atol=1e-5,
            rtol=1e-4,
        )


# --- agents


def test_every_agent_opens_squares_and_no_patch_twice(
    model: AnyOrderTransformer, images: Tensor, squares: Fixations, policy: PointerPolicy
) -> None:
    agents = [
        PolicyAgent(policy),
        PolicyAgent(policy, greedy=False),
        UncertaintyAgent(),
        SaliencyAgent(),
        GreedyOracleAgent(2),
        GreedyOracleAgent(),
    ]
    for agent in agents:
        order = scan_with(
            agent, model, images, 3, torch.Generator().manual_seed(0), fixations=squares
        )
        assert order.shape == (5, 3, 4)
        for row in order.tolist():
            assert all(segment in SQUARES for segment in row), agent
            assert len({tuple(segment) for segment in row}) == 3, agent


def test_the_oracle_opens_the_square_after_which_least_is_left(
    model: AnyOrderTransformer, images: Tensor, squares: Fixations
) -> None:
    each = torch.stack(
        [
            model.error_curve(images, squares.patches[number].expand(5, 1, -1))[:, 1]
            for number in range(4)
        ],
        1,
    )
    episode = Episode(model, images, budget=1, fixations=squares)
    every = torch.arange(4).expand(5, -1)
    torch.testing.assert_close(error_after(episode, every), each, atol=1e-5, rtol=1e-4)
    order = scan_with(GreedyOracleAgent(), model, images, 1, fixations=squares)
    assert torch.equal(order[:, 0], squares.patches[each.argmin(1)])


@pytest.fixture
def overlapping() -> Fixations:
    """Rows and columns of the 3 x 4 grid, whose patches lie in two fixations each."""
    rows = [[4 * row + col for col in range(4)] for row in range(3)]
    cols = [[col, 4 + col, 8 + col, -1] for col in range(4)]
    return Fixations(torch.tensor(rows + cols), 12)


@pytest.mark.parametrize("num_candidates", [None, 3])
def test_fixations_may_overlap_and_leave_nothing_to_see(
    num_candidates: int | None,
    model: AnyOrderTransformer,
    images: Tensor,
    overlapping: Fixations,
    policy: PointerPolicy,
) -> None:
    """With a step for every fixation the last ones show nothing new."""
    done = policy_step(
        model,
        policy,
        images,
        budget=7,
        reward="surprise",
        group=2,
        discount=1.0,
        entropy_weight=0.0,
        fixations=overlapping,
        num_candidates=num_candidates,
        generator=torch.Generator().manual_seed(0),
    )
    assert done.errors[:, -1].tolist() == [0.0] * 10
    assert torch.isfinite(done.loss)
    for agent in (UncertaintyAgent(), SaliencyAgent(), GreedyOracleAgent()):
        order = scan_with(agent, model, images, 7, fixations=overlapping)
        assert order.shape == (5, 7, 4), agent
    order = scan_with(UncertaintyAgent(), model, images, 3, fixations=overlapping)
    assert torch.isfinite(model.error_curve(images, order)).all(), "a patch is opened once"


def test_a_surprise_counts_a_patch_once_however_many_candidates_hold_it(
    model: AnyOrderTransformer, images: Tensor, overlapping: Fixations
) -> None:
    every = Episode(model, images, budget=1, fixations=overlapping, reward="surprise")
    drawn = Episode(
        model,
        images,
        budget=1,
        fixations=overlapping,
        reward="surprise",
        num_candidates=7,
        generator=torch.Generator().manual_seed(0),
    )
    choice = drawn.candidates[:, 0]
    expected = every.step(every.opens(choice))
    torch.testing.assert_close(drawn.step(drawn.opens(choice)), expected, atol=1e-5, rtol=1e-4)


def test_an_oracle_that_tries_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 candidate per step, got 0"):
        GreedyOracleAgent(0)


def test_the_policy_learns_from_squares(
    model: AnyOrderTransformer, images: Tensor, squares: Fixations, policy: PointerPolicy
) -> None:
    done = policy_step(
        model,
        policy,
        images,
        budget=2,
        reward="auc",
        group=4,
        discount=0.7,
        entropy_weight=0.0,
        fixations=squares,
        generator=torch.Generator().manual_seed(0),
    )
    assert done.order.shape == (20, 2, 4)
    done.loss.backward()
    assert all(p.grad is None for p in model.parameters())
    assert policy.candidate.weight.grad is not None
    assert float(policy.candidate.weight.grad.abs().sum()) > 0


def test_an_agent_that_opens_a_cross_needs_nothing_else(
    model: AnyOrderTransformer, images: Tensor, tmp_path: Path
) -> None:
    order = scan_with(CrossAgent(), model, images, 4)
    assert order.shape == (5, 4, 5)
    assert order[0, 0].tolist() == [0, -1, 4, -1, 1]
    rank = AgentOrdering(CrossAgent(), model, 4)(images)
    assert torch.equal(rank, order_to_rank(order, 12))
    follow = scan_with(OrderAgent(order), model, images, 4)
    assert torch.equal(follow, order)
    curve = model.error_curve(images, order)
    assert (curve.diff(dim=1) != 0).any()
    loss = model.train()(images, rank)
    loss.backward()
    canvas = model.eval().reconstructions(images, order)
    seen = model.patchify(canvas[:, -1]) == model.patchify(images)
    assert torch.equal(seen.all(-1), rank < 4)
    grays = images[:, :1]
    drawn = canvas[:, :, :1]
    scanpath_sheet(grays, order, drawn, model.grid, tmp_path / "sheet.png", errors=curve)
    scanpath_animation(grays, order, drawn, model.grid, tmp_path / "sheet.gif")
    axis = Figure().add_subplot()
    draw_scanpath(axis, grays[0], order[0], model.grid, 4)
    assert [text.get_text() for text in axis.texts] == ["1", "2", "3", "4"]
    several = int(((order[0] >= 0).sum(1) > 1).sum())
    assert len(axis.collections) == several, "a segment has a frame"


def test_a_frame_goes_around_a_segment_not_around_its_patches() -> None:
    """A square of 2 x 2 patches in the corner of a 3 x 4 grid: eight sides, none inside."""
    lines = border_lines([0, 1, 4, 5], (3, 4))
    assert len(lines) == 8
    assert {point for line in lines for point in line} == {
        (x, y) for x in range(3) for y in range(3) if (x, y) != (1, 1)
    }
    assert borders([5], (3, 4)) == {5: (True, True, True, True)}
    assert borders([0, 1], (3, 4)) == {0: (True, True, True, False), 1: (True, True, False, True)}


def test_a_step_that_opens_nothing_leaves_the_numbers_of_the_others() -> None:
    axis = Figure().add_subplot()
    draw_scanpath(axis, torch.rand(1, 4, 4), torch.tensor([[0, 1], [-1, -1], [3, -1]]), (2, 2), 3)
    assert [text.get_text() for text in axis.texts] == ["1", "3"]


def test_heat_maps_count_every_patch_of_a_segment() -> None:
    order = torch.tensor([[[0, 1, -1]], [[1, -1, -1]]])
    assert fixation_shares(order, (1, 3)).tolist() == [[[0.5, 1.0, 0.0]]]


def test_random_squares_scan_as_squares_do(
    model: AnyOrderTransformer, images: Tensor, squares: Fixations
) -> None:
    """An order of segments, followed in an episode, gives the errors of its ranks."""
    rank = ordering("random_squares", model.grid, side=2)(
        images, generator=torch.Generator().manual_seed(0)
    )
    segments = rank_to_segments(rank, 3)
    episode = Episode(model, images, budget=3, fixations=squares)
    for step in range(3):
        episode.step(segments[:, step])
    torch.testing.assert_close(
        episode.error, model.error_curve(images, segments)[:, -1], atol=1e-5, rtol=1e-4
    )


# --- rewards of one's own


def test_a_reward_of_ones_own_uses_the_models_features(
    model: AnyOrderTransformer,
    images: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "my_rewards.py").write_text(
        "def moved(fixation):\n"
        "    return (fixation.features_after - fixation.features_before).norm(dim=-1)\n"
        "def brightness(fixation):\n"
        "    return fixation.images.flatten(1).mean(1) + 0 * fixation.after\n"
        "def one(fixation):\n"
        "    return fixation.after.sum()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    episode = Episode(model, images, budget=2, reward="my_rewards:moved")
    before = episode.scan.content
    reward = episode.step(torch.arange(5))
    torch.testing.assert_close(reward, (episode.scan.content - before).norm(dim=-1))
    bright = Episode(model, images, budget=2, reward="my_rewards:brightness")
    torch.testing.assert_close(bright.step(torch.arange(5)), images.flatten(1).mean(1))
    with pytest.raises(ValueError, match="must return a real number per row"):
        Episode(model, images, budget=2, reward="my_rewards:one").step(torch.arange(5))


# --- environments


@pytest.fixture
def data(images: Tensor) -> ImageSet:
    pixels = (images.repeat(4, 1, 1, 1) * 255).to(torch.uint8)
    return ImageSet(pixels, torch.zeros(20, dtype=torch.long), ("thing",), "test")


# Latent states have no bounds, of which gymnasium warns.
@pytest.mark.filterwarnings("ignore:.*infinity")
@pytest.mark.parametrize("action", ["patch", "gaze"])
@pytest.mark.parametrize("obs", ["latent", "canvas", "retina"])
def test_environments_take_squares(
    obs: str, action: str, model: AnyOrderTransformer, data: ImageSet
) -> None:
    env = envs.ImageScanEnv(
        model=model, data=data, budget=3, fixation_size=2, obs=obs, action=action
    )
    if obs != "latent" or action == "patch":
        check_sb3_env(env, warn=False)
    check_env(env, skip_render_check=True)
    env.reset(seed=1)
    _, _, _, _, info = env.step(0 if action == "patch" else np.array([-1, -1], np.float32))
    assert info["action_mask"].tolist() == [0, 1, 1, 1]
    assert env.batch.episode is not None
    assert env.batch.episode.unseen[0].nonzero().flatten().tolist() == [2, 3, 6, 7, 8, 9, 10, 11]


def test_a_fixation_that_is_none_of_the_squares_is_refused(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    env = envs.ImageScanVectorEnv(2, model=model, data=data, budget=3, fixation_size=2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"a fixation must lie in 0\.\.3"):
        env.step(np.array([0, 4]))
    with pytest.raises(ValueError, match=r"budget must lie in 1\.\.3"):
        envs.ImageScanVectorEnv(2, model=model, data=data, budget=4, fixation_size=2)


def test_the_squares_of_a_rollout_reach_the_model(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    batch = envs.ImageScanVectorEnv(4, model=model, data=data, budget=3, fixation_size=2)
    learner = MaskablePPO(
        PointerActorCriticPolicy, ScanVecEnv(batch), n_steps=3, batch_size=12, seed=0, gamma=1.0
    )
    caught = []
    after = AfterRollout(lambda index, order: caught.append((index, order)))
    learner.learn(12, callback=after)
    index, order = caught[0]
    assert order.shape == (4, 3, 4)
    curve = model.error_curve(data.batch(index), order)
    np.testing.assert_allclose(after.errors, curve[:, 1:].mean(0).numpy(), atol=1e-5)


def test_a_merged_order_opens_a_fixation_at_its_first_patch() -> None:
    squares = Fixations.squares((2, 5), 2)  # The last one is two patches high, one wide.
    rank = torch.tensor([[9, 8, 0, 4, 1, 7, 6, 5, 3, 2], [0, 0, 0, 1, 1, 2, 2, 2, 2, 2]])
    assert squares.merged(rank).tolist() == [
        [2, 2, 0, 0, 1, 2, 2, 0, 0, 1],
        [0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
    ]


def test_a_random_order_becomes_a_random_order_of_fixations() -> None:
    """Each of 16 squares starts 250 of 4,000 orders, give or take five standard deviations."""
    squares = Fixations.squares((8, 8), 2)
    generator = torch.Generator().manual_seed(0)
    rank = torch.rand(4000, 64, generator=generator).argsort(1)
    merged = squares.merged(rank)
    assert torch.equal(
        merged.sort(1).values, torch.arange(16).repeat_interleave(4).expand(4000, -1)
    )
    first = (merged[:, squares.patches[:, 0]] == 0).sum(0)
    assert int(first.min()) > 250 - 75
    assert int(first.max()) < 250 + 75


def test_an_order_of_more_steps_than_patches_is_refused() -> None:
    with pytest.raises(ValueError, match=r"T <= 3"):
        order_to_rank(torch.tensor([[0, 1, 2, 0]]), 3)
    # Steps of segments may open nothing.
    rank = order_to_rank(torch.tensor([[[0, 1], [-1, -1], [2, -1], [-1, -1]]]), 3)
    assert rank.tolist() == [[0, 0, 2]]

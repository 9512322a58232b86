"""A policy prefers what it would fixate in an episode that has seen as much."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from agents.policies import PointerPolicy, PolicyConfig
from agents.preference import PolicyPreference
from envs.candidates import Observation
from envs.episode import Episode
from foveate.model import AnyOrderTransformer
from foveate.model.asking import AskedPatches, Emphasis
from foveate.orders import ordering, tie_prefix

BUDGET = 4


@pytest.fixture
def policy() -> PointerPolicy:
    """One whose score is no longer zero."""
    torch.manual_seed(1)
    made = PointerPolicy(16, PolicyConfig(hidden_dim=8))
    nn.init.normal_(made.score.weight)
    return made


def test_the_logits_are_those_of_an_episode_that_opened_the_same_patches(
    model: AnyOrderTransformer, images: Tensor, policy: PointerPolicy
) -> None:
    seen: list[AskedPatches] = []
    preference = PolicyPreference(policy, BUDGET)

    def look(asked: AskedPatches) -> Tensor:
        seen.append(asked)
        return preference(asked)

    rank = ordering("random", model.grid)(images, generator=torch.Generator().manual_seed(0))
    model(images, rank.clamp(max=BUDGET), emphasis=Emphasis(look, share=1.0))
    (asked,) = seen
    logits = preference(asked)
    episode = Episode(model, images, budget=BUDGET)
    for step in range(BUDGET):
        saw, places = episode.observe(), asked.positions[:, step]
        states = places.unsqueeze(-1).expand(-1, -1, 16)
        among = Observation(
            query_states=saw.query_states.gather(1, states),
            content_state=saw.content_state,
            log_error=saw.log_error.gather(1, places),
            selectable=saw.selectable.gather(1, places),
            remaining=saw.remaining,
        )
        assert among.selectable.all()
        torch.testing.assert_close(logits[:, step], policy(among), atol=1e-4, rtol=1e-4)
        episode.step(rank.argsort(1)[:, step])


def test_patches_that_are_seen_at_once_count_one_by_one(
    model: AnyOrderTransformer, images: Tensor, policy: PointerPolicy
) -> None:
    """After a tied prefix the policy is told of as little room as an episode would have left."""
    seen: list[float] = []

    def look(asked: AskedPatches) -> Tensor:
        with mock.patch.object(policy, "forward", wraps=policy.forward) as forward:
            logits = PolicyPreference(policy, BUDGET)(asked)
        seen.extend(forward.call_args.args[0].remaining.unique().tolist())
        return logits

    for size in (3, 6):
        rank = ordering("random", model.grid)(images, generator=torch.Generator().manual_seed(0))
        model(images, tie_prefix(rank, size), emphasis=Emphasis(look, share=1.0))
    assert seen == [0, 0.25, 1, 0, 1]


def test_a_patch_that_is_asked_twice_is_a_candidate_once(policy: PointerPolicy) -> None:
    """The others are then judged as if it had been asked once."""
    states, error = torch.randn(1, 1, 3, 16), torch.randn(1, 1, 3)

    def judged(which: list[int]) -> Tensor:
        positions = torch.tensor([[[3, 5, 9]]])[..., which]
        rest = torch.ones(1, 1, 16), torch.ones(1, 1, dtype=torch.long)
        asked = AskedPatches(positions, states[:, :, which], error[..., which], *rest)
        return PolicyPreference(policy, BUDGET)(asked).softmax(-1)

    torch.testing.assert_close(judged([0, 1, 0, 2])[..., [0, 1, 3]], judged([0, 1, 2]))


def test_neither_policy_nor_model_learns_from_the_weight(
    model: AnyOrderTransformer, images: Tensor, policy: PointerPolicy
) -> None:
    """The gradient is that of weights which are constants."""
    rank = ordering("random", model.grid)(images, generator=torch.Generator().manual_seed(0))
    kept: list[Tensor] = []
    preference = PolicyPreference(policy, BUDGET)

    def keep(asked: AskedPatches) -> Tensor:
        kept.append(preference(asked))
        return kept[-1]

    gradients = []
    for prefer in (keep, lambda _: kept[0]):
        model.zero_grad()
        model(
            images,
            rank,
            emphasis=Emphasis(prefer, share=0.5),
            generator=torch.Generator().manual_seed(0),
        ).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_what_the_policy_cannot_judge_is_refused(policy: PointerPolicy) -> None:
    with pytest.raises(ValueError, match="reads distances"):
        PolicyPreference(PointerPolicy(16, PolicyConfig(saccade_cost=0.1)), BUDGET)
    positions = torch.zeros(1, 1, 3, dtype=torch.long)
    asked = AskedPatches(positions, torch.zeros(1, 1, 3, 16), torch.zeros(1, 1, 3), None, None)
    with pytest.raises(ValueError, match="queries='unseen'"):
        PolicyPreference(policy, BUDGET)(asked)

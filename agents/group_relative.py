"""Group-relative policy gradient: G scans of the same image are one another's baseline; no critic.

For scan g of an image, ``A_t = R_t(g) - mean over the others of R_t``, where R_t is the discounted
reward to go. The image's own difficulty, by far the largest source of variance, cancels.

Reference: REINFORCE leave-one-out (Kool et al. 2019); GRPO (Shao et al. 2024, arXiv 2402.03300,
Eq. 3). Differs: one on-policy step, so neither ratio nor clipping; a baseline at every step;
advantages scaled by one number per batch, not per group, so that an image on which every order
does equally well stays without influence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agents.policies import PointerPolicy, sample
from envs.episode import Episode
from foveate.model import AnyOrderTransformer


def rewards_to_go(rewards: Float[Tensor, "B T"], discount: float) -> Float[Tensor, "B T"]:
    """Discounted sum of this and all later rewards: ``R_t = r_t + discount * R_(t+1)``."""
    returns = torch.empty_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        running = rewards[:, t] + discount * running
        returns[:, t] = running
    return returns


def leave_one_out_advantage(returns: Float[Tensor, "B T"], group: int) -> Float[Tensor, "B T"]:
    """Return minus the mean return of the other scans of the same image.

    The scans of an image stand in succession.
    """
    grouped = returns.unflatten(0, (-1, group))
    others = (grouped.sum(1, keepdim=True) - grouped) / (group - 1)
    return (grouped - others).flatten(0, 1)


@dataclass(frozen=True)
class PolicyStep:
    """Loss and measurements of one batch of on-policy scans."""

    loss: Float[Tensor, ""]
    order: Int[Tensor, "B T"]
    episode_return: float
    """Mean undiscounted reward per scan."""
    auc: float
    """Mean normalized error over fixations 1..T."""
    entropy: float
    """Mean entropy of the action distribution, nats."""


def policy_step(
    model: AnyOrderTransformer,
    policy: PointerPolicy,
    images: Float[Tensor, "B C H W"],
    *,
    budget: int,
    reward: str,
    group: int,
    discount: float,
    entropy_weight: float,
    generator: torch.Generator | None = None,
) -> PolicyStep:
    """Scan each image ``group`` times and return the policy-gradient loss."""
    if group < 2:
        raise ValueError(
            f"group must be at least 2 scans per image to have a baseline, got {group}"
        )
    episode = Episode(model, images, budget=budget, reward=reward, group=group)
    log_probs, entropies, rewards, errors = [], [], [], []
    for _ in range(budget):
        distribution = policy.distribution(episode.observe())
        with torch.no_grad():
            patch = sample(distribution.logits, generator)
        log_probs.append(distribution.log_prob(patch))
        entropies.append(distribution.entropy())
        rewards.append(episode.step(patch))
        errors.append(episode.error)
    reward_t = torch.stack(rewards, 1)
    advantage = leave_one_out_advantage(rewards_to_go(reward_t, discount), group)
    advantage = advantage / advantage.std().clamp_min(1e-8)
    entropy = torch.stack(entropies, 1).mean()
    loss = -(advantage * torch.stack(log_probs, 1)).mean() - entropy_weight * entropy
    return PolicyStep(
        loss=loss,
        order=episode.order,
        episode_return=float(reward_t.sum(1).mean()),
        auc=float(torch.stack(errors, 1).mean()),
        entropy=float(entropy.detach()),
    )

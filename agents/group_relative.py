"""Group-relative policy gradient: G scans of the same image are one another's baseline; no critic.

For scan g of an image, ``A_t = R_t(g) - mean over the others of R_t``, where R_t is the discounted
reward to go. The image's own difficulty, by far the largest source of variance, cancels.

Reference: REINFORCE leave-one-out (Kool et al. 2019, Buy 4 REINFORCE samples, get a baseline for
free!, Eq. 8); GRPO (Shao et al. 2024, arXiv 2402.03300, Eq. 3). Differs: one on-policy step, so
neither ratio nor clipping; a baseline at every step; advantages scaled by one number per batch, not
per group, so that an image on which every order does equally well stays without influence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agents.policies import PointerPolicy, check_same_cost
from envs.episode import Episode
from envs.recognition import RecognitionProbe
from envs.rewards import Reward
from foveate.model import AnyOrderTransformer
from foveate.orders.segments import Fixations
from foveate.sampling import sample

ROUNDING = 1e-5
"""Advantages below this share of the rewards of a scan are no more than rounding."""


def scale_of(advantage: Float[Tensor, "B T"], rewards: Float[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Return the standard deviation of advantages, or what is above their rounding.

    Scans that are worth the same differ by rounding, which must not be scaled up.
    """
    least = ROUNDING * rewards.abs().sum(1).mean()
    return advantage.std().maximum(least).clamp_min(1e-8)


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
    """One batch of on-policy scans: its loss and measurements."""

    order: Int[Tensor, "B T *S"]
    log_prob: Float[Tensor, "B T"]
    """Log-probability of each fixation among its candidates; carries the policy's gradient."""
    entropies: Float[Tensor, "B T"]
    """Entropy of the distribution of each fixation, nats; carries the policy's gradient."""
    advantage: Float[Tensor, "B T"]
    """Leave-one-out advantage of each fixation, not yet scaled."""
    entropy_weight: float
    rewards: Float[Tensor, "B T"]
    """Reward of each fixation."""
    errors: Float[Tensor, "B T"]
    """Normalized error after each fixation; an estimate where candidates are drawn."""

    @property
    def means(self) -> Float[Tensor, "3"]:
        """Mean error over fixations 1..T, undiscounted reward per scan, and entropy, nats.

        To look at them, the host waits for the device.
        """
        paid, entropy = self.rewards.sum(1).mean(), self.entropies.detach().mean()
        return torch.stack([self.errors.mean().double(), paid.double(), entropy.double()])

    @property
    def loss(self) -> Float[Tensor, ""]:
        """Policy-gradient loss of these scans by themselves."""
        return self.loss_scaled_by(scale_of(self.advantage, self.rewards))

    def loss_scaled_by(self, scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Policy-gradient loss with advantages over ``scale``.

        It is that of all scans of the batch that these are part of, see :func:`scale_of`.
        """
        advantage = self.advantage / scale
        entropy = self.entropies.mean()
        return -(advantage * self.log_prob).mean() - self.entropy_weight * entropy


def policy_step(
    model: AnyOrderTransformer,
    policy: PointerPolicy,
    images: Float[Tensor, "B C H W"],
    *,
    budget: int,
    reward: str | Reward,
    group: int,
    discount: float,
    entropy_weight: float,
    fixations: Fixations | None = None,
    num_candidates: int | None = None,
    generator: torch.Generator | None = None,
    saccade_cost: float = 0.0,
    labels: Int[Tensor, "B"] | None = None,
    probe: RecognitionProbe | None = None,
    words: Int[Tensor, "B L"] | None = None,
) -> PolicyStep:
    """Scan each image ``group`` times, for the policy-gradient loss.

    With ``num_candidates`` the policy chooses among so many random unseen fixations, and its
    log-probabilities are those of that choice. The other options are those of an Episode.

    Raises:
        ValueError: a group of less than two scans, or a policy that reckons with another cost of
            saccades than the scans pay.
    """
    if group < 2:
        raise ValueError(f"a baseline takes at least 2 scans per image, got group {group}")
    # A policy without a cost may scan where saccades cost something: it is paid less, no more.
    if policy.saccade_cost > 0:
        check_same_cost(policy.saccade_cost, saccade_cost)
    episode = Episode(
        model,
        images,
        budget=budget,
        reward=reward,
        group=group,
        fixations=fixations,
        num_candidates=num_candidates,
        generator=generator,
        saccade_cost=saccade_cost,
        labels=labels,
        probe=probe,
        words=words,
    )
    log_prob, entropies, rewards, errors = scanned_by(policy, episode, generator)
    return PolicyStep(
        order=episode.order,
        log_prob=log_prob,
        entropies=entropies,
        advantage=leave_one_out_advantage(rewards_to_go(rewards, discount), group),
        entropy_weight=entropy_weight,
        rewards=rewards,
        errors=errors,
    )


def scanned_by(
    policy: PointerPolicy, episode: Episode, generator: torch.Generator | None
) -> tuple[Float[Tensor, "B T"], ...]:
    """Let a policy scan to the end; return log-probabilities, entropies, rewards and errors."""
    # No fixation is chosen twice: where they share no patch, all that is opened is new.
    all_new = episode.fixations.is_partition
    told: list[tuple[Tensor, ...]] = []
    for _ in range(episode.budget):
        distribution = policy.distribution(episode.observe())
        with torch.no_grad():
            choice = sample(distribution.logits, generator)
        log_prob, entropy = distribution.log_prob(choice), distribution.entropy()
        reward = episode.step(episode.patch_of(choice), all_new=all_new)
        told.append((log_prob, entropy, reward, episode.error))
    return tuple(torch.stack(each, 1) for each in zip(*told, strict=True))

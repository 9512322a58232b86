"""What an agent is, and the pointer policy, which scores each fixation with the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Categorical

from envs.candidates import Observation
from envs.episode import Episode
from foveate.sampling import sample


@runtime_checkable
class Agent(Protocol):
    """Chooses what every scan opens next.

    It may look at ``episode.observe()``. Only oracles look at the unseen parts of the image.
    """

    def __call__(
        self, episode: Episode, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B *K"]:
        """Return a patch per row, (B,), or patches that become visible together, (B, K).

        Rows that open fewer patches than others are padded with -1. Patches of a segment that have
        been seen count as padding.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Sizes of a :class:`PointerPolicy`."""

    hidden_dim: int = 64
    """Width of the scoring network."""


class PointerPolicy(nn.Module):
    """Score each candidate from its query state, the last content state and the budget left.

    It works for any grid, since all fixations share the weights. The last layer starts at zero: an
    untrained policy is the uniform random one.

    Reference: pointer networks (Vinyals et al. 2015, arXiv 1506.03134).
    """

    def __init__(self, embed_dim: int, config: PolicyConfig) -> None:
        super().__init__()
        self.candidate_norm = nn.LayerNorm(embed_dim)
        self.candidate = nn.Linear(embed_dim, config.hidden_dim)
        self.context = nn.Linear(2 * embed_dim + 1, config.hidden_dim)
        self.hidden = nn.Sequential(
            nn.GELU(), nn.Linear(config.hidden_dim, config.hidden_dim), nn.GELU()
        )
        self.score = nn.Linear(config.hidden_dim, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, observation: Observation) -> Float[Tensor, "B K"]:
        """Return a logit for each candidate.

        One that shows nothing new gets the lowest finite number, hence probability 0.
        """
        # Detached by contract, and again here: the policy's gradient must never shape the encoder.
        candidates = self.candidate_norm(observation.query_states.detach())
        selectable = observation.selectable.unsqueeze(-1)
        mean_candidate = (candidates * selectable).sum(1) / selectable.sum(1).clamp_min(1)
        context = torch.cat(
            [
                observation.content_state.detach(),
                mean_candidate,
                observation.remaining.unsqueeze(-1),
            ],
            dim=-1,
        )
        hidden = self.hidden(self.candidate(candidates) + self.context(context).unsqueeze(1))
        scores = self.score(hidden).squeeze(-1)
        return scores.masked_fill(~observation.selectable, torch.finfo(scores.dtype).min)

    def distribution(self, observation: Observation) -> Categorical:
        """Return the distribution that actions, their log-probabilities and entropy come from."""
        return Categorical(logits=self(observation), validate_args=False)


@dataclass(frozen=True)
class PolicyAgent:
    """A pointer policy as an agent.

    Args:
        policy: who scores the candidates.
        greedy: True = the most probable fixation; False = a sample.
    """

    policy: PointerPolicy
    greedy: bool = True

    @torch.no_grad()
    def __call__(
        self, episode: Episode, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B *K"]:
        """Return what each row opens next."""
        logits = self.policy(episode.observe())
        choice = logits.argmax(-1) if self.greedy else sample(logits, generator)
        return episode.patch_of(choice)

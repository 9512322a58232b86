"""What an agent is, and the pointer policy, which scores each fixation with the same weights."""

from __future__ import annotations

import math
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
    doubt: float = 2.0
    """Factor of the model's expected log error in the logits of the untrained policy; it is learned
    from there on. 0 = the expected error is no input, and the untrained policy is uniform."""

    def __post_init__(self) -> None:
        if not 0 <= self.doubt < math.inf:
            raise ValueError(f"doubt must be a finite number of at least 0, got {self.doubt}")


class PointerPolicy(nn.Module):
    """Score each candidate from its query state, the last content state and the budget left.

    It works for any grid, since all fixations share the weights. The last layer starts at zero, so
    that an untrained policy is a soft form of the uncertainty rule: its most probable fixation is
    where the model expects the largest error.

    Reference: pointer networks (Vinyals et al. 2015, arXiv 1506.03134).
    """

    def __init__(self, embed_dim: int, config: PolicyConfig) -> None:
        super().__init__()
        starts_from_doubt = config.doubt > 0
        self.candidate_norm = nn.LayerNorm(embed_dim)
        self.candidate = nn.Linear(embed_dim + starts_from_doubt, config.hidden_dim)
        self.context = nn.Linear(2 * embed_dim + 1, config.hidden_dim)
        self.hidden = nn.Sequential(
            nn.GELU(), nn.Linear(config.hidden_dim, config.hidden_dim), nn.GELU()
        )
        self.score = nn.Linear(config.hidden_dim, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.doubt = nn.Parameter(torch.tensor(config.doubt)) if starts_from_doubt else None

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
        doubt = relative_doubt(observation)
        if self.doubt is not None:
            candidates = torch.cat([candidates, doubt.unsqueeze(-1)], dim=-1)
        hidden = self.hidden(self.candidate(candidates) + self.context(context).unsqueeze(1))
        scores = self.score(hidden).squeeze(-1)
        if self.doubt is not None:
            scores = scores + self.doubt * doubt
        return scores.masked_fill(~observation.selectable, torch.finfo(scores.dtype).min)

    def distribution(self, observation: Observation) -> Categorical:
        """Return the distribution that actions, their log-probabilities and entropy come from."""
        return Categorical(logits=self(observation), validate_args=False)


def relative_doubt(observation: Observation) -> Float[Tensor, "B K"]:
    """Expected log error of each candidate, minus its mean over those that may be chosen."""
    expected, selectable = observation.log_error.detach(), observation.selectable
    number = selectable.sum(1, keepdim=True).clamp_min(1)
    return expected - (expected * selectable).sum(1, keepdim=True) / number


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

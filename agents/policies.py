"""What an agent is, and the pointer policy, which scores each fixation with the same weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.distributions import Categorical

from envs.candidates import Observation
from envs.episode import Episode
from foveate.orders.saccades import check_saccade_cost
from foveate.sampling import sample

SMALL_SHARE = 0.02
"""Value, over the largest expected gain, below which the logarithm goes on as a straight line."""


@runtime_checkable
class Agent(Protocol):
    """Chooses what every scan opens next.

    It may look at ``episode.observe()``. Only oracles look at the unseen parts of the image.

    An agent that draws nothing may say so by an attribute ``samples``, False: evaluations then scan
    as many images at once as memory allows. Else they are few, the same number on every machine.
    """

    def __call__(
        self, episode: Episode, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B *K"]:
        """Return a patch per row, (B,), or patches that become visible together, (B, K).

        Rows that open fewer patches than others are padded with -1. Patches of a segment that have
        been seen count as padding.
        """
        ...


def may_draw(agent: Agent) -> bool:
    """Whether an agent may draw from the generator that it is given: unless it says it does not."""
    return getattr(agent, "samples", True)


@runtime_checkable
class ScoringAgent(Agent, Protocol):
    """An agent that chooses the fixation of the highest score, and tells the scores."""

    def scores(self, episode: Episode) -> Float[Tensor, "B A"]:
        """Return the score of each fixation; of those that show nothing new it does not count.

        An episode that draws ``num_candidates`` after each fixation leads to scores of these alone.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Sizes of a :class:`PointerPolicy`."""

    hidden_dim: int = 64
    """Width of the scoring network."""
    doubt: float = 2.0
    """Factor of the model's expected log error in the logits of the untrained policy; it is learned
    from there on. With a cost of saccades, of the logarithm of the expected gain less the cost. 0 =
    the expected error is no input, and the untrained policy is uniform."""
    depth: int = 0
    """Transformer blocks in which the candidates attend to one another; 0 = each is scored by
    itself, beside the mean of all."""
    saccade_cost: float = 0.0
    """What the reward loses per patch of distance; above 0 the price of the way to each candidate
    is an input. Where ``doubt`` is above 0 it also enters the logits of the untrained policy, with
    a learned factor that starts at 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.doubt < math.inf:
            raise ValueError(f"doubt must be a finite number of at least 0, got {self.doubt}")
        if self.depth < 0:
            raise ValueError(f"the depth of a policy must be at least 0 blocks, got {self.depth}")
        check_saccade_cost(self.saccade_cost)


def check_same_cost(known: float, paid: float) -> None:
    """Raise ValueError unless a policy knows the cost of saccades that its scans pay."""
    if known != paid:
        raise ValueError(
            f"policy and environment must have the same saccade_cost, got {known:g} and {paid:g}"
        )


class PointerPolicy(nn.Module):
    """Score each candidate from its query state, the last content state and the budget left.

    It works for any grid, since all fixations share the weights, and does not depend on the order
    in which candidates stand. The last layer starts at zero, so that an untrained policy is a soft
    form of the uncertainty rule: its most probable fixation is that of ``UncertaintyAgent`` with
    the same cost of saccades. With ``doubt=0`` it is uniform.

    Reference: pointer networks (Vinyals et al. 2015, arXiv 1506.03134); candidates that attend to
    one another as in the attention model of Kool et al. 2019 (arXiv 1803.08475, Sec. 3.1). Differs:
    they attend anew at every step, and to what has been seen by a token of the context.
    """

    def __init__(self, embed_dim: int, config: PolicyConfig) -> None:
        super().__init__()
        starts_from_doubt, self.saccade_cost = config.doubt > 0, config.saccade_cost
        num_numbers = starts_from_doubt + (config.saccade_cost > 0)
        self.candidate_norm = nn.LayerNorm(embed_dim)
        self.candidate = nn.Linear(embed_dim + num_numbers, config.hidden_dim)
        self.context = nn.Linear(2 * embed_dim + 1, config.hidden_dim)
        self.hidden = nn.Sequential(
            nn.GELU(), nn.Linear(config.hidden_dim, config.hidden_dim), nn.GELU()
        )
        self.score = nn.Linear(config.hidden_dim, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.doubt = nn.Parameter(torch.tensor(float(config.doubt))) if starts_from_doubt else None
        # How much the cost counts in the prior, which there is with doubt alone.
        is_cautious = starts_from_doubt and config.saccade_cost > 0
        self.caution = nn.Parameter(torch.tensor(1.0)) if is_cautious else None
        num_heads = math.gcd(4, config.hidden_dim)
        self.blocks = nn.ModuleList(
            Block(config.hidden_dim, num_heads) for _ in range(config.depth)
        )

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
        prior, numbers = torch.zeros_like(observation.log_error), [candidates]
        if self.doubt is not None:
            doubt = relative_doubt(observation)
            prior = self.doubt * doubt
            numbers.append(doubt.unsqueeze(-1))
        if self.saccade_cost > 0:
            gain, price = relative_gain_and_price(observation, self.saccade_cost)
            if self.doubt is not None and self.caution is not None:
                prior = self.doubt * extended_log(gain - self.caution * price)
            # The price has no upper bound: it is over an error that becomes small.
            numbers.append(price.log1p().unsqueeze(-1))
        context = self.context(context).unsqueeze(1)
        tokens = self.candidate(torch.cat(numbers, dim=-1)) + context
        tokens = self._attended(tokens, context, observation.selectable)
        scores = self.score(self.hidden(tokens)).squeeze(-1) + prior
        return scores.masked_fill(~observation.selectable, torch.finfo(scores.dtype).min)

    def _attended(
        self,
        tokens: Float[Tensor, "B K H"],
        context: Float[Tensor, "B 1 H"],
        selectable: Bool[Tensor, "B K"],
    ) -> Float[Tensor, "B K H"]:
        """Let the candidates attend to one another, where selectable, and to the context."""
        if not self.blocks:
            return tokens
        tokens = torch.cat([context, tokens], dim=1)
        # The context is always there, so that no row of attention is empty.
        may_attend = F.pad(selectable, (1, 0), value=True)[:, None, None]
        for block in self.blocks:
            tokens = block(tokens, attn_mask=may_attend)
        return tokens[:, 1:]

    def distribution(self, observation: Observation) -> Categorical:
        """Return the distribution that actions, their log-probabilities and entropy come from."""
        return Categorical(logits=self(observation), validate_args=False)


def relative_doubt(observation: Observation) -> Float[Tensor, "B K"]:
    """Expected log error of each candidate, minus its mean over those that may be chosen."""
    expected, selectable = observation.log_error.detach(), observation.selectable
    number = selectable.sum(1, keepdim=True).clamp_min(1)
    return expected - (expected * selectable).sum(1, keepdim=True) / number


def relative_gain_and_price(
    observation: Observation, saccade_cost: float
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
    """Expected gain of each candidate and cost of the saccade, over the largest expected gain.

    Their difference is largest where ``UncertaintyAgent`` fixates. The gain of a candidate that
    shows nothing new is 0.

    Raises:
        ValueError: the observation tells no distances.
    """
    if observation.distance is None or observation.expected_gain is None:
        raise ValueError(
            "a policy with saccade_cost reads the distance of every candidate, which this "
            "observation lacks; make the environment with saccade_cost above 0"
        )
    gain = observation.expected_gain.detach().masked_fill(~observation.selectable, 0.0)
    best = gain.amax(1, keepdim=True).clamp_min(1e-6)
    return gain / best, saccade_cost * observation.distance / best


def extended_log(share: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Return the logarithm, and below ``SMALL_SHARE`` its tangent there.

    So it is increasing, smooth and finite, also of a gain that is lower than its price.
    """
    return share.clamp_min(SMALL_SHARE).log() + (share / SMALL_SHARE - 1).clamp_max(0)


@dataclass(frozen=True)
class PolicyAgent:
    """A pointer policy as an agent.

    Args:
        policy: who scores the candidates.
        greedy: True = the most probable fixation; False = a sample.
    """

    policy: PointerPolicy
    greedy: bool = True

    @property
    def samples(self) -> bool:
        """Whether it draws from the generator that it is given."""
        return not self.greedy

    @torch.no_grad()
    def __call__(
        self, episode: Episode, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B *K"]:
        """Return what each row opens next."""
        logits = self.scores(episode)
        choice = logits.argmax(-1) if self.greedy else sample(logits, generator)
        return episode.patch_of(choice)

    @torch.no_grad()
    def scores(self, episode: Episode) -> Float[Tensor, "B K"]:
        """Return the policy's logit of each candidate."""
        return self.policy(episode.observe())

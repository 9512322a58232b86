"""A policy as a preference: which of the patches that are asked for it would fixate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies import PointerPolicy
from envs.candidates import Observation
from foveate.model.asking import Asked


@dataclass(frozen=True)
class PolicyPreference:
    """The logits that a policy gives to the patches that are asked for, as its candidates.

    So the softmax over those of a step is the policy's probability among them, in the state that
    an episode which had opened the same patches would be in. The policy gets no gradient.

    Raises:
        ValueError: the policy reads distances, or the patches are not asked for step by step.
    """

    policy: PointerPolicy
    budget: int
    """Fixations of a scan, of which the policy is told how many are left."""

    def __post_init__(self) -> None:
        if self.policy.saccade_cost > 0:
            raise ValueError(
                "a policy with saccade_cost reads distances, which patches that are asked for do "
                "not have; use one without"
            )

    @torch.no_grad()
    def __call__(self, asked: Asked) -> Float[Tensor, "B S K"]:
        """Return a logit for each patch."""
        if asked.content is None or asked.num_steps is None or asked.log_error is None:
            raise ValueError(
                "a policy prefers among patches that are asked for after a step, by a model that "
                "it can scan: queries='unseen'"
            )
        with torch.autocast(asked.states.device.type, enabled=False):
            logits = self.policy(
                Observation(
                    query_states=asked.states.flatten(0, 1).float(),
                    content_state=asked.content.flatten(0, 1).float(),
                    log_error=asked.log_error.flatten(0, 1).float(),
                    selectable=torch.ones_like(asked.positions, dtype=torch.bool).flatten(0, 1),
                    remaining=1 - asked.num_steps.flatten() / self.budget,
                )
            )
        return logits.unflatten(0, asked.num_steps.shape)

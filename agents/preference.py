"""A policy as a preference: which it would fixate if the patches asked for were all there are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies import PointerPolicy
from envs.candidates import Observation
from foveate.model.asking import AskedPatches, repeats


@dataclass(frozen=True)
class PolicyPreference:
    """The logits that a policy gives to the patches that are asked for, as its only candidates.

    It judges the K patches of a step as if there were no others, in the state that an episode would
    be in which had opened the same patches one by one. So the softmax over them is in general not
    in proportion to its probabilities among all unseen patches. A patch that is asked twice is a
    candidate once. The policy gets no gradient.

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
    def __call__(self, asked: AskedPatches) -> Float[Tensor, "B S K"]:
        """Return a logit for each patch."""
        if asked.content is None or asked.num_seen is None or asked.log_error is None:
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
                    selectable=~repeats(asked.positions).flatten(0, 1),
                    remaining=(1 - asked.num_seen.flatten() / self.budget).clamp_min(0),
                )
            )
        return logits.unflatten(0, asked.num_seen.shape)

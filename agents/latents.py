"""Latent observations of the environment, as the pointer network reads them."""

from __future__ import annotations

from collections.abc import Mapping

import gymnasium as gym
from torch import Tensor

from envs.candidates import Observation

LATENT_PARTS = ("query_states", "content_state", "log_error", "selectable", "remaining")


def check_latent(parts: object) -> None:
    """Raise ValueError unless these are the parts of a latent observation, or of its space."""
    given = list(parts) if isinstance(parts, Mapping | gym.spaces.Dict) else []
    if missing := [name for name in LATENT_PARTS if name not in given]:
        raise ValueError(
            f"PointerActorCriticPolicy reads obs='latent', a dict of {', '.join(LATENT_PARTS)}; "
            f"{', '.join(missing)} missing; use MultiInputPolicy or CnnPolicy for the others"
        )


def as_observation(features: dict[str, Tensor]) -> Observation:
    """Turn a batch of latent observations into what the native policy reads.

    Raises:
        ValueError: parts of the latent observation are missing, or have been rescaled.
    """
    check_latent(features)
    selectable = features["selectable"]
    if bool(((selectable != 0) & (selectable != 1)).any()):
        raise ValueError(
            "selectable must hold 0 and 1 alone; normalize the other parts: "
            'VecNormalize(env, norm_obs_keys=["query_states", "content_state"])'
        )
    return Observation(
        query_states=features["query_states"],
        content_state=features["content_state"],
        log_error=features["log_error"],
        selectable=selectable.bool(),
        remaining=features["remaining"].squeeze(-1),
        distance=features.get("distance"),
        expected_gain=features.get("expected_gain"),
    )

"""The batched environments as ``gymnasium.make_vec`` makes them, which may show one in a window."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import VectorEnv
from gymnasium.wrappers.vector import HumanRendering

from envs.guessing import GuessScanVectorEnv
from envs.vector import ImageScanVectorEnv


def make_vector_env(
    num_envs: int = 1,
    *,
    render_mode: str | None = None,
    kind: type[ImageScanVectorEnv] = ImageScanVectorEnv,
    **options: Any,
) -> VectorEnv[Any, Any, Any]:
    """Make the environment; with ``render_mode="human"`` in gymnasium's window around its frames.

    ``gymnasium.make`` does so by itself, ``make_vec`` does not.

    Args:
        num_envs: rows.
        render_mode: None, rgb_array or human.
        kind: class of the environment.
        options: the other arguments of the environment.
    """
    if render_mode != "human":
        return kind(num_envs, render_mode=render_mode, **options)
    return HumanRendering(kind(num_envs, render_mode="rgb_array", **options))


def make_guess_vector_env(num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """Make the environment whose actions guess, as :func:`make_vector_env` does."""
    return make_vector_env(num_envs, kind=GuessScanVectorEnv, **options)

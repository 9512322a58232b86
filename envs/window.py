"""The batched environment as ``gymnasium.make_vec`` makes it, which may show it in a window."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import VectorEnv
from gymnasium.wrappers.vector import HumanRendering

from envs.vector import ImageScanVectorEnv


def make_vector_env(
    num_envs: int = 1, *, render_mode: str | None = None, **options: Any
) -> VectorEnv[Any, Any, Any]:
    """Make the environment; with ``render_mode="human"`` in gymnasium's window around its frames.

    ``gymnasium.make`` does so by itself, ``make_vec`` does not.

    Args:
        num_envs: rows.
        render_mode: None, rgb_array or human.
        options: the other arguments of the environment.
    """
    if render_mode != "human":
        return ImageScanVectorEnv(num_envs, render_mode=render_mode, **options)
    return HumanRendering(ImageScanVectorEnv(num_envs, render_mode="rgb_array", **options))

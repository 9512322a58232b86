"""How long an episode is, and what follows it."""

from __future__ import annotations

from dataclasses import replace

from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

from foveate.choices import check_choice

DEFAULT_BUDGET = 12
"""Fixations of an episode, unless the arguments or the run of the model say otherwise."""
AUTORESET = {mode.name.lower(): mode for mode in AutoresetMode}
"""What follows an episode: next_step, same_step, disabled."""


def autoreset_named(given: str | AutoresetMode) -> AutoresetMode:
    """Return a mode by name, or the given one; raise ValueError if there is none."""
    if isinstance(given, AutoresetMode):
        return given
    check_choice("autoreset", given, AUTORESET)
    return AUTORESET[given]


class TellsItsLength:
    """An environment whose spec says ``max_episode_steps``: its budget, or less where it truncates.

    It is not registered there: gymnasium would truncate every other budget at that.
    """

    budget: int
    max_episode_steps: int | None = None
    _spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """How gymnasium made the environment; None = it did not."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        steps = min(self.budget, self.max_episode_steps or self.budget)
        self._spec = None if spec is None else replace(spec, max_episode_steps=steps)

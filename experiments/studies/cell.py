"""A cell of a grid: one way to train. No torch here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from experiments.training.command_line import option_name, read_words
from experiments.training.config import TrainConfig
from experiments.training.run_options import TAKING_RUNS
from foveate.choices import blaming, check_choice, told

SET_BY_THE_STUDY = {"report": False, "resume": False, "stop_after": None, "change_on_resume": ()}
"""Options of a training that are not a cell's."""
OF_THE_STUDY = ("out", "seed", "device", "threads", *SET_BY_THE_STUDY)
"""Options that the study gives to every run, whatever a cell says."""


@dataclass(frozen=True)
class Cell:
    """One way to train, over seeds."""

    name: str
    """Letters, digits and ``_ + . -``: the run folders are called NAME_SEED."""
    training: str | Sequence[str] | TrainConfig
    """Words of the command line of experiments.train, a preset first; or a config."""
    idea: str = ""
    """What it tries, for readers."""
    seeds: tuple[int, ...] | None = None
    """Seeds of its own; None = the grid's."""
    against: str | None = None
    """Cell with the same parts that it is set against, beside the grid's baseline, and by which
    screening judges it; None = the grid's baseline alone."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Cells whose run of the same seed and setting is trained before, by the option that takes its
    folder: ``{"reward_reference": "held_out"}``."""
    control: bool = False
    """Whether it is no candidate, but there to compare others with: screening does not choose it,
    but it goes on with the cells that are set against it."""
    reference: bool = False
    """Whether it is trained for the cells that need it alone: it is not asked, set against
    anything, nor dropped by screening."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w+.-]*", self.name, re.ASCII):
            raise ValueError(
                f"a cell's name takes letters, digits and _ + . - alone, got {self.name!r}"
            )
        if not isinstance(self.training, str | Sequence | TrainConfig):
            raise ValueError(
                f"cell {self.name!r}: its training must be words of experiments.train or a "
                f"TrainConfig, got {told(self.training)}"
            )
        if not isinstance(self.idea, str):
            raise ValueError(
                f"cell {self.name!r}: what it tries must be a text, got {told(self.idea)}; seeds "
                "of its own are Cell(..., seeds=(0, 1))"
            )
        with blaming("cell", self.name):
            for option in self.needs:
                check_choice("option of needs", option, TAKING_RUNS)

    def config(self, options: Mapping[str, object] | None = None) -> TrainConfig:
        """Return the training, without what the study sets itself.

        Args:
            options: of all cells, which come last.

        Raises:
            ValueError: words that experiments.train does not take, an option that the cell cannot
                have, or one that says what ``needs`` says.
        """
        config = self.training if isinstance(self.training, TrainConfig) else self._read()
        with blaming("cell", self.name):
            config = config.replace(**SET_BY_THE_STUDY, **(options or {}))
            given, usual = config.flat(), TrainConfig().flat()
            self._check_not_needed(name for name in given if given[name] != usual[name])
        return config

    @property
    def words(self) -> str:
        """Return its words of the command line; none of a config."""
        given = self.training
        if isinstance(given, TrainConfig):
            return ""
        return given if isinstance(given, str) else shlex.join(given)

    def _read(self) -> TrainConfig:
        given = self.training
        assert not isinstance(given, TrainConfig), "a config is not read from words"
        try:
            words = shlex.split(given) if isinstance(given, str) else given
            given_names = tuple(map(option_name, words))
            check_left_to_the_study(given_names)
            self._check_not_needed(given_names)
            return read_words(tuple(words))
        except ValueError as mistake:
            raise ValueError(f"cell {self.name!r}: {mistake}") from mistake

    def _check_not_needed(self, given: Iterable[str]) -> None:
        for name in set(given) & set(self.needs):
            raise ValueError(f"{name} stands in its words and in needs; leave one out")


def check_left_to_the_study(options: Iterable[str]) -> None:
    """Raise ValueError if one of the options is what the study itself gives to every run."""
    for name in options:
        if name in OF_THE_STUDY:
            raise ValueError(
                f"the option {name} has no effect here, as the study gives every run its own; "
                "leave it out (experiments.study takes --seeds, --out, --device and --threads)"
            )

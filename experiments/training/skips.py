"""Steps that are left out because a number was not finite, and what a run says of them."""

from __future__ import annotations

import sys
from itertools import chain

from experiments.training.changes import own_parts
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from foveate.checkpoint import CHECKPOINT
from foveate.finite import NotFinite, on_images

MOST_IN_A_ROW = 10
"""Iterations in a row that are skipped before the run stops."""


class Skips:
    """Counts the skipped iterations of a run, and stops it when there is no end to them."""

    saved_at: int | None = None
    """Iteration of the last checkpoint; None = there is none yet."""

    def __init__(self, config: TrainConfig, processes: Processes) -> None:
        self.config = config
        self.processes = processes
        self.warned = False
        self.taken()

    def taken(self) -> None:
        """Note that a step was taken."""
        self.in_a_row = 0
        self.last: NotFinite | None = None

    @property
    def doubt(self) -> bool:
        """Whether the weights may be of no use: the last steps found no finite loss for them.

        A single step that is skipped says little of them.
        """
        return self.in_a_row > 1 and not self.is_clear

    @property
    def is_clear(self) -> bool:
        """Whether the last step was taken, or skipped for the sake of a reward alone."""
        return self.last is None or self.last.cause == "reward"

    def count(self, at: int, reason: NotFinite) -> None:
        """Skip an iteration; the first time say so on standard error.

        Args:
            at: number of the iteration, from 1.
            reason: what was not finite.

        Raises:
            ValueError: it is the last of MOST_IN_A_ROW in a row.
        """
        self.in_a_row, self.last = self.in_a_row + 1, reason
        if self.warned and self.in_a_row < MOST_IN_A_ROW:
            return
        happened = self._told(reason)
        if self.in_a_row == MOST_IN_A_ROW:
            raise ValueError(
                f"iteration {at} is the last of {MOST_IN_A_ROW} skipped in a row: {happened}; "
                f"{self.way_back(reason.cause)}"
            )
        self.warned = True
        if self.processes.is_first:
            sys.stderr.write(
                f"\nwarning: iteration {at} is skipped: {happened} "
                "(metrics.jsonl counts skipped_steps)\n"
            )

    def check_saving(self, at: int) -> None:
        """Raise ValueError if there is doubt about the weights after an iteration."""
        if self.last is not None and self.doubt:
            raise ValueError(
                f"no checkpoint is written, since iteration {at} and those before it were skipped: "
                f"{self._told(self.last)}; {self.way_back(self.last.cause)}"
            )

    def _told(self, reason: NotFinite) -> str:
        images = chain(*self.processes.gather_objects(reason.images))
        return f"{reason.what} {on_images(images)}"

    @property
    def last_good(self) -> str:
        """Name the last checkpoint, which is good, as none is written in doubt."""
        out = self.config.run.out
        if self.saved_at is None:
            return f"there is no checkpoint yet, so that --resume starts {out} anew"
        return f"the last good checkpoint is {out / CHECKPOINT} of iteration {self.saved_at}"

    def way_back(self, cause: str) -> str:
        """Name the last good checkpoint and the options that go on from it.

        Args:
            cause: ``model`` or ``policy``, whose rate is too high, or ``reward``.
        """
        last = self.last_good
        if cause == "reward":
            return f"{last}: mend the reward, then repeat the command with --resume"
        rate = self.config.flat()[f"{cause}_lr"]
        own = " or ".join(own_parts(self.config))
        mend = f"mend {own} if it is to blame, or " if own else ""
        return (
            f"{last}: {mend}repeat the command with --resume --{cause}-lr {rate / 2:g} "
            f"--change-on-resume {cause}_lr"
        )

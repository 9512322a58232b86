"""What was measured of a run, kept in its folder beside the question that it answers."""

from __future__ import annotations

import dataclasses
import json
import math
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Shaped

from experiments.run_folder import git_commit
from experiments.tables import written_whole
from experiments.training.lock import locked_in_turn

Values = Shaped[np.ndarray, "..."]
DAMAGED = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What NumPy and zipfile raise of an archive whose bytes are not those that were written."""
WRITE_EVERY = 20
"""Answers are written once so many times as long as writing took have passed."""


def keep_arrays(path: Path, question: str, **arrays: Any) -> None:
    """Write arrays, or text, beside the question that they answer together."""
    with written_whole(path) as partial:
        np.savez_compressed(partial, question=question, **arrays)


def completed(content: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Return a question with the options that did not exist when it was asked.

    They had the value that does what was done then, as a rule the default. So a new option makes no
    other question of those that were answered before.

    Args:
        content: the question.
        usual: value of each option that may be missing, from it or from a part of it.
    """
    found = {**usual, **content}
    for name, options in usual.items():
        if isinstance(options, dict) and isinstance(content.get(name), dict):
            found[name] = {**options, **content[name]}
    return found


def defaults_of(options: type) -> dict[str, Any]:
    """Return the default of each option that has one, of a dataclass, as JSON holds them."""
    missing = dataclasses.MISSING
    values = {
        each.name: each.default if each.default_factory is missing else each.default_factory()
        for each in dataclasses.fields(options)
    }
    known = {name: each for name, each in values.items() if each is not missing}
    return dict(json.loads(json.dumps(known, default=str)))


def is_same(kept: str, now: str, usual: Mapping[str, Any]) -> bool:
    """Whether two questions, JSON, are the same once both are :func:`completed`."""
    try:
        before, after = (completed(json.loads(each), usual) for each in (kept, now))
    except (ValueError, AttributeError):
        return kept == now
    return before == after


def read_arrays(
    path: Path, question: str | None = None, usual: Mapping[str, Any] | None = None
) -> dict[str, Values] | None:
    """Read what was kept; None = nothing, of another question, or damaged.

    Args:
        path: the file.
        question: that it must answer; None = any.
        usual: value of each option that the kept question may lack, see :func:`completed`.
    """
    if not path.is_file():
        return None
    try:
        # NumPy leaves a damaged file open.
        with np.load(BytesIO(path.read_bytes())) as stored:
            if question is not None and not is_same(str(stored["question"]), question, usual or {}):
                return None
            return dict(stored)
    except DAMAGED:
        return None


class Kept:
    """Answers of one subject, such as a model, in a file: what was answered is not asked again.

    They are written now and then, and when the ``with`` block of the asking ends, so that whatever
    stops it, it goes on from about there. Of another subject, the file begins anew.

    Args:
        path: the file.
        subject: all that every answer depends on but the code.
        usual: value of each option that a kept subject may lack, see :func:`completed`.
    """

    def __init__(self, path: Path, subject: str, usual: Mapping[str, Any] | None = None) -> None:
        self.path, self.subject, self.usual = path, subject, usual
        self._arrays: dict[str, Values] = {}
        self._commits: dict[str, str] = {}
        self._read: set[str] = set()
        self._measured: set[str] = set()
        self._is_written, self._written_at, self._write_seconds = True, -math.inf, 0.0
        self._now = git_commit()
        if not self._take() and path.is_file():
            print(f"{path} is of another checkpoint, or damaged, and is replaced", flush=True)

    def _take(self) -> bool:
        """Take over what the file holds by now; return whether it is of the subject."""
        found = read_arrays(self.path, self.subject, self.usual)
        if found is None:
            return False
        del found["question"]
        self._commits = {**json.loads(str(found.pop("commits", "{}"))), **self._commits}
        self._arrays = {**found, **self._arrays}
        return True

    def answer(self, question: str, measure: Callable[[], Values]) -> Values:
        """Return the answer to a question: what was kept, or else what is measured now.

        Args:
            question: what it depends on beside the subject, as a digest or a name.
            measure: answers it.
        """
        if question in self._arrays:
            self._read |= {question} - self._measured
        else:
            self._arrays[question] = measure()
            self._commits[question] = self._now
            self._measured.add(question)
            self._is_written = False
            # All answers are written each time.
            if time.monotonic() - self._written_at >= WRITE_EVERY * self._write_seconds:
                self._write()
        return self._arrays[question]

    def _write(self) -> None:
        begun = time.monotonic()
        with locked_in_turn(self.path):
            # Another command on the same run may have written since.
            self._take()
            commits = json.dumps(self._commits)
            keep_arrays(self.path, self.subject, commits=commits, **self._arrays)
        self._is_written, self._written_at = True, time.monotonic()
        self._write_seconds = self._written_at - begun

    def __enter__(self) -> Self:
        """Begin to ask."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write what is not in the file yet, whatever ended the asking."""
        if not self._is_written:
            self._write()

    @property
    def commits(self) -> set[str]:
        """Of the code that gave the answers so far."""
        return {self._commits[each] for each in self._read | self._measured}

    def say(self) -> None:
        """Print a line about how many answers were kept, if any was."""
        if not self._read:
            return
        number = len(self._read) + len(self._measured)
        others = sorted(self.commits - {self._now})
        of = f", some of commit {', '.join(others)}; this is {self._now}" if others else ""
        print(f"{self.path}: {len(self._read)} of {number} answers were kept{of}", flush=True)
        if self._now.endswith("-dirty") and self._now in map(self._commits.get, self._read):
            print(f"answers of commit {self._now} may be of other changes to it", flush=True)

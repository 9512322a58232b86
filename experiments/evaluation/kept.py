"""What was measured of a run, kept in its folder beside the question that it answers."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from experiments.run_folder import git_commit
from experiments.tables import written_whole

Values = Shaped[np.ndarray, "..."]
DAMAGED = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What NumPy and zipfile raise of an archive whose bytes are not those that were written."""


def digest(tensors: Iterable[Tensor]) -> str:
    """Return the SHA-256 of all values, on whichever device they lie."""
    found = hashlib.sha256()
    for each in tensors:
        found.update(f"{each.dtype} {tuple(each.shape)}".encode())
        found.update(each.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def keep_arrays(path: Path, question: str, **arrays: Any) -> None:
    """Write arrays, or text, beside the question that they answer together."""
    with written_whole(path) as partial:
        np.savez_compressed(partial, question=question, **arrays)


def read_arrays(path: Path, question: str | None = None) -> dict[str, Values] | None:
    """Read what was kept; None = nothing, of another question, or damaged.

    Args:
        path: the file.
        question: that it must answer; None = any.
    """
    if not path.is_file():
        return None
    try:
        # NumPy leaves a damaged file open.
        with np.load(BytesIO(path.read_bytes())) as stored:
            if question is not None and str(stored["question"]) != question:
                return None
            return dict(stored)
    except DAMAGED:
        return None


class Kept:
    """Answers of one subject, such as a model, in a file: what was answered is not asked again.

    Each is written as soon as it is there, so that whatever stops the asking, it goes on from
    there. Of another subject, the file begins anew.

    Args:
        path: the file.
        subject: all that every answer depends on but the code.
    """

    def __init__(self, path: Path, subject: str) -> None:
        self.path, self.subject = path, subject
        found = read_arrays(path, subject)
        if found is None and path.is_file():
            print(f"{path} is of another checkpoint, or damaged, and is replaced", flush=True)
        self._arrays: dict[str, Values] = found or {}
        self._arrays.pop("question", None)
        self._commits: dict[str, str] = json.loads(str(self._arrays.pop("commits", "{}")))
        self._read: set[str] = set()
        self._measured: set[str] = set()
        self._now = git_commit()

    def answer(self, question: str, measure: Callable[[], Values]) -> Values:
        """Return the answer to a question: what was kept, or else what is measured now.

        Args:
            question: what it depends on beside the subject, as a :func:`digest` or a name.
            measure: answers it.
        """
        if question in self._arrays:
            self._read |= {question} - self._measured
        else:
            self._arrays[question] = measure()
            self._commits[question] = self._now
            self._measured.add(question)
            commits = json.dumps(self._commits)
            keep_arrays(self.path, self.subject, commits=commits, **self._arrays)
        return self._arrays[question]

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

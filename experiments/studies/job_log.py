"""The log of a job, by which others say how it went."""

from __future__ import annotations

from pathlib import Path

LOG = "log.txt"
"""What a job says, in its folder."""
ERROR = "error: "
"""How the line of the log begins that says why a job failed."""
BEGINS = "--- the job begins"
"""Line of the log at which an attempt begins."""


def last_words(folder: Path) -> str:
    """Return the last error in a job's log, or else its last line."""
    path = folder / LOG
    # Of the last attempt.
    log = path.read_text(errors="replace").rpartition(BEGINS)[2] if path.is_file() else ""
    lines = log.split("\n")
    said = [line.strip() for line in lines if line.strip()]
    # A cluster says farewell after the job's own last words.
    errors = [line.removeprefix(ERROR) for line in said if line.startswith(ERROR)]
    return (errors or said or [f"it said nothing; see {folder}"])[-1]

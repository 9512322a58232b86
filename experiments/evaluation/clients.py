"""Clients of the environments: what other people's libraries do with them, tried and tabled.

The examples of a page are the checks: each Python block runs as it stands, and its first line says
what it tries, ``# DISTRIBUTION: what`` (further distributions that it needs follow by commas).
"""

from __future__ import annotations

import contextlib
import io
import platform
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar, Literal

from experiments.run_folder import git_commit
from experiments.tables import Result, Table, short_commit

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
FIRST_LINE = re.compile(r"# ([\w-]+(?:, [\w-]+)*): (.+)\n")
OUTCOMES = {"works": "works", "not_installed": "not installed", "fails": "**fails**"}


@dataclass(frozen=True)
class ClientExample:
    """An example of a page."""

    needs: tuple[str, ...]
    """Distributions; the first is the client."""
    tried: str
    """What it tries, in words."""
    code: str

    @property
    def missing(self) -> tuple[str, ...]:
        """Distributions that are not installed."""
        return tuple(name for name in self.needs if installed(name) is None)

    def run(self) -> None:
        """Run the code as a script; whatever it raises is raised."""
        exec(compile(self.code, f"{self.needs[0]}: {self.tried}", "exec"), {"__name__": "__main__"})


@dataclass(frozen=True, kw_only=True)
class ClientRow:
    """What became of an example."""

    client: str
    """Distribution."""
    versions: dict[str, str | None]
    """Version of each distribution that it needs; None = not installed."""
    tried: str
    outcome: Literal["works", "not_installed", "fails"]
    error: str
    """First line of what it raised; empty where it raised nothing."""
    seconds: float
    """How long it took."""


@dataclass(frozen=True, kw_only=True)
class ClientsResult(Result):
    """What works in which client."""

    kind: ClassVar[str] = "clients"

    python: str
    libraries: dict[str, str]
    """Versions of what every client builds upon."""
    commit: str
    rows: tuple[ClientRow, ...]

    @property
    def failures(self) -> tuple[ClientRow, ...]:
        """Examples that fail."""
        return tuple(row for row in self.rows if row.outcome == "fails")

    def tables(self) -> list[Table]:
        """Return a row for every example."""
        libraries = ", ".join(f"{name} {number}" for name, number in self.libraries.items())
        return [
            Table(
                caption=f"Python {self.python}, {libraries}, commit `{short_commit(self.commit)}`.",
                columns=("client", "version", "tried", "outcome"),
                rows=tuple(
                    (row.client, written(row), row.tried, told_of(row)) for row in self.rows
                ),
            )
        ]


def written(row: ClientRow) -> str:
    """Write the client's version, and those of what else the example needs."""
    own, *others = (number or "-" for number in row.versions.values())
    names = list(row.versions)[1:]
    return ", ".join(
        [own, *(f"{name} {number}" for name, number in zip(names, others, strict=True))]
    )


def told_of(row: ClientRow) -> str:
    """Write what became of an example."""
    return OUTCOMES[row.outcome] + f": {row.error}" * bool(row.error)


def installed(name: str) -> str | None:
    """Return the version of a distribution; None = not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def examples_of(page: Path) -> list[ClientExample]:
    """Read the examples of a page.

    Raises:
        ValueError: there is no such page, it holds no Python block, or a block does not say what
            it tries.
    """
    if not page.is_file():
        raise ValueError(f"no page at {page}; the examples are part of the repository")
    examples = []
    for code in BLOCK.findall(page.read_text()):
        said = FIRST_LINE.match(code)
        if said is None:
            raise ValueError(
                f"an example of {page.name} must begin with '# DISTRIBUTION: what is tried', got "
                f"{code.partition(chr(10))[0]!r}"
            )
        examples.append(ClientExample(tuple(said[1].split(", ")), said[2], code))
    if not examples:
        raise ValueError(f"{page} holds no Python block")
    return examples


def try_example(example: ClientExample) -> ClientRow:
    """Run an example, unless something that it needs is not installed, and note what it raises."""
    outcome: Literal["works", "not_installed", "fails"] = "works"
    error, started = "", time.perf_counter()
    if example.missing:
        outcome = "not_installed"
    else:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                example.run()
        except Exception as reason:
            lines = str(reason).strip().splitlines() or [""]
            outcome, error = "fails", f"{type(reason).__name__}: {lines[0]}"
    return ClientRow(
        client=example.needs[0],
        versions={name: installed(name) for name in example.needs},
        tried=example.tried,
        outcome=outcome,
        error=error,
        seconds=time.perf_counter() - started,
    )


def try_clients(examples: Sequence[ClientExample]) -> ClientsResult:
    """Run examples one after the other, and say of each what became of it."""
    rows = []
    for example in examples:
        rows.append(try_example(example))
        print(f"{rows[-1].client}: {rows[-1].tried}: {told_of(rows[-1])}", flush=True)
    libraries = {name: installed(name) or "-" for name in ("gymnasium", "torch", "numpy")}
    return ClientsResult(
        python=platform.python_version(),
        libraries=libraries,
        commit=git_commit(),
        rows=tuple(rows),
    )

"""Results and tables: a result is a typed object that knows its table, and a table renders itself.

A result is a dataclass. It is written to JSON and read back by the same class; a table is text for
the terminal, Markdown for the records, or HTML.
"""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import TypeAdapter, ValidationError

from foveate.files import unwritable


@dataclass(frozen=True)
class Table:
    """Rows of cells that are already written as a reader sees them."""

    columns: tuple[str, ...]
    """Headings; the first column names the rows."""
    rows: tuple[tuple[str, ...], ...]
    """Cells, as many per row as there are columns."""
    caption: str = ""
    """What the table shows, before it: data, sizes, commit."""
    notes: tuple[str, ...] = ()
    """Sentences after it, each a line."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells in {len(self.columns)} columns: {row}")

    def to_text(self) -> str:
        """Return aligned columns for a terminal: names to the left, numbers to the right."""
        lines = [tuple(map(plain, row)) for row in (self.columns, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        written = [
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in lines
        ]
        return "\n".join([*self._before(), *written, *self._after()])

    def to_markdown(self) -> str:
        """Return a Markdown table."""

        def line(row: tuple[str, ...]) -> str:
            # Else a bar in a cell, as of a name, would begin another one.
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"

        lines = [line(self.columns), "|---" * len(self.columns) + "|", *map(line, self.rows)]
        return "\n".join([*self._before(), *lines, *self._after()])

    def to_html(self) -> str:
        """Return an HTML table."""

        def cells(tag: str, row: tuple[str, ...]) -> str:
            inner = "".join(f"<{tag}>{html.escape(plain(cell))}</{tag}>" for cell in row)
            return f"<tr>{inner}</tr>"

        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        body = "".join(cells("td", row) for row in self.rows)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        head = cells("th", self.columns)
        return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>{notes}"

    def _before(self) -> list[str]:
        return [self.caption, ""] if self.caption else []

    def _after(self) -> list[str]:
        return ["", *self.notes] if self.notes else []


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a script measured. Subclasses are frozen dataclasses that name their ``kind``."""

    kind: ClassVar[str]
    """Name under which ``experiments.pages.read_result`` finds the class; written to the file."""

    def tables(self) -> list[Table]:
        """Return what a reader sees of the result."""
        raise NotImplementedError

    def to_text(self) -> str:
        """Return all tables for a terminal."""
        return "\n\n".join(table.to_text() for table in self.tables())

    def to_markdown(self) -> str:
        """Return all tables as Markdown."""
        return "\n\n".join(table.to_markdown() for table in self.tables())

    def content(self) -> dict[str, Any]:
        """Return what is written to the file."""
        return {"kind": self.kind, **asdict(self)}

    def write(self, path: Path) -> None:
        """Write :meth:`content` as JSON."""
        write_json(path, self.content())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a result of this class back; keys that it does not know are passed over.

        Raises:
            ValueError: there is no such file, or it holds no result of this kind.
        """
        if not path.is_file():
            raise ValueError(f"no result at {path}")
        return cls.from_content(read_object(path), path)

    @classmethod
    def from_content(cls, content: dict[str, Any], path: Path) -> Self:
        """Build a result from the content of a file, whose path errors name."""
        try:
            result: Self = TypeAdapter(cls).validate_python(content)
        except ValidationError as reason:
            first = reason.errors()[0]
            what = ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), first["msg"]])
            raise ValueError(f"{path} is no {cls.kind} result of this version: {what}") from reason
        return result


def plain(cell: str) -> str:
    """Take away the stars that make a cell bold in Markdown."""
    return cell.replace("**", "")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a file to write to, of the same suffix; it takes the place of ``path`` in one step.

    An interrupted write leaves what was there. Of two processes that write at once, one is last.

    Raises:
        ValueError: it cannot be written, say on a full disk.
    """
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as reason:
        raise unwritable(path, reason) from reason
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON in one step."""
    with written_whole(path) as partial:
        partial.write_text(json_text(content))


def json_text(content: object) -> str:
    """Return JSON on many lines, with null for numbers that are not finite, which JSON lacks."""
    # By way of JSON, so that keys and what only str() can write are plain before numbers are.
    plain_content = json.loads(json.dumps(content, default=str))
    return json.dumps(finite(plain_content), indent=2, allow_nan=False) + "\n"


def finite(content: Any) -> Any:
    """Return JSON content with None for every number that is not finite."""
    if isinstance(content, dict):
        return {name: finite(each) for name, each in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(each) for each in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def json_line(content: object) -> str:
    """Return JSON on one line, as :func:`json_text` does on many."""
    return json.dumps(finite(content), allow_nan=False)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: it holds no JSON, or one nested deeper than Python reads.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as reason:
        raise ValueError(
            f"{path} is damaged: it holds no JSON ({type(reason).__name__}: {reason})"
        ) from reason


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ValueError: it holds anything else.
    """
    content = read_json(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__} where an object belongs")
    return dict(content)


def set_aside(result: Path, pictures: Sequence[Path] = ()) -> None:
    """Keep a result, and the pictures of it, under a number that none of them has."""
    files = (result, *pictures)
    number = next(n for n in count(1) if not any(numbered(each, n).exists() for each in files))
    for each in files:
        # Another process may have kept it in the meantime.
        if each.exists():
            os.replace(each, numbered(each, number))
    print(f"kept: what was there, of other options, as {numbered(result, number).name}")


def numbered(path: Path, number: int) -> Path:
    """Return the path under a number: ``compare_1.json``."""
    return path.with_stem(f"{path.stem}_{number}")


def short_commit(commit: str) -> str:
    """Shorten a commit; whether files differed from it stays."""
    return commit[:10] + "-dirty" * commit.endswith("-dirty")


def plural(number: int, noun: str) -> str:
    """Count a noun: 1 thread, 2 threads."""
    return f"{number} {noun}{'s' * (number != 1)}"


def marked(name: str, which: str = "policy") -> str:
    """Set a name in bold if it is the one that the others are compared with."""
    return f"**{name}**" if name == which else name


def with_interval(mean: float, interval: tuple[float, float] | None, digits: int = 3) -> str:
    """Write a mean and its 95% interval; ``[-]`` where there are too few values for one."""
    if interval is None:
        return f"{mean:.{digits}f} [-]"
    return f"{mean:.{digits}f} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def signed(mean: float, interval: tuple[float, float] | None, digits: int = 4) -> str:
    """Write a difference as :func:`with_interval` does, with its sign."""
    if interval is None:
        return f"{mean:+.{digits}f} [-]"
    return f"{mean:+.{digits}f} [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]"

"""Results and tables: a result is a typed object that knows its table, and a table renders itself.

A result is a dataclass. It is written to JSON and read back by the same class; a table is text for
the terminal, Markdown for the records, or HTML.
"""

from __future__ import annotations

import html
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import TypeAdapter, ValidationError

from foveate.files import replacing


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
        lines = [
            "| " + " | ".join(self.columns) + " |",
            "|---" * len(self.columns) + "|",
            *("| " + " | ".join(row) + " |" for row in self.rows),
        ]
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
    """Name under which :func:`read_result` finds the class; written to the file."""

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
        return cls.from_content(json.loads(path.read_text()), path)

    @classmethod
    def from_content(cls, content: dict[str, Any], path: Path) -> Self:
        """Build a result from the content of a file, whose path errors name."""
        try:
            result: Self = TypeAdapter(cls).validate_python(content)
        except ValidationError as reason:
            first = reason.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(
                f"{path} is no {cls.kind} result of this version: {place}: {first['msg']}"
            ) from reason
        return result


def plain(cell: str) -> str:
    """Take away the stars that make a cell bold in Markdown."""
    return cell.replace("**", "")


def write_json(path: Path, content: object) -> None:
    """Write JSON in one step: an interrupted write leaves what was there.

    Raises:
        ValueError: the file cannot be written.
    """
    text = json.dumps(content, indent=2, default=str) + "\n"
    with replacing(path) as file:
        file.write(text.encode())


def json_line(content: object) -> str:
    """Return JSON on one line, with null for numbers that are not finite, which JSON lacks."""
    return json.dumps(_finite(content), allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {name: _finite(each) for name, each in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(each) for each in content]
    return content


def plural(number: int, noun: str) -> str:
    """Count a noun: 1 thread, 2 threads."""
    return f"{number} {noun}{'s' * (number != 1)}"


def with_interval(mean: float, interval: tuple[float, float] | None, digits: int = 3) -> str:
    """Write a mean and, where it was measured more than once, its 95% interval."""
    if interval is None:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def signed(mean: float, interval: tuple[float, float], digits: int = 4) -> str:
    """Write a difference with its 95% interval."""
    return f"{mean:+.{digits}f} [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]"

"""What the names of files and folders tell of a data set that nobody reads: said once on stderr."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path

from foveate.data.notes import listed, say_once
from foveate.data.splits import SHARD


def say_layout(folder: Path, shards: Sequence[Path]) -> None:
    """Say what the names of files that hold many images each tell, and nobody reads."""
    _say_partitions(folder, shards)
    _say_missing_shards(folder, shards)
    say_configurations(folder, shards)


def say_inner_classes(folder: Path, parents: Iterable[tuple[str, ...]]) -> None:
    """Say which folders are the classes, if images of all lie in folders of the same names.

    So lie the folds, or the domains, of one set of classes.

    Args:
        folder: the data set.
        parents: of each image the folders from its class to where it lies; none = no class.
    """
    inner: dict[str, set[str]] = {}
    for parts in filter(None, parents):
        inner.setdefault(parts[0], set()).add(parts[-1] if len(parts) > 1 else "")
    first, *others = inner.values() or [set[str]()]
    if others and len(first) > 1 and "" not in first and all(each == first for each in others):
        say_once(
            f"classes of {folder} are its folders {listed(inner)}, and each holds {listed(first)}; "
            "if the latter are the classes, give --data one of the former"
        )


def say_configurations(folder: Path, files: Iterable[Path]) -> None:
    """Say that files of a repository of the Hugging Face hub are several sets, as its card says."""
    card = folder / "README.md"
    head = card.read_text("utf-8", "replace").split("---") if card.is_file() else []
    # A card starts with its YAML between two lines of dashes.
    if len(head) < 3 or head[0].strip():
        return
    listed_there = {*re.findall(r"^\W*config_name: *(\S+)", head[1], re.MULTILINE)}
    # Datasets keeps each configuration in a folder of its name.
    names = listed_there & {part for file in files for part in file.relative_to(folder).parts[:-1]}
    if len(names) > 1:
        say_once(
            f"read as one set of {folder}: its configurations {listed(names)}; give the folder of "
            "one of them"
        )


def _say_partitions(folder: Path, tables: Iterable[Path]) -> None:
    """Say what nobody reads of the names of folders, as of ``label=cat/0.parquet``."""
    parts = {part for table in tables for part in table.relative_to(folder).parts[:-1]}
    keys = sorted({part.split("=")[0] for part in parts if "=" in part})
    if keys:
        say_once(
            f"not read of {folder}: {', '.join(keys)} in the names of folders, such as "
            f"{min(part for part in parts if '=' in part)}; write it into the tables as a column"
        )


def _say_missing_shards(folder: Path, files: Iterable[Path]) -> None:
    """Say which of the files of a split are not there, as their names count them."""
    found: dict[tuple[Path, str, str], set[int]] = {}
    for file in files:
        if shard := SHARD.fullmatch(file.stem):
            name, number, total = shard.groups()
            found.setdefault((file.with_name(name), total, file.suffix), set()).add(int(number))
    for (path, total, ending), numbers in found.items():
        missing = int(total) - len(numbers)
        if missing <= 0:
            continue
        counted_from = 1 if int(total) in numbers else 0
        first = next(number for number in count(counted_from) if number not in numbers)
        lacking = f"{path.name}-{first:0{len(total)}}-of-{total}{ending}"
        say_once(
            f"not there in {folder}: {missing} of the {int(total)} files of "
            f"{path.relative_to(folder)}, such as {lacking}"
        )

"""From the labels that a set stores to class numbers, by one rule for whole sets and streams.

Stored are integers, text, true and false, or whole numbers; nothing, NaN and -1 mean no label.
Text is numbered in sorted order over all files and splits, or in the order of the set's own class
names. Numbers below MOST_NUMBERS stay as they are; of larger ones the values that occur are
numbered in order, so that a single label 1,000,000,000 takes no billion outputs.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class", "cls")
"""Names under which class labels are stored; the first that is there is read."""
MOST_NUMBERS = 100_000
"""Numbers from here on are no class numbers but names of classes."""

Label = int | str | None
"""What is stored for an image, once :func:`read_label` has read it; None: no label."""


@dataclass(frozen=True)
class Classes:
    """The classes of a set, and how what it stores becomes their numbers."""

    names: tuple[str, ...]
    """Name of each class; empty for a set without labels."""
    numbers: Mapping[Label, int] | None = None
    """Number of each stored value; None: what is stored are the numbers."""

    def number(self, stored: object, where: str) -> int:
        """Return the class number of what is stored in one place, -1 for no label.

        Raises:
            ValueError: Something else than a label is stored, or a class that has no name.
        """
        label = read_label(stored, where)
        if label is None:
            return -1
        if self.numbers is not None and label in self.numbers:
            return self.numbers[label]
        most = len(self.names) or MOST_NUMBERS
        if isinstance(label, str) or self.numbers is not None or label >= most:
            known = f"{most} class names" if self.names else f"numbers from 0 to {most - 1}"
            raise ValueError(f"{where}: label {label!r} has no name among the {known}")
        return label


def read_label(stored: object, where: str) -> Label:
    """Return a stored label as a whole number, as text, or as None where there is none.

    Raises:
        ValueError: It is of another kind, not whole, negative but -1, or beyond int64.
    """
    if stored is None or isinstance(stored, str):
        return stored
    if isinstance(stored, float) and math.isnan(stored):
        return None
    if not isinstance(stored, int | float) or (isinstance(stored, float) and stored % 1):
        raise ValueError(
            f"{where}: a label must be an integer, text, true or false, got {str(stored)[:80]}"
        )
    if not -1 <= stored < 2**63:
        raise ValueError(
            f"{where}: label {stored} is no class number; they begin at 0, and -1 means no label"
        )
    return None if stored == -1 else int(stored)


def find_classes(stored: Iterable[Label], names: tuple[str, ...], where: str) -> Classes:
    """Return the classes of a set by all labels that it stores and the names that it gives.

    Args:
        stored: Every label that occurs, once or more.
        names: The set's own names of the numbers from 0 on; empty if it gives none.
        where: What an error calls the set.

    Raises:
        ValueError: A label without a name, or text beside numbers.
    """
    found = set(stored) - {None}
    texts = sorted(label for label in found if isinstance(label, str))
    numbers = sorted(label for label in found if isinstance(label, int))
    if texts and numbers:
        raise ValueError(
            f"{where}: some labels are text, such as {texts[0]!r}, and others numbers, such as "
            f"{numbers[0]}; store one kind"
        )
    if texts:
        nameless = sorted(set(texts) - set(names)) if names else []
        if nameless:
            raise ValueError(
                f"{where}: label {nameless[0]!r} has no name; class_names lists {len(names)}"
            )
        named = names or tuple(texts)
        return Classes(named, {name: number for number, name in enumerate(named)})
    highest = numbers[-1] if numbers else -1
    if names and highest >= len(names):
        raise ValueError(f"{where}: label {highest} has no name; class_names lists {len(names)}")
    if names or highest < MOST_NUMBERS:
        named = names or tuple(str(number) for number in range(highest + 1))
        return Classes(named if numbers else ())
    return Classes(
        tuple(str(number) for number in numbers),
        {number: position for position, number in enumerate(numbers)},
    )


def find_classes_of_files(
    files: Mapping[Path, tuple[Collection[Label], tuple[str, ...]]],
) -> dict[Path, Classes]:
    """Return the classes of a set of files, for each file as it numbers them.

    Files may name their numbers in orders of their own. The set has the names of all, those of the
    first file first. A file without names numbers as all others do.

    Args:
        files: For each file every label that it stores, once or more, and its own class names.

    Raises:
        ValueError: A label without a name, text beside numbers, or numbers without names beside
            files that name theirs differently.
    """
    lists = {names: file for file, (_, names) in files.items() if names}
    every = tuple(dict.fromkeys(itertools.chain.from_iterable(lists)))
    position = {name: number for number, name in enumerate(every)}
    stored: set[Label] = set()
    numbers: dict[Path, dict[Label, int]] = {}
    for file, (labels, names) in files.items():
        if names:
            # Each file by its own list: that of all is longer.
            find_classes((label for label in labels if isinstance(label, int)), names, str(file))
        elif len(lists) > 1 and any(isinstance(label, int) for label in labels):
            first, second = list(lists.values())[:2]
            raise ValueError(
                f"{file} has numbers without class_names, which {first} and {second} list "
                "differently; write the file's own"
            )
        numbers[file] = {number: position[name] for number, name in enumerate(names)}
        stored |= {numbers[file].get(label, label) for label in labels}
    shared = find_classes(stored, every, str(next(iter(files))))
    if shared.numbers is not None:  # Text says itself which class it is.
        return dict.fromkeys(files, shared)
    return {file: Classes(shared.names, numbers[file] or None) for file in files}


def read_json(content: bytes | str, where: str) -> object:
    """Return what JSON says.

    Raises:
        ValueError: It is no JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{where} cannot be read as JSON ({reason})") from error

"""Image folders: the class, and where there is one the split, is the folder an image lies in."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foveate.data import scenes
from foveate.data.notes import say_once
from foveate.data.rows import Rows
from foveate.data.splits import split_name


class File(NamedTuple):
    """A file that was found in a folder."""

    path: Path
    real: str
    """Where it lies, with no links on the way."""
    gone: bool = False
    """Whether it is a link to nothing."""


def files_under(folder: Path) -> list[File]:
    """Return the files in ``folder`` and below, sorted by path, without hidden ones.

    Links are followed, but not back into a folder that they lie in. Links to nothing are among the
    files.

    Raises:
        ValueError: A folder cannot be read.
    """
    return list(_walk(folder, (os.path.realpath(folder),)))


def _walk(folder: Path, above: tuple[str, ...]) -> Iterator[File]:
    """Yield the files of a folder; ``above`` are the folders around it and it, without links."""
    try:
        with os.scandir(folder) as opened:
            entries = [entry for entry in opened if not entry.name.startswith(".")]
    except OSError as error:
        raise ValueError(f"cannot read the folder {folder} ({error.strerror})") from error
    for entry in sorted(entries, key=lambda entry: entry.name):
        path = folder / entry.name
        if _is_folder(entry):
            real = os.path.realpath(path)
            if real not in above:
                yield from _walk(path, (*above, real))
        elif entry.is_symlink():
            yield File(path, os.path.realpath(path), not path.exists())
        elif entry.is_file():
            yield File(path, os.path.join(above[-1], entry.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False


def check_shards(files: Iterable[Path]) -> None:
    """Check that files which hold many images each are there: these are missed less than images.

    Raises:
        ValueError: One is a link to nothing.
    """
    for file in files:
        if not file.exists():
            raise ValueError(f"{file} is a link to nothing; mend or remove it")


def say_skipped(folder: Path, skipped: Sequence[File], what: str) -> None:
    """Count the skipped files by their endings, on stderr.

    Args:
        folder: The data set.
        skipped: The files.
        what: What they are not, one of it.
    """
    broken = sum(file.gone for file in skipped)
    endings = Counter(file.path.suffix.lower() or "no ending" for file in skipped if not file.gone)
    told = [f"{ending} {number}" for ending, number in endings.most_common()]
    told += [f"broken links {broken}"] if broken else []
    if skipped:
        noun = f"file that is no {what}" if len(skipped) == 1 else f"files that are no {what}s"
        say_once(f"skipped in {folder}: {len(skipped)} {noun} ({', '.join(told)})")


def say_repeated(folder: Path, read: Iterable[File]) -> None:
    """Count the files that links make part of the data set once more, on stderr."""
    paths: dict[str, list[Path]] = {}
    for file in read:
        paths.setdefault(file.real, []).append(file.path)
    repeated = [several for several in paths.values() if len(several) > 1]
    if repeated:
        first, second, *_ = repeated[0]
        noun = "1 file" if len(repeated) == 1 else f"{len(repeated)} files"
        say_once(
            f"more than once in {folder}: {noun}, by links, such as {first} and {second}; what is "
            "trained on may be held out as well"
        )


def folder_reader(folder: Path, files: list[Path]) -> Callable[[], Rows]:
    """Return what sorts images by the folders they lie in: the split's, if any, and the class's.

    A single folder around class folders is seen through. Images that lie in no class folder
    anywhere are a set without labels.

    Raises:
        ValueError: A folder that is called like a split holds no images, so that others would be
            held out; or, when they are sorted, some images lie in class folders and others beside
            these.
    """
    base, parents = _without_wrappers(folder, files)
    filled = {parts[0] for parts in parents if parts}
    for path in sorted(base.iterdir()):
        if path.is_dir() and _is_split(path.name) and path.name not in filled:
            raise ValueError(f"{path} holds no images; put the split's there, or remove the folder")
    return lambda: _folder_rows(folder, base, parents, files)


def _folder_rows(
    folder: Path, base: Path, parents: list[tuple[str, ...]], files: list[Path]
) -> Rows:
    """Sort the images, of which ``parents`` are the folders below ``base`` they lie in."""
    # A file system may give the same name in two Unicode forms.
    parents = [tuple(unicodedata.normalize("NFC", part) for part in parts) for parts in parents]
    if _has_splits(parents):
        left_out = Counter(parts[0] for parts in parents if parts and not _is_split(parts[0]))
        for name, number in left_out.items():
            say_once(f"left out of {folder}: {number} images in {base / name}, which is no split")
        kept = [
            (split_name(parts[0]) if parts else "train", parts[1:], file)
            for parts, file in zip(parents, files, strict=True)
            if not parts or _is_split(parts[0])
        ]
    else:
        kept = [("train", parts, file) for parts, file in zip(parents, files, strict=True)]
    loose = [file for _, below, file in kept if not below]
    if loose and len(loose) < len(kept):
        raise ValueError(
            f"{loose[0].parent} has images without class folders, such as {loose[0].name}, beside "
            f"others with; move them into class folders, or out of {folder}"
        )
    class_names = tuple(sorted({below[0] for _, below, _ in kept if below}))
    label_of = {name: label for label, name in enumerate(class_names)}
    splits = dict.fromkeys(split for split, _, _ in kept)
    of_split = {own: [each for each in kept if each[0] == own] for own in splits}
    labels = {
        own: np.array(
            [label_of[below[0]] if below else -1 for _, below, _ in of_split[own]], np.int64
        )
        for own in splits
    }
    return Rows(
        name=folder.name,
        encoded={own: [file for _, _, file in of_split[own]] for own in splits},
        labels=labels,
        class_names=class_names,
        names={
            own: ["/".join((*below, file.name)) for _, below, file in of_split[own]]
            for own in splits
        },
        where={own: [str(file) for _, _, file in of_split[own]] for own in splits},
    )


def _is_split(name: str) -> bool:
    return split_name(name) in scenes.SPLITS


def _has_splits(parents: list[tuple[str, ...]]) -> bool:
    """Whether the outermost folders are splits.

    A folder "train" that holds images itself, beside other classes, is a class of vehicles; two
    different ones, such as train and test, are none.
    """
    nested = any(len(parts) > 1 and _is_split(parts[0]) for parts in parents)
    named = {split_name(parts[0]) for parts in parents if parts and _is_split(parts[0])}
    return nested or len(named) > 1 or all(parts and _is_split(parts[0]) for parts in parents)


def _without_wrappers(folder: Path, files: list[Path]) -> tuple[Path, list[tuple[str, ...]]]:
    """Go down as long as all images lie in one folder that is no split, in folders of it.

    Returns:
        The folder that is reached, and the folders below it that each image lies in.
    """
    parents = [file.parts[len(folder.parts) : -1] for file in files]
    while True:
        outermost = {parts[0] if parts else "" for parts in parents}
        name = next(iter(outermost))
        if len(outermost) > 1 or _is_split(name) or min(len(parts) for parts in parents) < 2:
            return folder, parents
        folder, parents = folder / name, [parts[1:] for parts in parents]

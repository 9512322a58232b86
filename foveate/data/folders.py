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
from foveate.data.layouts import say_inner_classes
from foveate.data.notes import listed, say_once
from foveate.data.rows import Rows
from foveate.data.splits import split_in_name, split_name


class File(NamedTuple):
    """A file that was found in a folder."""

    path: Path
    real: str
    """Where it lies, with no links on the way."""
    gone: str = ""
    """Why nothing can be read there: it is a broken link, or no regular file; empty = it can."""


def files_under(folder: Path) -> list[File]:
    """Return the files in ``folder`` and below, sorted by path, without hidden ones.

    Links are followed, but not back into a folder that they lie in. Links to nothing, pipes and
    devices are among the files.

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
        else:
            yield _file(path, entry, above[-1])


def _file(path: Path, entry: os.DirEntry[str], folder: str) -> File:
    """Return an entry of a folder, which ``folder`` names without links."""
    if entry.is_symlink():
        real, is_file = os.path.realpath(path), path.is_file()
    else:
        real, is_file = os.path.join(folder, entry.name), entry.is_file()
    if is_file:
        return File(path, real)
    # To open a pipe would wait for who writes into it.
    return File(path, real, "pipes and devices" if path.exists() else "broken links")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False


def check_shards(files: Iterable[Path]) -> None:
    """Check that files which hold many images each are there: these are missed less than images.

    Raises:
        ValueError: One is a link to nothing, or no regular file.
    """
    for file in files:
        if not file.is_file():
            what = "no regular file" if file.exists() else "a link to nothing"
            raise ValueError(f"{file} is {what}; mend or remove it")


def say_skipped(folder: Path, skipped: Sequence[File], what: str) -> None:
    """Count the skipped files by their endings, on stderr.

    Args:
        folder: The data set.
        skipped: The files.
        what: What they are not, one of it.
    """
    whole = [file for file in skipped if not file.gone]
    endings = Counter(file.path.suffix.lower() or "no ending" for file in whole)
    gone = Counter(file.gone for file in skipped if file.gone)
    told = [f"{what} {number}" for what, number in (*endings.most_common(), *gone.most_common())]
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

    A single folder around class folders is seen through, also within a split; so is one called
    images. Images that lie in no class folder anywhere are a set without labels.

    Raises:
        ValueError: A folder that is called like a split holds no images, so that others would be
            held out; or, when they are sorted, some images lie in folders of splits or classes and
            others beside these.
    """
    parents = [file.parts[len(folder.parts) : -1] for file in files]
    wrappers = _wrappers(parents, _is_split)
    base, below = folder.joinpath(*wrappers), [parts[len(wrappers) :] for parts in parents]
    for depth in range(len(wrappers) + 1):
        filled = {parts[depth] if len(parts) > depth else None for parts in parents}
        _check_splits_are_filled(folder.joinpath(*wrappers[:depth]), filled)
    return lambda: _folder_rows(folder, base, below, files)


def _check_splits_are_filled(folder: Path, filled: set[str | None]) -> None:
    """Raise ValueError if one of the folders in ``folder`` would be a split, had it images.

    Those that are ``filled`` have some; None is among them where images lie in none.
    """
    of_filled = {name and split_in_name(name) for name in filled}
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name in filled or path.name.startswith("."):
            continue
        # As _splits_of tells splits from classes.
        is_split = None not in of_filled and split_in_name(path.name) not in {None, *of_filled}
        if is_split or _is_split(path.name):
            raise ValueError(f"{path} holds no images; put the split's there, or remove the folder")


def _folder_rows(
    folder: Path, base: Path, parents: list[tuple[str, ...]], files: list[Path]
) -> Rows:
    """Sort the images, of which ``parents`` are the folders below ``base`` they lie in."""
    # A file system may give the same name in two Unicode forms.
    parents = [tuple(unicodedata.normalize("NFC", part) for part in parts) for parts in parents]
    of_split = _by_split(folder, base, parents, files)
    every = [each for own in of_split.values() for each in own]
    loose = [file for below, file in every if not below]
    if loose and len(loose) < len(every):
        raise ValueError(
            f"{loose[0].parent} has images without class folders, such as {loose[0].name}, beside "
            f"others with; move them into class folders, or out of {folder}"
        )
    class_names = tuple(sorted({below[0] for below, _ in every if below}))
    say_inner_classes(folder, [below for below, _ in every])
    label_of = {name: label for label, name in enumerate(class_names)}
    labels = {
        own: np.array([label_of[below[0]] if below else -1 for below, _ in found], np.int64)
        for own, found in of_split.items()
    }
    for own in of_split.keys() - {"train"} if "train" in labels else ():
        if class_names and not {*labels[own]} & {*labels["train"]}:
            say_once(f"of {folder}: no class of {own} is one of train")
    return Rows(
        name=folder.name,
        encoded={own: [file for _, file in found] for own, found in of_split.items()},
        labels=labels,
        class_names=class_names,
        names={
            own: ["/".join((*below, file.name)) for below, file in found]
            for own, found in of_split.items()
        },
        where={own: [str(file) for _, file in found] for own, found in of_split.items()},
    )


def _by_split(
    folder: Path, base: Path, parents: list[tuple[str, ...]], files: list[Path]
) -> dict[str, list[tuple[tuple[str, ...], Path]]]:
    """Return the images of each split, with the folders below it that each lies in."""
    split_of = _splits_of(parents)
    if split_of:
        for parts, file in zip(parents, files, strict=True):
            if not parts:
                raise ValueError(
                    f"{base} has images beside the folders of splits, such as {file.name}; move "
                    f"them into one of {listed(split_of)}, or out of {folder}"
                )
        left_out = Counter(parts[0] for parts in parents if parts[0] not in split_of)
        for name, number in left_out.items():
            say_once(f"left out of {folder}: {number} images in {base / name}, which is no split")
    of_split: dict[str, list[tuple[tuple[str, ...], Path]]] = {}
    for parts, file in zip(parents, files, strict=True):
        if not split_of:
            of_split.setdefault("train", []).append((parts, file))
        elif own := split_of.get(parts[0]):
            of_split.setdefault(own, []).append((parts[1:], file))
    if not split_of:
        return of_split
    wrappers = {own: _wrappers([below for below, _ in found]) for own, found in of_split.items()}
    # Where one split alone has a single folder, that is the only class it has images of.
    depth = {
        own: len(names) if all(wrappers.values()) or all(map(_holds_all, names)) else 0
        for own, names in wrappers.items()
    }
    return {
        own: [(below[depth[own] :], file) for below, file in found]
        for own, found in of_split.items()
    }


def _is_split(name: str) -> bool:
    return split_name(name) in scenes.SPLITS


def _splits_of(parents: list[tuple[str, ...]]) -> dict[str, str]:
    """Return the split of each outermost folder that is one; nothing where these are classes.

    A folder "train" that holds images itself, beside other classes, is a class of vehicles; two
    different ones, such as train and test, are none. Where each folder's name has a split in it,
    and not all the same, as train2017 and val2017 have, they are splits as well.

    Raises:
        ValueError: different splits lie within one of the outermost folders, or within several
            that are none.
    """
    outermost = {parts[0] for parts in parents if parts}
    named = {name: split_in_name(name) for name in outermost}
    several = {name: own for name, own in named.items() if own}
    if all(parents) and several == named and len({*several.values()}) > 1:
        return several
    exact = {name: split_name(name) for name in outermost if _is_split(name)}
    for name in exact:
        _check_holds_no_splits([parts for parts in parents if parts and parts[0] == name])
    nested = any(len(parts) > 1 and parts[0] in exact for parts in parents)
    all_exact = all(parts and parts[0] in exact for parts in parents)
    if nested or all_exact or len({*exact.values()}) > 1:
        return exact
    _check_holds_no_splits(parents)
    if len({*several.values()}) > 1:
        say_once(f"read as classes, since not all are called like splits: {listed(outermost)}")
    return {}


def _check_holds_no_splits(parents: list[tuple[str, ...]]) -> None:
    """Raise ValueError if folders of different splits lie within the outermost folders."""
    within = {parts[1] for parts in parents if len(parts) > 1 and _is_split(parts[1])}
    if len(set(map(split_name, within))) > 1:
        outermost = {parts[0] for parts in parents if parts}
        raise ValueError(
            f"folders called {listed(within)} lie within others, {listed(outermost)}; expected "
            "split/class/image, so that they are outside"
        )


def _wrappers(
    parents: list[tuple[str, ...]], is_kept: Callable[[str], bool] = lambda name: False
) -> tuple[str, ...]:
    """Return the folders that all images lie in, one in another, as far as they are no classes.

    The last folder is the class of all, unless it is called images.

    Args:
        parents: the folders that each image lies in.
        is_kept: of which names a folder is none of these.
    """
    shared: list[str] = []
    for names in zip(*parents, strict=False):
        if len({*names}) > 1 or is_kept(names[0]):
            break
        shared.append(names[0])
    is_class = shared and len(shared) == min(map(len, parents)) and not _holds_all(shared[-1])
    return tuple(shared[:-1] if is_class else shared)


def _holds_all(name: str) -> bool:
    """Whether a folder is called as those are that hold all images of a set, beside its labels."""
    return name.lower() == "images"

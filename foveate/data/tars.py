"""Streamed tar files of webdataset's form: every file is a piece."""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from foveate.data.decoding import IMAGE_SUFFIXES
from foveate.data.labels import LABEL_COLUMNS, Classes, read_json
from foveate.data.samples import PieceSource, Sample, own_split, reading

_TAR_IMAGES = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)
_TAR_LABELS = frozenset({"cls", "json"})


@dataclass(frozen=True)
class TarSource(PieceSource):
    """One split of tar files."""

    files: list[Path]
    kind: ClassVar[str] = "tar files"

    def read(self, piece: int, row: int) -> Iterator[Sample]:
        """Yield the samples of a file, without the first ``row``."""
        file = self.files[piece]
        # Not "r|", which would have to read what is skipped.
        with reading(file), tarfile.open(file, "r:") as opened:
            members = (member for member in opened if member.isfile() and _stem(member))
            for stem, parts in itertools.islice(itertools.groupby(members, _stem), row, None):
                where = f"sample {stem} of {file}"
                found = {
                    suffix: content.read()
                    for member in parts
                    if (suffix := _suffix(member)) in _TAR_IMAGES | _TAR_LABELS
                    and (content := opened.extractfile(member))
                }
                images = sorted(_TAR_IMAGES & found.keys())
                if len(images) != 1:
                    raise ValueError(
                        f"{where} has {len(images)} images; give every sample one, such as .png "
                        "or .jpg"
                    )
                yield Sample(found[images[0]], _tar_label(found, where), where)


def open_tar(files: list[tuple[Path, str]], split: str, name: str) -> TarSource:
    """Open the files that belong to one split.

    Raises:
        ValueError: there is no such split.
    """
    own = own_split([named for _, named in files], split, name)
    kept = [file for file, named in files if named == own]
    return TarSource([f"{file.name}: {file.stat().st_size} bytes" for file in kept], kept)


def _stem(member: tarfile.TarInfo) -> str:
    """Return folder and name up to the first dot; nothing for a hidden file."""
    path = PurePosixPath(member.name)
    stem = path.name.partition(".")[0]
    return str(path.with_name(stem)) if stem else ""


def _suffix(member: tarfile.TarInfo) -> str:
    return PurePosixPath(member.name).name.partition(".")[2].lower()


def _tar_label(found: dict[str, bytes], where: str) -> int:
    """Return the class number; text would need a list of all classes, which tar files lack."""
    try:
        json = found.get("json", b"null")
        label = int(found["cls"]) if "cls" in found else read_json(json, "its .json")
    except ValueError as error:
        raise ValueError(f"{where}: its .cls or .json cannot be read ({error})") from error
    if isinstance(label, dict):
        label = next((label[name] for name in LABEL_COLUMNS if name in label), None)
    if isinstance(label, str):
        raise ValueError(f"{where}: its class must be an integer, got {label!r}")
    return Classes(()).number(label, where)

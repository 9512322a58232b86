"""Streamed tar files of webdataset's form: every file is a piece.

An archive is damaged where a header does not follow at once on the member before, or where it does
not end in two blocks of zeros and at most a record of them more. Python's tarfile takes all of that
for the end of the archive, so each member's place is checked here. More zeros than that may be all
that a failed copy left of samples.
"""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from foveate.data.decoding import IMAGE_SUFFIXES
from foveate.data.notes import say_once
from foveate.data.samples import PieceSource, Sample, own_split, reading, shard_fingerprints
from foveate.data.splits import HELD_OUT, belongs
from foveate.data.tar_texts import TarCaptions, label_in

_TAR_IMAGES = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)
_TAR_TEXTS = frozenset({"cls", "json", "txt"})
_END = 2 * tarfile.BLOCKSIZE
"""Zeros at the end of an archive; a writer may add more, to fill a record."""
_LARGE_RECORDS = tuple(tarfile.BLOCKSIZE << power for power in range(5, 17))
"""Records that ``tar -b`` writes instead of the usual 10 KiB, bytes; files are multiples of one."""
_ZEROS = "a hole of zeros"
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, xz and zstandard begin."""
_ADVICE = "write it again, or add --skip-damaged"


@dataclass(frozen=True)
class _Part:
    """A file in an archive, read when it is needed."""

    name: PurePosixPath
    member: tarfile.TarInfo

    @property
    def stem(self) -> str:
        """Folder and name up to the first dot."""
        return str(self.name.with_name(self.name.name.partition(".")[0]))

    @property
    def suffix(self) -> str:
        """What follows the first dot."""
        return self.name.name.partition(".")[2].lower()


@dataclass(frozen=True)
class TarSource(PieceSource):
    """One split of tar files."""

    files: list[Path]
    split: str
    held_out: list[str]
    """Splits that are held out of these files."""
    skip_damaged: bool
    caption_key: str | None
    """Key of ``.json`` with captions; None = what is usual."""
    kind: ClassVar[str] = "tar files"

    @property
    def advice(self) -> str:
        """What to do where a worker's share has no images."""
        if not self.held_out:
            return super().advice
        return (
            f"no sample in it falls into {self.split} by its name; give more samples, use fewer "
            f"workers, or store {self.split} in files of its own"
        )

    def read(self, piece: int, row: int) -> Iterator[Sample]:
        """Yield the samples of a file that belong to the split, without the first ``row``.

        Raises:
            ValueError: The archive or a sample is damaged; with skip_damaged these are counted.
        """
        file, count = self.files[piece], 0
        damage, captions = _Damage(file, self.skip_damaged), TarCaptions(self.caption_key)
        with reading(file):
            try:
                # Not "r|", which would have to read what is skipped.
                opened = tarfile.open(file, "r:", ignore_zeros=True)
            except tarfile.TarError as error:
                damage.between(0, file.stat().st_size, " ".join(str(error).split()))
                damage.say()
                return
        with reading(file), opened:
            for stem, group in itertools.groupby(_parts(opened, damage), lambda part: part.stem):
                if not belongs(stem, self.split, self.held_out):
                    continue
                try:
                    # What was delivered is not read again, unless it may have been skipped.
                    if count >= row or self.skip_damaged:
                        sample = _sample(opened, f"sample {stem} of {file}", list(group), captions)
                except ValueError as error:
                    damage.in_sample(error)
                    continue
                count += 1
                if count > row:
                    yield sample
        if row == 0 and count:
            captions.check(file)
        damage.say()


def open_tar(
    files: list[tuple[Path, str]],
    split: str,
    name: str,
    *,
    holds_out: bool = False,
    skip_damaged: bool = False,
    caption_key: str | None = None,
) -> TarSource:
    """Open the files that belong to one split.

    Args:
        files: Each with the split that its name says.
        split: train, val or test.
        name: What an error calls the source.
        holds_out: Files of whatever split are train, and val and test held out of them.
        skip_damaged: Count what is damaged instead of stopping there.
        caption_key: Key of ``.json`` with captions; None = what is usual.

    Raises:
        ValueError: there is no such split; a file is compressed, or, unless damage is skipped,
            does not end as an archive does.
    """
    shards: dict[str, dict[Path, int]] = {}
    for file, named in files:
        _check_ends(file, skip_damaged)
        shards.setdefault("train" if holds_out else named, {})[file] = 0
    held_out = list(HELD_OUT) if holds_out else []
    kept = list(shards["train" if holds_out else own_split(list(shards), split, name)])
    part = f", {split} of all" if holds_out else ""
    names = [f"{file.name}: {file.stat().st_size} bytes{part}" for file in kept]
    options = held_out, skip_damaged, caption_key
    return TarSource(names, shard_fingerprints(shards), kept, split, *options)


@dataclass
class _Damage:
    """What is wrong with an archive: an error, or counted where it is skipped."""

    file: Path
    skip: bool
    num_samples: int = 0
    num_bytes: int = 0
    first: str = ""
    """The first reason why nothing could be read between samples."""
    first_sample: str = ""
    """The first reason why a sample is not whole."""

    def between(self, offset: int, next_offset: int, what: str) -> None:
        """Note that nothing can be read between two offsets."""
        what = f"{what} at byte {offset}"
        if not self.skip:
            hint = " (tar -A leaves zeros, too)" if what.startswith(_ZEROS) else ""
            raise ValueError(f"cannot read {self.file} as tar: {what}; {_ADVICE}{hint}")
        self.num_bytes += max(0, next_offset - offset)
        self.first = self.first or f"; {what}"

    def in_sample(self, error: ValueError) -> None:
        """Note that a sample is not whole."""
        if not self.skip:
            raise error
        self.num_samples += 1
        self.first_sample = self.first_sample or f" (the first: {error})"

    def say(self) -> None:
        """Say what was skipped, if anything."""
        if self.num_samples or self.first:
            say_once(
                f"skipped in {self.file}: {self.num_samples} samples that are not whole"
                f"{self.first_sample}, and {self.num_bytes} bytes between samples{self.first}"
            )


def _check_ends(file: Path, skip_damaged: bool) -> None:
    """Look at both ends of an archive, which shows most damage before anything is read."""
    size = file.stat().st_size
    with reading(file), file.open("rb") as opened:
        start = opened.read(8)
        opened.seek(max(0, size - _END))
        end = opened.read()
    if start.startswith(_COMPRESSED):
        raise ValueError(f"{file} is compressed; unpack it to a plain .tar")
    if len(end) < _END or any(end):
        _Damage(file, skip_damaged).between(size, size, "it is cut off, without an archive's end,")


def _parts(opened: tarfile.TarFile, damage: _Damage) -> Iterator[_Part]:
    """Yield the files in an archive, except hidden ones; see to it that none is lost."""
    end, size = 0, damage.file.stat().st_size
    while True:
        try:
            member = opened.next()
        except tarfile.TarError as error:
            return damage.between(end, size, " ".join(str(error).split()))
        next_offset = size if member is None else member.offset
        end = _after_global_headers(damage.file, end, next_offset)
        problem = _problem(damage.file, end, next_offset, at_end=member is None)
        if problem:
            damage.between(end, next_offset, problem)
        if member is None:
            return None
        end = opened.offset
        part = _Part(PurePosixPath(member.name), member)
        # A link stands for a file that the archive holds already.
        if (member.isfile() or member.islnk() or member.issym()) and part.name.name[:1] != ".":
            yield part


def _after_global_headers(file: Path, offset: int, next_offset: int) -> int:
    """Return where the headers end that are about all members; tarfile reads them unseen."""
    with file.open("rb") as opened:
        while offset < next_offset:
            opened.seek(offset)
            try:
                header = tarfile.TarInfo.frombuf(
                    opened.read(tarfile.BLOCKSIZE), tarfile.ENCODING, "surrogateescape"
                )
            except tarfile.HeaderError:
                break
            end = offset + tarfile.BLOCKSIZE * (1 + -(-header.size // tarfile.BLOCKSIZE))
            if header.type != tarfile.XGLTYPE or end > next_offset:
                break
            offset = end
    return offset


def _problem(file: Path, offset: int, next_offset: int, *, at_end: bool) -> str | None:
    """Return what is wrong between a member and the next or, at the end, the end of the file."""
    length = next_offset - offset
    if not at_end and length == 0:
        return None
    with file.open("rb") as opened:
        opened.seek(offset)
        first = opened.read(tarfile.BLOCKSIZE)
        if any(first):
            return "a bad header"
        blocks = iter(lambda: opened.read(min(2**20, next_offset - opened.tell())), b"")
        if any(any(block) for block in blocks) or not at_end or length >= _longest_end(next_offset):
            return _ZEROS
    return "it is cut off, without an archive's end," if length < _END else None


def _longest_end(size: int) -> int:
    """Return how many bytes of zeros are too many at the end of an archive."""
    fitting = (record for record in _LARGE_RECORDS if size % record == 0)
    # The last block of a record did not suffice, hence another record.
    return _END + max(tarfile.RECORDSIZE, *fitting, 0)


def _sample(
    opened: tarfile.TarFile, where: str, parts: list[_Part], captions: TarCaptions
) -> Sample:
    """Read the parts of a sample that are its image, its class or its captions."""
    found: dict[str, bytes] = {}
    for part in parts:
        if part.suffix not in _TAR_IMAGES | _TAR_TEXTS:
            continue
        if part.suffix in found:
            raise ValueError(f"{where} has two files .{part.suffix}; names must differ")
        try:
            content = opened.extractfile(part.member)
            found[part.suffix] = content.read() if content else b""
        except (tarfile.TarError, KeyError) as error:
            raise ValueError(
                f"{where}: its file {part.name} at byte {part.member.offset} is cut off; {_ADVICE}"
            ) from error
    images = sorted(_TAR_IMAGES & found.keys())
    if len(images) != 1:
        dotted = [part for part in parts if part.suffix.rpartition(".")[2] in _TAR_IMAGES]
        if not images and dotted:
            raise ValueError(
                f"{where} has no image: its key ends at the first dot of a name, so that "
                f"{dotted[0].name.name} is its part .{dotted[0].suffix}; name files KEY.SUFFIX, "
                "without other dots"
            )
        raise ValueError(
            f"{where} has {len(images)} images; give every sample one, such as .png or .jpg, or "
            "add --skip-damaged"
        )
    label = label_in(found, where)
    return Sample(found[images[0]], label, where, captions.of(found, where))

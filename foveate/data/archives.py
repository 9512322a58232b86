"""Tar archives: their members one by one, and what is wrong between these.

An archive is damaged where a header does not follow at once on the member before, or where it does
not end in two blocks of zeros and at most a record of them more. Python's tarfile takes all of that
for the end of the archive, so each member's place is checked here. More zeros than that may be all
that a failed copy left of samples.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from foveate.data.notes import say_once
from foveate.data.samples import reading

_END = 2 * tarfile.BLOCKSIZE
"""Zeros at the end of an archive; a writer may add more, to fill a record."""
_LARGE_RECORDS = tuple(tarfile.BLOCKSIZE << power for power in range(5, 17))
"""Records that ``tar -b`` writes instead of the usual 10 KiB, bytes; files are multiples of one."""
_ZEROS = "a hole of zeros"
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, xz and zstandard begin."""
ADVICE = "write it again, or add --skip-damaged"


@dataclass(frozen=True)
class Part:
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


@dataclass
class Damage:
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
            raise ValueError(f"cannot read {self.file} as tar: {what}; {ADVICE}{hint}")
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


def check_ends(file: Path, skip_damaged: bool) -> None:
    """Look at both ends of an archive, which shows most damage before anything is read."""
    size = file.stat().st_size
    with reading(file), file.open("rb") as opened:
        start = opened.read(8)
        opened.seek(max(0, size - _END))
        end = opened.read()
    if start.startswith(_COMPRESSED):
        raise ValueError(f"{file} is compressed; unpack it to a plain .tar")
    if len(end) < _END or any(end):
        Damage(file, skip_damaged).between(size, size, "it is cut off, without an archive's end,")


def parts_of(opened: tarfile.TarFile, damage: Damage) -> Iterator[Part]:
    """Yield the files in an archive, except hidden ones; see to it that none is lost."""
    end, size = 0, damage.file.stat().st_size
    while True:
        try:
            member = next_member(opened)
        except tarfile.TarError as error:
            return damage.between(min(end, size), size, " ".join(str(error).split()))
        next_offset = size if member is None else member.offset
        end = _after_global_headers(damage.file, end, next_offset)
        problem = _problem(damage.file, end, next_offset, at_end=member is None)
        if problem:
            damage.between(end, next_offset, problem)
        if member is None:
            return None
        end = opened.offset
        part = Part(PurePosixPath(member.name), member)
        # A link stands for a file that the archive holds already; "./" has no name.
        is_file = member.isfile() or member.islnk() or member.issym()
        if is_file and part.name.name[:1] not in ("", "."):
            yield part


def next_member(opened: tarfile.TarFile) -> tarfile.TarInfo | None:
    """Return the next member of an archive; None at its end.

    Raises:
        tarfile.TarError: its header cannot be read, lies where no file reaches, or leads back to
            what was read before.
    """
    try:
        member = opened.next()
    except (ValueError, OverflowError) as error:  # A number that is none, or none of a file.
        raise tarfile.ReadError(str(error)) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise tarfile.ReadError("unexpected end of data") from error
    if member is not None and opened.offset <= member.offset:
        raise tarfile.ReadError("a header with a size below 0")
    return member


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


def content_of(opened: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Read a member.

    Raises:
        tarfile.TarError: it ends behind the archive.
    """
    size, end = os.path.getsize(str(opened.name)), member.offset_data + member.size
    # Else room is made for whatever size the header says.
    if end > size and not member.issparse():
        raise tarfile.ReadError("unexpected end of data")
    file = opened.extractfile(member)
    return file.read() if file else b""


class Links(contextlib.AbstractContextManager["Links"]):
    """Reads what links in an archive stand for.

    tarfile would read all headers for it, and not go on where it was; nor would it end at damage.
    Hence the archive is opened once more, if there is a link, and links are followed here.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.opened: tarfile.TarFile | None = None
        self.named: dict[str, list[tarfile.TarInfo]] = {}
        """Members by their names, in the archive's order."""

    def read(self, link: tarfile.TarInfo) -> bytes:
        """Read what a link stands for.

        Raises:
            KeyError: it is no file of the archive, or leads back to itself.
            tarfile.TarError: the file cannot be read.
        """
        if self.opened is None:
            self.opened = tarfile.open(self.file, "r:", ignore_zeros=True)
            with contextlib.suppress(tarfile.TarError):
                while member := next_member(self.opened):
                    self.named.setdefault(posixpath.normpath(member.name), []).append(member)
        member, seen = link, {link.offset}
        while member.islnk() or member.issym():
            if member.islnk():
                # Of several members of a name a hard link stands for the last before it.
                named = self.named.get(posixpath.normpath(member.linkname), [])
                named = [each for each in named if each.offset < member.offset]
            else:
                beside = posixpath.join(posixpath.dirname(member.name), member.linkname)
                named = self.named.get(posixpath.normpath(beside), [])
            if not named or named[-1].offset in seen:
                raise KeyError(link.linkname)
            member = named[-1]
            seen.add(member.offset)
        if not member.isfile():
            raise KeyError(link.linkname)
        return content_of(self.opened, member)

    def __exit__(self, *raised: object) -> None:
        if self.opened is not None:
            self.opened.close()

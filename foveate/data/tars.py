"""Streamed tar files of webdataset's form: every file is a piece."""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from foveate.data.archives import ADVICE, Damage, Links, Part, check_ends, content_of, parts_of
from foveate.data.decoding import IMAGE_SUFFIXES
from foveate.data.samples import PieceSource, Sample, own_split, reading, shard_fingerprints
from foveate.data.splits import HELD_OUT, belongs
from foveate.data.tar_texts import TarCaptions, label_in

_TAR_IMAGES = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)
_TAR_TEXTS = frozenset({"cls", "json", "txt"})


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

    def advice(self, *, shared: bool) -> str:
        """Say what to do where there are no images, be it in one worker's share alone."""
        if not self.held_out:
            return super().advice(shared=shared)
        fewer = "use fewer workers, " if shared else ""
        return (
            f"no sample that is read falls into {self.split} by its name; give more samples, "
            f"{fewer}or store {self.split} in files of its own"
        )

    def read(self, piece: int, row: int) -> Iterator[Sample]:
        """Yield the samples of a file that belong to the split, without the first ``row``.

        Raises:
            ValueError: The archive or a sample is damaged; with skip_damaged these are counted.
        """
        file, count = self.files[piece], 0
        damage, captions = Damage(file, self.skip_damaged), TarCaptions(self.caption_key)
        with reading(file):
            try:
                # Not "r|", which would have to read what is skipped.
                opened = tarfile.open(file, "r:", ignore_zeros=True)
            except (tarfile.TarError, ValueError, OverflowError) as error:
                damage.between(0, file.stat().st_size, " ".join(str(error).split()))
                damage.say()
                return
        with reading(file), opened, Links(file) as links:
            for stem, group in itertools.groupby(parts_of(opened, damage), lambda part: part.stem):
                if not belongs(stem, self.split, self.held_out):
                    continue
                try:
                    # What was delivered is not read again, unless it may have been skipped.
                    if count >= row or self.skip_damaged:
                        where = f"sample {stem} of {file}"
                        sample = _sample(opened, links, where, list(group), captions)
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
        check_ends(file, skip_damaged)
        shards.setdefault("train" if holds_out else named, {})[file] = 0
    held_out = list(HELD_OUT) if holds_out else []
    kept = list(shards["train" if holds_out else own_split(list(shards), split, name)])
    part = f", {split} of all" if holds_out else ""
    names = [f"{file.name}: {file.stat().st_size} bytes{part}" for file in kept]
    options = held_out, skip_damaged, caption_key
    return TarSource(names, shard_fingerprints(shards), kept, split, *options)


def _sample(
    opened: tarfile.TarFile, links: Links, where: str, parts: list[Part], captions: TarCaptions
) -> Sample:
    """Read the parts of a sample that are its image, its class or its captions."""
    found: dict[str, bytes] = {}
    for part in parts:
        if part.suffix not in _TAR_IMAGES | _TAR_TEXTS:
            continue
        if part.suffix in found:
            raise ValueError(f"{where} has two files .{part.suffix}; names must differ")
        is_link = part.member.islnk() or part.member.issym()
        try:
            read = links.read if is_link else partial(content_of, opened)
            found[part.suffix] = read(part.member)
        except (tarfile.TarError, KeyError, OverflowError) as error:
            what = "a link to no file of the archive" if is_link else "cut off"
            raise ValueError(
                f"{where}: its file {part.name} at byte {part.member.offset} is {what}; {ADVICE}"
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

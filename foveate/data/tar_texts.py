"""What the texts beside an image in a tar file say: its class, and its captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from foveate.data.columns import CAPTION_COLUMNS
from foveate.data.labels import LABEL_COLUMNS, Classes, read_json
from foveate.data.notes import say_once


@dataclass
class TarCaptions:
    """Finds the captions of samples, and notes what else was there.

    Args:
        key: of ``.json``; None = the lines of ``.txt``, else ``captions`` or ``caption``.
    """

    key: str | None
    found: bool = False
    """Whether a sample had the key."""
    others: set[str] = field(default_factory=set)
    """Keys of samples that had not."""
    unread: int = 0
    """Samples whose captions are no text, where nobody asked for a key."""

    def of(self, parts: Mapping[str, bytes], where: str) -> tuple[str, ...]:
        """Return the captions of a sample, of which there may be none.

        What is no text is counted as none, unless a key was asked for: images alone may be wanted.

        Args:
            parts: contents of its files by what follows the first dot of their names.
            where: what an error calls the sample.

        Raises:
            ValueError: the captions of the key that was asked for are no text.
        """
        try:
            return self._read(parts, where)
        except ValueError:
            if self.key is not None:
                raise
            self.unread += 1
            return ()

    def _read(self, parts: Mapping[str, bytes], where: str) -> tuple[str, ...]:
        if self.key is None and "txt" in parts:
            return tuple(parts["txt"].decode().splitlines())
        said = read_json(parts["json"], f"{where}: its .json") if "json" in parts else None
        keys = CAPTION_COLUMNS if self.key is None else (self.key,)
        if not isinstance(said, dict):
            return ()
        key = next((key for key in keys if key in said), None)
        if key is None:
            self.others |= set(said)
            return ()
        self.found = True
        told = said[key]
        texts = told if isinstance(told, list) else [told]
        if not all(text is None or isinstance(text, str) for text in texts):
            raise ValueError(f"{where}: {key} in its .json must be text or a list of text")
        return tuple(text for text in texts if text is not None)

    def check(self, file: object) -> None:
        """Say what was not read; raise ValueError if no sample had the key that was asked for."""
        if self.unread:
            say_once(f"captions of {self.unread} samples in {file} are no text in UTF-8: left out")
        if self.key is not None and not self.found:
            raise ValueError(
                f"no .json in {file} has {self.key!r} for --caption-column; they have "
                f"{sorted(self.others)}"
            )


def label_in(found: Mapping[str, bytes], where: str) -> int:
    """Return the class number; text would need a list of all classes, which tar files lack.

    Args:
        found: contents of a sample's files by what follows the first dot of their names.
        where: what an error calls the sample.

    Raises:
        ValueError: the class is no number.
    """
    try:
        json = found.get("json", b"null")
        label = int(found["cls"]) if "cls" in found else read_json(json, "its .json")
    except ValueError as error:
        raise ValueError(
            f"{where}: its .cls must hold a class number and its .json JSON ({error}); tar files "
            "take no text as classes, since they hold no list of them"
        ) from error
    if isinstance(label, list):
        label = None  # Boxes, say: no mapping that could name a class.
    if isinstance(label, dict):
        label = next((label[name] for name in LABEL_COLUMNS if name in label), None)
    if isinstance(label, str):
        raise ValueError(
            f"{where}: its class must be an integer, got {label!r}: tar files hold no list of "
            "classes to number text by"
        )
    return Classes(()).number(label, where)

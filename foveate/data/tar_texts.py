"""What the texts beside an image in a tar file say: its class, and its captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from foveate.data.columns import CAPTION_COLUMNS
from foveate.data.labels import LABEL_COLUMNS, Classes, read_json


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

    def of(self, parts: Mapping[str, bytes], where: str) -> tuple[str, ...]:
        """Return the captions of a sample, of which there may be none.

        Args:
            parts: contents of its files by what follows the first dot of their names.
            where: what an error calls the sample.

        Raises:
            ValueError: ``.txt`` is no UTF-8, or the captions in ``.json`` are no text.
        """
        if self.key is None and "txt" in parts:
            try:
                return tuple(parts["txt"].decode().splitlines())
            except UnicodeDecodeError as error:
                raise ValueError(f"{where}: its .txt must be text in UTF-8 ({error})") from error
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
        """Raise ValueError if a key was asked for that no sample of the file had."""
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
    if isinstance(label, dict):
        label = next((label[name] for name in LABEL_COLUMNS if name in label), None)
    if isinstance(label, str):
        raise ValueError(
            f"{where}: its class must be an integer, got {label!r}: tar files hold no list of "
            "classes to number text by"
        )
    return Classes(()).number(label, where)

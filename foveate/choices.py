"""Names that a user may choose from, and the complaint about one that is not among them."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import inspect
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
MOST_TOLD = 300
"""Characters of what a user's own part says, or is."""
MOST_WHOLE = 100
"""Characters of a list that is told whole; of a longer one its length and its first entry are."""
_FILES: dict[str, str] = {}
"""Files of the modules that were imported for a user, and the part that was looked up there."""


def check_choice(kind: str, name: object, choices: Iterable[str], *, or_own: bool = False) -> None:
    """Raise ValueError with a suggestion unless ``name`` is one of the choices.

    Args:
        kind: what the error calls it.
        name: what was given.
        choices: what there is.
        or_own: whether the error says that a user may bring another.
    """
    known = list(choices)
    if not isinstance(name, str):
        raise ValueError(f"{kind} must be one of {', '.join(known)}, got {told(name)}")
    if name not in known:
        own = ", or MODULE:NAME of your own" if or_own else ""
        raise ValueError(suggestion(kind, name, known) + own)


def suggestion(kind: str, name: str, known: Sequence[str]) -> str:
    """Return the complaint that a name is not known, with the nearest that is, and all of them."""
    # The case of letters says nothing of how near two names are.
    lowered = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.0)
    nearest = lowered[close[0]]
    return f"unknown {kind} {name!r}; did you mean {nearest!r}? known: {', '.join(known)}"


def check_name(kind: str, name: str, choices: Iterable[str]) -> None:
    """Raise ValueError unless ``name`` is one of the choices or has the form ``MODULE:NAME``."""
    if not isinstance(name, str) or ":" not in name:
        check_choice(kind, name, choices, or_own=True)


def lookup(
    kind: str,
    name: str,
    registry: Mapping[str, T],
    form: type | None = None,
    *,
    subclass_of: type | None = None,
) -> T:
    """Return what is registered under a name, or the object that ``MODULE:NAME`` points to.

    The module is imported as Python does, from the working directory as well under ``python -m``.

    Args:
        kind: what an error calls it.
        name: of the registry, or the user's.
        registry: objects by name.
        form: class that an object of the user's must be of.
        subclass_of: class that a class of the user's must derive from. Without either, it must be
            something that can be called.

    Raises:
        ValueError: nothing of this name, or of another form.
    """
    if not isinstance(name, str) or ":" not in name:
        check_choice(kind, name, registry, or_own=True)
        return registry[name]
    module, _, attribute = name.partition(":")
    if not module or module.startswith("."):
        raise ValueError(f"{kind} {name!r} must be MODULE:NAME, the module as import takes it")
    with blaming(kind, name, f", importing {module}"):
        imported = importlib.import_module(module)
        missing = not hasattr(imported, attribute)
    _FILES[str(getattr(imported, "__file__", None))] = f"{kind} {name!r}"
    if missing:
        raise ValueError(f"{kind} {name!r}: module {module} has no {attribute!r}")
    found: T = getattr(imported, attribute)
    if subclass_of is not None:
        fits = isinstance(found, type) and issubclass(found, subclass_of)
        wanted = f"is a subclass of {subclass_of.__module__}.{subclass_of.__name__}"
    elif form is not None:
        fits, wanted = isinstance(found, form), f"is a {form.__name__}"
    else:
        fits, wanted = callable(found), "can be called"
    if not fits:
        raise ValueError(f"{kind} {name!r} must be something that {wanted}, got {told(found)}")
    return found


def sources_of(names: Iterable[str]) -> dict[str, str]:
    """Return a digest of the code of each ``MODULE:NAME`` among some names, by that name.

    A name does not say that its code has changed. The code is the module's file, and the one that
    defines the object. What cannot be imported is left out.
    """
    found = {}
    for name in (each for each in names if ":" in each):
        with contextlib.suppress(Exception, SystemExit):
            contents = (path.read_bytes() for path in _files_of(name))
            found[name] = hashlib.sha256(b"".join(contents)).hexdigest()
    return found


def _files_of(name: str) -> list[Path]:
    """Return the files of a ``MODULE:NAME``; a module in C, and what a shell defines, have none."""
    module, _, attribute = name.partition(":")
    imported = importlib.import_module(module)
    files = {getattr(imported, "__file__", None)}
    # What is no class or function does not tell where it is from.
    with contextlib.suppress(TypeError):
        files.add(inspect.getsourcefile(inspect.unwrap(getattr(imported, attribute))))
    return sorted(path for path in map(Path, filter(None, files)) if path.is_file())


@contextmanager
def blaming(kind: str, name: str, doing: str = "") -> Iterator[None]:
    """Turn what a part of the user's own raises inside into a ValueError that names the part.

    Args:
        kind: what the error calls it.
        name: the user's name of it, ``MODULE:NAME``.
        doing: what was being done with it, if not called.

    Raises:
        ValueError: something was raised, be it an exit.
    """
    try:
        yield
    except (Exception, SystemExit) as reason:
        # Of torch, which is not imported here; whoever asked for too much is told so elsewhere.
        if isinstance(reason, MemoryError) or type(reason).__name__ == "OutOfMemoryError":
            raise
        raise ValueError(f"{kind} {name!r}{doing}: {_said(reason)}") from reason


def _said(error: BaseException) -> str:
    kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
    return f"{kind}{error}"[:MOST_TOLD]


def blame(error: BaseException) -> str | None:
    """Describe an error that was raised by way of a user's own module; None for any other."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if part := _FILES.get(frame.f_code.co_filename):
            return f"{part}: {_said(error)}"
    return None


def told(value: object) -> str:
    """Describe what was given in place of something else, in one short line."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{type(value).__name__} of {value.dtype} and shape {tuple(value.shape)}"
    if isinstance(value, list | tuple) and value:
        parts, kind = value[:MOST_WHOLE], type(value).__name__
        if any(hasattr(each, "dtype") for each in parts) or len(repr(parts)) > MOST_WHOLE:
            return f"{kind} of {len(value)}, the first {told(value[0])}"[:MOST_TOLD]
    return " ".join(repr(value).split())[:MOST_TOLD]

"""Find a grid by name: one that ships, a file, or MODULE:NAME. No torch here."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from experiments.studies.grid import Cell, Grid
from experiments.studies.shipped import GRIDS
from foveate.choices import blaming, lookup, told

FUNCTION = "grid"
"""What a file's grid is called, unless FILE.py:NAME says otherwise."""


def load_grid(name: str) -> Grid:
    """Return a grid by name.

    What is found is a :class:`Grid`, or a function that returns one or yields cells: a
    :class:`Cell`, or a name and the words of experiments.train.

    Args:
        name: of a grid that ships, ``FILE.py``, ``FILE.py:NAME``, or ``MODULE:NAME``.

    Raises:
        ValueError: there is none of this name, or it is something else.
    """
    file, _, attribute = name.partition(":")
    if file.endswith(".py"):
        attribute = attribute or FUNCTION
        found = of_file(Path(file), attribute)
        title = Path(file).stem if attribute == FUNCTION else attribute
    else:
        found = lookup("grid", name, GRIDS, object)
        title = attribute or name
    with blaming("grid", name):
        return grid_of(found, title)


def of_file(path: Path, attribute: str) -> object:
    """Return what a file calls ``attribute``.

    Raises:
        ValueError: there is no such file, it raises, or it has nothing of this name.
    """
    if not path.is_file():
        raise ValueError(f"no grid file at {path}; give a file, MODULE:NAME, or {', '.join(GRIDS)}")
    # Parts of one's own may lie beside the grid: MODULE:NAME then finds them, in all processes, be
    # they started by a cluster.
    beside = str(path.resolve().parent)
    sys.path.append(beside)
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{known}{os.pathsep}{beside}" if known else beside
    spec = importlib.util.spec_from_file_location(f"_grid_{path.stem}", path)
    assert spec is not None, "a file ending in .py has a spec"
    assert spec.loader is not None, "a file ending in .py has a loader"
    module: ModuleType = importlib.util.module_from_spec(spec)
    # Dataclasses of the file look their module up.
    sys.modules[spec.name] = module
    with blaming("grid", str(path), ", running the file"):
        spec.loader.exec_module(module)
    if not hasattr(module, attribute):
        raise ValueError(f"{path} has no {attribute!r}; name another with {path}:NAME")
    return getattr(module, attribute)


def grid_of(found: object, title: str) -> Grid:
    """Make a grid of what was found: call it, and gather the cells that it yields.

    Raises:
        ValueError: it is no grid.
    """
    made = found() if callable(found) else found
    if isinstance(made, Grid):
        return made if made.name != "grid" else replace(made, name=title)
    if isinstance(made, Mapping):
        made = made.items()
    if not isinstance(made, Iterable) or isinstance(made, str):
        raise ValueError(f"it must be a Grid, or yield cells, got {told(made)}")
    question = (inspect.getdoc(found) or "").split("\n\n")[0] if inspect.isroutine(found) else ""
    return Grid(cells=tuple(map(cell_of, made)), name=title, question=" ".join(question.split()))


def cell_of(given: object) -> Cell:
    """Make a cell of what a grid yields.

    Raises:
        ValueError: it is no cell.
    """
    if isinstance(given, Cell):
        return given
    if isinstance(given, tuple) and len(given) in (2, 3) and isinstance(given[0], str):
        return Cell(*given)
    raise ValueError(f"it must yield cells, or names with words of a training, got {told(given)}")

"""Make the page and the notebook of the tutorial from its script.

python docs/build_tutorial.py
"""

from __future__ import annotations

import json
from pathlib import Path

DOCS = Path(__file__).parent
SOURCE = DOCS / "tutorial.py"
MARKER = "# %%"
TEXT = "# %% [markdown]"


def cells_of(source: str) -> list[tuple[str, str]]:
    """Return kind (markdown or code) and content of every cell; what comes before is left out."""
    cells: list[tuple[str, list[str]]] = []
    for line in source.splitlines():
        if line.startswith(MARKER):
            cells.append(("markdown" if line == TEXT else "code", []))
        elif cells:
            is_text = cells[-1][0] == "markdown"
            cells[-1][1].append(line.removeprefix("#").removeprefix(" ") if is_text else line)
    return [(kind, "\n".join(lines).strip("\n")) for kind, lines in cells]


def page_of(cells: list[tuple[str, str]]) -> str:
    """Return the cells as a page in Markdown."""
    parts = [text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells]
    return "\n\n".join(parts) + "\n"


def notebook_of(cells: list[tuple[str, str]]) -> str:
    """Return the cells as a notebook in nbformat 4.5."""
    content = []
    for number, (kind, text) in enumerate(cells):
        cell: dict[str, object] = {
            "cell_type": kind,
            "id": f"cell-{number}",
            "metadata": {},
            "source": text.splitlines(keepends=True),
        }
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        content.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": content,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1) + "\n"


def built() -> dict[Path, str]:
    """Return the text of every file that is made from the script."""
    cells = cells_of(SOURCE.read_text())
    return {
        DOCS / "tutorial.md": page_of(cells),
        DOCS / "tutorial.ipynb": notebook_of(cells),
    }


if __name__ == "__main__":
    for path, text in built().items():
        path.write_text(text)
        print(f"written: {path.relative_to(DOCS.parent)}")

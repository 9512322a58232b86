"""What the README says is so: code runs, numbers come from records, commands are those of CI."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments.evaluation.pages import RECORDS, render
from experiments.training.presets import PRESETS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks_of(document: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)


@pytest.mark.parametrize(
    "document",
    [
        each
        for each in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
        if blocks_of(each)
    ],
    ids=lambda document: document.name,
)
def test_the_python_blocks_run_in_order(document: Path) -> None:
    names: dict[str, object] = {}
    blocks = blocks_of(document)
    for block in blocks:
        exec(compile(block, document.name, "exec"), names)
    if document.name == "README.md":
        assert len(blocks) >= 2
        assert float(names["loss"].detach()) > 0  # type: ignore[attr-defined]


def test_ci_runs_the_readmes_test_command() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target, command in (("test", "pytest"), ("demo", "experiments.train demo")):
        assert f"make {target}" in README
        assert re.search(
            rf"^{target}: .*\n\t\$\(BIN\)/python -m {command}$", makefile, re.MULTILINE
        )
        assert f".venv/bin/python -m {command}\n" in README
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"


@pytest.mark.parametrize("path", sorted(render()), ids=lambda path: path.name)
def test_tables_are_what_the_records_say(path: Path) -> None:
    """If stale: python -m experiments.record."""
    assert path.read_text() == render()[path]


@pytest.mark.parametrize("document", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_links_and_pictures_exist(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_scripts_and_presets_named_exist() -> None:
    for script in set(re.findall(r"experiments\.(\w+)", README)):
        assert (ROOT / "experiments" / f"{script}.py").exists(), script
    for preset in PRESETS:
        assert f"`{preset}`" in README


def test_records_hold_no_paths_of_a_machine() -> None:
    for path in RECORDS.rglob("*"):
        if path.suffix in {".json", ".md", ".jsonl"}:
            assert not re.search(r'["\s](/|~/|[A-Z]:\\)\w', path.read_text()), path

"""What README and docs say is so: code runs, links exist, numbers are those of records."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from experiments.pages import RECORDS, render
from experiments.training.command_line import read_words
from experiments.training.presets import PRESETS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
]
MADE = [ROOT / "docs" / "tutorial.md", ROOT / "docs" / "clients.md"]
"""Made from a script, which test_docs.py runs; examples, which test_client_table.py runs."""
MAX_WORDS = 30


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def blocks_of(document: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)


def sentences_of(document: Path) -> list[str]:
    """Sentences of the prose: no code, no tables, nothing that is made from records."""
    text = document.read_text()
    text = re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", "", text, flags=re.DOTALL)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`", "x", text)
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    paragraphs = re.split(r"\n\s*\n|\n(?=\s*(?:[*-]|\d\.|#+|\|) )", text)
    prose = [" ".join(each.split()) for each in paragraphs if not each.lstrip().startswith("|")]
    return [s for each in prose for s in re.split(r"(?<=[.:?!])\s+", each)]


@pytest.mark.parametrize(
    "document", [each for each in DOCUMENTS if blocks_of(each) and each not in MADE], ids=name_of
)
def test_the_python_blocks_run_in_order(document: Path) -> None:
    names: dict[str, object] = {}
    blocks = blocks_of(document)
    for block in blocks:
        exec(compile(block, document.name, "exec"), names)
    if document.name == "README.md":
        assert len(blocks) >= 2
        assert float(names["loss"].detach()) > 0  # type: ignore[attr-defined]


def recipe_of(target: str) -> list[str]:
    """Commands of a target of the Makefile, without the folder that they lie in."""
    makefile = (ROOT / "Makefile").read_text()
    found = re.search(rf"^{target}: .*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert found, target
    return [line.strip().removeprefix("$(BIN)/") for line in found[1].splitlines()]


def test_make_runs_the_commands_that_the_readme_shows() -> None:
    for target, command in (("test", "pytest"), ("demo", "experiments.train demo")):
        assert f"make {target}" in README
        assert recipe_of(target) == [f"python -m {command}"]
        assert f".venv/bin/python -m {command}\n" in README


def test_ci_runs_the_checks_that_contributing_promises() -> None:
    promised = re.findall(r"```\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[0]
    checks = [command.removeprefix("python -m ") for command in recipe_of("check")]
    assert checks == promised.split("\n")[:-1]
    assert set(recipe_of("test")) < set(recipe_of("check"))
    assert "python -m pytest -m slow" in recipe_of("check"), "what the tests leave out"
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make check"


def test_tables_are_what_the_records_say() -> None:
    """If stale: python -m experiments.record."""
    assert not [name_of(path) for path, text in render().items() if path.read_text() != text]


def test_no_record_is_shown_by_a_name_that_none_has() -> None:
    shown = {
        marker
        for document in DOCUMENTS
        for marker in re.findall(r"<!-- (\w+) -->", document.read_text())
    }
    slugs = {folder.name.split("_", 1)[1] for folder in RECORDS.iterdir()}
    parts = ("short", "summary", "two_by_two", "screened", "final")
    assert shown <= {*slugs, *(f"{slug}_{part}" for slug in slugs for part in parts), "results"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_and_pictures_exist(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_sentences_are_short(document: Path) -> None:
    for sentence in sentences_of(document):
        assert len(sentence.split()) <= MAX_WORDS, sentence


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_commands_named_exist(document: Path) -> None:
    for script in set(re.findall(r"python -m experiments\.(\w+)", document.read_text())):
        assert (ROOT / "experiments" / f"{script}.py").exists(), script


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_trainings_shown_are_possible(document: Path) -> None:
    """Options that later versions refuse are noticed; where a line lets you choose is passed by."""
    for line in document.read_text().splitlines():
        if found := re.match(r"\s*(?:torchrun|python).* -m experiments\.train (.*)", line):
            words = found[1].partition(" #")[0].replace('"', "").split()
            if not {"PRESET", "..."} & {*words}:
                read_words(tuple(words))


def test_the_presets_are_named() -> None:
    everything = README + (ROOT / "docs" / "recipes.md").read_text()
    for preset in PRESETS:
        assert f"`{preset}`" in everything


def test_records_hold_no_paths_of_a_machine() -> None:
    for path in RECORDS.rglob("*"):
        if path.suffix in {".json", ".md", ".jsonl"}:
            assert not re.search(r'["\s](/|~/|[A-Z]:\\)\w', path.read_text()), path


def test_the_packages_say_that_they_are_typed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages
    for package in packages:
        assert (ROOT / package / "py.typed").is_file(), package


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()

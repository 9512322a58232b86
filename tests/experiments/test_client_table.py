"""The examples of the page of clients run, and the table says what became of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.clients import PAGE
from experiments.evaluation.clients import (
    ClientExample,
    ClientsResult,
    examples_of,
    try_clients,
    try_example,
)
from experiments.pages import read_result

EXAMPLES = examples_of(PAGE)


def name_of(example: ClientExample) -> str:
    return f"{example.needs[0]}: {example.tried}"


@pytest.mark.slow
# A client may advise against what it still takes.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_an_example_of_the_page_runs(
    example: ClientExample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among them: PPO of one file learns CueScan below .50, where .40 is the optimum."""
    if example.missing:
        pytest.skip(f"needs {', '.join(example.missing)}: pip install it to run this example")
    monkeypatch.chdir(PAGE.parents[1])
    example.run()


def test_the_page_has_the_clients_that_people_use() -> None:
    clients = {"gymnasium", "stable-baselines3", "sb3-contrib", "torchrl", "tianshou"}
    assert {example.needs[0] for example in EXAMPLES} == clients
    assert len({name_of(example) for example in EXAMPLES}) == len(EXAMPLES)


def test_the_table_tells_what_works_is_missing_and_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    blocks = (
        "# numpy: sums\nassert __name__ == '__main__'\nprint('quiet')",
        "# no-such-thing, numpy: dreams\nraise AssertionError",
        "# numpy: a | b\nraise KeyError('first | 1\\nsecond')",
    )
    page.write_text("".join(f"Words.\n\n```python\n{block}\n```\n" for block in blocks))
    result = try_clients(examples_of(page))
    assert [row.outcome for row in result.rows] == ["works", "not_installed", "fails"]
    assert [row.tried for row in result.failures] == ["a | b"]
    result.write(tmp_path / "clients.json")
    assert read_result(tmp_path / "clients.json") == result
    text = result.to_markdown()
    assert "| no-such-thing | -, numpy " in text
    assert "| not installed |" in text
    assert "**fails**: KeyError: " in text
    lines = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1, "a bar in a cell is none of the table"


def test_an_example_that_does_not_say_what_it_tries_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nimport numpy\n```\n")
    with pytest.raises(ValueError, match="must begin with '# DISTRIBUTION: what is tried'"):
        examples_of(page)
    page.write_text("nothing")
    with pytest.raises(ValueError, match="no Python block"):
        examples_of(page)
    with pytest.raises(ValueError, match="no page at"):
        examples_of(tmp_path / "none.md")


def test_the_first_line_of_an_error_is_kept() -> None:
    row = try_example(ClientExample(("numpy",), "fails", "raise ValueError('one\\ntwo')"))
    assert row.error == "ValueError: one"
    assert row.versions["numpy"]
    assert ClientsResult.kind == "clients"

"""A whole study by its command, and the page of it: no network, and a slider that moves."""

from __future__ import annotations

import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import call
from made_once import made_once

from experiments.studies.answers import Picture, read_pictures
from experiments.studies.charts import line_chart
from experiments.studies.page import NOTHING, page_of, write_page
from experiments.studies.pictures import pictures_of
from experiments.studies.result import GridResult
from experiments.studies.stage import Stage
from experiments.studies.study import run_study

ROOT = Path(__file__).parents[2]
SECTIONS = (
    "Answer",
    "Other measures",
    "What the data exclude",
    "Tables",
    "Curves over compute",
    "Curves over fixations",
    "Scanpaths",
    "Signs of collapse",
    "Compute",
    "Negative results",
    "How it was made",
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest grid with one seed, carried out by its command, with its page."""

    def carry_out(out: Path) -> None:
        options = ("--seeds", "0", "--threads", "1", "--page", "--out", str(out))
        done = call("study", "teaching_smoke", *options)
        assert done.returncode == 0, done.stderr

    return made_once(tmp_path_factory, "study", carry_out)


def test_without_time_nothing_is_trained_and_the_page_says_so(tmp_path: Path) -> None:
    study = run_study("teaching_smoke", out=tmp_path, minutes=0)
    write_page(tmp_path / "page.html", study.result)
    assert study.result.answer()[0] == "No answer yet: 2 of the screening's runs are not done."
    assert "No answer yet" in (tmp_path / "page.html").read_text()
    assert not list(tmp_path.rglob("config.json"))


@pytest.mark.slow
def test_a_grid_is_screened_trained_and_asked_by_one_command(folder: Path) -> None:
    result = GridResult.read(folder / "study_teaching_smoke.json")
    assert result.screened is not None
    assert result.final is not None
    known = ["known after 4 of policy", "known after 4 of policy, attentive"]
    assert {*known} <= {*result.final.measures}
    assert "known after 4 of policy" not in result.screened.measures
    rows = {(row.cell, row.measure): row for row in result.final.rows}
    assert rows["policy", "linear, full"].seeds == (0,)
    assert rows["policy", "linear, full"].minus_baseline is not None
    random, policy = (result.final.facts[name][0] for name in ("random", "policy"))
    # Screening is the smaller setting; the policy's rollouts are operations as well.
    assert (result.screened.facts["random"][0].iterations, random.iterations) == ((2, 0), (4, 0))
    assert random.teraflops is not None
    assert policy.teraflops is not None
    assert policy.teraflops > random.teraflops > 0
    assert policy.loss_curve
    assert len(policy.error_curves["policy"]) == 5
    assert policy.signs
    assert not random.signs


@pytest.mark.slow
def test_what_is_done_is_not_done_again(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runs = sorted((folder / "teaching_smoke").rglob("metrics.jsonl"))
    before = [run.read_bytes() for run in runs]
    assert len(runs) == 4
    again = run_study("teaching_smoke", seeds=(0,), out=folder, threads=1).result
    assert capfd.readouterr().out.count("2 of 2 are done already") == 2
    assert again == GridResult.read(folder / "study_teaching_smoke.json")
    assert [run.read_bytes() for run in runs] == before


class Outline(HTMLParser):
    """Headings, references to other files, and elements that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.headings: list[str] = []
        self.inputs: list[dict[str, str | None]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.references += [
            str(found[each]) for each in ("src", "href", "xlink:href") if each in found
        ]
        self.inputs += [found] if tag == "input" else []
        self.open.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.open.append("")


@pytest.mark.slow
def test_the_page_is_whole_in_itself(folder: Path) -> None:
    page = (folder / "study_teaching_smoke.html").read_text()
    outline = Outline()
    outline.feed(page)
    assert tuple(outline.headings) == SECTIONS
    assert all(each.startswith(("#", "data:")) for each in outline.references), outline.references
    assert not re.search(r"https?://", page)
    assert "@import" not in page
    assert outline.inputs[0]["type"] == "range"
    assert NOTHING not in page
    for line in GridResult.read(folder / "study_teaching_smoke.json").negatives():
        assert line.replace("'", "&#x27;") in page


def test_a_page_cannot_be_broken_by_names() -> None:
    picture = Picture(
        label="</script>",
        order="policy",
        size=(2, 2),
        patch_px=1,
        opened=[[0]],
        errors=[1.0, 0.5],
        image="data:",
        predictions=None,
    )
    result = GridResult(
        name="<b>",
        question="Is 1 < 2 & </script>?",
        baseline="a",
        ideas={"a": "<i>"},
        rule=None,
        screened=None,
        final=Stage(title="t", rows=(), facts={}, failed={"a_0": "<script>"}, waiting=()),
        dropped={},
        scans={"a": [picture]},
        threads=1,
        commit="c",
    )
    page = page_of(result)
    assert page.count("</script>") == page.count("<script") == 2
    assert "1 &lt; 2" in page
    assert NOTHING in page


def test_a_chart_keeps_its_text_and_no_reference() -> None:
    drawn = line_chart({"a<b": [(0, 1.0), (4, 0.5)]}, x="fixations", y="error", title='"x"')
    assert drawn.startswith('<svg role="img" aria-label="&quot;x&quot;"')
    assert "http" not in drawn
    assert ">fixations<" in drawn
    other = line_chart({"a": [(0, 1.0), (4, 0.5)]}, x="x", y="y", title="other")
    clips = [set(re.findall(r'<clipPath id="(\w+)"', each)) for each in (drawn, other)]
    assert clips[0]
    assert not clips[0] & clips[1]


def test_a_chart_of_many_lines_names_them_below_it() -> None:
    def boxes(number: int) -> tuple[float, list[float]]:
        """The height of the chart, and the heights at which names of lines stand."""
        lines = {f"cell_{place}": [(0, 1.0), (4, 0.5 + place / 9)] for place in range(number)}
        drawn = line_chart(lines, x="fixations", y="error", title="many")
        height = float(re.search(r'viewBox="0 0 \S+ (\S+)"', drawn)[1])  # type: ignore[index]
        names = re.findall(r'translate\(\S+ (\S+)\)[^>]*>\s*cell_|y="(\S+)"[^>]*>cell_', drawn)
        return height, [float(one or other) for one, other in names]

    (low, _), (high, names) = boxes(6), boxes(25)
    assert len(names) == 25
    assert high > low + 100
    assert min(names) > 200


def test_pictures_show_what_was_opened(run: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, second = pictures_of(run, 2)
    assert first.size == (8, 8)
    assert first.order == "policy"
    assert [len(step) for step in first.opened] == [1, 1, 1]
    assert first.errors[0] == 1.0
    assert len(first.errors) == 4
    assert first.image.startswith("data:image/png;base64,")
    assert first.image != second.image
    assert first.predictions is not None


def test_damaged_pictures_are_left_out_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_pictures(tmp_path) == []
    (tmp_path / "pictures.json").write_text('[{"label": "cat"}]')
    assert read_pictures(tmp_path) == []
    assert "pictures.json is damaged, and its scans are left out" in capsys.readouterr().err


# --- in a browser


@pytest.fixture(scope="module")
def browser() -> Any:
    """Headless Chromium: Debian's, else Playwright's own."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs the extra page: pip install 'foveate[page]'"
    )
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    system = next((each for each in found if each is not None), None)
    with playwright.sync_playwright() as driver:
        own = Path(driver.chromium.executable_path)
        if system is None and not own.is_file():
            pytest.skip("needs a browser: apt-get install chromium")
        # Chromium has no sandbox for root, whom containers run tests as.
        flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        opened = driver.chromium.launch(executable_path=system, args=flags)
        yield opened
        opened.close()


@pytest.mark.slow
def test_the_slider_changes_picture_and_number(folder: Path, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    asked: list[str] = []
    mistakes: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: mistakes.append(str(error)))
    page.on("console", lambda message: mistakes.append(message.text))
    page.goto((folder / "study_teaching_smoke.html").resolve().as_uri())

    slider, sheet = page.get_by_label("Fixations", exact=True), page.locator(".scan").first

    def shown() -> tuple[str, bytes, bytes]:
        pictures = (sheet.locator(f"svg.{kind}").screenshot() for kind in ("seen", "prediction"))
        seen, prediction = pictures
        return sheet.locator(".error").inner_text(), seen, prediction

    assert page.locator("#after").inner_text() == "4 of 4"
    last = shown()
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert page.locator("#after").inner_text() == "1 of 4"
    assert slider.get_attribute("aria-valuetext") == "after 1 of 4 fixations"
    first = shown()
    assert all(now != before for now, before in zip(first, last, strict=True))
    page.keyboard.press("Home")
    assert sheet.locator(".error").inner_text() == "1.000"

    page.get_by_label("Cell", exact=True).select_option("random")
    assert "random order" in sheet.inner_text()
    # A phone scrolls tables, not the page.
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert len(page.pdf()) > 10_000
    assert asked == [page.url]
    assert mistakes == []
    page.close()

"""Pages made from records: RESULTS.md, marked parts of README.md and docs, a page per study."""

from __future__ import annotations

from pathlib import Path

from experiments.benchmarks.env import BenchEnvResult
from experiments.benchmarks.timing import BenchResult
from experiments.evaluation.caption.result import CaptionResult
from experiments.evaluation.clients import ClientsResult
from experiments.evaluation.compare.result import Comparison
from experiments.evaluation.decode import DecodeResult
from experiments.evaluation.human.result import HumanComparison
from experiments.evaluation.ids.result import IdsResult
from experiments.evaluation.knowing.result import KnowingResult
from experiments.evaluation.orders.result import OrdersResult
from experiments.evaluation.probe.result import ProbeResult
from experiments.evaluation.read import ReadResult
from experiments.evaluation.run_result import training_facts
from experiments.evaluation.torture_result import TortureResult
from experiments.studies.learners import StudyResult
from experiments.studies.page import page_of
from experiments.studies.result import GridResult
from experiments.studies.summary import summary_of
from experiments.tables import (
    Result,
    Table,
    marked,
    plural,
    read_json,
    read_object,
    with_interval,
)

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "experiments" / "records"
RESULTS: dict[str, type[Result]] = {
    each.kind: each
    for each in (
        StudyResult,
        BenchEnvResult,
        BenchResult,
        OrdersResult,
        DecodeResult,
        CaptionResult,
        HumanComparison,
        ReadResult,
        TortureResult,
        KnowingResult,
        ClientsResult,
        IdsResult,
        GridResult,
    )
}
"""Results of studies and benchmarks by the ``kind`` that their files name."""
SUMMARY = {
    "random": "random",
    "center_out": "center out",
    "best_fixed": "mean order",
    "other_image": "other image",
    "uncertainty": "uncertainty",
    "policy": "**policy**",
    "saliency": "saliency",
    "oracle_16": "oracle of 16",
    "oracle": "oracle of all",
}
"""Orders in the table of all runs, and what it calls them."""
GLOSSES = {
    "random": "patches at random",
    "best_fixed": "the same patches in every image: those that the policy fixates first on average",
    "policy": "what training learned: patches chosen for each image",
    "oracle": "the patch that helps most, found by trying all on the true image (it cheats)",
}
"""Orders in the short table of a run, and what they fixate."""


def read_result(path: Path) -> Result:
    """Read the result of a study or benchmark, of whichever kind.

    Raises:
        ValueError: there is no such file, or it holds no such result.
    """
    if not path.is_file():
        raise ValueError(f"no result file at {path}")
    content = read_json(path)
    kind = content.get("kind") if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in RESULTS:
        raise ValueError(
            f"{path} is no result of a study or benchmark: its kind must be one of "
            f"{', '.join(RESULTS)}, got {kind}"
        )
    return RESULTS[kind].from_content(content, path)


def run_tables(folder: Path) -> str:
    """Return comparison and probe of a recorded run as Markdown, with its compute."""
    training = training_facts(
        read_object(folder / "manifest.json"), read_object(folder / "config.json")
    )
    tables = [Comparison.read(folder / "compare.json").summary(training)]
    if (folder / "probe.json").is_file():
        probed = ProbeResult.read(folder / "probe.json")
        tables += probed.tables() if probed.notes else [probed.summary()]
    return "\n\n".join(table.to_markdown() for table in tables)


def area_of(comparison: Comparison, name: str) -> float:
    """Return the area of an order; the oracles', which scan fewer images, set against the policy.

    Theirs is the policy's area plus their paired difference from it.
    """
    return comparison.orders["policy"].auc + comparison.orders[name].minus_policy


def short_table(folder: Path) -> Table:
    """Return four rows of a recorded comparison, for those who see one for the first time."""
    manifest, result = (
        read_object(folder / "manifest.json"),
        Comparison.read(folder / "compare.json"),
    )
    orders = result.orders
    note = (
        f"{result.budget} of {result.num_patches} patches, {orders['policy'].images} "
        f"test images, seed {result.seed}; trained {manifest['train_seconds'] / 60:.1f} "
        f"minutes on {plural(manifest['threads'], 'CPU thread')}."
    )
    if "oracle" in orders:
        note += (
            f" The oracle scans only the first {orders['oracle'].images} images. Its area here is "
            "that of the policy plus the mean difference between the two on those images."
        )
    known, asked = recognized_after(folder, result.budget)
    columns: tuple[str, ...] = (
        "order",
        "what it fixates",
        "area under the error curve (lower is better)",
    )
    if known:
        columns += (f"recognized after {result.budget} fixations",)
        note += (
            f" Recognized: of {asked} test images those whose class an attentive probe of what was "
            "seen names, with 95% intervals over images."
        )
    rows = []
    for name, gloss in GLOSSES.items():
        if name in orders:
            label = marked(name)
            row = (label, gloss, f"{area_of(result, name):.3f}")
            rows.append((*row, known.get(name, "-")) if known else row)
    return Table(columns, tuple(rows), notes=(note,))


def recognized_after(folder: Path, budget: int) -> tuple[dict[str, str], int]:
    """Return attentive accuracies after all fixations by order, and the number of test images.

    There are none if they were not measured.
    """
    if not (folder / "probe.json").is_file():
        return {}, 0
    result = ProbeResult.read(folder / "probe.json")
    last = {name: row[budget] for name, row in (result.fixations or {}).items() if budget in row}
    known = {
        name: with_interval(cell.attentive, cell.attentive_ci95)
        for name, cell in last.items()
        if cell.attentive is not None
    }
    return known, result.test_images


def summary_table(folders: dict[str, Path]) -> Table:
    """Return all recorded runs, a row each."""
    rows = []
    for slug, folder in folders.items():
        result = Comparison.read(folder / "compare.json")
        areas = (
            f"{area_of(result, name):.3f}" if name in result.orders else "-" for name in SUMMARY
        )
        gaps = (result.gap_closed, result.gap_closed_oracle_16)
        shares = " / ".join("-" if gap is None else f"{gap:.0%}" for gap in gaps)
        rows.append((linked(slug, folder), *areas, shares))
    return Table(
        caption="Area under the error curve (lower is better), one seed each; "
        "intervals, probes, and commands are in the records. "
        "Mean order: by the policy's mean rank, the same for all images. Saliency and the oracles "
        "see the image; the oracles' areas are the policy's plus their paired difference on fewer "
        "images.",
        columns=("record", *SUMMARY.values(), "gap closed (all / 16)"),
        rows=tuple(rows),
    )


def linked(slug: str, folder: Path) -> str:
    """Name a record, with a link to it."""
    return f"[{slug}]({folder.relative_to(ROOT).as_posix()}/README.md)"


def records(file: str) -> dict[str, Path]:
    """Return the newest record of every slug, of runs (compare.json) or results (result.json)."""
    folders = sorted(path.parent for path in RECORDS.glob(f"*/{file}"))
    return {folder.name.split("_", 1)[1]: folder for folder in folders}


def with_section(text: str, marker: str, content: str) -> str:
    """Replace what stands between ``<!-- marker -->`` and ``<!-- /marker -->``, if it is there."""
    if f"<!-- {marker} -->" not in text:
        return text
    before, rest = text.split(f"<!-- {marker} -->", 1)
    after = rest.split(f"<!-- /{marker} -->", 1)[1]
    return f"{before}<!-- {marker} -->\n{content}\n<!-- /{marker} -->{after}"


def render() -> dict[Path, str]:
    """Return the text of every page that is made from records."""
    runs, results = records("compare.json"), records("result.json")
    sections = {slug: run_tables(folder) for slug, folder in runs.items()}
    studies = {slug: read_result(folder / "result.json") for slug, folder in results.items()}
    sections |= {slug: study.to_markdown() for slug, study in studies.items()}
    parts = [
        "# Results",
        "Generated by `python -m experiments.record` from `experiments/records`; do not edit.",
    ]
    for slug, folder in {**runs, **results}.items():
        parts += [f"## {linked(slug, folder)}", sections[slug]]
    rendered = {ROOT / "RESULTS.md": "\n\n".join(parts) + "\n"}
    sections["results"] = summary_table(runs).to_markdown()
    sections |= {f"{slug}_short": short_table(each).to_markdown() for slug, each in runs.items()}
    for slug, study in studies.items():
        if isinstance(study, KnowingResult):
            sections[f"{slug}_summary"] = study.summary().to_markdown()
            if study.taught:
                sections[f"{slug}_two_by_two"] = study.two_by_two().to_markdown()
    for slug, study in studies.items():
        if isinstance(study, GridResult):
            for name, stage in (("screened", study.screened), ("final", study.final)):
                if stage is not None:
                    sections[f"{slug}_{name}"] = summary_of(study, stage).to_markdown()
            rendered[ROOT / "docs" / "studies" / f"{slug}.html"] = page_of(study)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))):
        up = "../" * (len(page.relative_to(ROOT).parts) - 1)
        text = page.read_text()
        for marker, section in sections.items():
            linked_from_page = section.replace("](experiments/", f"]({up}experiments/")
            text = with_section(text, marker, linked_from_page)
        rendered[page] = text
    return rendered

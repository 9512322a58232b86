"""Keep a run as a record, and regenerate every table that is made from records.

    python -m experiments.record --run runs/demo --slug demo --question "..." --command "..."
    python -m experiments.record --result runs/bench_env.json --slug bench_env ...
    python -m experiments.record

The first two copy what the claim rests on into ``experiments/records/DATE_SLUG``: of a training
run, or the result file of a study or benchmark. All rewrite RESULTS.md and the marked parts of
README.md and docs from the records alone.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.cli import main_with_options, signed
from experiments.evaluation.result_tables import TABLES

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "experiments" / "records"
KEPT = (
    "metrics.jsonl",
    "compare.json",
    "compare.png",
    "probe.json",
    "scanpaths.png",
    "scanpaths.gif",
    "fixations.png",
)
SHOWN = (
    "oracle",
    "oracle_16",
    "policy",
    "uncertainty",
    "saliency",
    "best_fixed",
    "other_image",
    "random",
    "center_out",
    "farthest_point",
    "raster",
)
SUMMARY = (
    "random",
    "center_out",
    "best_fixed",
    "other_image",
    "uncertainty",
    "policy",
    "saliency",
    "oracle_16",
    "oracle",
)


@dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """Options of the record."""

    run: Path | None = None
    """Run folder to keep; None = none."""
    result: Path | None = None
    """Result file of a study or benchmark to keep; None = none."""
    slug: str | None = None
    """Short name of the record."""
    question: str = ""
    """What the run was to find out."""
    verdict: str = ""
    """What it found."""
    command: str = ""
    """The commands that made it, as a user would type them."""

    def __post_init__(self) -> None:
        if self.run is not None and self.result is not None:
            raise ValueError("give --run or --result, not both")
        if (self.run is None and self.result is None) != (self.slug is None):
            raise ValueError(
                "give --run or --result together with --slug, or none to regenerate the tables"
            )


def keep_result(config: RecordConfig) -> None:
    """Copy a result file into the records."""
    assert config.result is not None
    if not config.result.is_file():
        raise ValueError(f"no result file at {config.result}")
    result = json.loads(config.result.read_text())
    if not isinstance(result, dict) or result.get("kind") not in TABLES:
        raise ValueError(f"{config.result} is no result of a study or benchmark")
    folder = RECORDS / f"{time.strftime('%Y-%m-%d')}_{config.slug}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    write_story(config, folder, TABLES[result["kind"]](result))


def write_story(config: RecordConfig, folder: Path, table: str) -> None:
    """Write the README of a record: question, commands, verdict, table."""
    text = [
        f"# {config.slug}",
        f"**Question.** {config.question}",
        f"**Commands.**\n\n```\n{config.command}\n```",
        f"**Verdict.** {config.verdict}",
        table,
    ]
    (folder / "README.md").write_text("\n\n".join(text) + "\n")


def keep(config: RecordConfig) -> None:
    """Copy a run into the records; paths shrink to names, so nothing of the machine is kept."""
    assert config.run is not None
    assert config.slug is not None
    if not (config.run / "compare.json").is_file():
        raise ValueError(
            f"{config.run} has no compare.json; "
            f"run: python -m experiments.compare --run {config.run}"
        )
    manifest = json.loads((config.run / "manifest.json").read_text())
    train = json.loads((config.run / "config.json").read_text())
    folder = RECORDS / f"{manifest['date']}_{config.slug}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (config.run / name).is_file():
            shutil.copyfile(config.run / name, folder / name)
    contents = {"manifest.json": shrunk(manifest), "config.json": shrunk(train)}
    for name in ("compare.json", "probe.json"):
        if result := read(config.run / name):
            contents[name] = {**result, "options": shrunk(result.get("options", {}))}
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    write_story(config, folder, tables(folder))


def shrunk(content: dict[str, Any]) -> dict[str, Any]:
    """Shrink paths to names."""
    return {
        key: Path(value).name if isinstance(value, str) and "/" in value else value
        for key, value in content.items()
    }


def read(path: Path) -> dict[str, Any]:
    """Read a JSON file of a record; empty if the record has none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def tables(folder: Path) -> str:
    """Comparison and probe of one record as Markdown, with its compute."""
    manifest, train, result = (
        read(folder / f"{name}.json") for name in ("manifest", "config", "compare")
    )
    seconds = manifest["train_seconds"]
    lines = [
        f"{result['budget']} of {result['num_patches']} patches, "
        f"{'periphery' if result['periphery'] else 'blind'}, seed {result['seed']}, "
        f"{manifest['parameters']['model'] / 1e6:.2f} M parameters, "
        f"trained {seconds / 60:.1f} minutes on "
        f"{manifest['threads']} CPU thread{'s' * (manifest['threads'] > 1)} "
        f"({train['warmup_iterations']} + {train['iterations']} iterations), "
        f"commit `{manifest['commit'][:10]}`, compared at `{result['commit'][:10]}`.",
        "",
        "| order | area under the error curve | error at the end "
        "| minus random, 95% interval | minus policy, 95% interval | images |",
        "|---|---|---|---|---|---|",
    ]
    for name in SHOWN:
        row = result["orders"][name]
        differences = " | ".join(
            "" if name == other else signed(row[f"minus_{other}"], row[f"minus_{other}_ci95"])
            for other in ("random", "policy")
        )
        shown = f"**{name}**" if name == "policy" else name
        lines.append(
            f"| {shown} | {row['auc']:.4f} | {row['final_error']:.4f} "
            f"| {differences} | {row['images']} |"
        )
    gap, few = result["gap_closed"], result["gap_closed_oracle_16"]
    (low, high), (few_low, few_high) = (
        result["gap_closed_ci95"],
        result["gap_closed_oracle_16_ci95"],
    )
    signs = result["diagnostics"]
    own_low, own_high = signs["own_minus_other_ci95"]
    lines += [
        "",
        f"The policy closes {gap:.1%} [{low:.1%}, {high:.1%}] of the gap from random to the greedy "
        f"oracle over all patches, and {few:.1%} [{few_low:.1%}, {few_high:.1%}] of that to the "
        "oracle over 16 random ones; the oracles scan the first "
        f"{result['orders']['oracle']['images']} images, to which their gaps and differences "
        "refer. Its own path minus another image's: "
        f"{signs['own_minus_other']:+.4f} [{own_low:+.4f}, {own_high:+.4f}]; "
        f"{signs['distinct_orders']} distinct orders on {signs['images']} images; "
        f"percentile of the chosen patch by true reward {signs['chosen_percentile']:.2f}.",
    ]
    probe = read(folder / "probe.json")
    if probe:
        best = probe["best"]["layer"]
        untrained = max(
            (n for n in probe["linear"] if n.startswith("random_weights")),
            key=lambda n: probe["linear"][n]["validation_accuracy"],
        )
        lines += ["", "| features | linear probe, 95% interval | k-NN |", "|---|---|---|"]
        for label, name in (
            (f"encoder, {best.replace('_', ' ')}, full attention", best),
            (f"encoder, {best.replace('_', ' ')}, causal attention", f"causal_{best}"),
            (
                "untrained weights, their best "
                f"({untrained.removeprefix('random_weights_').replace('_', ' ')})",
                untrained,
            ),
            ("raw pixels", "pixels"),
        ):
            line = probe["linear"][name]
            low, high = line["ci95"]
            lines.append(
                f"| {label} | {line['accuracy']:.3f} [{low:.3f}, {high:.3f}] "
                f"| {probe['knn'][name]['accuracy']:.3f} |"
            )
        lines += [
            "",
            f"Probe: {probe['train_images']} training and {probe['test_images']} test images, "
            "mean over patches.",
        ]
    return "\n".join(lines)


GLOSSES = {
    "random": "patches at random",
    "best_fixed": "the same patches in every image: those that the policy fixates first on average",
    "policy": "what training learned: patches chosen for each image",
    "oracle": "the patch that helps most, found by trying all on the true image (it cheats)",
}
"""Rows of the short table, and what they fixate."""


def short_table(folder: Path) -> str:
    """Four rows of a record's comparison as Markdown, for those who see one for the first time."""
    manifest, result = read(folder / "manifest.json"), read(folder / "compare.json")
    orders = result["orders"]
    lines = [
        "| order | what it fixates | area under the error curve (lower is better) |",
        "|---|---|---|",
    ]
    for name, gloss in GLOSSES.items():
        # The oracle scans fewer images: set against the policy by their paired difference.
        area = orders["policy"]["auc"] + orders[name]["minus_policy"]
        shown = f"**{name}**" if name == "policy" else name
        lines.append(f"| {shown} | {gloss} | {area:.3f} |")
    lines += [
        "",
        f"{result['budget']} of {result['num_patches']} patches, {orders['policy']['images']} test "
        f"images, seed {result['seed']}; trained {manifest['train_seconds'] / 60:.1f} minutes on "
        f"{manifest['threads']} CPU thread{'s' * (manifest['threads'] > 1)}. The oracle scans the "
        f"first {orders['oracle']['images']} images; its area is the policy's plus their paired "
        "difference.",
    ]
    return "\n".join(lines)


def records(file: str = "compare.json") -> dict[str, Path]:
    """Newest record of every slug, of runs (compare.json) or of results (result.json)."""
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
    """Text of every file that is made from records."""
    kept = records()
    sections = {slug: tables(folder) for slug, folder in kept.items()}
    sections |= {f"{slug}_short": short_table(folder) for slug, folder in kept.items()}
    results = [
        "# Results",
        "Generated by `python -m experiments.record` from `experiments/records`; do not edit.",
    ]
    short = []
    for slug, folder in kept.items():
        results += [f"## [{slug}]({folder.relative_to(ROOT).as_posix()}/README.md)", sections[slug]]
        result = read(folder / "compare.json")
        orders = result["orders"]
        # The oracles scan fewer images: set against the policy by their paired difference.
        cells = [
            f"{orders['policy']['auc'] + orders[name]['minus_policy']:.3f}" for name in SUMMARY
        ]
        gaps = f"{result['gap_closed']:.0%} / {result['gap_closed_oracle_16']:.0%}"
        short.append(
            f"| [{slug}]({folder.relative_to(ROOT).as_posix()}/README.md) "
            f"| {' | '.join(cells)} | {gaps} |"
        )
    head = [
        "Area under the error curve (lower is better), one seed each; "
        "intervals, probes, and commands are in the records. "
        "Mean order: by the policy's mean rank, the same for all images. Saliency and the oracles "
        "see the image; the oracles' areas are the policy's plus their paired difference on fewer "
        "images.",
        "",
        "| record | random | center out | mean order | other image | uncertainty | **policy** "
        "| saliency | oracle of 16 | oracle of all | gap closed (all / 16) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    sections["results"] = "\n".join(head + short)
    for slug, folder in records("result.json").items():
        result = read(folder / "result.json")
        sections[slug] = TABLES[result["kind"]](result)
        results += [f"## [{slug}]({folder.relative_to(ROOT).as_posix()}/README.md)", sections[slug]]
    rendered = {ROOT / "RESULTS.md": "\n\n".join(results) + "\n"}
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))):
        text = page.read_text()
        up = "../" * (len(page.relative_to(ROOT).parts) - 1)
        for marker, section in sections.items():
            text = with_section(
                text, marker, section.replace("](experiments/", f"]({up}experiments/")
            )
        rendered[page] = text
    return rendered


def main(config: RecordConfig) -> None:
    """Keep a run, if one is given, and regenerate the tables."""
    if config.run is not None:
        keep(config)
    if config.result is not None:
        keep_result(config)
    for path, text in render().items():
        path.write_text(text)
        print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main_with_options(main, RecordConfig)

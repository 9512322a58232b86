"""Keep a run as a record, and regenerate every table that is made from records.

    python -m experiments.record --run runs/demo --slug demo --question "..." --command "..."
    python -m experiments.record --result runs/bench_env.json --slug bench_env ...
    python -m experiments.record

The first two copy what a claim rests on into ``experiments/records/DATE_SLUG``: files of a training
run, or the result file of a study or benchmark with the picture of its name. All three rewrite
RESULTS.md, the marked parts of README.md and docs, and the page of each study of a grid from the
records alone.
"""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.cli import main_with_options

KEPT = (
    "metrics.jsonl",
    "compare.json",
    "compare.png",
    "probe.json",
    "scanpaths.png",
    "scanpaths.gif",
    "fixations.png",
)
"""Files of a run folder that are copied as they are."""


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
        if self.slug is not None and not re.fullmatch(r"\w[\w.-]*", self.slug):
            raise ValueError(
                f"slug names a folder among the records: letters, digits, _, - and . after the "
                f"first; got {self.slug!r}"
            )


def keep_run(run: Path, records: Path, slug: str) -> Path:
    """Copy a run into the records; paths shrink to names, so nothing of the machine is kept.

    Returns:
        the folder of the record.

    Raises:
        ValueError: the run was not compared, or one of its files is missing or damaged.
    """
    from experiments.tables import read_object, write_json

    check_files(run)
    # All that is read is read before anything is written: a record is whole or is not there.
    names = ("manifest.json", "config.json", "compare.json", "probe.json")
    contents = {name: read_object(run / name) for name in names if (run / name).is_file()}
    folder = new_record(records, contents["manifest.json"]["date"], slug)
    for name in ("manifest.json", "config.json"):
        contents[name] = shrunk(contents[name])
    for name in KEPT:
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)
    for name in ("compare.json", "probe.json"):
        if name in contents:
            options = contents[name].get("options", {})
            contents[name] = {**contents[name], "options": shrunk(options)}
    for name, content in contents.items():
        write_json(folder / name, content)
    return folder


def check_files(run: Path) -> None:
    """Raise ValueError unless a run folder has the files that a record is made of."""
    for name in ("compare.json", "manifest.json", "config.json"):
        if not (run / name).is_file():
            script = "compare --run" if name == "compare.json" else "train PRESET --out"
            raise ValueError(f"{run} has no {name}; run: python -m experiments.{script} {run}")


def check_recordable(run: Path) -> None:
    """Raise ValueError unless a run is finished and its results can be shown."""
    from experiments.pages import run_tables
    from experiments.tables import read_object

    check_files(run)
    wanted = {
        "manifest.json": ("date", "parameters", "train_seconds", "threads", "commit"),
        "config.json": ("warmup_iterations", "iterations"),
    }
    for name, keys in wanted.items():
        lacking = [key for key in keys if key not in read_object(run / name)]
        if lacking:
            raise ValueError(
                f"{run / name} does not tell {lacking[0]}: the run is not finished; "
                "finish it with --resume"
            )
    check_whole(run)
    try:
        run_tables(run)
    except (KeyError, TypeError, AttributeError) as reason:
        raise ValueError(f"manifest.json or config.json in {run} is damaged ({reason})") from reason


def check_whole(run: Path) -> None:
    """Raise ValueError unless a run was trained, and asked, to the end of its iterations."""
    from experiments.tables import read_object

    config, manifest = read_object(run / "config.json"), read_object(run / "manifest.json")
    end = config["warmup_iterations"] + (config["iterations"] or 0)
    if manifest.get("iterations", end) < end:
        raise ValueError(
            f"{run} was stopped after {manifest['iterations']} of {end} iterations; finish it with "
            "--resume"
        )
    for name in ("compare.json", "probe.json"):
        if not (run / name).is_file():
            continue
        at = read_object(run / name).get("iteration")
        if at is not None and at != end:
            script = name.removesuffix(".json")
            raise ValueError(
                f"{run / name} is of iteration {at} of {end}; run: python -m experiments.{script} "
                f"--run {run}"
            )


def keep_result(path: Path, records: Path, slug: str) -> tuple[Path, str]:
    """Keep the result of a study or benchmark and its picture, without paths of the machine.

    Returns:
        the folder of the record, and its tables as Markdown.

    Raises:
        ValueError: the study is not whole.
    """
    from experiments.evaluation.run_result import RunResult
    from experiments.pages import read_result
    from experiments.studies.result import GridResult

    result = read_result(path)
    if isinstance(result, RunResult | GridResult):
        result = replace(result, options=shrunk(result.options))
    if isinstance(result, GridResult):
        if result.final is None or result.final.waiting or result.undecided:
            raise ValueError(f"{path} is not whole; finish the study by the same command")
        early = result.screened
        result = replace(
            result,
            trainings=shrunk(result.trainings),
            dropped=shrunk(result.dropped),
            screened=early and replace(early, failed=shrunk(early.failed)),
            final=replace(result.final, failed=shrunk(result.final.failed)),
        )
    folder = new_record(records, time.strftime("%Y-%m-%d"), slug)
    result.write(folder / "result.json")
    if (picture := path.with_suffix(".png")).is_file():
        shutil.copyfile(picture, folder / "result.png")
    return folder, result.to_markdown()


def new_record(records: Path, date: str, slug: str) -> Path:
    """Make the folder of a record.

    Raises:
        ValueError: it is there, and might keep files of another run.
    """
    folder = records / f"{date}_{slug}"
    if folder.exists():
        raise ValueError(f"{folder} is there; take another --slug, or remove it")
    folder.mkdir(parents=True)
    return folder


def shrunk(content: dict[str, Any]) -> dict[str, Any]:
    """Shrink paths to names, in sentences as well."""
    return {key: _shrunk(value) for key, value in content.items()}


def _shrunk(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_shrunk(each) for each in value]
    if not isinstance(value, str) or "/" not in value:
        return value
    if " " not in value or value[0] in "/~.":
        return Path(value).name
    return " ".join(Path(word).name if "/" in word else word for word in value.split(" "))


def write_story(config: RecordConfig, folder: Path, tables: str) -> None:
    """Write the README of a record: question, commands, verdict, picture, tables."""
    text = [
        f"# {config.slug}",
        f"**Question.** {config.question}",
        f"**Commands.**\n\n```\n{config.command}\n```",
        f"**Verdict.** {config.verdict}",
        *(["![What was found](result.png)"] if (folder / "result.png").is_file() else []),
        tables,
    ]
    (folder / "README.md").write_text("\n\n".join(text) + "\n")


def main(config: RecordConfig) -> None:
    """Keep a run or a result, if one is given, and regenerate the pages."""
    from experiments.pages import RECORDS, ROOT, render, run_tables

    if config.run is not None:
        assert config.slug is not None, "RecordConfig requires it"
        check_recordable(config.run)
        folder = keep_run(config.run, RECORDS, config.slug)
        write_story(config, folder, run_tables(folder))
    if config.result is not None:
        assert config.slug is not None, "RecordConfig requires it"
        folder, tables = keep_result(config.result, RECORDS, config.slug)
        write_story(config, folder, tables)
    for path, text in render().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main_with_options(main, RecordConfig)

"""Command lines that nobody should write: each succeeds, or ends in one line and exit code 2."""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
from hypothesis import strategies

from .faults import Fault, limit_memory
from .plan import Plan, Trial
from .process import ROOT, command, start
from .runs import KINDS, SMALL

EXAMPLES, EXAMPLES_SHORT = 260, 4
EACH = 6
"""Command lines that are drawn for each that is tried."""
LONG_S = 8.0
"""A command that takes longer has been accepted, and is ended."""
GIGABYTES = 10
VALUES = (
    *("0", "-1", "1", "2", "3", "7", "10", "1000000000000000000", "-9223372036854775809"),
    *("nan", "inf", "-inf", "-0.0", "1e308", "1e-320", "0.5", "1.5", "0x10", "1_0", "٣"),
    *("", " ", "None", "none", "True", "false", "é類", "💥", "\udcff", "%s{0}\\n", "x" * 300),
    *(".", "..", "/dev/null", "/proc/self/mem", "/proc/nowhere", "~", "nowhere/at/all"),
    *("os:system", "json:loads", "builtins:list", "sys:path", "no_such:thing", ":", "a:b:c", "os:"),
    *("--", "-", "[1,2]", "{}", "1,2", "cpu:1", "cuda", "meta", "raster", "policy", "smoke"),
)
"""Values of options."""
FEW = ("--limit", "4")
BASES: dict[str, tuple[str, ...]] = {
    "train": (*SMALL, "--out", "run"),
    "compare": ("--run", "native", *FEW, "--oracle-limit", "2"),
    "probe": ("--run", "native", "--train-limit", "40", "--test-limit", "20"),
    "scanpaths": ("--run", "native", "--heatmap-limit", "4"),
    "decode": ("--run", "autonat", "--num-images", "2", "--passes", "2"),
    "read": ("--run", "git", *FEW),
    "orders": (
        *("--limit", "40", "--embed-dim", "32", "--depth", "2", "--teraflops", "0.0001"),
        *("--orders", "raster", "untrained", "--probe-train", "40", "--probe-test", "20"),
        *("--seeds", "0", "1", "--out", "orders"),
    ),
    "study": ("smoke", "--iterations", "1", "--seeds", "0", "1", *FEW, "--out", "study"),
    "bench": ("env", "--rows", "2", "--repeats", "1", "--out", "bench.json"),
    "record": ("--run", "native", "--slug", "x"),
}
"""Commands with options that make them small."""
WEIGHTS = {"train": 8, "compare": 3, "probe": 3}
RUNS = {
    "native": KINDS["native"].options,
    "autonat": KINDS["recipe autonat"].options,
    "git": ("--recipe", "git", "--iterations", "0", "--prefix-share", "0"),
}
"""Runs that are evaluated."""
_one_at_a_time = threading.Lock()


def trials(plan: Plan) -> Iterator[Trial]:
    """Draw the command lines."""
    lines = drawn(plan, EXAMPLES_SHORT if plan.short else EXAMPLES)
    for number, (name, arguments) in enumerate(lines):
        shown = " ".join(map(repr, arguments))[:200]
        run = functools.partial(check, plan.shared, name, arguments)
        yield Trial("fuzz", f"{number} {name} {shown}", run)


def drawn(plan: Plan, number: int) -> list[tuple[str, tuple[str, ...]]]:
    """Draw commands, each with options that its help lists, or that are misspelled."""
    weighted = [name for name in BASES for _ in range(WEIGHTS.get(name, 1))]
    options = {name: options_of(name, plan.shared) for name in dict.fromkeys(weighted)}
    found: dict[tuple[str, tuple[str, ...]], None] = {}

    def more(name: str) -> strategies.SearchStrategy[list[tuple[str, str, bool]]]:
        option = strategies.sampled_from([*options[name], "--limits", "--embed_dimm"])
        known = strategies.sampled_from(VALUES)
        value = strategies.one_of(known, known, strategies.text("0123.-+e:_/'é\n\t", max_size=4))
        pair = strategies.tuples(option, value, strategies.booleans())
        return strategies.lists(pair, min_size=1, max_size=3)

    lines = strategies.sampled_from(weighted).flatmap(
        lambda name: strategies.tuples(strategies.just(name), more(name))
    )

    @hypothesis.seed(plan.rng.randrange(2**32))
    @hypothesis.settings(
        max_examples=EACH * number,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(lines)
    def draw(line: tuple[str, list[tuple[str, str, bool]]]) -> None:
        name, pairs = line
        arguments: list[str] = []
        for option, value, joined in pairs:
            value = value.replace("\0", "")
            arguments += [f"{option}={value}"] if joined else [option, value]
        found.setdefault((name, tuple(arguments)))

    draw()
    # One is often drawn as a variation of the one before.
    return list(found)[:: max(1, len(found) // number)][:number]


def options_of(name: str, folder: Path) -> list[str]:
    """Return the options that a command's help lists."""
    arguments = ("smoke", "--help") if name == "train" else ("--help",)
    shown = start(command(name, *arguments), folder).wait().well().out
    return sorted(set(re.findall(r"(?<!\w)--[a-z][a-z-]+", shown)) - {"--help"})


def runs(shared: Path) -> Path:
    """Train the runs that commands evaluate, once."""
    folder = shared / "evaluated"
    with _one_at_a_time:
        if not folder.exists():
            made = Path(tempfile.mkdtemp(dir=shared))
            for name, options in RUNS.items():
                call = command("train", *SMALL, *options, "--out", made / name)
                start(call, made).wait().well()
            made.rename(folder)
    return folder


def check(shared: Path, name: str, arguments: tuple[str, ...], folder: Path) -> None:
    """Run a command line in a folder with runs of its own."""
    for run in RUNS:
        if run in BASES[name]:
            shutil.copytree(runs(shared) / run, folder / run)
    faults: list[Fault] = [limit_memory(GIGABYTES)]
    if name == "record":
        faults.append(functools.partial(keep_records_elsewhere, folder))
    running = start(command(name, *BASES[name], *arguments), folder, faults=faults)
    running.until(lambda: False, LONG_S)
    if running.code is None:
        running.end()
        return
    done = running.wait()
    if done.code:
        done.refused()
        done.expect(len(done.errors[0]) < 1000, "a short line")
    else:
        done.well()


def keep_records_elsewhere(folder: Path) -> None:
    """Let ``record`` write into a folder of the trial instead of the repository."""
    from experiments import pages

    for page in ("README.md", "docs"):
        source = ROOT / page
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, folder / page)
    pages.ROOT, pages.RECORDS = folder, folder / "experiments" / "records"

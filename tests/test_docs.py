"""The docs are whole: the tutorial runs, no logged key is unexplained, the site builds."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from unchecked import unchecked

from experiments.pages import RECORDS
from experiments.probe import ProbeConfig
from experiments.probe import main as probe
from experiments.train import main as train
from experiments.training.presets import PRESETS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCES = [
    path
    for name in ("foveate", "envs", "agents", "experiments")
    for path in sorted((ROOT / name).glob("**/*.py"))
]
NAMED = {
    *("orders", "linear", "knn", "knn_10", "sgd", "attentive", "finetune", "agents", "decodings"),
    *("ids",),
    *("points", "steps_per_s", "vector_over_dummy_env_steps", "vector_over_uncached", "curves"),
    *(
        "options",
        "parameters",
        "fixations",
        "controls",
        "label_shares",
        "versions",
        "libraries",
        "steps_per_cpu_s",
        *("ideas", "trainings", "needs", "facts", "failed", "dropped", "scans", "error_curves"),
    ),
}
"""Keys whose content is keyed by names of orders, layers and the like."""


def keys_of(content: object, *, by_name: bool = False) -> set[str]:
    """Keys at any depth, but for names of orders and the like, and for numbers."""
    if isinstance(content, list):
        return {key for each in content for key in keys_of(each)}
    if not isinstance(content, dict):
        return set()
    named = by_name or all(re.fullmatch(r"[0-9.]+", key) for key in content)
    keys: set[str] = set() if named else set(content)
    for key, value in content.items():
        keys |= keys_of(value, by_name=key in NAMED and not by_name)
    return keys


def explained() -> set[str]:
    return set(re.findall(r"`([a-z_0-9]+)`", (DOCS / "metrics.md").read_text()))


# --- the tutorial


def test_page_and_notebook_are_made_from_the_script() -> None:
    """If stale: python docs/build_tutorial.py."""
    built = runpy.run_path(str(DOCS / "build_tutorial.py"))["built"]()
    assert {path.name for path in built} == {"tutorial.md", "tutorial.ipynb"}
    for path, text in built.items():
        assert path.read_text() == text, path.name


def notebook_cells() -> list[str]:
    cells = json.loads((DOCS / "tutorial.ipynb").read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.slow
# The commands are run as scripts in this process, where other tests have imported them.
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_tutorial_learns_an_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a notebook, whose cells are those of the script and of the page."""
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", sys.argv)
    names: dict[str, object] = {"__name__": "tutorial"}
    with unchecked():
        for cell in notebook_cells():
            exec(compile(cell, "tutorial", "exec"), names)
    plt.close("all")
    (folder,) = tmp_path.glob("*/run")
    assert (folder / "scanpaths.png").is_file()
    result = json.loads((folder / "compare.json").read_text())
    area = {name: row["auc"] for name, row in result["orders"].items()}
    # What the page says; the numbers there are 0.814, 0.669, 0.368 and 0.302.
    assert area["random"] > area["best_fixed"] > area["policy"] > area["oracle"]
    assert area["policy"] < area["best_fixed"] - 0.1
    assert result["not_better_than"] == []
    assert keys_of(result) <= explained()


# --- the glossary


def test_every_key_of_a_run_is_in_the_glossary(tmp_path: Path) -> None:
    train(PRESETS["smoke"][1].replace(out=tmp_path / "run", report=False))
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    keys = keys_of(lines) | keys_of(manifest)
    fixated: dict[str, Any] = {"fixations": (1,), "orders": ("raster",), "read_outs": ("seen",)}
    probe(ProbeConfig(run=tmp_path / "run", train_limit=200, test_limit=100, **fixated))
    keys |= keys_of(json.loads((tmp_path / "run/probe.json").read_text()))
    assert {"loss", "auc", "train_seconds", "validation_accuracy"} <= keys
    assert keys <= explained()


@pytest.mark.parametrize("name", ["compare.json", "probe.json", "manifest.json", "result.json"])
def test_every_key_of_the_records_is_in_the_glossary(name: str) -> None:
    paths = sorted(RECORDS.glob(f"*/{name}"))
    assert paths
    for path in paths:
        assert keys_of(json.loads(path.read_text())) <= explained(), path


# --- the rest


def test_messages_in_the_headings_of_troubleshooting_are_messages_of_the_code() -> None:
    # Messages are split over lines as "..." f"...".
    code = "".join(path.read_text() for path in SOURCES)
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    headings = re.findall(r"^### `(.*)`$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    of_others = {"requires a different Python", "Unrecognized options"}
    assert len(headings) > 15
    for heading in set(headings) - of_others:
        assert heading in code, heading


SITE = """
INHERIT: {root}/mkdocs.yml
docs_dir: {root}/docs
hooks: [{root}/docs/hooks.py]
plugins:
  - mkdocstrings:
      handlers: {{python: {{paths: ["{root}"], options: {{members: false}}}}}}
"""
"""The site without a search index and without the API's modules, which take a minute."""
needs_docs = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="needs the extra docs, which dev includes"
)


@needs_docs
@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "mkdocs.yml").write_text(SITE.format(root=ROOT.as_posix()))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", "site"]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=quiet, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Image-scanning environments" in (tmp_path / "site/api/envs/index.html").read_text()


@needs_docs
def test_the_site_finds_every_docstring_and_reads_it_without_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As of an argument that is described and does not exist."""
    import griffe

    assert "docstring_style: google" in (ROOT / "mkdocs.yml").read_text()
    loader = griffe.GriffeLoader(search_paths=[ROOT], docstring_parser=griffe.Parser.google)
    described: set[str] = set()

    def read(each: griffe.Object) -> None:
        for member in each.members.values():
            if isinstance(member, griffe.Object):
                if member.docstring and member.docstring.parsed:
                    described.add(member.path)
                read(member)

    for package in ("foveate", "envs", "agents", "experiments"):
        read(loader.load(package))  # type: ignore[arg-type]
    assert not [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert described >= {
        "foveate.data.loading.load_data",
        "envs.image_scan.ImageScanEnv",
        "agents.policies.PointerPolicy",
        "experiments.compare.CompareConfig",
    }

"""The house: imports flow downward and in no circle, files and functions are small, help is light.

Classes have names of their own, and asserts say what holds. Every import counts: those inside
functions and under TYPE_CHECKING too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ["foveate", "envs", "agents", "experiments"]
FILES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
NO_COMMANDS = (
    "__init__",
    "cli",
    "finished_run",
    "metrics_file",
    "pages",
    "run_data",
    "run_folder",
    "runs",
    "tables",
)
SCRIPTS = sorted(
    path.stem for path in (ROOT / "experiments").glob("*.py") if path.stem not in NO_COMMANDS
)
"""The commands: ``experiments/`` holds beside them the files above, and folders."""
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 300, 60


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path) -> set[str]:
    """Modules of ours that a file imports anywhere: the module that a name is taken from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else str(node.module))
    return found & set(MODULES)


ARROWS = {module: imports_of(path) for module, path in MODULES.items()}


def circle_in(arrows: dict[str, set[str]]) -> list[str] | None:
    """Return modules of which each imports the next and the last the first; None without any."""
    done: set[str] = set()

    def search(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return None
        for target in sorted(arrows.get(module, ())):
            if found := search(target, [*path, module]):
                return found
        done.add(module)
        return None

    return next((found for module in arrows if (found := search(module, []))), None)


def test_a_circle_is_found() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert len(MODULES) > 50
    circle = circle_in(ARROWS)
    assert circle is None, f"a circle of imports: {' -> '.join(circle or [])}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_downward(module: str) -> None:
    layer = module.partition(".")[0]
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    assert not {arrow.partition(".")[0] for arrow in ARROWS[module]} & above
    others = {f"experiments.{script}" for script in SCRIPTS} - {module}
    assert not ARROWS[module] & others, "what scripts share lies below them"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MOST_LINES_OF_A_FUNCTION, node.name


def test_a_class_has_a_name_of_its_own() -> None:
    named: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                named.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert len(named) > 100
    assert not {name: paths for name, paths in named.items() if len(paths) > 1}


def test_an_assert_says_what_holds() -> None:
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert) and node.msg is None
    ]
    assert not silent


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_answers_without_the_heavy_imports(script: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", f"experiments.{script}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"usage: python -m experiments.{script}" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "tyro" in imported
    assert not imported & {"torch", "timm", "sklearn", "scipy", "pydantic", "matplotlib"}

"""Ids of the environments: known in any process, without torch until one is made."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(program: str, *paths: Path) -> None:
    """Run a program in a process of its own, which finds what lies at the paths."""
    found = "; ".join(f"sys.path.insert(0, {str(path)!r})" for path in (ROOT, *paths))
    command = [sys.executable, "-W", "error", "-c", f"import sys; {found}\n{program}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_id_that_names_its_module_needs_no_import() -> None:
    run(
        "import gymnasium as gym\n"
        "env = gym.make('foveate.ids:foveate/CueScan-v0')\n"
        "assert env.reset(seed=0)[1]['action_mask'].sum() == 16"
    )


def test_the_entry_point_registers_without_torch(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (points,) = project["entry-points"]["gymnasium.envs"].items()
    folder = tmp_path / "ids_of_foveate-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: ids_of_foveate\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[gymnasium.envs]\n{points[0]} = {points[1]}\n")
    run(
        "import gymnasium as gym\n"
        "from importlib.metadata import distribution\n"
        "(point,) = distribution('ids_of_foveate').entry_points.select(group='gymnasium.envs')\n"
        "point.load()()\n"
        "assert gym.spec('foveate/ImageScan-v0').id == 'foveate/ImageScan-v0'\n"
        "import envs\n"
        "assert 'torch' not in sys.modules and 'envs.vector' not in sys.modules",
        tmp_path,
    )

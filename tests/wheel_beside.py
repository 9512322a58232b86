"""What happens where the wheel lies beside packages of other projects with its names.

    python -m tests.wheel_beside

Builds the wheel, and installs it beside PyPI's ``envs`` and ``openai-agents``, in both orders, and
where the user's folder is called ``envs``. Not a part of the suite: it needs a network. All that
the wheel depends on comes from the environment that runs this.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OTHERS = ("envs", "openai-agents")
USES = {
    "foveate alone": ["-c", "import foveate; foveate.load_model('scenes')"],
    "gymnasium id": ["-c", "import gymnasium as g; g.make('foveate.ids:foveate/CueScan-v0')"],
    "import envs": ["-c", "import envs; envs.ImageScanEnv"],
    "agents": ["-c", "from agents.baselines import OrderAgent"],
    "scripts": ["-m", "experiments.compare", "--help"],
    "PyPI's envs": ["-c", "from envs import env"],
    "openai-agents": ["-c", "from agents import Agent"],
}
"""What a user would do, of ours and of the others'."""


def run(python: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, and wait for it; a PYTHONPATH would bring in the checkout."""
    command = [str(python), *arguments]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)


def environment(place: Path, *installs: list[str]) -> Path:
    """Make an environment that finds the packages of this one, install, and return its Python."""
    venv.create(place)
    python = place / "bin" / "python"
    here = sysconfig.get_paths()["purelib"]
    (lib,) = (place / "lib").glob("python*/site-packages")
    (lib / "ours.pth").write_text(f"{here}\n")
    for install in installs:
        pip = ["-m", "pip", "--python", str(python), "install", "--quiet", *install]
        done = run(Path(sys.executable), *pip, folder=place)
        if done.returncode:
            sys.exit(f"pip install {' '.join(install)} failed: {done.stderr.strip()[-400:]}")
    return python


def show(title: str, python: Path, folder: Path) -> None:
    """Print what every use ends with."""
    print(f"\n{title}")
    for name, arguments in USES.items():
        done = run(python, *arguments, folder=folder)
        ends = "works" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["?"])[-1]
        print(f"  {name:14} {ends}", flush=True)


def main() -> None:
    """Build, install in every order, and show."""
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        empty, own = place / "empty", place / "own"
        empty.mkdir()
        (own / "envs").mkdir(parents=True)
        (own / "envs" / "__init__.py").write_text('"""The user\'s."""\n')
        pip = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(place), str(ROOT)]
        built = run(Path(sys.executable), *pip, folder=place)
        if built.returncode:
            sys.exit(f"the wheel cannot be built: {built.stderr.strip()[-400:]}")
        (wheel,) = place.glob("foveate-*.whl")
        ours, theirs = ["--no-deps", str(wheel)], [*OTHERS]
        alone = environment(place / "alone", ours)
        show("the wheel alone", alone, empty)
        show("the wheel alone, in a folder that holds one called envs", alone, own)
        show("the wheel, then theirs", environment(place / "first", ours, theirs), empty)
        show("theirs, then the wheel", environment(place / "last", theirs, ours), empty)


if __name__ == "__main__":
    main()

"""Whether the packages beside foveate are its own: their names are plain, and others have them."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def check_own(*names: str) -> None:
    """Raise ImportError if a package of this name is another project's.

    That is one from another place, such as a folder of the user's own, or one whose installation
    has written over ours.

    Args:
        names: packages that lie beside foveate: envs, agents or experiments.
    """
    home = Path(__file__).resolve().parent.parent
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue  # Python says itself that there is none.
        here = spec.origin or next(iter(spec.submodule_search_locations or ()), "nowhere")
        initial = home / name / "__init__.py"
        is_ours = Path(here).resolve() == initial and "foveate" in initial.read_text("utf-8")
        if not is_ours:
            raise ImportError(
                f"another package named {name} is installed: {here}; foveate needs its own of this "
                f"name, {home / name}: install foveate into an environment of its own, last, and "
                f"start Python in no folder that holds another {name}"
            )

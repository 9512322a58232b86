"""Pack the small models that ship with the package, in foveate/assets, from runs of two presets.

    python -m experiments.train demo
    python -m experiments.train cue
    python -m experiments.assets --scenes runs/demo --cue runs/cue

``foveate.load_model("scenes")`` and ``("cue")`` load them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.cli import main_with_options


@dataclass(frozen=True, kw_only=True)
class AssetConfig:
    """Options."""

    scenes: Path = Path("runs/demo")
    """Run folder of the demo preset."""
    cue: Path = Path("runs/cue")
    """Run folder of the cue preset."""


def main(config: AssetConfig) -> None:
    """Write both models."""
    from foveate.checkpoint import PRETRAINED, load_model, save_model

    for name, run in asdict(config).items():
        save_model(load_model(run), PRETRAINED[name])
        print(f"written: {PRETRAINED[name].name}, {PRETRAINED[name].stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main_with_options(main, AssetConfig)

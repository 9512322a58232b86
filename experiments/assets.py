"""Pack the small models that ship with the package, in foveate/assets, from runs of their presets.

    python -m experiments.train scenes_rgb
    python -m experiments.assets --scenes-rgb runs/scenes_rgb

``foveate.load_model("scenes_rgb")`` loads it. The preset of every model has its name, but that of
``scenes`` is ``demo``. Weights are kept in half precision, and read back in single precision.

With a model the classifier of its world's reward ``recognition`` is fitted anew, and ships beside
it; ``--probes`` fits those of all models, in a few minutes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.cli import main_with_options


@dataclass(frozen=True, kw_only=True)
class AssetConfig:
    """Run folders by model; None = the one that ships stays as it is."""

    scenes: Path | None = None
    """Run of the preset demo."""
    scenes_blind: Path | None = None
    """Run of the preset of this name, as of the others below."""
    scenes_rgb: Path | None = None
    """RGB scenes of 32 pixels."""
    scenes_rgb_blind: Path | None = None
    """The same, blind."""
    scenes_rgb_96: Path | None = None
    """RGB scenes of 96 pixels."""
    scenes_rgb_96_blind: Path | None = None
    """The same, blind."""
    cue: Path | None = None
    """The cue world."""
    probes: bool = False
    """Fit the classifiers of all worlds anew."""

    def __post_init__(self) -> None:
        if not self.given and not self.probes:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in asdict(self))
            raise ValueError(f"no run is given to pack; give one or more of {options}")

    @property
    def given(self) -> dict[str, Path]:
        """The runs that are packed, by model."""
        runs = {name: run for name, run in asdict(self).items() if name != "probes"}
        return {name: run for name, run in runs.items() if run is not None}


def main(config: AssetConfig) -> None:
    """Write the models whose runs are given, and the classifiers that read them."""
    from envs.probing import SHIPPED, fit_shipped
    from foveate.checkpoint import PRETRAINED, load_model, save_model
    from foveate.finite import not_finite

    for name, run in config.given.items():
        model = load_model(run).half()
        if place := not_finite({"model": model.state_dict()}):
            raise ValueError(f"{place} of {run} is too large for half precision")
        save_model(model, PRETRAINED[name])
        print(f"written: {PRETRAINED[name].name}, {PRETRAINED[name].stat().st_size / 1e6:.2f} MB")
    fit_shipped(PRETRAINED if config.probes else config.given)
    print(f"written: {SHIPPED.name}")


if __name__ == "__main__":
    main_with_options(main, AssetConfig)

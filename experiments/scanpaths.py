"""Draw scanpaths as a sheet and an animation, and heat maps of the fixations.

    python -m experiments.scanpaths --run runs/demo --index 0 3 7

Shown are the numbered fixations, what has been seen (the rest is hatched), and the reconstruction
after each, unless the model predicts features alone. Writes
scanpaths.png, scanpaths.gif and fixations.png into the run folder, and scanpaths.json, which says
with which options. Pictures of other options are kept under a number.
"""

from __future__ import annotations

from dataclasses import dataclass

from experiments.cli import main_with_options
from experiments.evaluation.options import EvaluationOptions


@dataclass(frozen=True, kw_only=True)
class ScanpathConfig(EvaluationOptions):
    """Options of the drawings."""

    index: tuple[int, ...] | None = None
    """Test images to draw; None = the first six, or all of fewer."""
    order: str = "policy"
    """policy, or the name of any order, as experiments.train takes it."""
    heatmap_limit: int = 1000
    """Test images behind the heat maps."""

    def __post_init__(self) -> None:
        if self.index is not None and (not self.index or min(self.index) < 0):
            raise ValueError("index takes one or more test image numbers from 0")
        if self.heatmap_limit < 1:
            raise ValueError(f"heatmap_limit must be at least 1, got {self.heatmap_limit}")


def main(config: ScanpathConfig) -> None:
    """Draw as configured."""
    from experiments.evaluation.draw import draw
    from experiments.evaluation.report import present_drawings

    files = draw(
        config.load(),
        index=config.index,
        order=config.order,
        heatmap_limit=config.heatmap_limit,
    )
    present_drawings(files)


if __name__ == "__main__":
    main_with_options(main, ScanpathConfig)

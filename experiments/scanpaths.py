"""Draw scanpaths as a sheet and an animation, and heat maps of the fixations.

    python -m experiments.scanpaths --run runs/demo --index 0 3 7
    python -m experiments.scanpaths --run runs/demo --image photo.jpg --image holidays/

Shown are the numbered fixations, what has been seen (the rest is hatched), and the reconstruction
after each, unless the model predicts features alone. Writes
scanpaths.png, scanpaths.gif and fixations.png into the run folder or ``--out``, and scanpaths.json,
which says with which options. Pictures of other options are kept under a number. Those of
``--image`` need no data set, and are called scanpaths_own.png and so on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.cli import main_with_options
from experiments.evaluation.options import EvaluationOptions, check_image_numbers
from foveate.sizes import check_at_least


@dataclass(frozen=True, kw_only=True)
class ScanpathConfig(EvaluationOptions):
    """Options of the drawings."""

    image: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """A picture of your own, or a folder of pictures, in place of the test images; may be given
    again. Its shorter side is resized to what the model reads, and the center kept."""
    index: tuple[int, ...] | None = None
    """Images to draw; None = the first six test images, or the first 24 of ``--image``."""
    order: str = "policy"
    """policy, or the name of any order, as experiments.train takes it, or of an agent: uncertainty,
    saliency, or one of your own."""
    heatmap_limit: int = 1000
    """Images behind the heat maps."""
    out: Path | None = None
    """Folder of the drawings; None = the run's."""

    def __post_init__(self) -> None:
        if self.index is not None:
            check_image_numbers(self.index)
        if self.image and (self.data is not None or self.data_changed_ok):
            raise ValueError("data and data_changed_ok have no effect with --image; leave them out")
        check_at_least(self, 1, "heatmap_limit")


def main(config: ScanpathConfig) -> None:
    """Draw as configured."""
    from experiments.evaluation.draw import draw
    from experiments.evaluation.report import present_drawings

    files = draw(
        config.load(writes=config.out is None),
        index=config.index,
        order=config.order,
        heatmap_limit=config.heatmap_limit,
        image=config.image,
        out=config.out,
    )
    present_drawings(files)


if __name__ == "__main__":
    main_with_options(main, ScanpathConfig)

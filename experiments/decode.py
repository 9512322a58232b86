"""Decoding quality against forward passes: parallel by confidence, and one patch per pass.

    python -m experiments.decode --run runs/autonat
    python -m experiments.decode --run runs/autonat --against runs/igpt

A model with a masked stream over a palette generates images from nothing. Quality is the Frechet
distance of the model's own mean features (all patches visible) to those of test images. It compares
decodings with one another; it is no FID. ``--search`` descends it by finite differences (AutoNAT)
on training images, with the same noise at every call. Test images only measure what it found.
Intervals are over repetitions with other noise (Student's t). Writes decode.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.cli import main_with_options
from experiments.evaluation.options import EvaluationOptions, check_seed


@dataclass(frozen=True, kw_only=True)
class DecodeConfig(EvaluationOptions):
    """Options of the decoding. The run is of a masked stream and a palette, as recipe autonat."""

    passes: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Numbers of forward passes."""
    num_images: int = 256
    """Images generated for each distance."""
    repeats: int = 3
    """Times that each is generated, with other noise."""
    one_by_one: bool = True
    """Decode one patch per pass as well."""
    against: Path | None = None
    """Run folder of an autoregressive model of the same images (recipe igpt), which decodes one
    patch per pass in raster order; None = none."""
    search: int = 0
    """Updates of the search, for the passes of ``search_passes``; 0 = no search."""
    search_passes: int = 4
    """Passes of the schedule that is searched for."""
    seed: int = 0
    """Seed of all noise."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not self.passes or min((*self.passes, self.search_passes)) < 1 or self.num_images < 2:
            raise ValueError("passes and search_passes must be at least 1, num_images at least 2")
        if not self.search and self.search_passes != type(self).search_passes:
            raise ValueError("search_passes has no effect without --search")
        if self.repeats < 2 or self.search < 0:
            raise ValueError("repeats must be at least 2 (for an interval), search at least 0")


def main(config: DecodeConfig) -> None:
    """Decode as configured; write and print."""
    from experiments.evaluation.decode import decode
    from experiments.evaluation.report import present
    from experiments.runs import load_run

    result = decode(
        config.load(),
        passes=config.passes,
        num_images=config.num_images,
        repeats=config.repeats,
        one_by_one=config.one_by_one,
        against=None if config.against is None else load_run(config.against, config.device),
        search=config.search,
        search_passes=config.search_passes,
        seed=config.seed,
    )
    present(result, config.run / "decode.json", config.threads)


if __name__ == "__main__":
    main_with_options(main, DecodeConfig)

"""Score and draw the environments: who scans them how well, an id a row.

    python -m experiments.ids
    python -m experiments.ids --ids ScenesBlindScan CueGuess --steps 50000 --seeds 0 1 2

Random, center-out and uncertainty are measured on the test images of every id, and beside them
MaskablePPO and the native learner after a short training on its training images. The model is the
id's own and stays as it is. Of ids that scan the score is the area under the error curve; of the
others the return of an episode, nats. In ids that guess, a frozen linear classifier says the
guesses, and fixations are those learned for its own cross-entropy (Recognition). With ``--seeds 0 1
2`` learners are trained for each seed, and intervals are over seeds and images, not images alone.
Writes a JSON file, and a picture beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.cli import main_with_options
from experiments.evaluation.options import check_seeds
from foveate.sizes import check_at_least


@dataclass(frozen=True, kw_only=True)
class IdsConfig:
    """Options of the scores."""

    ids: tuple[str, ...] = ()
    """Environments, as ScenesRGBScan: a world and a task; none = all that have a test split."""
    limit: int = 200
    """Test images of each."""
    steps: int = 10_000
    """Environment steps of each training."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of training, and of the random order."""
    out: Path = Path("runs/ids.json")
    """File to write; the picture has its name, and ends in .png."""
    threads: int | None = None
    """CPU threads; None = torch's choice."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "limit", "steps")
        check_seeds(self.seeds)
        if self.out.suffix != ".json":
            raise ValueError(f"out must be a file that ends in .json, got {self.out}")
        # The ids as gymnasium takes them mean the same environments.
        short = (name.removeprefix("foveate/").removesuffix("-v0") for name in self.ids)
        names = dict.fromkeys(name.removesuffix("Test") for name in short)
        object.__setattr__(self, "ids", tuple(names))


def main(config: IdsConfig) -> None:
    """Measure as configured; write, draw and print."""
    from experiments.evaluation.ids.evaluate import score_ids

    # Before the work: a folder that cannot be made loses nothing then.
    config.out.parent.mkdir(parents=True, exist_ok=True)
    result, pictures = score_ids(
        config.ids,
        limit=config.limit,
        steps=config.steps,
        seeds=config.seeds,
        threads=config.threads,
    )
    result.write(config.out)
    pictures.draw(config.out.with_suffix(".png"))
    print(result.to_text())
    print(f"written: {config.out}, {config.out.with_suffix('.png').name}")


if __name__ == "__main__":
    main_with_options(main, IdsConfig)

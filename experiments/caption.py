"""Ask a model of captions how much of them is known after k fixations, and whose fixations tell.

    python -m experiments.caption --run runs/flickr8k
    python -m experiments.caption --run runs/seed_0 runs/seed_1 runs/seed_2

Bits per word after the fixations of the policy and of its controls, retrieval both ways, and
captions as they are written while the policy looks. Of several seeds the means and intervals are
over seeds and images. Writes caption.json and caption.png into the folder of the first run. What a
run was asked is kept as caption.npz in its own folder, and is not asked again.
"""

from __future__ import annotations

from dataclasses import dataclass

from experiments.cli import main_with_options
from experiments.evaluation.caption.options import (
    CANDIDATES,
    FIXATIONS,
    ORDERS,
    check_caption_options,
)
from experiments.evaluation.options import SeedsOptions, check_seed


@dataclass(frozen=True, kw_only=True)
class CaptionConfig(SeedsOptions):
    """Options of the measurement. The runs are of a recipe with captions."""

    fixations: tuple[int, ...] = FIXATIONS
    """Numbers of fixations after which captions are asked for; those above the run's budget are
    left out."""
    orders: tuple[str, ...] = ORDERS
    """Whose fixations beside the policy's: orders, agents, best_fixed, other_image, or your own,
    ``MODULE:NAME``."""
    limit: int = 1000
    """Test images."""
    retrieval_limit: int = 1000
    """Test images of the retrieval; 0 = no retrieval."""
    candidates: int = CANDIDATES
    """Captions of an image, and images of a caption, that the retrieval asks about in full, 10 or
    more; a first pass over few pairs chooses them. 0 = every pair is asked about, whose number
    grows with the square of the images."""
    examples: int = 4
    """Images whose captions the first run writes, and which are drawn; 0 = none."""
    seed: int = 0
    """Seed of the images that others' captions and paths come from, and of the retrieval's first
    pass."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed)
        sizes = self.limit, self.retrieval_limit, self.candidates, self.examples
        check_caption_options(self.fixations, *sizes)


def main(config: CaptionConfig) -> None:
    """Measure as configured; write, draw and print."""
    from experiments.evaluation.caption.evaluate import caption
    from experiments.evaluation.caption.picture import draw_captions
    from experiments.evaluation.report import present
    from experiments.tables import written_whole

    result, examples = caption(
        config.load(),
        fixations=config.fixations,
        orders=config.orders,
        limit=config.limit,
        retrieval_limit=config.retrieval_limit,
        candidates=config.candidates,
        examples=config.examples,
        seed=config.seed,
    )
    folder = config.run[0]
    picture = folder / "caption.png"
    present(result, folder / "caption.json", config.threads, [picture])
    if examples:
        with written_whole(picture) as partial:
            draw_captions(examples, partial)
        print(f"written: {picture}")


if __name__ == "__main__":
    main_with_options(main, CaptionConfig)

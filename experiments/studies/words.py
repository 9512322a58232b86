"""The grid of what captions teach an encoder. No torch here."""

from __future__ import annotations

from experiments.studies.grid import Asked, Cell, Grid

WORDS = "flickr8k --iterations 0"


def words() -> Grid:
    """Return models that learn from images, from their captions, and from both."""
    return Grid(
        name="words",
        question="Do captions teach an encoder what images alone do not, by as many operations?",
        baseline="image",
        cells=(
            Cell("image", f"{WORDS} --word-weight 0", "Unseen patches alone are predicted."),
            Cell("captions", f"{WORDS} --image-weight 0", "Captions alone are learned."),
            Cell("both", WORDS, "Both, as by the recipe."),
        ),
        asked=Asked(
            probes=(), own=("experiments.studies.transfer:imagenette",), signs=False, pictures=0
        ),
        teraflops=120.0,
    )

"""Orders that a model derives from the image: by similarity of patches to the whole.

They cost one more encoder forward pass per image, without gradient: a third of a training step's
encoder work. Early in training the similarities mean little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from foveate.choices import check_choice
from foveate.encoder import PatchEncoder
from foveate.orders import ORDERINGS, SUBSETS, Ordering, ordering, ranked
from foveate.paths import Grid


@torch.no_grad()
def similarity(model: PatchEncoder, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N"]:
    """Cosine of each patch's feature with the mean over patches, last layer.

    Reference: SemAIM (Song et al. 2024, arXiv 2312.10457), attention_type gap. Differs: no softmax,
    which leaves ranks as they are. Its default compares with the class token, which in training
    sees only itself.
    """
    tokens = model.features(images)[-1]
    return F.cosine_similarity(tokens, tokens.mean(1, keepdim=True), dim=-1)


def offsets(
    grid: Grid, row: Float[Tensor, "B"], col: Float[Tensor, "B"]
) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B N"]]:
    """Rows down and columns right from a center to each patch."""
    rows, cols = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    down = rows.flatten().to(row.device) - row.unsqueeze(1)
    right = cols.flatten().to(col.device) - col.unsqueeze(1)
    return down, right


def rings(grid: Grid, row: Float[Tensor, "B"], col: Float[Tensor, "B"]) -> Float[Tensor, "B N"]:
    """Number of the square ring, two patches wide, around a center that holds each patch."""
    down, right = offsets(grid, row, col)
    return ((torch.maximum(down.abs(), right.abs()) + 0.5) / 2).floor()


def distances(grid: Grid, row: Float[Tensor, "B"], col: Float[Tensor, "B"]) -> Float[Tensor, "B N"]:
    """Euclidean distance of each patch from a center, in patches."""
    return torch.hypot(*offsets(grid, row, col))


Key = Callable[[PatchEncoder, Tensor, torch.Generator | None], Tensor]


def _most_similar(
    model: PatchEncoder, images: Tensor
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    best = similarity(model, images).argmax(1)
    return (best // model.grid[1]).float(), (best % model.grid[1]).float()


def _middle(model: PatchEncoder, images: Tensor) -> tuple[Tensor, Tensor]:
    middle = images.new_tensor([(side - 1) / 2 for side in model.grid])
    return middle[0].expand(len(images)), middle[1].expand(len(images))


def _anywhere(
    model: PatchEncoder, images: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    place = torch.rand(2, len(images), generator=generator).to(images.device)
    sides = images.new_tensor(model.grid).unsqueeze(1)
    row, col = (place * sides).floor()
    return row, col


SEMANTIC: dict[str, Key] = {
    "outward_from_most_similar": lambda m, x, g: distances(m.grid, *_most_similar(m, x)),
    "most_similar_first": lambda m, x, g: -similarity(m, x),
    "rings_around_most_similar": lambda m, x, g: rings(m.grid, *_most_similar(m, x)),
    "rings_around_random": lambda m, x, g: rings(m.grid, *_anywhere(m, x, g)),
    "rings_around_center": lambda m, x, g: rings(m.grid, *_middle(m, x)),
}
"""Sort keys by name: SemAIM's attention_center (its default), attention, attention_guided,
stochastic_center and center2out. Its raster (a snake) and zigzag (a raster) are ``snake`` and
``raster`` in ``foveate.orders``."""


@dataclass(frozen=True)
class SemanticOrdering:
    """An order from a model's own features: ``rank = ordering(images)``, no ties."""

    name: str
    model: PatchEncoder

    def __call__(
        self, images: Float[Tensor, "B C H W"], *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B N"]:
        """Return the decoding step of every patch, from 0."""
        return ranked(SEMANTIC[self.name](self.model, images, generator), generator)


def model_ordering(name: str, model: PatchEncoder, **options: int | float) -> Ordering:
    """Build an order by name for a model: of its grid, or of its features, or ``MODULE:NAME``.

    Raises:
        ValueError: unknown name, or an option that the order does not take.
    """
    if name not in SEMANTIC:
        if ":" not in name:
            check_choice("order", name, [*ORDERINGS, *SUBSETS, *SEMANTIC])
        return ordering(name, model.grid, **options)
    if options:
        raise ValueError(f"order {name!r} takes no options, got {', '.join(sorted(options))}")
    return SemanticOrdering(name, model)

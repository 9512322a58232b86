"""Orders that a model derives from the image: by similarity of patches to the whole.

They cost one more encoder forward pass per image, without gradient: a third of a training step's
encoder work. Early in training the similarities mean little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from foveate.choices import lookup
from foveate.orders import ORDERINGS, SUBSETS, ordering
from foveate.orders.paths import Grid
from foveate.orders.ranks import Ordering, ranked
from foveate.orders.saccades import centers_of, distances


@runtime_checkable
class FeatureModel(Protocol):
    """What an order asks of a model."""

    @property
    def grid(self) -> Grid:
        """Rows and columns of patches."""
        ...

    def features(self, images: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B N D"], ...]:
        """Return a feature of every patch after every layer."""
        ...


@torch.no_grad()
def similarity(model: FeatureModel, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N"]:
    """Cosine of each patch's feature with the mean over patches, last layer.

    Features are taken through the encoder's own final LayerNorm.

    Reference: SemAIM (Song et al. 2024, arXiv 2312.10457), attention_type gap. Differs: no softmax,
    which leaves ranks as they are; SemAIM's LayerNorm is that of its query stream. Its default
    compares with the class token, which in training
    sees only itself.
    """
    tokens = model.features(images)[-1]
    return F.cosine_similarity(tokens, tokens.mean(1, keepdim=True), dim=-1)


def _places(grid: Grid, device: torch.device) -> Float[Tensor, "N 2"]:
    """Return row and column of every patch."""
    return centers_of(torch.arange(grid[0] * grid[1], device=device).unsqueeze(1), grid)


def rings(grid: Grid, center: Int[Tensor, "2 B"]) -> Int[Tensor, "B N"]:
    """Count the square windows around a center that each patch lies outside of.

    They are 2, 6, 10, ... patches wide, from ``center - width / 2`` on, and shifted to stay inside
    the grid.

    Reference: SemAIM's models_semaim.py, whose table for 14 x 14 patches this is, for all grids.
    Differs: that table leaves centers 2 and 13 out of their own innermost window, 11 at its edge,
    and the last row and column out of all. Here the wider windows of centers near the far edge are
    rows 8 to 13 (centers 11 to 13) and 4 to 13 (centers 9 to 13), there 7 to 12 and 3 to 12. SemAIM
    draws no random center in the last row or column.
    """
    outside = torch.zeros(center.shape[1], grid[0] * grid[1], dtype=torch.long).to(center.device)
    axes = _places(grid, center.device).unbind(1)
    for width in range(2, max(grid), 4):
        inside = torch.ones_like(outside, dtype=torch.bool)
        for place, middle, side in zip(axes, center, grid, strict=True):
            first = (middle - width // 2).clamp(0, max(side - width, 0)).unsqueeze(1)
            inside &= (place >= first) & (place < first + width)
        outside += ~inside
    return outside


def center_distances(grid: Grid, center: Int[Tensor, "2 B"]) -> Float[Tensor, "B N"]:
    """Euclidean distance of each patch from a center, in patches."""
    return distances(center.T.unsqueeze(1).float(), _places(grid, center.device).unsqueeze(0))


Key = Callable[[FeatureModel, Tensor, torch.Generator | None], Tensor]


def _most_similar(model: FeatureModel, images: Tensor) -> Int[Tensor, "2 B"]:
    best = similarity(model, images).argmax(1)
    return torch.stack([best // model.grid[1], best % model.grid[1]])


def _middle(model: FeatureModel, images: Tensor) -> Int[Tensor, "2 B"]:
    middle = torch.tensor(model.grid, device=images.device) // 2
    return middle.unsqueeze(1).expand(2, len(images))


def _anywhere(
    model: FeatureModel, images: Tensor, generator: torch.Generator | None
) -> Int[Tensor, "2 B"]:
    place = torch.rand(2, len(images), generator=generator) * torch.tensor(model.grid).unsqueeze(1)
    return place.long().to(images.device)


SEMANTIC: dict[str, Key] = {
    "outward_from_most_similar": lambda m, x, g: center_distances(m.grid, _most_similar(m, x)),
    "most_similar_first": lambda m, x, g: -similarity(m, x),
    "rings_around_most_similar": lambda m, x, g: rings(m.grid, _most_similar(m, x)),
    "rings_around_random": lambda m, x, g: rings(m.grid, _anywhere(m, x, g)),
    "rings_around_center": lambda m, x, g: rings(m.grid, _middle(m, x)),
}
"""Sort keys by name: SemAIM's attention_center (of its published commands), attention,
attention_guided, stochastic_center and center2out. Its raster (a snake) and zigzag (a raster) are
``snake`` and ``raster`` in ``foveate.orders``."""


@dataclass(frozen=True)
class SemanticOrdering:
    """An order from a model's own features: ``rank = ordering(images)``, no ties."""

    name: str
    model: FeatureModel
    ties: ClassVar[bool] = False

    def __call__(
        self, images: Float[Tensor, "B C H W"], *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B N"]:
        """Return the decoding step of every patch, from 0."""
        return ranked(SEMANTIC[self.name](self.model, images, generator), generator)


def model_ordering(name: str, model: FeatureModel, **options: int | float) -> Ordering:
    """Build an order by name for a model: of its grid, or of its features, or ``MODULE:NAME``.

    Raises:
        ValueError: unknown name, or an option that the order does not take.
    """
    lookup("order", name, {**ORDERINGS, **SUBSETS, **SEMANTIC})
    if name not in SEMANTIC:
        return ordering(name, model.grid, **options)
    if options:
        raise ValueError(f"order {name!r} takes no options, got {', '.join(sorted(options))}")
    return SemanticOrdering(name, model)

"""foveate: orders, the any-order transformer, data and probes.

The public names below are imported when they are first used, so that ``import foveate`` needs no
torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from foveate.lazy import importing

if TYPE_CHECKING:
    from foveate.checkpoint import load_model
    from foveate.config import ModelConfig
    from foveate.data import ImageSet, load_data
    from foveate.leaks import assert_no_leak
    from foveate.model import AnyOrderTransformer
    from foveate.orders import Ordering, ordering
    from foveate.recipes import RECIPES

__all__ = [
    "RECIPES",
    "AnyOrderTransformer",
    "ImageSet",
    "ModelConfig",
    "Ordering",
    "assert_no_leak",
    "load_data",
    "load_model",
    "ordering",
]

HOMES = {
    "RECIPES": "foveate.recipes",
    "AnyOrderTransformer": "foveate.model",
    "ImageSet": "foveate.data",
    "ModelConfig": "foveate.config",
    "Ordering": "foveate.orders",
    "assert_no_leak": "foveate.leaks",
    "load_data": "foveate.data",
    "load_model": "foveate.checkpoint",
    "ordering": "foveate.orders",
}
"""The module of each public name."""

__getattr__ = importing(__name__, HOMES)

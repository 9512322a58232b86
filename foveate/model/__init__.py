"""The any-order transformer: encoder, decoder, targets, tracks of words, and scanning."""

from foveate.model.predictor import InTurn
from foveate.model.timm_export import to_timm
from foveate.model.transformer import AnyOrderTransformer

__all__ = ["AnyOrderTransformer", "InTurn", "to_timm"]

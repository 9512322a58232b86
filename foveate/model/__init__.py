"""The any-order transformer: encoder, decoder, targets, tracks of words, and scanning."""

from foveate.model.transformer import AnyOrderTransformer, InTurn

__all__ = ["AnyOrderTransformer", "InTurn"]

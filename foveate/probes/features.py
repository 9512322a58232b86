"""Frozen features: patch tokens of the encoder or the decoder, with every patch visible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from foveate.data import ImageSet
from foveate.devices import device_of
from foveate.model import AnyOrderTransformer

Attention = Literal["full", "causal"]
States = Literal["content", "query"]
"""Which states are read: the encoder's of patches (content), or the decoder's of queries."""
IMAGES_AT_ONCE = 500
"""Images that a frozen model or probe reads at once."""


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Evaluate without gradients; the module's mode is restored."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)


def half(tokens: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """Return float16, with what is too large for it at its end."""
    largest = torch.finfo(torch.float16).max
    return tokens.clamp(-largest, largest).half()


def query_features(
    model: AnyOrderTransformer, images: Float[Tensor, "B C H W"], attention: Attention = "full"
) -> Float[Tensor, "B N D"]:
    """Final decoder states of every position, in raster order, all patches visible to each.

    With full attention every patch of the memory sees every other, with causal attention those that
    precede it in raster order.

    Raises:
        ValueError: the model has no decoder.
    """
    if model.config.decoder_depth == 0:
        raise ValueError("a model without a decoder has no query states; probe content")
    place = torch.arange(model.num_patches, device=images.device).expand(len(images), -1)
    every = torch.full_like(place, model.num_patches)
    seen, ties = (every, None) if attention == "full" else (place + 1, False)
    memory = model.encode(images, place, seen, ties)
    return model.decode(memory, place, every).states


def start_features(
    model: AnyOrderTransformer, images: Float[Tensor, "B C H W"]
) -> tuple[Float[Tensor, "B D"], ...]:
    """Start token (timm's class token) after every encoder block, with full attention.

    So is SAIM (arXiv 2212.01610) probed, whose class token is as blind in training.
    """
    return tuple(layer[:, 0] for layer in model.all_layers(images))


def patch_features(
    model: AnyOrderTransformer,
    images: Float[Tensor, "B C H W"],
    attention: Attention = "full",
    states: States = "content",
) -> tuple[Float[Tensor, "B N D"], ...]:
    """Patch tokens after every encoder block; of the states of queries there is one layer."""
    if states == "query":
        return (query_features(model, images, attention),)
    return model.features(images, attention)


def extract_features(
    model: AnyOrderTransformer,
    image_set: ImageSet,
    *,
    attention: Attention = "full",
    states: States = "content",
    pooling: Literal["mean", "cls"] = "mean",
) -> dict[int, Float[np.ndarray, "M D"]]:
    """Features of every layer (keys 0..depth-1; 0 alone for queries), all patches visible.

    Patch tokens averaged, or the start token (``cls``). Causal attention is in raster order.

    Raises:
        ValueError: the start token of causal attention, which sees nothing, or of query states.
    """
    if pooling == "cls" and (attention, states) != ("full", "content"):
        raise ValueError(
            "pooling cls needs full attention and content states: with causal attention the "
            "start token sees only itself, and queries have none"
        )
    device = device_of(model)
    parts = []
    with frozen(model):
        for images in image_set.batches(IMAGES_AT_ONCE, device):
            if pooling == "cls":
                pooled = start_features(model, images)
            else:
                layers = patch_features(model, images, attention, states)
                pooled = tuple(tokens.mean(1) for tokens in layers)
            parts.append([values.cpu() for values in pooled])
    return {layer: torch.cat(rows).numpy() for layer, rows in enumerate(zip(*parts, strict=True))}


def pixel_features(image_set: ImageSet) -> Float[np.ndarray, "M D"]:
    """Raw pixels in [0, 1], flattened: what any representation has to beat."""
    pixels: Float[np.ndarray, "M D"] = image_set.images.flatten(1).numpy().astype(np.float32) / 255
    return pixels

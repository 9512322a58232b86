"""Features of what has been seen after each of several numbers of fixations.

All of them come from one causal pass over the longest scanpath: what a token or a query says after
k fixations depends on the patches seen until then alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from torch import Tensor

from foveate.choices import check_choice
from foveate.data import ImageSet
from foveate.devices import device_of
from foveate.model import AnyOrderTransformer
from foveate.model.encoder import take
from foveate.orders.ranks import as_segments
from foveate.orders.saccades import centers_of
from foveate.orders.segments import patches_in
from foveate.probes.features import frozen, half
from foveate.probes.heads import Read
from foveate.probes.seen import encode_after, mean_of_seen

Pooled = Literal["seen", "last", "queries", "queries_2x2"]
"""Ways to make one vector of what has been seen.

``seen``: mean over the states of the patches seen and of the periphery; of the start token where
there is neither. ``last``: the state of the newest token. ``queries``: the decoder's final states,
averaged over all N positions. ``queries_2x2``: averaged over each quarter of the grid, 4 D values;
quarters of a grid of odd sides overlap by a row or column.
"""
POOLED: tuple[Pooled, ...] = get_args(Pooled)
LEAST_PLACE_WIDTH = 32
"""Values, at least, that say a token's place."""
QUERIES_AT_ONCE = 2**15
"""Decoder queries of a batch, so that memory does not grow with the grid."""


@dataclass(frozen=True)
class PartialFeatures:
    """What is known of M images after each of K numbers of fixations."""

    pooled: dict[Pooled, Float[Tensor, "M K _"]]
    """Vectors by their name, as wide as they are."""
    tokens: Float[Tensor, "M S W"] | None
    """States of the visible tokens, each with its place (:func:`token_places`): the start token,
    the periphery, and the patches as they are seen. In float16; None = not asked for."""
    num_tokens: Int[Tensor, "M K"]
    """How many of them are visible after each number of fixations."""

    def read_tokens(self, which: int | Int[Tensor, " M"]) -> Read:
        """Return what reads the tokens visible after the given entry of K; zeros are padding.

        Args:
            which: the entry, of all images or of each.
        """
        assert self.tokens is not None, "tokens were not asked for"
        tokens, num_tokens = self.tokens, self.num_tokens
        entry = torch.as_tensor(which).expand(len(tokens))

        def read(index: Tensor) -> Tensor:
            number = num_tokens[index, entry[index]]
            place = torch.arange(int(number.max()))
            return tokens[index, : len(place)] * (place < number.unsqueeze(1)).unsqueeze(2)

        return read


def place_width(num_heads: int) -> int:
    """Return how many values say a place: enough, and a multiple of 4 and of the heads."""
    step = math.lcm(4, num_heads)
    return step * math.ceil(LEAST_PLACE_WIDTH / step)


def token_places(model: AnyOrderTransformer) -> Float[Tensor, "S W"]:
    """Sine-cosine places of all tokens: zeros for the start token, then periphery, then patches.

    The periphery's are those of its own grid.
    """
    width, side = place_width(model.config.num_heads), model.config.periphery
    grids = [grid for grid in ((side, side), model.grid) if grid[0]]
    codes = [build_sincos2d_pos_embed(list(grid), width, temperature=100.0) for grid in grids]
    return torch.cat([torch.zeros(1, width), *codes])


def check_layer(depth: int, layer: int | None) -> None:
    """Raise ValueError unless there is such a layer, from 1; None = all of them."""
    if layer is not None and not 1 <= layer <= depth:
        raise ValueError(
            f"fixations_layer must lie in 1..{depth}, got {layer}; leave it out for all of them"
        )


def content_states(
    layers: Sequence[Float[Tensor, "B S D"]], layer: int | None
) -> Float[Tensor, "B S D"]:
    """Return the states after one layer, from 1; None = the mean of all, each layer-normalized."""
    check_layer(len(layers), layer)
    if layer is not None:
        return layers[layer - 1]
    normalized = [F.layer_norm(states, states.shape[-1:]) for states in layers]
    return torch.stack(normalized).mean(0)


@torch.no_grad()
def features_after(
    model: AnyOrderTransformer,
    images: Float[Tensor, "B C H W"],
    order: Int[Tensor, "B T *S"],
    after: Sequence[int],
    *,
    pooled: Sequence[Pooled] = POOLED,
    tokens: bool = True,
    layer: int | None = None,
) -> PartialFeatures:
    """Compute what is known after each number of fixations in ``after``, in one causal pass.

    A fixation is a patch, (B, T), or a segment, (B, T, S), padded with -1. After 0 fixations the
    periphery and the start token are visible.

    Args:
        model: with a causal stream.
        images: pixels in [0, 1].
        order: the scanpaths.
        after: K numbers of fixations.
        pooled: which vectors are made.
        tokens: whether the tokens are kept.
        layer: encoder layer of the content, from 1; None = see :func:`content_states`.

    Raises:
        ValueError: a number of fixations does not lie in 0..T, there is no such layer or vector, or
            the model has no causal stream, or no decoder whose queries could be read.
    """
    for name in pooled:
        check_choice("read-out", name, POOLED)
    layers, by_rank, counts = encode_after(model, images, order, after)
    states = content_states(layers, layer)
    vectors: dict[Pooled, Tensor] = {
        "seen": mean_of_seen(states, counts + model.num_always - 1),
        "last": take(states, counts + model.num_always - 1),
    }
    if {"queries", "queries_2x2"} & {*pooled}:
        vectors |= pooled_queries(model, layers, counts)
    vectors = {name: vectors[name] for name in pooled}
    kept = None
    if tokens:
        places = token_places(model).to(states.device)
        length = layers[-1].shape[1] - model.num_always
        first = torch.arange(model.num_always, device=counts.device).expand(len(counts), -1)
        of_tokens = torch.cat([first, by_rank[:, :length] + model.num_always], dim=1)
        kept = half(torch.cat([states, places[of_tokens]], dim=2))
    return PartialFeatures(vectors, kept, counts + model.num_always)


def pooled_queries(
    model: AnyOrderTransformer,
    layers: tuple[Float[Tensor, "B S D"], ...],
    counts: Int[Tensor, "B K"],
) -> dict[Pooled, Float[Tensor, "B K _"]]:
    """Average the final decoder states over all positions, and over each quarter of the grid."""
    if model.config.decoder_depth == 0:
        raise ValueError("a model without a decoder has no query states; read seen or last")
    states = model.decode_everywhere(layers, counts).states.unflatten(1, (-1, model.num_patches))
    on_grid = states.transpose(2, 3).flatten(0, 1).unflatten(2, model.grid)
    quarters = F.adaptive_avg_pool2d(on_grid, 2).flatten(1).unflatten(0, counts.shape)
    return {"queries": states.mean(2), "queries_2x2": quarters}


def partial_features(
    model: AnyOrderTransformer,
    image_set: ImageSet,
    order: Int[Tensor, "M T *S"],
    after: Sequence[int],
    *,
    pooled: Sequence[Pooled] = POOLED,
    tokens: bool = True,
    layer: int | None = None,
) -> PartialFeatures:
    """Do as :func:`features_after` does, for many images; the features lie on the CPU."""
    device = device_of(model)
    rows = max(1, QUERIES_AT_ONCE // (len(after) * model.num_patches))
    parts = []
    with frozen(model):
        for images, paths in zip(image_set.batches(rows, device), order.split(rows), strict=True):
            found = features_after(
                model, images, paths.to(device), after, pooled=pooled, tokens=tokens, layer=layer
            )
            parts.append(found)
    vectors = {name: torch.cat([part.pooled[name].cpu() for part in parts]) for name in pooled}
    longest = max(int(part.num_tokens.max()) for part in parts)
    kept = [
        F.pad(part.tokens, (0, 0, 0, longest - part.tokens.shape[1])).cpu()
        for part in parts
        if part.tokens is not None
    ]
    numbers = torch.cat([part.num_tokens.cpu() for part in parts])
    return PartialFeatures(vectors, torch.cat(kept) if kept else None, numbers)


# --- controls without the model


def seen_after(
    order: Int[Tensor, "B T *S"], after: Sequence[int], num_patches: int
) -> Bool[Tensor, "B K N"]:
    """Which patches have been seen after each number of fixations (True = seen)."""
    segments = as_segments(order)
    opened = patches_in(segments, num_patches).cumsum(1) > 0
    before = F.pad(opened, (0, 0, 1, 0))
    return before[:, list(after)]


def path_features(
    order: Int[Tensor, "B T *S"], after: Sequence[int], grid: tuple[int, int]
) -> list[Float[Tensor, "B _"]]:
    """Say where a scan has been, without a pixel: the map of what it saw, and its places in turn.

    Returns:
        After each number k of fixations N + 2 k values: 1 where a patch has been seen, then row
        and column of every fixation, of a segment the mean of its patches.
    """
    num_patches = grid[0] * grid[1]
    seen = seen_after(order, after, num_patches).float()
    segments = as_segments(order)
    middle = centers_of(segments, grid).nan_to_num(0.0)
    return [
        torch.cat([seen[:, entry], middle[:, :number].flatten(1)], dim=1)
        for entry, number in enumerate(after)
    ]


def pixels_after(
    patches: Float[Tensor, "B N P"], order: Int[Tensor, "B T *S"], number: int
) -> Float[Tensor, "B _"]:
    """Return the pixels that a scan has seen, 0 elsewhere, and the map of what it saw."""
    seen = seen_after(order, (number,), patches.shape[1])[:, 0]
    return torch.cat([(patches * seen.unsqueeze(2)).flatten(1), seen.float()], dim=1)

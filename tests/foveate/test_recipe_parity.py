"""Every recipe's loss against a slow reference: raster order, dense masks of ranks, no cleverness.

The reference follows the public code of SAIM, whose masks are ``rank_j <= rank_i`` for content and
``rank_j < rank_i`` for queries, and uses the weights of the model alone.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.model import AnyOrderTransformer
from foveate.model.memory import make_memory
from foveate.model.parallel_decoding import DecodingSchedule
from foveate.model.tracks import track_may_attend
from foveate.orders import ordering
from foveate.orders.semantic import model_ordering
from foveate.patches import PixelScale
from foveate.recipes import RECIPES

OWN = [name for name, row in RECIPES.items() if row.queries == "own"]


def cut(images: Tensor, side: int) -> Tensor:
    """Patches in raster order; each lists rows, columns, then channels."""
    rows = []
    for top in range(0, images.shape[2], side):
        for left in range(0, images.shape[3], side):
            square = images[:, :, top : top + side, left : left + side]
            rows.append(square.permute(0, 2, 3, 1).flatten(1))
    return torch.stack(rows, 1)


def nearest_ids(model: AnyOrderTransformer, images: Tensor) -> Tensor:
    """The palette entry of every pixel of every patch of gray images."""
    pixels = cut(images, model.config.patch_size)
    return (pixels.unsqueeze(-1) - model.palette.flatten()).abs().argmin(-1)


def attend(queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor, heads: int) -> Tensor:
    """Softmax attention with minus infinity where it is not allowed."""
    split = [each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (queries, keys, values)]
    scores = split[0] @ split[1].transpose(-1, -2) / math.sqrt(split[0].shape[-1])
    scores = scores + torch.where(allowed, 0.0, -torch.inf).unsqueeze(1)
    return (scores.softmax(-1) @ split[2]).transpose(1, 2).flatten(2)


def self_attend(layer: nn.Module, tokens: Tensor, allowed: Tensor, heads: int) -> Tensor:
    return layer.proj(attend(*layer.qkv(tokens).chunk(3, -1), allowed, heads))


def encoder_block(block: nn.Module, tokens: Tensor, allowed: Tensor, heads: int) -> Tensor:
    tokens = tokens + self_attend(block.attn, block.norm1(tokens), allowed, heads)
    return tokens + block.mlp(block.norm2(tokens))


def memories(model: AnyOrderTransformer, layers: list[Tensor]) -> list[Tensor]:
    """What each decoder block reads, written out."""
    depth, memory = model.config.decoder_depth, model.decoder.memory
    if model.config.memory == "last":
        return [layers[-1]] * depth
    if model.config.memory == "layers":
        step = len(layers) // depth
        return [memory.norms[i](layers[(i + 1) * step - 1]) for i in range(depth)]
    assert model.config.memory == "mixed"
    sums = [sum(w * layer for w, layer in zip(row, layers, strict=True)) for row in memory.weight]
    return [norm(each) for norm, each in zip(memory.norms, sums, strict=True)]


def decode(
    model: AnyOrderTransformer, decoder: nn.Module, read: list[Tensor], rank: Tensor, least: int
) -> Tensor:
    """Every patch as a query; it sees patches whose rank is below its own by ``least`` or more."""
    heads = model.config.num_heads
    difference = rank.unsqueeze(2) - rank.unsqueeze(1)
    allowed = F.pad(difference >= least, (1, 0), value=True)
    queries = decoder.position.expand(len(rank), -1, -1)
    for block, memory in zip(decoder.blocks, read, strict=True):
        if model.config.lateral == "segment":
            normed = block.lateral_norm(queries)
            queries = queries + self_attend(block.lateral, normed, difference >= 0, heads)
        keys, values = block.key_value(memory).chunk(2, -1)
        query = block.query(block.norm1(queries))
        queries = queries + block.proj(attend(query, keys, values, allowed, heads))
        queries = queries + block.mlp(block.norm2(queries))
    return decoder.head(decoder.norm(queries))


def encode(model: AnyOrderTransformer, images: Tensor, rank: Tensor) -> list[Tensor]:
    """All layers of [start, patches in raster order]; the last one normalized."""
    config, size = model.config, model.num_patches
    start, position = model.encoder.cls_token, model.encoder.pos_embed
    if config.reads_colors:
        ids = nearest_ids(model, images)
        content = sum(
            model.color_embed.weight[ids[..., i] + i * config.num_colors]
            for i in range(ids.shape[-1])
        )
    else:
        kernel = model.encoder.patch_embed.proj
        pixels = (images - 0.5) / 0.25
        content = F.conv2d(pixels, kernel.weight, kernel.bias, config.patch_size)
        content = content.flatten(2).transpose(1, 2)
    if config.stream == "masked":
        content = torch.where((rank > 0).unsqueeze(-1), model.mask_token, content)
    tokens = torch.cat([start.expand(len(images), -1, -1), content], dim=1) + position
    allowed = F.pad(rank.unsqueeze(1) <= rank.unsqueeze(2), (1, 0, 1, 0), value=False)
    allowed[:, :, 0] = True  # All see the start token, which sees itself alone.
    if config.stream == "masked":
        allowed = torch.ones_like(allowed)
    elif config.decoder_depth == 0:
        for row, ranks in zip(tokens, rank.tolist(), strict=True):
            order = sorted(range(size), key=ranks.__getitem__)
            for before, patch in zip([-1, *order], order, strict=False):
                row[before + 1] += model.next_position[patch]
    layers = []
    for block in model.encoder.blocks:
        tokens = encoder_block(block, tokens, allowed, config.num_heads)
        layers.append(tokens)
    return [*layers[:-1], model.encoder.norm(tokens)]


def reference_predictions(model: AnyOrderTransformer, images: Tensor, rank: Tensor) -> list[Tensor]:
    """Of every patch, (B, N, T): in turn, and, if there is such a decoder, of what is seen."""
    layers, config = encode(model, images, rank), model.config
    if config.stream == "masked":
        return [model.decoder.head(model.decoder.norm(layers[-1][:, 1:]))]
    if config.decoder_depth == 0:
        # The state that predicts a patch is of the patch one rank before it; of the first, start's.
        before = rank.argsort(1).gather(1, (rank - 1).clamp_min(0)) + 1
        before = torch.where(rank > 0, before, 0)
        states = layers[-1].gather(1, before.unsqueeze(-1).expand(-1, -1, config.embed_dim))
        return [model.decoder.head(model.decoder.norm(states))]
    if config.lateral == "joint":
        visible = rank[0] == 0
        assert bool((rank == rank[:1]).all()), "one image at a time, or images that agree"
        seen = layers[-1][:, F.pad(visible, (1, 0), value=True)]
        tokens = torch.cat([seen, model.decoder.position[~visible].expand(len(rank), -1, -1)], 1)
        everything = torch.ones(1, tokens.shape[1], tokens.shape[1], dtype=torch.bool)
        for block in model.decoder.blocks:
            tokens = encoder_block(block, tokens, everything, config.num_heads)
        values = model.decoder.head(model.decoder.norm(tokens))
        out = values.new_zeros(len(rank), model.num_patches, values.shape[-1])
        out[:, ~visible] = values[:, seen.shape[1] :]
        return [out]
    if config.memory == "taps":
        found = []
        for decoder, least in ((model.decoder, 1), (model.visible_decoder, 0)):
            tapped = [
                norm(layers[i])
                for i, norm in zip(decoder.memory.read, decoder.memory.norms, strict=True)
            ]
            read = decoder.memory.project(torch.cat(tapped, -1)).chunk(config.decoder_depth, -1)
            found.append(decode(model, decoder, list(read), rank, least))
        return found
    return [decode(model, model.decoder, memories(model, layers), rank, 1)]


def reference_target(model: AnyOrderTransformer, images: Tensor) -> Tensor:
    """Pixels of every patch, as MAE and SAIM normalize them: the unbiased variance plus 1e-6."""
    pixels, side = (images - 0.5) / 0.25, model.config.patch_size
    if model.config.target == "blurred":
        axis = torch.arange(9.0) - 4
        kernel = (-(axis**2) / 2).exp()
        kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
        channels = images.shape[1]
        weight = kernel.expand(channels, 1, 9, 9)
        pixels = F.conv2d(pixels, weight, padding=4, groups=channels)
    patches = cut(pixels, side)
    mean, size = patches.mean(-1, keepdim=True), patches.shape[-1]
    variance = (patches - mean).square().sum(-1, keepdim=True) / (size - 1)
    return (patches - mean) / (variance + 1e-6).sqrt()


def reference_loss(
    model: AnyOrderTransformer, images: Tensor, rank: Tensor, features: Tensor | None
) -> Tensor:
    """Mean over all patches that are predicted, of all images together."""
    config = model.config
    found = reference_predictions(model, images, rank)
    two_ranks = config.ranks == "two" or not config.predict_first
    counted = [rank > 0 if two_ranks else rank >= 0, rank < rank.amax(1, keepdim=True)]
    total = torch.zeros(())
    for values, counts in zip(found, counted, strict=False):
        if features is not None:
            error = (F.normalize(values, dim=-1) - F.normalize(features, dim=-1)).square().sum(-1)
        elif config.target == "colors":
            ids = nearest_ids(model, images)
            log_p = values.unflatten(-1, (ids.shape[-1], -1)).log_softmax(-1)
            nearest = -log_p.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
            share = config.label_smoothing
            error = ((1 - share) * nearest - share * log_p.mean(-1)).mean(-1)
        else:
            error = (values - reference_target(model, images)).square().mean(-1)
        total = total + error[counts].mean()
    return total


SHALLOW = ["saim", "semaim"]
"""Whose query stream may have fewer blocks than the encoder."""


@pytest.mark.parametrize(
    ("name", "changed"),
    [*((name, {}) for name in OWN), *((name, {"decoder_depth": 2}) for name in SHALLOW)],
    ids=[*OWN, *(f"{name}_shallow" for name in SHALLOW)],
)
def test_a_recipes_loss_is_that_of_a_slow_reference(name: str, changed: dict[str, int]) -> None:
    torch.manual_seed(0)
    row = replace(RECIPES[name], **changed)
    colors = row.target == "colors"
    sizes = {"image_size": (8, 8), "in_chans": 1 if colors else 3, "embed_dim": 16, "num_heads": 2}
    width = 6 if row.target == "features" else None
    model = AnyOrderTransformer(
        replace(row, num_colors=5).model_config(depth=4, patch_size=2, feature_dim=width, **sizes)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # No zeros that hide a missing part.
            parameter.add_(0.1 * torch.randn_like(parameter))
        if colors:
            model.palette.copy_(torch.linspace(0, 1, 5).unsqueeze(1))
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, sizes["in_chans"], 8, 8, generator=generator)
    rank = model_ordering(row.order, model, **row.order_options)(images, generator=generator)
    if row.lateral == "joint":
        rank = rank[:1].expand(2, -1)
    features = torch.randn(2, 16, width, generator=generator) if width else None
    with torch.no_grad():
        loss = model(images, rank, features=features)
        torch.testing.assert_close(loss, reference_loss(model, images, rank, features))


@pytest.mark.parametrize(
    ("name", "sizes", "expected"),
    [
        ("saim", {"depth": 6, "decoder_depth": 2}, (2, 5)),
        ("saim", {"depth": 12, "decoder_depth": 12}, tuple(range(12))),
        # The public code's blocks 6, 8, 10 and 12, from 0.
        ("digpt", {"depth": 12, "decoder_depth": 2}, (5, 7, 9, 11)),
    ],
)
def test_decoder_blocks_read_the_layers_of_public_code(
    name: str, sizes: dict[str, int], expected: tuple[int, ...]
) -> None:
    row = replace(RECIPES[name], decoder_depth=sizes["decoder_depth"])
    width = 6 if row.target == "features" else None
    config = row.model_config(
        depth=sizes["depth"], image_size=(8, 8), in_chans=3, embed_dim=16, feature_dim=width
    )
    assert make_memory(config).read == expected


def test_with_imagenets_units_color_targets_are_those_of_public_code() -> None:
    """MAE and SAIM normalize each channel by ImageNet's numbers before they normalize patches."""
    torch.manual_seed(0)
    images = torch.rand(2, 3, 8, 8) * torch.tensor([0.3, 0.6, 0.9]).view(-1, 1, 1)
    targets = []
    for units in ("centered", "imagenet"):
        row = replace(RECIPES["mae"], pixel_units=units)
        config = row.model_config(depth=1, image_size=(8, 8), in_chans=3, embed_dim=16)
        targets.append(AnyOrderTransformer(config).targets(images))
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    patches = cut((images - mean.view(-1, 1, 1)) / deviation.view(-1, 1, 1), 4)
    centered = patches - patches.mean(-1, keepdim=True)
    public = centered / (patches.var(-1, keepdim=True) + 1e-6) ** 0.5
    torch.testing.assert_close(targets[1], public)
    assert float(torch.corrcoef(torch.stack(targets).flatten(1))[0, 1]) < 0.999


def test_pixels_return_from_their_units() -> None:
    for units, channels in (("centered", 2), ("imagenet", 1), ("imagenet", 3)):
        scale, images = PixelScale(units, channels), torch.rand(2, channels, 3, 5)
        patches = scale.normalize(images).permute(0, 2, 3, 1).flatten(1)
        expected = images.permute(0, 2, 3, 1).flatten(1)
        torch.testing.assert_close(scale.denormalize(patches), expected)
    gray = PixelScale("imagenet", 1)
    assert (float(gray.mean), float(gray.deviation)) == pytest.approx((0.449, 0.226))


@pytest.mark.parametrize(
    ("grid", "visible"), [((8, 8), 16), ((7, 7), 12), ((7, 9), 15), ((1, 2), 1)]
)
def test_what_is_no_whole_patch_stays_hidden_as_in_mae(grid: tuple[int, int], visible: int) -> None:
    rank = ordering("random_subset", grid)(torch.empty(3, 1, 1, 1))
    assert (rank == 0).sum(1).tolist() == [visible] * 3


def test_maskgits_schedule_by_hand() -> None:
    schedule = DecodingSchedule.cosine(4)
    root = math.sqrt(0.5)
    expected = (math.sqrt((1 + root) / 2), root, math.sqrt((1 - root) / 2))
    assert schedule.hidden == pytest.approx(expected)
    assert schedule.choice_temperature == pytest.approx((3.375, 2.25, 1.125))
    assert schedule.sampling_temperature == (1.0,) * 4


def test_the_mask_of_two_tracks_by_hand() -> None:
    """Two tokens of the image, then two tracks of two words."""
    allowed = track_may_attend(2, 2, 2, torch.device("cpu"))[0, 0].int().tolist()
    assert allowed == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 1, 1],
    ]

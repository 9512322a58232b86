"""Weights of timm's vision transformers as the start of an encoder: the way back of ``to_timm``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.data.config import resolve_model_data_config
from timm.models import load_state_dict
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from foveate.forms import is_timm_folder
from foveate.model.encoder import PatchEncoder

FITTING = "choose --image-size, --patch-size, --embed-dim, --depth and --num-heads to fit"


@dataclass(frozen=True)
class TimmWeights:
    """Weights of a vision transformer, and what is known of it beside them."""

    weights: dict[str, Tensor]
    num_heads: int | None = None
    """Attention heads; None = a file of weights alone does not say."""
    units: tuple[Tensor, Tensor] | None = None
    """Mean and deviation, per channel, that it normalizes images in [0, 1] by; None likewise."""
    grid: tuple[int, int] | None = None
    """Rows and columns of patches; None likewise."""


def read_timm(source: Path) -> TimmWeights:
    """Read weights that timm's ``create_model`` loads: a folder with config.json, or a file.

    Of a file beside such a config.json, that one says what is known of the model.

    Raises:
        ValueError: they are unreadable, or of no vision transformer of timm.
    """
    folder = source if source.is_dir() else source.parent
    try:
        weights = None if source.is_dir() else _of_an_encoder(load_state_dict(str(source)))
        if weights is not None and not is_timm_folder(folder):
            return TimmWeights(weights)
        vit = timm.create_model(f"local-dir:{folder}", pretrained=weights is None, num_classes=0)
    except Exception as reason:  # What damaged or foreign files raise is anything.
        line = " ".join(str(reason).split()).partition(". ")[0] or type(reason).__name__
        raise ValueError(f"{source} holds no weights that timm loads ({line})") from reason
    if not isinstance(vit, VisionTransformer):
        raise ValueError(f"{source} holds a {type(vit).__name__} of timm, no VisionTransformer")
    values = torch.linspace(-3, 3, 13)
    activation = vit.blocks[0].mlp.act  # type: ignore[union-attr]
    if not torch.allclose(activation(values), F.gelu(values), atol=1e-4):  # type: ignore[operator]
        name = type(activation).__name__
        raise ValueError(f"{source} has MLPs with {name}; foveate's have exact GELU")
    read_as = resolve_model_data_config(vit)
    mean, deviation = (
        _per_channel(torch.tensor(read_as[key]), vit.in_chans) for key in ("mean", "std")
    )
    num_heads = int(vit.blocks[0].attn.num_heads)  # type: ignore[union-attr, arg-type]
    known = _of_an_encoder(vit.state_dict()) if weights is None else weights
    rows, cols = vit.patch_embed.grid_size
    return TimmWeights(known, num_heads, (mean, deviation), (rows, cols))


def _per_channel(values: Float[Tensor, " N"], channels: int) -> Float[Tensor, " C"]:
    """Return one value for each channel: the mean of all where they are not as many, as timm."""
    return values if len(values) == channels else values.mean().expand(channels)


def _of_an_encoder(weights: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights without those of a head.

    Raises:
        ValueError: there is no patch embedding among them.
    """
    if "patch_embed.proj.weight" not in weights:
        raise ValueError("no patch_embed.proj.weight in it")
    heads = ("head.", "fc_norm.", "attn_pool.")
    return {name: each for name, each in weights.items() if not name.startswith(heads)}


@torch.no_grad()
def start_from_timm(model: PatchEncoder, found: TimmWeights, source: str) -> None:
    """Give an encoder the weights of timm's; all parts beside it stay as they start.

    With all patches visible the features are those of timm's model on the same images: where it
    reads pixels in other units, the patch embedding is rescaled. Of an exported periphery the
    positions come back, and the images' own contents take the place of the register tokens.

    Args:
        model: whose encoder is changed.
        found: the weights.
        source: what an error calls them.

    Raises:
        ValueError: names, shapes, or the number of heads differ from the encoder's, or it reads no
            pixels.
    """
    config = model.config
    if config.reads_colors:
        raise ValueError(
            f"{source} cannot be the start of this model: it reads pixels, this one reads palette "
            "entries"
        )
    weights = dict(found.weights)
    if found.num_heads not in (None, config.num_heads):
        raise ValueError(
            f"{source} cannot be the start of this model: it has {found.num_heads} attention "
            f"heads, not {config.num_heads}; {FITTING}"
        )
    if found.grid not in (None, model.grid):
        (rows, cols), (own_rows, own_cols) = found.grid, model.grid
        raise ValueError(
            f"{source} cannot be the start of this model: it has {rows} x {cols} patches, not "
            f"{own_rows} x {own_cols}; {FITTING}"
        )
    registers = weights.pop("reg_token", torch.empty(1, 0, config.embed_dim)).shape[1]
    if registers != config.periphery**2:
        raise ValueError(
            f"{source} cannot be the start of this model: it has {registers} register tokens, the "
            f"model has a periphery of {config.periphery**2}; choose --periphery to fit"
        )
    wanted = model.encoder.state_dict()
    all_places = (1, config.num_always + config.num_patches, config.embed_dim)
    _check_fit(weights, {**wanted, "pos_embed": torch.empty(all_places)}, source)
    places = weights["pos_embed"].float().clone()
    if config.stream == "causal" and config.decoder_depth == 0:
        places[0, registers:-1] -= model.next_position.cpu()  # The model adds them by itself.
    start, periphery, patches = places.split([1, registers, config.num_patches], dim=1)
    weights["pos_embed"] = torch.cat([start, patches], dim=1)
    if found.units is not None:
        _rescale(weights, found.units, model)
    model.encoder.load_state_dict(weights)
    model.periphery_position.copy_(periphery[0])


def _check_fit(weights: dict[str, Tensor], wanted: dict[str, Tensor], source: str) -> None:
    """Raise ValueError unless all weights have the wanted names and shapes."""
    differ = [
        f"{name} of {'x'.join(map(str, each.shape))}, not {'x'.join(map(str, wanted[name].shape))}"
        for name, each in weights.items()
        if name in wanted and each.shape != wanted[name].shape
    ]
    differ += [name for name in weights if name not in wanted]
    differ += [f"no {name}" for name in wanted if name not in weights]
    if differ:
        more = f" and {len(differ) - 3} other differences" if len(differ) > 3 else ""
        raise ValueError(
            f"{source} cannot be the start of this model: it has {', '.join(differ[:3])}{more}; "
            f"{FITTING}"
        )


def _rescale(weights: dict[str, Tensor], units: tuple[Tensor, Tensor], model: PatchEncoder) -> None:
    """Let the patch embedding read the model's units where it reads others."""
    scale = model.target.pixel_scale
    ours, theirs = (scale.mean.cpu(), scale.deviation.cpu()), units
    if all(torch.allclose(one, other) for one, other in zip(ours, theirs, strict=True)):
        return
    kernel = weights["patch_embed.proj.weight"]
    shift = ((ours[0] - theirs[0]) / theirs[1]).view(-1, 1, 1)
    weights["patch_embed.proj.bias"] = weights["patch_embed.proj.bias"] + (kernel * shift).sum(
        (1, 2, 3)
    )
    weights["patch_embed.proj.weight"] = kernel * (ours[1] / theirs[1]).view(-1, 1, 1)

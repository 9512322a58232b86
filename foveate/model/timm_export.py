"""The encoder as a plain timm VisionTransformer, for whatever takes one."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from foveate.config import ModelConfig
from foveate.model.encoder import PatchEncoder
from foveate.sampling import seeded

ARCHITECTURE = "vit_tiny_patch16_224"
"""A plain vision transformer by a name that timm knows; all its sizes are arguments."""


def timm_arguments(config: ModelConfig) -> dict[str, Any]:
    """Return the arguments that make timm's ARCHITECTURE of the sizes of an encoder.

    Such a model answers pixels with the mean of its patch tokens. The start token, timm's class
    token, is shown nothing but itself in training, but for masked streams and models of words.
    """
    return {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "in_chans": config.in_chans,
        "num_classes": 0,
        "global_pool": "avg",
        "fc_norm": False,  # Each token is normalized, not their mean.
        "embed_dim": config.embed_dim,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "reg_tokens": config.periphery**2,
    }


def pretrained_cfg(model: PatchEncoder) -> dict[str, Any]:
    """Return what timm's transforms and loaders ask of a model: its sizes and pixel units."""
    config, scale = model.config, model.target.pixel_scale
    return {
        "architecture": ARCHITECTURE,
        "input_size": (config.in_chans, *config.image_size),
        "fixed_input_size": True,
        "mean": tuple(scale.mean.tolist()),
        "std": tuple(scale.deviation.tolist()),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "num_classes": 0,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }


@torch.no_grad()
def to_timm(
    model: PatchEncoder, periphery_of: Float[Tensor, "B C H W"] | None = None
) -> VisionTransformer:
    """Copy the encoder of a model into a timm VisionTransformer with the same features.

    ``vit.forward_features(pixels)[:, vit.num_prefix_tokens:]`` equals
    ``model.features(images)[-1]`` where ``pixels`` are the images in the units of the model,
    ``model.normalize(images)``, and ``vit(pixels)`` is the mean of these tokens. Mean and deviation
    stand in ``vit.pretrained_cfg``, as timm's own transforms look for them. Where each patch is
    told the one that it is to predict, in raster order, that is added to the positions.

    No timm model reads a periphery. With ``periphery_of`` register tokens stand for it, which are
    the same for every image. Features are then equal only where an image has that periphery.

    Args:
        model: whose encoder is copied.
        periphery_of: images in [0, 1] whose mean periphery stands for that of every image; without
            effect on a model without a periphery.

    Raises:
        ValueError: the encoder reads what timm's does not: palette entries, or a periphery for
            which nothing stands.
    """
    config = model.config
    if config.reads_colors:
        raise ValueError(
            "the encoder reads palette entries, which no timm model does; "
            "use model.features(images)"
        )
    if config.periphery and periphery_of is None:
        raise ValueError(
            f"the encoder reads a periphery of {config.periphery}x{config.periphery} tokens beside "
            "the patches, which no timm model does; use model.features(images), train with "
            "--periphery 0, or give images whose mean periphery stands for it (periphery_of)"
        )
    vit = seeded(lambda: VisionTransformer(**timm_arguments(config)), 0)
    vit.to(model.periphery_position)  # Its device and precision.
    weights = model.encoder.state_dict()
    if config.periphery and periphery_of is not None:
        seen = model.embed(periphery_of)[0][:, 1:].mean(0)
        weights["reg_token"] = (seen - model.periphery_position)[None]
        start, places = weights["pos_embed"].split([1, config.num_patches], dim=1)
        weights["pos_embed"] = torch.cat([start, model.periphery_position[None], places], dim=1)
    vit.load_state_dict(weights)
    if config.stream == "causal" and config.decoder_depth == 0:
        # The token before each patch predicts it; the last one predicts nothing.
        assert vit.pos_embed is not None, "timm makes positions by default"
        vit.pos_embed[0, config.periphery**2 : -1] += model.next_position
    object.__setattr__(vit, "pretrained_cfg", pretrained_cfg(model))
    return vit.train(model.training)

"""The encoder as a plain timm VisionTransformer, for whatever takes one."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer

from foveate.model.encoder import PatchEncoder


@torch.no_grad()
def to_timm(model: PatchEncoder) -> VisionTransformer:
    """Copy the encoder of a model into a timm VisionTransformer with the same features.

    ``vit.forward_features(pixels)[:, 1:]`` equals ``model.features(images)[-1]`` where ``pixels``
    are the images in the units of the model, ``model.normalize(images)``. Mean and deviation stand
    in ``vit.pretrained_cfg``, as timm's own transforms look for them. Where each patch is told the
    one that it is to predict, in raster order, that is added to the positions.

    Raises:
        ValueError: the encoder reads what timm's does not: palette entries, or a periphery.
    """
    config = model.config
    if config.reads_colors:
        raise ValueError(
            "the encoder reads palette entries, which no timm model does; "
            "use model.features(images)"
        )
    if config.periphery:
        raise ValueError(
            f"the encoder reads a periphery of {config.periphery}x{config.periphery} tokens beside "
            "the patches, which no timm model does; use model.features(images), or train with "
            "--periphery 0"
        )
    vit = VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        in_chans=config.in_chans,
        num_classes=0,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
    )
    vit.load_state_dict(model.encoder.state_dict())
    if config.stream == "causal" and config.decoder_depth == 0:
        # The token before each patch predicts it; the last one predicts nothing.
        assert vit.pos_embed is not None
        vit.pos_embed[0, :-1] += model.next_position
    scale = model.target.pixel_scale
    read_as: dict[str, object] = {
        "input_size": (config.in_chans, *config.image_size),
        "mean": tuple(scale.mean.tolist()),
        "std": tuple(scale.deviation.tolist()),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
    }
    object.__setattr__(vit, "pretrained_cfg", read_as)
    return vit.to(scale.mean.device).train(model.training)

"""The model card of an exported encoder: how timm loads it, what it reads, and what it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foveate.config import ModelConfig

CARD = """\
---
library_name: timm
pipeline_tag: image-feature-extraction
tags:
- image-feature-extraction
- timm
- foveate
---
# {name}

A vision transformer encoder: {depth} blocks of width {embed_dim} with {num_heads} heads, patches of
{patch_size}x{patch_size} pixels, images of {height}x{width} pixels with {channels}.
{about}

## Use

```python
import timm
import torch
from PIL import Image

model = timm.create_model("local-dir:{name}", pretrained=True).eval()
read = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.no_grad():
    pixels = read(Image.open("photo.jpg").convert("{mode}"))[None]
    pooled = model(pixels)  # (1, {embed_dim}), the mean of the patch tokens
    every = model.forward_features(pixels)
    tokens = every[:, model.num_prefix_tokens :]  # (1, {patches}, {embed_dim}), in raster order
```

From the Hub the name is `hf-hub:USER/NAME`. With the weights file alone:

```python
import json
from pathlib import Path

config = json.loads(Path("{name}/config.json").read_text())
model = timm.create_model(
    config["architecture"],
    checkpoint_path="{name}/model.safetensors",
    pretrained_cfg=config["pretrained_cfg"],
    **{{"num_classes": 0, **config["model_args"]}},
)
```

## What it reads, and what it lacks

{facts}
"""


def model_card(
    name: str, reads: dict[str, Any], config: ModelConfig, about: Sequence[str] = ()
) -> str:
    """Return the Markdown of a model card.

    Args:
        name: of the model, and of the folder that its weights lie in.
        reads: timm's ``pretrained_cfg`` of the model as it is written.
        config: of the model whose encoder it is.
        about: sentences on where it comes from.
    """
    channels, height, width = reads["input_size"]
    text = CARD.format(
        name=name,
        depth=config.depth,
        embed_dim=config.embed_dim,
        num_heads=config.num_heads,
        patch_size=config.patch_size,
        height=height,
        width=width,
        channels="1 channel" if channels == 1 else f"{channels} channels",
        mode={1: "L", 3: "RGB"}.get(channels, "RGB"),
        patches=height * width // config.patch_size**2,
        about="\n".join(about),
        facts="\n".join(f"* {fact}" for fact in facts(reads, config)),
    )
    return text.replace("\n\n\n", "\n\n")


def facts(reads: dict[str, Any], config: ModelConfig) -> list[str]:
    """Say what an exported encoder reads, and what it lacks beside the model."""
    mean, deviation = (", ".join(f"{each:.4g}" for each in reads[key]) for key in ("mean", "std"))
    learned = []
    if config.stream == "causal":
        learned.append("In training a patch saw those that a scan had shown before.")
        if not config.vocabulary:
            learned.append("The class token was shown nothing but itself; take the patches' mean.")
    found = [
        f"Pixels in [0, 1], minus {mean}, over {deviation}. Other units, such as timm's default, "
        "cost accuracy.",
        "Every patch sees every other.",
        *learned,
        "Decoder and policy are not in it.",
    ]
    if tuple(reads["input_size"][1:]) != config.image_size:
        height, width = config.image_size
        found.append(f"Positions are interpolated from images of {height}x{width} pixels.")
    if config.periphery:
        side = config.periphery
        found.append(
            f"In training it read a periphery of {side}x{side} tokens, a thumbnail of the image. "
            "Register tokens stand for it here, the same for every image."
        )
    return found

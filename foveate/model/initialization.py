"""How weights start, where it is not as timm's and torch's layers do."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn


@torch.no_grad()
def start_as_xavier(*modules: nn.Module) -> None:
    """Start all linear layers Xavier-uniform with zero biases, as the public code of MAE does.

    The patch embedding of an encoder counts as a linear layer of its pixels. Start tokens are drawn
    with deviation 0.02 (D-iGPT's is zero), and keep a learned position, of deviation 0.02 as well,
    which is zero in public code. A projection to queries, keys and values is one matrix, as in MAE
    and SemAIM; SAIM's are three, which start larger by a factor of 1.4. Decoders project what they
    read to keys and values by one matrix; SAIM's and SemAIM's two start larger by 1.2.

    Reference: MAE (He et al. 2022, arXiv 2111.06377), facebookresearch/mae models_mae.py; the same
    lines stand in the public code of SAIM, SemAIM and D-iGPT.
    """
    for module in (each for top in modules for each in top.modules()):
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, VisionTransformer):
            assert module.cls_token is not None, "encoders are made with a start token"
            nn.init.normal_(module.cls_token, std=0.02)
            nn.init.xavier_uniform_(module.patch_embed.proj.weight.flatten(1))

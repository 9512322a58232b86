"""Flex attention, for block masks on a GPU: where it is taken, and how it is compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

LEAST_WIDTH = 16
"""Width of a head from which on the compiled flex attention works; torch refuses smaller ones."""
MOST_GRAPHS = 64
"""Graphs of flex attention that a process may compile. Precision, gradient, TF32 and sizes ask for
one each, and behind torch's own limit, 8, flex attention is dense without a word."""


def takes_flex(device: torch.device, head_width: int) -> bool:
    """Whether flex attention suits heads of a width on a device, rather than a dense mask.

    Not under a dispatch mode, such as torch's counter of operations: torch compiles nothing there,
    and flex attention that is not compiled fails.
    """
    on_gpu = device.type == "cuda" and head_width >= LEAST_WIDTH
    return on_gpu and not is_in_torch_dispatch_mode()


def flex(like: Tensor) -> Callable[..., Tensor]:
    """Return flex attention, compiled where there is a GPU: uncompiled it is dense.

    What is being compiled takes it in as it is.
    """
    compiles = like.is_cuda and not torch.compiler.is_compiling()
    return compiled_flex() if compiles else cast("Callable[..., Tensor]", flex_attention)


@functools.cache
def compiled_flex() -> Callable[..., Tensor]:
    """Return the compiled flex attention."""
    compiled: Callable[..., Tensor] = torch.compile(flex_attention)

    def attended(*tensors: Tensor, block_mask: BlockMask) -> Tensor:
        # The argument ``recompile_limit`` of torch.compile is younger than the torch that we need.
        with torch._dynamo.config.patch(recompile_limit=MOST_GRAPHS):
            return compiled(*tensors, block_mask=block_mask)

    return attended

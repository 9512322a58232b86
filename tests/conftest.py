"""Tiny models and images that every test can afford."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# Two workers on two cores: processes of two threads each would wait for one another many times
# as long as they compute. Those that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What ours imports while its types are woven in would be compiled from its source, in each worker:
# these come before the hook below.
import kornia  # noqa: F401
import pytest
import sb3_contrib  # noqa: F401
import timm  # noqa: F401
import torch
import torchvision  # noqa: F401
import wandb  # noqa: F401
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from foveate.model import AnyOrderTransformer

# Before the first import of ours: from here on every annotated shape and dtype is checked.
install_import_hook(["foveate", "envs", "agents"], "beartype.beartype")
# These models are too small for two threads, which would wait for each other.
torch.set_num_threads(1)


@pytest.fixture(params=[0, 2], ids=["blind", "periphery"])
def model(request: pytest.FixtureRequest) -> AnyOrderTransformer:
    """A 3 x 4 grid of 2 x 2-pixel patches, two channels: no two sizes coincide by accident."""
    from foveate.config import ModelConfig
    from foveate.model import AnyOrderTransformer

    torch.manual_seed(0)
    config = ModelConfig(
        image_size=(6, 8),
        in_chans=2,
        patch_size=2,
        embed_dim=16,
        depth=2,
        num_heads=2,
        num_targets=5,
        periphery=request.param,
    )
    return AnyOrderTransformer(config).eval()


@pytest.fixture
def images() -> torch.Tensor:
    """Five random images for :func:`model`."""
    return torch.rand(5, 2, 6, 8, generator=torch.Generator().manual_seed(1))

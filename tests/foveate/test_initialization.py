"""Weights start within the bounds of their recipe, and units that mean nothing are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foveate.config import ModelConfig
from foveate.model import AnyOrderTransformer
from foveate.recipes import RECIPES


def test_xavier_starts_every_matrix_between_the_bounds_of_its_sides() -> None:
    torch.manual_seed(0)
    config = RECIPES["digpt"].model_config(depth=2, embed_dim=32, feature_dim=8, init="xavier")
    model = AnyOrderTransformer(config)
    layers = [each for each in model.modules() if isinstance(each, nn.Linear)]
    assert len(layers) == 8 + 2 * (2 * 7 + 2)  # Two blocks; twice two blocks, taps and a head.
    embedding = model.encoder.patch_embed.proj
    matrices = [each.weight for each in layers] + [embedding.weight.flatten(1)]
    for matrix in matrices:
        bound = (6 / sum(matrix.shape)) ** 0.5
        assert 0.95 * bound < float(matrix.detach().abs().max()) <= bound
    assert all(not bool(each.bias.any()) for each in layers)


def test_units_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no effect with target='colors'"):
        ModelConfig(target="colors", pixel_units="imagenet")
    with pytest.raises(ValueError, match="needs 1 or 3 channels, got 2"):
        ModelConfig(in_chans=2, pixel_units="imagenet")


def test_public_xavier_starts_are_those_of_the_recipes_whose_code_has_them() -> None:
    xavier = {name for name, row in RECIPES.items() if row.init == "xavier"}
    assert xavier == {"saim", "semaim", "digpt", "mae"}

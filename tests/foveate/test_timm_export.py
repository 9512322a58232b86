"""A timm model made of an encoder gives its features, or is refused."""

from __future__ import annotations

import pytest
import torch
from timm.data.config import resolve_data_config

from foveate.config import ModelConfig
from foveate.model import AnyOrderTransformer, to_timm
from foveate.recipes import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_timm_gives_the_features_of_a_recipe_or_is_refused(name: str) -> None:
    torch.manual_seed(0)
    row = RECIPES[name]
    sizes = {"image_size": (6, 8), "in_chans": 3, "patch_size": 2, "embed_dim": 16, "num_heads": 2}
    width = 5 if row.target == "features" else None
    units = {} if row.target == "colors" else {"pixel_units": "imagenet"}
    model = AnyOrderTransformer(
        row.model_config(depth=2, feature_dim=width, **sizes, **units)
    ).eval()
    if row.target == "colors":
        with pytest.raises(ValueError, match="palette entries"):
            to_timm(model)
        return
    images, vit = torch.rand(2, 3, 6, 8), to_timm(model)
    read_as = resolve_data_config(model=vit)
    mean, deviation = (torch.tensor(read_as[key]).view(-1, 1, 1) for key in ("mean", "std"))
    pixels = (images - mean) / deviation
    expected = vit.forward_features(pixels)[:, 1:]
    torch.testing.assert_close(model.features(images)[-1], expected, atol=1e-5, rtol=0)
    assert read_as["input_size"] == (3, 6, 8)


def test_timm_gets_the_precision_and_draws_nothing() -> None:
    model = AnyOrderTransformer(ModelConfig(embed_dim=16, depth=1, num_heads=2)).double().eval()
    with torch.no_grad():
        for each in model.parameters():
            each += 0.05 * torch.randn_like(each)  # Weights that float32 does not hold.
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    vit, images = to_timm(model), torch.rand(2, 1, 32, 32).double()
    torch.manual_seed(0)
    to_timm(model)
    assert torch.equal(torch.rand(1), expected)
    found = vit.forward_features(model.normalize(images))[:, 1:]
    torch.testing.assert_close(found, model.features(images)[-1])


def test_a_periphery_is_not_lost_on_the_way_to_timm() -> None:
    with pytest.raises(ValueError, match="periphery of 2x2 tokens"):
        to_timm(AnyOrderTransformer(ModelConfig(periphery=2, embed_dim=16, depth=1)))

"""Every recipe: predictions depend on exactly what the order allows, and training learns."""

from __future__ import annotations

import pytest
import torch

from foveate.leaks import assert_no_leak
from foveate.model import AnyOrderTransformer
from foveate.orders import ORDERINGS, SUBSETS
from foveate.recipes import RECIPES, recipe
from foveate.semantic_orders import SEMANTIC, model_ordering

TIED = ("random_squares", "random_blobs", "hierarchical")


def build(name: str, **changes: object) -> AnyOrderTransformer:
    torch.manual_seed(0)
    row = recipe(name)
    sizes = {"image_size": (8, 8), "patch_size": 2, "embed_dim": 16, "num_heads": 2}
    config = row.model_config(
        depth=4,
        feature_dim=6 if row.target == "features" else None,
        **{**sizes, "num_colors": 5, **changes},
    )
    model = AnyOrderTransformer(config).eval()
    if config.target == "colors":
        model.palette.copy_(torch.linspace(0, 1, 5).unsqueeze(1))
    return model


def allowed_orders(name: str) -> list[str]:
    row = RECIPES[name]
    if row.stream == "masked":
        return list(SUBSETS)
    if row.lateral == "joint":
        return ["random_subset"]
    if row.decoder_depth == 0:
        return [order for order in [*ORDERINGS, *SEMANTIC] if order not in TIED]
    return [*ORDERINGS, *SEMANTIC]


@pytest.mark.parametrize("name", RECIPES)
def test_predictions_depend_on_exactly_the_allowed_patches(name: str) -> None:
    model = build(name)
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for order in allowed_orders(name):
        generator = torch.Generator().manual_seed(2)
        assert_no_leak(model, images, model_ordering(order, model)(images, generator=generator))


def test_the_leak_check_finds_a_shift_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the outputs one place too late, as if the patch itself had been seen."""
    model = build("igpt")
    images = torch.rand(1, 1, 8, 8)
    rank = model_ordering("raster", model)(images)
    encode = type(model).encode_tokens

    def shifted(self: AnyOrderTransformer, *args: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(layer.roll(-1, dims=1) for layer in encode(self, *args))

    monkeypatch.setattr(type(model), "encode_tokens", shifted)
    with pytest.raises(AssertionError, match="leaks"):
        assert_no_leak(model, images, rank)

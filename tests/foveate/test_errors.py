"""How wrong a prediction is."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from foveate.config import ModelConfig
from foveate.errors import unseen_error
from foveate.targets import make_target

SIZES = {"image_size": (2, 4), "patch_size": 2, "embed_dim": 8, "num_heads": 1, "depth": 1}


def test_the_error_of_unseen_patches_by_hand() -> None:
    predicted = torch.tensor([[[1.0, 3.0], [5.0, 5.0]]])
    target = make_target(ModelConfig(**SIZES))
    unseen = torch.tensor([[True, False]])
    assert unseen_error(target, predicted, torch.zeros(1, 2, 2), unseen).tolist() == [[5.0, 0.0]]


def test_a_weight_of_features_that_is_not_used_is_refused() -> None:
    with pytest.raises(ValueError, match="feature_weight has no effect with target='features'"):
        ModelConfig(**SIZES, target="features", feature_dim=3, feature_weight=2.0)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_of_pixels_and_features_the_errors_are_added_with_their_weight(weight: float) -> None:
    config = ModelConfig(**SIZES, target="pixels_features", feature_dim=3, feature_weight=weight)
    generator = torch.Generator().manual_seed(0)
    predicted, true = torch.randn(2, 3, 2, 4 + 3, generator=generator)
    error = unseen_error(make_target(config), predicted, true, torch.ones(3, 2, dtype=torch.bool))
    pixels = (predicted - true)[..., :4].square().mean(-1)
    features = 2 - 2 * cosine_similarity(predicted[..., 4:], true[..., 4:], dim=-1)
    torch.testing.assert_close(error, pixels + weight * features)

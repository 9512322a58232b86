"""Probes: right on known problems, and never chosen on test data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from foveate.config import ModelConfig
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.probes import (
    extract_features,
    knn_probe,
    linear_probe,
    pixel_features,
    wilson_interval,
)


@pytest.fixture
def separable() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    center = 4 * random.normal(size=(3, 8))
    labels = random.integers(0, 3, 600)
    x = (center[labels] + random.normal(size=(600, 8))).astype(np.float32)
    return x[:400], labels[:400], x[400:], labels[400:]


def test_both_probes_solve_a_separable_problem(separable: tuple[np.ndarray, ...]) -> None:
    assert linear_probe(*separable, seed=0).accuracy > 0.95
    assert knn_probe(*separable).accuracy > 0.95


def test_shuffled_labels_give_chance(separable: tuple[np.ndarray, ...]) -> None:
    train_x, train_y, test_x, test_y = separable
    shuffled = np.random.default_rng(1).permutation(train_y)
    assert linear_probe(train_x, shuffled, test_x, test_y, seed=0).accuracy < 0.5


def test_the_regularization_is_not_chosen_on_test(separable: tuple[np.ndarray, ...]) -> None:
    train_x, train_y, test_x, test_y = separable
    right = linear_probe(train_x, train_y, test_x, test_y, seed=0)
    wrong = linear_probe(train_x, train_y, test_x, (test_y + 1) % 3, seed=0)
    assert (right.regularization, right.validation_accuracy) == (
        wrong.regularization,
        wrong.validation_accuracy,
    )
    assert right.accuracy != wrong.accuracy


def test_one_neighbor_agrees_with_scikit_learn(separable: tuple[np.ndarray, ...]) -> None:
    train_x, train_y, test_x, test_y = separable
    reference = KNeighborsClassifier(1, metric="cosine").fit(train_x - train_x.mean(0), train_y)
    expected = reference.score(test_x - train_x.mean(0), test_y)
    assert knn_probe(*separable, neighbors=1).accuracy == pytest.approx(expected)


def test_wilson_interval_by_hand() -> None:
    low, high = wilson_interval(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)


@pytest.mark.parametrize("attention", ["full", "causal"])
def test_features_are_means_over_patches(attention: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig(image_size=(8, 8), patch_size=4, embed_dim=16, depth=3, num_heads=2)
    model = AnyOrderTransformer(config).train()
    pixels = torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8)
    data = ImageSet(pixels, torch.zeros(7, dtype=torch.long), ("a",), "toy")
    features = extract_features(model, data, attention=attention, batch_size=3)  # type: ignore[arg-type]
    assert model.training
    expected = model.eval().features(pixels.float() / 255, attention)[1].mean(1)  # type: ignore[arg-type]
    np.testing.assert_allclose(features[1], expected.detach().numpy(), atol=1e-5)
    assert sorted(features) == [0, 1, 2]
    assert pixel_features(data).shape == (7, 64)

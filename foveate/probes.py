"""Probes of frozen features: L-BFGS logistic regression and weighted k-NN.

Features are patch tokens averaged over the image with every patch visible. The start token is left
out: in training it sees nothing but itself, so it holds no summary of the image.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from foveate.data import ImageSet

if TYPE_CHECKING:
    from foveate.model import AnyOrderTransformer

REGULARIZATION = (1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths C that the linear probe chooses from."""


@dataclass(frozen=True)
class Accuracy:
    """Share of test images classified correctly."""

    accuracy: float
    ci95: tuple[float, float]
    """Wilson interval over test images."""


@dataclass(frozen=True)
class LinearAccuracy(Accuracy):
    """Of a linear probe."""

    regularization: float
    """The C chosen on the held-out part of train."""
    validation_accuracy: float
    """Accuracy there."""


def wilson_interval(num_correct: int, num_images: int) -> tuple[float, float]:
    """95% interval of a share.

    Reference: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    z, share = 1.959964, num_correct / num_images
    middle = (share + z**2 / (2 * num_images)) / (1 + z**2 / num_images)
    half = (
        z
        / (1 + z**2 / num_images)
        * (share * (1 - share) / num_images + z**2 / (4 * num_images**2)) ** 0.5
    )
    return middle - half, middle + half


def _accuracy(
    predicted: Int[np.ndarray, " M"], labels: Int[np.ndarray, " M"]
) -> tuple[float, tuple[float, float]]:
    correct = int((predicted == labels).sum())
    return correct / len(labels), wilson_interval(correct, len(labels))


@torch.no_grad()
def extract_features(
    model: AnyOrderTransformer,
    image_set: ImageSet,
    *,
    attention: Literal["full", "causal"] = "full",
    batch_size: int = 500,
) -> dict[int, Float[np.ndarray, "M D"]]:
    """Mean-pooled patch features after every encoder block (keys 0..depth-1), all patches visible.

    With causal attention the order is raster.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    parts = [
        [
            tokens.mean(1).cpu()
            for tokens in model.features(image_set.batch(index, device=device), attention)
        ]
        for index in torch.arange(len(image_set)).split(batch_size)
    ]
    model.train(was_training)
    return {layer: torch.cat(rows).numpy() for layer, rows in enumerate(zip(*parts, strict=True))}


def pixel_features(image_set: ImageSet) -> Float[np.ndarray, "M D"]:
    """Raw pixels in [0, 1], flattened: what any representation has to beat."""
    pixels: Float[np.ndarray, "M D"] = image_set.images.flatten(1).numpy().astype(np.float32) / 255
    return pixels


def linear_probe(
    train_x: Float[np.ndarray, "M D"],
    train_y: Int[np.ndarray, " M"],
    test_x: Float[np.ndarray, "K D"],
    test_y: Int[np.ndarray, " K"],
    *,
    seed: int,
) -> LinearAccuracy:
    """Logistic regression on standardized features, C chosen on a held-out tenth of train.

    The chosen one is refitted on all of train.

    Reference: iGPT (Chen et al. 2020), Sec. 2.4 and openai/image-gpt issue 12:
    scikit-learn's L-BFGS solver.
    """
    fit_x, held_x, fit_y, held_y = train_test_split(
        train_x, train_y, test_size=0.1, random_state=seed, stratify=train_y
    )

    def classifier(strength: float) -> Pipeline:
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))

    # Matrices this small are many times slower on several BLAS threads, above all on busy cores.
    with threadpool_limits(1), warnings.catch_warnings():
        # Three hundred iterations are a budget, not a goal: weak regularization on raw pixels
        # need not converge.
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = [
            float(classifier(c).fit(fit_x, fit_y).score(held_x, held_y)) for c in REGULARIZATION
        ]
        best = int(np.argmax(scores))
        predicted = classifier(REGULARIZATION[best]).fit(train_x, train_y).predict(test_x)
    return LinearAccuracy(*_accuracy(predicted, test_y), REGULARIZATION[best], scores[best])


def knn_probe(
    train_x: Float[np.ndarray, "M D"],
    train_y: Int[np.ndarray, " M"],
    test_x: Float[np.ndarray, "K D"],
    test_y: Int[np.ndarray, " K"],
    *,
    neighbors: int = 20,
    temperature: float = 0.07,
) -> Accuracy:
    """Vote of the k nearest neighbors by cosine, each with weight exp(similarity / temperature).

    Reference: Wu et al. 2018 (arXiv 1805.01978), Sec. 3.4; k = 20 and temperature 0.07 as in DINO.
    By hand, since scikit-learn's brute-force search on cosine is slower than one matrix product.
    """
    labels = torch.from_numpy(np.asarray(train_y, dtype=np.int64))
    center = train_x.mean(0)
    train = torch.nn.functional.normalize(torch.from_numpy(train_x - center), dim=1)
    predicted = []
    for part in torch.from_numpy(test_x - center).split(500):
        similarity = torch.nn.functional.normalize(part, dim=1) @ train.T
        nearest, index = similarity.topk(min(neighbors, len(train)), dim=1)
        votes = torch.zeros(len(part), int(labels.max()) + 1)
        votes.scatter_add_(1, labels[index], (nearest / temperature).exp())
        predicted.append(votes.argmax(1))
    return Accuracy(*_accuracy(torch.cat(predicted).numpy(), np.asarray(test_y)))

"""Probes that need no gradients: logistic regression and weighted k-NN.

scikit-learn and SciPy's statistics are imported where they are used: they take seconds, and
trainings import this module.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from foveate.choices import told

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

MOST_SIMILARITIES = 2**27
"""Of images to one another that are held at once: half a GB."""
TEMPERATURE = 0.07
"""Of the votes of neighbors, by their similarity."""
REGULARIZATION = (1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths C that the linear probe chooses from."""


@dataclass(frozen=True)
class Accuracy:
    """Share of test images classified correctly."""

    accuracy: float
    ci95: tuple[float, float] | None
    """Wilson interval over test images; None = of a single one."""


@dataclass(frozen=True)
class ChosenAccuracy(Accuracy):
    """Of a probe with something to choose."""

    validation_accuracy: float
    """Accuracy on the held-out part of train, of what it chose there."""


@dataclass(frozen=True)
class LinearAccuracy(ChosenAccuracy):
    """Of a linear probe."""

    regularization: float
    """The C chosen on the held-out part of train."""


def wilson_interval(num_correct: int, num_images: int) -> tuple[float, float]:
    """95% interval of a share.

    Reference: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    from scipy.stats import binomtest

    interval = binomtest(num_correct, num_images).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def score(
    predicted: Int[np.ndarray, " M"], labels: Int[np.ndarray, " M"]
) -> tuple[float, tuple[float, float] | None]:
    """Share of correct predictions, and its interval; a single one has none."""
    correct, number = int((predicted == labels).sum()), len(labels)
    return correct / number, wilson_interval(correct, number) if number > 1 else None


def check_labels(
    features: Float[np.ndarray, "M D"], labels: Shaped[np.ndarray, "..."], split: str
) -> None:
    """Raise ValueError unless every image has a label, a whole number from 0, or true or false."""
    labels = np.asarray(labels)
    if labels.shape != (len(features),) or labels.dtype.kind not in "iub":
        raise ValueError(
            f"a probe takes an integer label of each of the {len(features)} {split} images, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    check_labeled(labels, split)


def check_labeled(labels: Shaped[np.ndarray, "..."], split: str) -> None:
    """Raise ValueError if an image has no label."""
    if (labels < 0).any():
        raise ValueError(
            f"{int((labels < 0).sum())} of {len(labels)} {split} images have no label (-1); "
            "give the probe labeled images only"
        )


def check_features(train_x: Float[np.ndarray, "M D"], test_x: Float[np.ndarray, "K D"]) -> None:
    """Raise ValueError unless all features are finite arrays, (images, features)."""
    for split, values in (("training", train_x), ("test", test_x)):
        if not isinstance(values, np.ndarray) or values.ndim != 2:
            raise ValueError(
                f"a probe takes {split} features as a NumPy array (images, features), got "
                f"{told(values)}"
            )
        broken = int((~np.isfinite(values).all(1)).sum())
        if broken:
            raise ValueError(
                f"the features of {broken} of {len(values)} {split} images are not finite; "
                "give features of a model whose training went well"
            )


def hold_out(
    labels: Int[np.ndarray, " M"], seed: int
) -> tuple[Int[np.ndarray, " F"], Int[np.ndarray, " H"]]:
    """Indices of nine tenths of train to fit on and of a tenth to choose on, stratified by class.

    Raises:
        ValueError: images without a label, a single class, a class of one image, or too few images.
    """
    check_labeled(labels, "training")
    counts = np.bincount(labels)
    classes = np.flatnonzero(counts)
    if len(classes) < 2:
        raise ValueError(
            f"all {len(labels)} training images are of class {classes[0]}; "
            "a probe needs at least two classes"
        )
    if 1 in counts:
        raise ValueError(
            f"class {int(np.flatnonzero(counts == 1)[0])} has a single training image, of which "
            "nothing can be held out; give the probe more training images or leave the class out"
        )
    least = 10 * len(classes) - 9
    if len(labels) < least:
        raise ValueError(
            f"{len(labels)} training images of {len(classes)} classes are too few to hold out a "
            f"tenth with every class in it; give the probe at least {least}"
        )
    from sklearn.model_selection import train_test_split

    fit, held = train_test_split(
        np.arange(len(labels)), test_size=0.1, random_state=seed, stratify=labels
    )
    return fit, held


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

    Reference: iGPT (Chen et al. 2020), Sec. 2.4, and openai/image-gpt issue 12: scikit-learn's.

    Raises:
        ValueError: no tenth can be held out, see :func:`hold_out`, a feature is not finite, or the
            labels are not integers, one for each image.
    """
    check_features(train_x, test_x)
    check_labels(train_x, train_y, "training")
    check_labels(test_x, test_y, "test")
    strength, reached = choose_regularization(train_x, train_y, seed=seed)
    predicted = fit_linear(train_x, train_y, strength).predict(test_x)
    return LinearAccuracy(*score(predicted, test_y), reached, strength)


def fit_linear(
    train_x: Float[np.ndarray, "M D"], train_y: Int[np.ndarray, " M"], strength: float
) -> Pipeline:
    """Logistic regression on standardized features, with the inverse strength C."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    # Matrices this small are many times slower on several BLAS threads, above all on busy cores.
    with threadpool_limits(1), warnings.catch_warnings():
        # Three hundred iterations are a budget, not a goal: weak regularization on raw pixels
        # need not converge.
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression = LogisticRegression(C=strength, max_iter=300)
        return make_pipeline(StandardScaler(), regression).fit(train_x, train_y)


def choose_regularization(
    train_x: Float[np.ndarray, "M D"], train_y: Int[np.ndarray, " M"], *, seed: int
) -> tuple[float, float]:
    """Choose C on a held-out tenth; its accuracy there comes second.

    Raises:
        ValueError: no tenth can be held out, see :func:`hold_out`, or a feature is not finite.
    """
    check_features(train_x, train_x[:0])
    fit, held = hold_out(train_y, seed)
    fitted = (fit_linear(train_x[fit], train_y[fit], c) for c in REGULARIZATION)
    scores = [float(each.score(train_x[held], train_y[held])) for each in fitted]
    best = int(np.argmax(scores))
    return REGULARIZATION[best], scores[best]


def linear_classes(
    train_x: Float[np.ndarray, "M D"],
    train_y: Int[np.ndarray, " M"],
    test_x: Float[np.ndarray, "K D"],
    *,
    seed: int,
) -> Int[np.ndarray, " K"]:
    """Classify by the probe of :func:`linear_probe`.

    Raises:
        ValueError: no tenth can be held out, see :func:`hold_out`, or a feature is not finite.
    """
    check_features(train_x, test_x)
    strength, _ = choose_regularization(train_x, train_y, seed=seed)
    classes: Int[np.ndarray, " K"] = fit_linear(train_x, train_y, strength).predict(test_x)
    return classes


def knn_probe(
    train_x: Float[np.ndarray, "M D"],
    train_y: Int[np.ndarray, " M"],
    test_x: Float[np.ndarray, "K D"],
    test_y: Int[np.ndarray, " K"],
    *,
    neighbors: int = 20,
) -> Accuracy:
    """:func:`knn_probes` of one k."""
    return knn_probes(train_x, train_y, test_x, test_y, neighbors=(neighbors,))[neighbors]


def knn_probes(
    train_x: Float[np.ndarray, "M D"],
    train_y: Int[np.ndarray, " M"],
    test_x: Float[np.ndarray, "K D"],
    test_y: Int[np.ndarray, " K"],
    *,
    neighbors: Sequence[int] = (20, 10),
) -> dict[int, Accuracy]:
    """Vote of the k nearest neighbors by cosine, each with weight exp(similarity / TEMPERATURE).

    Raises:
        ValueError: k does not lie in 1..M, a feature is not finite, or labels are not integers,
            one for each image.
    """
    check_labels(test_x, test_y, "test")
    classes = knn_classes(train_x, train_y, test_x, neighbors=neighbors)
    return {k: Accuracy(*score(each, np.asarray(test_y))) for k, each in classes.items()}


def knn_classes(
    train_x: Float[np.ndarray, "M D"],
    train_y: Int[np.ndarray, " M"],
    test_x: Float[np.ndarray, "K D"],
    *,
    neighbors: Sequence[int] = (20, 10),
) -> dict[int, Int[np.ndarray, " K"]]:
    """Classify by a vote of the k nearest neighbors, for every k in ``neighbors``.

    By hand, since scikit-learn's brute-force search on cosine is slower than one matrix product.

    Reference: Wu et al. 2018 (arXiv 1805.01978), Sec. 3.4; temperature and k as in SemAIM. Differs:
    features are less their mean over the training images.

    Raises:
        ValueError: k does not lie in 1..M, a feature is not finite, or labels are not integers,
            one for each image.
    """
    check_features(train_x, test_x)
    check_labels(train_x, train_y, "training")
    if not neighbors or not 1 <= min(neighbors) <= max(neighbors) <= len(train_x):
        raise ValueError(
            f"neighbors must lie in 1..{len(train_x)}, the number of training images, "
            f"got {', '.join(map(str, neighbors)) or 'none'}"
        )
    labels = torch.from_numpy(np.asarray(train_y, dtype=np.int64))
    center = train_x.mean(0)
    train = torch.nn.functional.normalize(torch.from_numpy(train_x - center), dim=1)
    predicted: dict[int, list[Tensor]] = {k: [] for k in neighbors}
    at_once = max(1, min(500, MOST_SIMILARITIES // len(train)))
    for part in torch.from_numpy(test_x - center).split(at_once):
        similarity = torch.nn.functional.normalize(part, dim=1) @ train.T
        nearest, index = similarity.topk(max(neighbors), dim=1)
        for k, classes in predicted.items():
            votes = torch.zeros(len(part), int(labels.max()) + 1, dtype=nearest.dtype)
            votes.scatter_add_(1, labels[index[:, :k]], (nearest[:, :k] / TEMPERATURE).exp())
            classes.append(votes.argmax(1))
    return {k: torch.cat(classes).numpy() for k, classes in predicted.items()}

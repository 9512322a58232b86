"""Probes of frozen features that are trained by gradient descent, and that of one vector: SGD.

Their learning rate is chosen on a held-out tenth of train, then they are refitted on all of it.
Nothing draws from torch's global random state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from foveate.optim import CosineDecay
from foveate.probes.features import IMAGES_AT_ONCE, frozen
from foveate.probes.linear import ChosenAccuracy, hold_out, score
from foveate.sampling import seeded

Read = Callable[[Tensor], Tensor]
"""Maps image indices (B,) to what a probe sees of these images, B first."""

SGD_RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Peak learning rates that the SGD probe chooses from."""
BATCH_SIZE = 256
"""Images per step of a probe."""


@dataclass(frozen=True)
class HeadAccuracy(ChosenAccuracy):
    """Of a classifier trained by gradient descent."""

    learning_rate: float
    """Its peak, chosen on the held-out part of train."""


# --- gradient descent


def descend(
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Tensor], Tensor],
    index: Int[Tensor, " M"],
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
) -> None:
    """Minimize the loss of shuffled batches of the given images.

    Learning rates rise for a tenth of all steps and fall to 0 along a half cosine.
    """
    num_batches = math.ceil(len(index) / batch_size)
    total = epochs * num_batches
    rising, falling = max(1, total // 10), CosineDecay(peak=1.0, end=total)
    learning_rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rising, falling(step))
    )
    for _ in range(epochs):
        shuffled = index[torch.randperm(len(index), generator=generator)]
        # Of nearly equal size: batch normalization fails on a last batch of one image.
        for batch in shuffled.tensor_split(num_batches):
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
            learning_rates.step()


def predict(classifier: nn.Module, read: Read, index: Int[Tensor, " M"]) -> Int[np.ndarray, " M"]:
    """Classify the images at the given indices."""
    with frozen(classifier):
        parts = [classifier(read(batch)).argmax(1).cpu() for batch in index.split(IMAGES_AT_ONCE)]
    return torch.cat(parts).numpy()


@dataclass(frozen=True, kw_only=True)
class HeadProbe:
    """A head on frozen features, and how it is trained."""

    build: Callable[[], nn.Module]
    optimize: Callable[[Iterator[nn.Parameter], float], torch.optim.Optimizer]
    """Makes an optimizer of parameters and a peak learning rate."""
    rates: tuple[float, ...]
    """Peak learning rates to choose from."""
    seed: int
    device: str
    epochs: int

    def fit(
        self, read: Read, labels: Int[np.ndarray, " M"], rate: float, index: Int[Tensor, " F"]
    ) -> nn.Module:
        """Train a new head on the images at the given indices."""
        known = torch.from_numpy(np.asarray(labels, dtype=np.int64))
        head = seeded(self.build, self.seed).to(self.device)
        descend(
            self.optimize(head.parameters(), rate),
            lambda batch: F.cross_entropy(
                head(self.on_device(read)(batch)), known[batch].to(self.device)
            ),
            index,
            epochs=self.epochs,
            batch_size=BATCH_SIZE,
            generator=torch.Generator().manual_seed(self.seed),
        )
        return head

    def choose(self, read: Read, labels: Int[np.ndarray, " M"]) -> tuple[float, float]:
        """Choose a learning rate on the held-out tenth; its accuracy there comes second.

        Raises:
            ValueError: no tenth can be held out, see :func:`foveate.probes.hold_out`.
        """
        fit, held = (torch.from_numpy(part) for part in hold_out(labels, self.seed))
        heads = (self.fit(read, labels, rate, fit) for rate in self.rates)
        scores = [score(self.classify(head, read, held), labels[held])[0] for head in heads]
        best = int(np.argmax(scores))
        return self.rates[best], scores[best]

    def classify(
        self, head: nn.Module, read: Read, index: Int[Tensor, " K"]
    ) -> Int[np.ndarray, " K"]:
        """Classify the images at the given indices."""
        return predict(head, self.on_device(read), index)

    def measure(
        self,
        train_x: Read,
        train_y: Int[np.ndarray, " M"],
        test_x: Read,
        test_y: Int[np.ndarray, " K"],
    ) -> HeadAccuracy:
        """Choose a learning rate, refit on all of train, and test once."""
        rate, reached = self.choose(train_x, train_y)
        head = self.fit(train_x, train_y, rate, torch.arange(len(train_y)))
        predicted = self.classify(head, test_x, torch.arange(len(test_y)))
        return HeadAccuracy(*score(predicted, np.asarray(test_y)), reached, rate)

    def on_device(self, read: Read) -> Read:
        """Return what reads the same, as float32 on the device."""
        return lambda index: read(index).to(self.device).float()


# --- linear


def sgd_probe(
    train_x: Float[np.ndarray, "M D"],
    train_y: Int[np.ndarray, " M"],
    test_x: Float[np.ndarray, "K D"],
    test_y: Int[np.ndarray, " K"],
    *,
    seed: int,
    device: str = "cpu",
    epochs: int = 90,
) -> HeadAccuracy:
    """Batch normalization without learned scale, then a linear layer, trained by SGD.

    Reference: MAE (He et al. 2022, arXiv 2111.06377), App. A.1, with SGD of momentum 0.9 for LARS
    as in SAIM (arXiv 2212.01610). Differs: batches of 256, no augmentation, learning rate chosen
    on held-out images.

    Raises:
        ValueError: no tenth can be held out, see :func:`foveate.probes.hold_out`.
    """
    num_classes = int(train_y.max()) + 1

    def build() -> nn.Module:
        linear = nn.Linear(train_x.shape[1], num_classes)
        nn.init.trunc_normal_(linear.weight, std=0.01)
        return nn.Sequential(nn.BatchNorm1d(train_x.shape[1], affine=False, eps=1e-6), linear)

    probe = HeadProbe(
        build=build,
        optimize=lambda parameters, rate: torch.optim.SGD(parameters, lr=rate, momentum=0.9),
        rates=SGD_RATES,
        seed=seed,
        device=device,
        epochs=epochs,
    )
    seen, unseen = (torch.from_numpy(x).__getitem__ for x in (train_x, test_x))
    return probe.measure(seen, train_y, unseen, test_y)

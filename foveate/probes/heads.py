"""Probes of frozen features that are trained by gradient descent: SGD, and attentive pooling.

Their learning rate is chosen on a held-out tenth of train, then they are refitted on all of it.
Nothing draws from torch's global random state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.optim import CosineDecay
from foveate.probes.features import Attention, States, frozen, patch_features
from foveate.probes.linear import ChosenAccuracy, hold_out, score

Module = TypeVar("Module", bound=nn.Module)
Read = Callable[[Tensor], Tensor]
"""Maps image indices (B,) to what a probe sees of these images, B first."""

SGD_RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Peak learning rates that the SGD probe chooses from."""
ATTENTIVE_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
"""Peak learning rates that the attentive probe chooses from."""
MAX_TOKEN_BYTES = 2**31
"""Up to so many, the patch tokens of one layer and split are kept in memory."""


@dataclass(frozen=True)
class HeadAccuracy(ChosenAccuracy):
    """Of a classifier trained by gradient descent."""

    learning_rate: float
    """Its peak, chosen on the held-out part of train."""


# --- gradient descent


def seeded(build: Callable[[], Module], seed: int) -> Module:
    """Build a module whose weights follow from the seed; the global random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


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


def predict(
    classifier: nn.Module, read: Read, index: Int[Tensor, " M"], batch_size: int = 500
) -> Int[np.ndarray, " M"]:
    """Classify the images at the given indices."""
    with frozen(classifier):
        parts = [classifier(read(batch)).argmax(1).cpu() for batch in index.split(batch_size)]
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
    batch_size: int

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
            batch_size=self.batch_size,
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
    batch_size: int = 256,
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
        batch_size=batch_size,
    )
    seen, unseen = (torch.from_numpy(x).__getitem__ for x in (train_x, test_x))
    return probe.measure(seen, train_y, unseen, test_y)


# --- attentive


def token_bytes(model: AnyOrderTransformer, num_images: int) -> int:
    """Memory that the patch tokens of one layer take in float16: 2 M N D bytes."""
    return 2 * num_images * model.num_patches * model.config.embed_dim


def frozen_tokens(
    model: AnyOrderTransformer,
    image_set: ImageSet,
    layer: int,
    *,
    attention: Attention = "full",
    states: States = "content",
    max_bytes: int = MAX_TOKEN_BYTES,
    batch_size: int = 500,
) -> Read:
    """Return what reads the patch tokens (B, N, D) of one layer, in float16.

    They are extracted now if :func:`token_bytes` is at most ``max_bytes``, else whenever read.
    """
    device = next(model.parameters()).device
    largest = torch.finfo(torch.float16).max

    def compute(index: Tensor) -> Tensor:
        with frozen(model):
            images = image_set.batch(index, device=device)
            tokens = patch_features(model, images, attention, states)[layer]
        return tokens.clamp(-largest, largest).half()

    if token_bytes(model, len(image_set)) > max_bytes:
        return compute
    parts = [compute(index).cpu() for index in torch.arange(len(image_set)).split(batch_size)]
    return torch.cat(parts).__getitem__


class AttentiveHead(nn.Module):
    """Batch-normalized tokens, one learned query that attends to them, and a linear layer.

    As keys and values serve one query alone, their projections are applied to the query and to the
    attended mean: the same function at a fraction of the cost.

    Reference: the attentive probe of AIM (El-Nouby et al. 2024, arXiv 2401.08541), without its
    average over layers.
    """

    def __init__(self, embed_dim: int, num_classes: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"token width {embed_dim} is no multiple of num_heads {num_heads}")
        self.norm = nn.BatchNorm1d(embed_dim, affine=False, eps=1e-6)
        self.query = nn.Parameter(0.02 * torch.randn(num_heads, embed_dim // num_heads))
        self.key = nn.Linear(embed_dim, embed_dim, bias=False)
        self.value = nn.Linear(embed_dim, embed_dim, bias=False)
        self.linear = nn.Linear(embed_dim, num_classes)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B C"]:
        """Logits of every class; tokens that are all zeros are padding."""
        present = tokens.any(2)
        if present.all():
            tokens = self.norm(tokens.transpose(1, 2))
        else:
            # Padding may not move the batch's mean and deviation.
            real = self.norm(tokens[present])
            tokens = torch.zeros_like(tokens).masked_scatter(present.unsqueeze(2), real)
            tokens = tokens.transpose(1, 2)
        split = (len(self.query), -1)
        query = torch.einsum("hk,hkd->hd", self.query, self.key.weight.unflatten(0, split))
        attention = query @ tokens * self.query.shape[1] ** -0.5
        attention = attention.masked_fill(~present.unsqueeze(1), -torch.inf).softmax(2)
        attended = attention @ tokens.transpose(1, 2)
        value = self.value.weight.unflatten(0, split)
        return self.linear(torch.einsum("bhd,hkd->bhk", attended, value).flatten(1))


def attentive_probe(
    train_x: Read,
    train_y: Int[np.ndarray, " M"],
    test_x: Read,
    test_y: Int[np.ndarray, " K"],
    *,
    num_heads: int,
    seed: int,
    device: str = "cpu",
    epochs: int = 30,
    batch_size: int = 256,
) -> HeadAccuracy:
    """:class:`AttentiveHead` on frozen tokens, trained by AdamW with weight decay 0.05.

    Reference: AIMv2 (Fini et al. 2024, arXiv 2411.14402), Table A2. Differs: 30 epochs for 100 with
    learning rates to match, no augmentation and no gradient clipping.

    ``train_x`` and ``test_x`` come from :func:`frozen_tokens`, or are anything else that maps
    indices (B,) to tokens (B, N, D), such as a tensor's ``__getitem__``.

    Raises:
        ValueError: no tenth can be held out, see :func:`foveate.probes.hold_out`.
    """
    width, num_classes = train_x(torch.arange(1)).shape[-1], int(train_y.max()) + 1
    probe = attentive(
        width,
        num_classes,
        num_heads=num_heads,
        seed=seed,
        device=device,
        epochs=epochs,
        batch_size=batch_size,
    )
    return probe.measure(train_x, train_y, test_x, test_y)


def attentive(
    embed_dim: int,
    num_classes: int,
    *,
    num_heads: int,
    seed: int,
    device: str = "cpu",
    epochs: int = 30,
    batch_size: int = 256,
) -> HeadProbe:
    """Return :class:`AttentiveHead` and how :func:`attentive_probe` trains it."""
    return HeadProbe(
        build=lambda: AttentiveHead(embed_dim, num_classes, num_heads),
        optimize=lambda parameters, rate: torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05),
        rates=ATTENTIVE_RATES,
        seed=seed,
        device=device,
        epochs=epochs,
        batch_size=batch_size,
    )

"""Fine-tuning: a copy of the model learns to classify, all its weights included.

The probe that says most of a starting point and least of frozen features. Optionally the model's
own generative loss stays on (iGPT's joint objective).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foveate.data import ImageSet
from foveate.devices import device_of
from foveate.model import AnyOrderTransformer
from foveate.model.untaught import copy_untaught
from foveate.orders.segments import Fixations
from foveate.orders.semantic import model_ordering
from foveate.probes.features import Attention
from foveate.probes.heads import HeadAccuracy, descend, predict
from foveate.probes.linear import hold_out, score
from foveate.sampling import seeded
from foveate.sizes import check_at_least


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig:
    """How a model is fine-tuned."""

    epochs: int = 5
    """Passes over the training images; MAE takes 100."""
    learning_rates: tuple[float, ...] = (1e-3, 3e-3)
    """Peak learning rates of the last layers; of several, the held-out tenth chooses one."""
    layer_decay: float = 0.65
    """Learning rate of each encoder block over that of the next one."""
    weight_decay: float = 0.05
    """Of all matrices that learn: the encoder's, the head's, and beside the model's own loss the
    decoder's."""
    batch_size: int = 64
    """Images per step."""
    attention: Attention = "full"
    """Attention of the encoder where it classifies; causal is in raster order."""
    generative_weight: float = 0.0
    """Weight of the model's own loss beside the cross-entropy; 0 = off, iGPT takes 1."""
    generative_order: str = "random"
    """Order of that loss, by name as of :func:`foveate.orders.semantic.model_ordering`."""
    order_options: Mapping[str, int | float] = field(default_factory=dict)
    """Options of that order."""
    generative_fixation_size: int = 1
    """Side of the squares of patches that a step of that order opens."""
    generative_budget: int | None = None
    """Steps of that order, the patches behind them tie, as in training on scans; None = all."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "epochs", "batch_size")
        if not self.learning_rates or not all(0 < rate < math.inf for rate in self.learning_rates):
            raise ValueError(f"learning_rates must be above 0, got {self.learning_rates}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must lie in (0, 1], got {self.layer_decay}")
        check_at_least(self, 0, "weight_decay", "generative_weight")


class Headed(nn.Module):
    """A model and a linear layer on features of its last layer.

    The layer starts next to zero, as in facebookresearch/mae's main_finetune.py. So the first steps
    move it, and not the model by what a random layer makes of its features.
    """

    def __init__(self, model: AnyOrderTransformer, num_classes: int) -> None:
        super().__init__()
        self.model = model
        self.head = nn.Linear(model.config.embed_dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)


class Classifier(Headed):
    """Classifies by the mean of the last layer's patch tokens."""

    def __init__(self, model: AnyOrderTransformer, num_classes: int, attention: Attention) -> None:
        super().__init__(model, num_classes)
        self.attention = attention

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits of every class."""
        return self.head(self.model.features(images, self.attention)[-1].mean(1))


Tuned = TypeVar("Tuned", bound=Headed)


def layer_decay_groups(
    classifier: Headed, *, learning_rate: float, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups whose learning rates fall from the last layer to the first.

    With L blocks: r for the head, the final norm and decoders; ``r * d ** (L + 1 - l)`` for block
    l of 1..L; ``r * d ** (L + 1)`` for embeddings and positions. Only matrices decay.

    Reference: BEiT (Bao et al. 2022, arXiv 2106.08254), as MAE fine-tunes. By hand, since timm
    (1.0.31) gives the last block the rate of the final norm.
    """
    depth = len(classifier.model.encoder_blocks())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        block = re.match(r"model\.encoder\.blocks\.(\d+)\.", name)
        if block:
            level = depth - int(block[1])
        elif "decoder" in name or name.startswith(("head.", "model.encoder.norm.")):
            level = 0
        else:
            level = depth + 1
        is_matrix = name.endswith(".weight") and parameter.ndim > 1
        key = learning_rate * layer_decay**level, weight_decay if is_matrix else 0.0
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def fine_tune(
    model: AnyOrderTransformer,
    images: ImageSet,
    config: FineTuneConfig,
    *,
    learning_rate: float,
    seed: int,
) -> Classifier:
    """Train a copy of the model to classify labeled images; the model itself stays as it is.

    The loss is ``cross-entropy + generative_weight * model(images, rank)``, with an order drawn
    anew for each batch.

    Reference: MAE (He et al. 2022, arXiv 2111.06377), App. A.1: AdamW, layer decay, cosine; iGPT
    (Chen et al. 2020), Sec. 2.3: L_GEN + L_CLF. Differs: no augmentation, mixing, smoothing or
    drop path; the two losses take one encoder pass each, of different attention.
    """
    device = device_of(model)
    classifier = seeded(
        lambda: Classifier(copy_untaught(model), int(images.labels.max()) + 1, config.attention),
        seed,
    )
    classifier.to(device).train()
    # Apart from that of the batches, which are the same with and without the generative loss.
    generator = torch.Generator().manual_seed(seed)
    order = model_ordering(config.generative_order, classifier.model, **config.order_options)
    fixations = Fixations.squares(model.grid, config.generative_fixation_size)

    def loss(index: Tensor) -> Tensor:
        batch = images.batch(index, device=device)
        total = F.cross_entropy(classifier(batch), images.labels[index].to(device))
        if config.generative_weight > 0:
            rank = fixations.merged(order(batch, generator=generator))
            if config.generative_budget is not None:
                rank = rank.clamp(max=config.generative_budget)
            total = total + config.generative_weight * classifier.model(
                batch, rank, generator=generator
            )
        return total

    return tune(classifier, loss, len(images), config, learning_rate=learning_rate, seed=seed)


def tune(
    classifier: Tuned,
    loss: Callable[[Tensor], Tensor],
    num_images: int,
    config: FineTuneConfig,
    *,
    learning_rate: float,
    seed: int,
) -> Tuned:
    """Minimize a loss of image indices in all weights of a classifier, with layer decay."""
    optimizer = torch.optim.AdamW(
        layer_decay_groups(
            classifier,
            learning_rate=learning_rate,
            layer_decay=config.layer_decay,
            weight_decay=config.weight_decay,
        )
    )
    descend(
        optimizer,
        loss,
        torch.arange(num_images),
        epochs=config.epochs,
        batch_size=config.batch_size,
        generator=torch.Generator().manual_seed(seed),
    )
    return classifier.eval()


def best_rate(
    rates: Sequence[float],
    train: Callable[[float], Tuned],
    reached: Callable[[Tuned], float],
) -> tuple[float, float, Tuned]:
    """Train with every learning rate, at least one, and return what reached most.

    Returns:
        What it reached, its rate, and the classifier.
    """
    best: tuple[float, float, Tuned] | None = None
    for rate in rates:
        tuned = train(rate)
        value = reached(tuned)
        if best is None or value > best[0]:
            best = value, rate, tuned
    assert best is not None, "FineTuneConfig has at least one learning rate"
    return best


def fine_tune_probe(
    model: AnyOrderTransformer,
    train: ImageSet,
    test: ImageSet,
    config: FineTuneConfig,
    *,
    seed: int,
) -> HeadAccuracy:
    """Fine-tune on nine tenths of train, choose a learning rate on the rest, and test once.

    Differs from the other probes: there is no refit on all of train, which would cost as much again
    as a learning rate.

    Raises:
        ValueError: no tenth can be held out, see :func:`foveate.probes.hold_out`; or the model
            cannot take the generative order.
    """
    fit, held = (torch.from_numpy(part) for part in hold_out(train.labels.numpy(), seed))
    device = device_of(model)
    fit_images = train.take(fit)

    def held_accuracy(tuned: Classifier) -> float:
        predicted = predict(tuned, lambda index: train.batch(index, device=device), held)
        return score(predicted, train.labels[held].numpy())[0]

    reached, rate, tuned = best_rate(
        config.learning_rates,
        lambda rate: fine_tune(model, fit_images, config, learning_rate=rate, seed=seed),
        held_accuracy,
    )
    predicted = predict(
        tuned, lambda index: test.batch(index, device=device), torch.arange(len(test))
    )
    return HeadAccuracy(*score(predicted, test.labels.numpy()), reached, rate)

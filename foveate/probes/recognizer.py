"""Fine-tuning by fixations: a copy of the model learns to classify what a scan has seen so far.

With the policy that scans it is an active recognizer, whose every look narrows the class down.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from foveate.data import ImageSet
from foveate.devices import device_of
from foveate.model import AnyOrderTransformer
from foveate.model.untaught import copy_untaught
from foveate.probes.features import IMAGES_AT_ONCE, frozen
from foveate.probes.finetuning import FineTuneConfig, Headed, best_rate, tune
from foveate.probes.heads import HeadAccuracy
from foveate.probes.linear import hold_out, score
from foveate.probes.seen import seen_means
from foveate.sampling import seeded


class Recognizer(Headed):
    """Classifies after each of several numbers of fixations, from one causal pass.

    Its features are those of :func:`foveate.probes.seen.seen_means`, on which the head is linear.
    """

    def __init__(
        self, model: AnyOrderTransformer, num_classes: int, after: tuple[int, ...]
    ) -> None:
        super().__init__(model, num_classes)
        self.after = after

    def forward(
        self, images: Float[Tensor, "B C H W"], order: Int[Tensor, "B T *S"]
    ) -> Float[Tensor, "B U K"]:
        """Logits of every class after each number of fixations."""
        means = seen_means(self.model, images, order[:, : max(self.after)])
        return self.head(means[:, list(self.after)])


def fine_tune_by_fixations(
    model: AnyOrderTransformer,
    train: ImageSet,
    test: ImageSet,
    train_order: Int[Tensor, "M T *S"],
    test_order: Int[Tensor, "K T *S"],
    after: tuple[int, ...],
    how: FineTuneConfig,
    seed: int,
) -> dict[int, HeadAccuracy]:
    """Fine-tune one copy of the model that answers after every number of fixations.

    The loss is the mean cross-entropy over these numbers, all of which one causal pass gives. The
    learning rate is chosen on a held-out tenth of train by the mean accuracy over them; nothing is
    refitted. The model itself stays as it is.

    Reference: the predictor of GDFS (Covert et al. 2023, arXiv 2301.00557), one network for all
    numbers of features; layer decay and rates as :func:`foveate.probes.finetuning.fine_tune`.
    Differs: scans are made beforehand, by a policy that does not learn from the class.

    Args:
        model: with a causal stream; where its weights start.
        train: labeled images.
        test: labeled images.
        train_order: scanpaths on train, of patches or of segments padded with -1.
        test_order: scanpaths on test.
        after: numbers of fixations, each in 0..T.
        how: epochs, rates and decay. The encoder is causal, in scan order, whatever its
            ``attention`` says.
        seed: of the held-out images, the head's start and the batches.

    Raises:
        ValueError: ``after`` has no number, or one outside 0..T; a generative weight, for which a
            scan has no loss here; no tenth can be held out; or the model has no causal stream.
    """
    check_tuning(after, min(train_order.shape[1], test_order.shape[1]), how)
    tuned, rate, held = tuned_recognizer(model, train, train_order, after, how, seed)
    chosen = _scores(tuned, train.take(held), train_order[held])
    tested = _scores(tuned, test, test_order)
    return {
        number: HeadAccuracy(*tested[number], validation_accuracy=reached, learning_rate=rate)
        for number, (reached, _) in chosen.items()
    }


def tuned_recognizer(
    model: AnyOrderTransformer,
    train: ImageSet,
    train_order: Int[Tensor, "M T *S"],
    after: tuple[int, ...],
    how: FineTuneConfig,
    seed: int,
) -> tuple[Recognizer, float, Int[Tensor, " H"]]:
    """Train with every learning rate, and choose one; see :func:`fine_tune_by_fixations`.

    Returns:
        The recognizer, its learning rate, and the training images that were held out to choose it.
    """
    check_tuning(after, train_order.shape[1], how)
    fit, held = (torch.from_numpy(part) for part in hold_out(train.labels.numpy(), seed))
    fit_images, fit_order = train.take(fit), train_order[fit]

    def learn(rate: float) -> Recognizer:
        return train_recognizer(
            model, fit_images, fit_order, after, how, learning_rate=rate, seed=seed
        )

    def held_accuracy(tuned: Recognizer) -> float:
        named = named_classes(tuned, train.take(held), train_order[held])
        return float((named == train.labels[held].unsqueeze(1)).double().mean())

    _, rate, tuned = best_rate(how.learning_rates, learn, held_accuracy)
    return tuned, rate, held


def check_tuning(after: tuple[int, ...], most: int, how: FineTuneConfig) -> None:
    """Raise ValueError unless scans of ``most`` fixations can be fine-tuned for in this way."""
    if not after or not 0 <= min(after) <= max(after) <= most:
        given = " ".join(map(str, after)) or "none"
        raise ValueError(f"fixations must lie in 0..{most}, the length of the scans, got {given}")
    if how.generative_weight > 0:
        raise ValueError(
            "generative_weight has no effect where fine-tuning goes by fixations; leave it out"
        )


def _scores(
    recognizer: Recognizer, images: ImageSet, order: Int[Tensor, "M T *S"]
) -> dict[int, tuple[float, tuple[float, float] | None]]:
    """Return the accuracy after each number of fixations, and its interval."""
    named, labels = named_classes(recognizer, images, order).numpy(), images.labels.numpy()
    return {k: score(named[:, at], labels) for at, k in enumerate(recognizer.after)}


def train_recognizer(
    model: AnyOrderTransformer,
    images: ImageSet,
    order: Int[Tensor, "M T *S"],
    after: tuple[int, ...],
    how: FineTuneConfig,
    *,
    learning_rate: float,
    seed: int,
) -> Recognizer:
    """Train a copy of the model on labeled images and the scanpaths on them."""
    device = device_of(model)
    num_classes = int(images.labels.max()) + 1
    recognizer = seeded(lambda: Recognizer(copy_untaught(model), num_classes, after), seed)
    recognizer.to(device).train()

    def loss(index: Tensor) -> Tensor:
        logits = recognizer(images.batch(index, device=device), order[index].to(device))
        classes = images.labels[index].to(device).unsqueeze(1).expand(-1, len(after))
        return F.cross_entropy(logits.flatten(0, 1), classes.flatten())

    return tune(recognizer, loss, len(images), how, learning_rate=learning_rate, seed=seed)


def named_classes(
    recognizer: Recognizer, images: ImageSet, order: Int[Tensor, "M T *S"]
) -> Int[Tensor, "M U"]:
    """Return the class that each image is taken for after each number of fixations, on the CPU."""
    device = device_of(recognizer)
    with frozen(recognizer):
        batches = zip(
            images.batches(IMAGES_AT_ONCE, device), order.split(IMAGES_AT_ONCE), strict=True
        )
        parts = [recognizer(seen, paths.to(device)).argmax(2).cpu() for seen, paths in batches]
    return torch.cat(parts)

"""How the probe of the reward ``recognition`` learns: between scans, from what they have seen."""

from __future__ import annotations

import sys
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from envs.checks import check_classes
from envs.recognition import RecognitionProbe
from envs.rewards import REWARDS_OF_CLASSES
from experiments.training.batches import Scans, TrainingImages, repeated
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.updates import take_step
from foveate.model import AnyOrderTransformer
from foveate.optim import CosineDecay, set_rate
from foveate.orders.segments import Fixations
from foveate.probes.seen import seen_means

FIRST_STEPS = 200
"""Steps on scans in random order that are taken before the policy's first scan: where the probe
knows nothing yet, its rewards say nothing."""
FIRST_RATE = CosineDecay(peak=1e-2, end=FIRST_STEPS, floor=0.1)
"""Learning rate of these steps."""
RATE = 1e-3
"""Learning rate from then on, one step per iteration that scans."""


def make_probe(
    config: TrainConfig, model: AnyOrderTransformer, images: TrainingImages, processes: Processes
) -> RecognitionProbe | None:
    """Make the probe of a run whose reward needs one; say how many images it leaves out.

    Raises:
        ValueError: the images have no labels of two classes.
    """
    reward = None if config.policy is None else config.policy.reward
    if reward not in REWARDS_OF_CLASSES:
        return None
    held = images.held
    check_classes(held, reward)
    number = int((held.labels < 0).sum())
    if number and processes.is_first:
        print(
            f"warning: {number} of {len(held)} training images have no label; on them the reward "
            f"{reward!r} is 0",
            file=sys.stderr,
        )
    num_classes = max(len(held.class_names), int(held.labels.max()) + 1)
    return RecognitionProbe(model.config.embed_dim, num_classes).to(config.run.device)


class ProbeLearner:
    """A probe and its optimizer. No gradient reaches the model."""

    def __init__(
        self,
        config: TrainConfig,
        probe: RecognitionProbe,
        model: AnyOrderTransformer,
        images: TrainingImages,
        processes: Processes,
    ) -> None:
        self.config = config
        self.probe = probe
        self.model = model
        self.images = images
        self.processes = processes
        self.optimizer = torch.optim.AdamW(probe.parameters(), lr=RATE)

    @property
    def has_learned(self) -> bool:
        """Whether a step was taken."""
        return bool(self.optimizer.state)

    def begin(self, fixations: Fixations, generators: list[torch.Generator]) -> None:
        """Learn from scans in random order, unless it has learned already."""
        if self.has_learned:
            return
        size = self.config.per_micro_batch(self.config.optimization.warmup_batch_size)
        for step in range(FIRST_STEPS):
            scans = []
            for generator in generators:
                drawn = self.images.draw(size, generator)
                shuffled = torch.rand(size, len(fixations), generator=generator).argsort(1)
                order = fixations.scanpath(shuffled[:, : self.config.scan.budget])
                scans.append((drawn, order.to(self.config.run.device)))
            self.learn(scans, rate=FIRST_RATE(step))

    def learn(self, scans: list[Scans], rate: float = RATE) -> float:
        """Take one step on the scans of each micro-batch.

        Returns:
            Share of the scans whose class the probe named after their last fixation, before the
            step; of all processes.
        """
        num_micro_batches = self.config.optimization.micro_batches or 1
        correct, number = 0.0, 0.0
        for drawn, order in scans:
            images, index = repeated(drawn, len(order) // len(drawn[1]))
            with torch.no_grad():
                features = seen_means(self.model, images, order)
            labels = self.images.labels(index)
            self._loss(features, labels).div(num_micro_batches).backward()
            known = labels >= 0
            named = self.probe(features[:, -1]).argmax(1)
            correct += float((named == labels)[known].sum())
            number += float(known.sum())
        self.processes.sum_gradients(self.probe)
        set_rate([self.optimizer], rate)
        take_step(self.probe, [self.optimizer])
        correct, number = self.processes.sum([correct, number])
        return correct / max(1.0, number)

    def _loss(self, features: Float[Tensor, "B U D"], labels: Int[Tensor, "B"]) -> Tensor:
        """Mean cross-entropy after all numbers of fixations, of the images with a label."""
        each = self.probe.cross_entropy(features, labels.unsqueeze(1).expand(-1, features.shape[1]))
        return each.mean(1).sum() / (labels >= 0).sum().clamp_min(1)

    def state(self) -> dict[str, Any]:
        """Return what the next step depends on."""
        return {"probe": self.probe.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.probe.load_state_dict(state["probe"])
        self.optimizer.load_state_dict(state["optimizer"])

"""What the model learns from after the warm-up: the policy's scans, and random orders beside them.

How many of each there are may change along a line, and scans may be decoded backwards.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from experiments.training.batches import Drawn, Ranked, Scans, repeated
from experiments.training.config import TrainConfig
from experiments.training.groups import PolicyTraining
from experiments.training.model_learner import ModelLearner
from foveate.devices import send
from foveate.optim import LinearRamp
from foveate.orders import order_to_rank


class Mixer:
    """Makes the model's batches after the warm-up."""

    def __init__(self, config: TrainConfig, options: PolicyTraining, learner: ModelLearner) -> None:
        self.config = config
        self.options = options
        self.learner = learner
        self.random_share = random_share(config, options)

    def batch(self, at: int, scans: Scans, generator: torch.Generator) -> list[Ranked]:
        """Return scans and random orders of a micro-batch, as many as iteration ``at`` asks for.

        The scans that are taken are spread evenly over all, of which those of an image stand in
        succession: of every image one comes before a second one of any.
        """
        number = self.config.num_scanned(self.random_share(at))
        parts: list[Ranked] = []
        if number:
            drawn, order = scans
            drawn = repeated(drawn, len(order) // len(drawn[1]))
            parts.append(self._taken(drawn, order, number, generator))
        if num_random := self.config.num_learned - number:
            parts.append(self.learner.draw(num_random, generator))
        return parts

    def _taken(
        self,
        drawn: Drawn,
        order: Int[Tensor, "S T *K"],
        number: int,
        generator: torch.Generator,
    ) -> Ranked:
        """Rank so many of the scanned images by their scans."""
        images, index = drawn
        if number < len(order):
            taken = torch.arange(number) * len(order) // number
            order = order[send(taken, order.device)]
            images, index = images[send(taken, images.device)], index[taken.to(index.device)]
        num_patches = self.learner.model.num_patches
        rank = order_to_rank(order, num_patches, check=False)
        is_single = order.ndim == 2
        num_steps = order.shape[1]
        if self.options.scan_direction == "reversed":
            rank, num_steps = self.learner.fixations.reversed(rank, generator), num_patches
        num_steps = min(num_steps, self.learner.most_steps)
        rank = rank.clamp(max=num_steps)
        last_rank = min(num_steps, num_patches - 1) if is_single else None
        return Ranked(images, index, rank, ties=not is_single, last_rank=last_rank)


def check_shares(config: TrainConfig, options: PolicyTraining) -> None:
    """Raise ValueError if a share of random orders comes to none, as micro-batches are too small.

    They are counted in each micro-batch, of which every process has one.
    """
    shares = {"random_share": options.random_share, "random_share_end": options.random_share_end}
    for name, share in shares.items():
        if share is not None and share > 0 and config.num_scanned(share) == config.num_learned:
            raise ValueError(
                f"{name} {share:g} comes to no random order, as each of the "
                f"{config.optimization.micro_batches or 1} micro-batches holds "
                f"{config.num_learned} scans; give a larger share, or 0, or a larger batch_size"
            )


def random_share(config: TrainConfig, options: PolicyTraining) -> LinearRamp:
    """Return the share of random orders in each iteration with the policy."""
    return LinearRamp(
        first=options.random_share,
        last=options.last_random_share,
        start=config.optimization.warmup_iterations,
        end=config.total_iterations - 1,
    )

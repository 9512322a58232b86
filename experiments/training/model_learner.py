"""How the model learns: orders of batches, one update, and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from experiments.training.batches import Ranked, TrainingImages
from experiments.training.build import build_optimizers
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes, load_optimizer, whole
from experiments.training.updates import LEAST_RATE, clip_and_step
from foveate.devices import send
from foveate.finite import NotFinite
from foveate.model import AnyOrderTransformer
from foveate.model.asking import Emphasis
from foveate.model.teachers import Teacher
from foveate.model.tracks import NOTHING
from foveate.optim import CosineDecay, set_rate
from foveate.orders import check_rank, may_tie, rank_to_order, ranked, tie_prefix
from foveate.orders.ranks import check_steps
from foveate.orders.segments import Fixations
from foveate.orders.semantic import model_ordering
from foveate.palette import fit_palette

NUM_TRACKS = 8
"""Tracks of words per image, at most."""
ALONE_SHARE, WHOLE_SHARE = 0.1, 0.4
"""Shares of batches whose captions are learned without the image, and with all of it; in the rest
they are learned after a number of steps, all equally often."""
PALETTE_IMAGES = 5000
"""Training images whose colors a palette is fitted to."""


class ModelLearner:
    """The model with its optimizers, its teacher, and the order it learns from."""

    def __init__(
        self,
        config: TrainConfig,
        model: AnyOrderTransformer,
        images: TrainingImages,
        processes: Processes,
        teacher: Teacher | None = None,
    ) -> None:
        self.config = config
        self.model = model
        self.images = images
        self.processes = processes
        self.optimizers = build_optimizers(config, model)
        self.rate = model_rate(config)
        self.teacher = teacher
        # One that starts from another reads colors by the palette of that one.
        if model.config.target == "colors" and bool(model.palette.isnan().any()):
            sample = images.held.images[:PALETTE_IMAGES]
            model.palette.copy_(fit_palette(sample, model.config.num_colors, seed=config.run.seed))
        self.fixations = Fixations.squares(model.grid, config.scan.fixation_size)
        self.order = model_ordering(config.parts.order, model, **config.parts.order_options)

    def check_order(self) -> None:
        """Raise ValueError if the order is none, or one that the recipe's parts do not take."""
        config, model = self.config, self.model
        with torch.no_grad():
            images = self.images.held.batch(
                torch.arange(2) % len(self.images.held), config.run.device
            )
            rank = self.order(images, generator=torch.Generator().manual_seed(config.run.seed))
            check_rank(rank, model.num_patches)
            if model.config.queries == "unseen":
                check_steps(rank)
            if model.config.queries == "own" and not config.run.shard:
                model.predict_in_turn(images, rank)

    @property
    def most_steps(self) -> int:
        """Steps of an order that are encoded, at most; all later patches tie behind them."""
        if self.model.config.queries == "unseen":
            return self.config.scan.budget
        return self.config.teaching.encode_first or self.model.num_patches

    def draw(self, size: int, generator: torch.Generator) -> Ranked:
        """Draw images in the recipe's order, as :meth:`in_order` ranks them.

        Now and then the whole batch has a tied prefix of any size.
        """
        images, index = self.images.draw(size, generator)
        share = self.config.optimization.prefix_share
        return self.in_order(images, index, generator, prefix_share=share)

    def in_order(
        self,
        images: Float[Tensor, "B C H W"],
        index: Int[Tensor, "B"],
        generator: torch.Generator,
        *,
        prefix_share: float = 0.0,
    ) -> Ranked:
        """Rank the patches of images in the recipe's order, as far as :attr:`most_steps` goes.

        A step of a model that learns from scans, or can be scanned, is a fixation.
        """
        num_patches, ties = self.model.num_patches, may_tie(self.order)
        rank = self.order(images, generator=generator)
        if self.config.parts.takes_budget and not self.fixations.is_single:
            rank, ties = self.fixations.merged(rank), True
        if prefix_share > 0 and float(torch.rand((), generator=generator)) < prefix_share:
            prefix = int(torch.randint(1, num_patches, (), generator=generator))
            rank, ties = tie_prefix(rank, prefix), ties if prefix == 1 else True
        last_rank = num_patches - 1 if ties is False else None
        if (most := self.most_steps) < num_patches:
            # What comes later ties at the last rank, of which ``ties`` does not speak.
            rank = rank.clamp(max=most)
            last_rank = None if last_rank is None else min(last_rank, most)
        return Ranked(images, index, rank, ties, last_rank)

    def update(
        self,
        at: int,
        batches: Iterable[list[Ranked]],
        generators: list[torch.Generator],
        emphasis: Emphasis | None = None,
    ) -> float:
        """Take one step on micro-batches and return the loss.

        Args:
            at: number of the iteration.
            batches: parts of each micro-batch, weighted by their numbers of images.
            generators: randomness of each micro-batch.
            emphasis: which patches count more; None = all alike.

        Raises:
            NotFinite: the loss or its gradient is not finite; no weight has changed.
        """
        set_rate(self.optimizers, self.rate(at))
        num_micro_batches = self.config.optimization.micro_batches or 1
        total = torch.zeros((), dtype=torch.float64, device=self.config.run.device)
        images: list[Tensor] = []
        for pairs, generator in zip(batches, generators, strict=True):
            loss = self._loss(pairs, generator, emphasis)
            (loss / num_micro_batches).backward()
            total += loss.detach()
            images += [batch.index for batch in pairs]
        # One look for all micro-batches, since the host waits for the device then.
        value = self.processes.sum([float(total)])[0] / num_micro_batches
        if not math.isfinite(value):
            self.model.zero_grad()
            raise NotFinite(f"the loss is {value}", images, cause="model")
        clip_and_step(self.model, self.optimizers, self.processes, "model", images)
        if self.teacher is not None:
            self.teacher.update(self.model)
        return value

    def _loss(
        self, batches: list[Ranked], generator: torch.Generator, emphasis: Emphasis | None
    ) -> Tensor:
        num_images = sum(len(batch.rank) for batch in batches)
        loss = torch.zeros((), device=self.config.run.device)
        for batch in batches:
            words = self.words_of(batch, generator)
            part = self.loss_of(batch, generator, words, emphasis)
            loss = loss + len(batch.images) / num_images * part
        return loss

    def loss_of(
        self,
        batch: Ranked,
        generator: torch.Generator,
        words: Mapping[str, Tensor | None] = MappingProxyType({}),
        emphasis: Emphasis | None = None,
    ) -> Float[Tensor, ""]:
        """Return the model's loss of images in their order, and of words, if there are any."""
        features = None if self.teacher is None else self.teacher(batch.images)
        with self.autocast():
            loss: Tensor = self.model(
                batch.images,
                batch.rank,
                ties=batch.ties,
                last_rank=batch.last_rank,
                num_steps=self.config.scan.budget + 1,
                generator=generator,
                features=features,
                **words,
                emphasis=emphasis,
            )
        return loss

    def autocast(self) -> torch.autocast:
        """Return the context of the model's training passes."""
        device = torch.device(self.config.run.device).type
        bfloat16 = self.config.optimization.precision == "bf16"
        return torch.autocast(device, torch.bfloat16, enabled=bfloat16)

    def words_of(self, batch: Ranked, generator: torch.Generator) -> dict[str, Tensor | None]:
        """Return what the model is to write of a batch: its arguments about words.

        Tracks of words start at the first patches of the order: a policy's first fixations.
        Captions are read from the same number of steps in all images of the batch.
        """
        images, rank, index = self.images, batch.rank, batch.index
        if images.captions is not None:
            number = min(NUM_TRACKS, self.config.scan.budget, self.model.num_patches)
            anchors = rank_to_order(ranked(rank, generator))[:, :number]
            return {"anchors": anchors, "words": images.captions.words(index, anchors)}
        if images.texts is None:
            return {}
        options = self.config.teaching
        words = send(images.texts.draw(index, generator, options.num_captions), rank.device)
        read = None
        if options.word_dropout > 0:
            hidden = torch.rand(words.shape, generator=generator) < options.word_dropout
            read = words.masked_fill(send(hidden, rank.device), -1)
        chance = float(torch.rand((), generator=generator))
        last = int(rank.max()) if batch.last_rank is None else batch.last_rank
        steps = int(torch.randint(last + 1, (), generator=generator))
        if chance < ALONE_SHARE + WHOLE_SHARE:
            steps = NOTHING if chance < ALONE_SHARE else self.model.num_patches
        if options.parallel_share > 0 and steps != NOTHING:
            if float(torch.rand((), generator=generator)) < options.parallel_share:
                read = torch.full_like(words[:, :1], -1)
        visible = torch.full_like(rank[:, 0], steps)
        return {"words": words, "word_steps": visible, "words_read": read}

    def state(self) -> dict[str, Any]:
        """Return what the next update depends on beside the model's weights."""
        return {
            "model_optimizers": [whole(each.state_dict()) for each in self.optimizers],
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state.

        Raises:
            ValueError: its optimizers know of another number of weights.
        """
        for optimizer, saved in zip(self.optimizers, state["model_optimizers"], strict=True):
            ours, theirs = (
                sum(len(group["params"]) for group in groups)
                for groups in (optimizer.param_groups, saved["param_groups"])
            )
            if ours != theirs:
                raise ValueError(
                    f"the optimizer in {self.config.run.out} knows {theirs} tensors of weights, "
                    f"and this version's model has {ours} (of features, it learns its error as "
                    "well); begin another run with its weights by --start-from"
                )
            decays = [group["weight_decay"] for group in optimizer.param_groups]
            load_optimizer(optimizer, saved)
            # A continuation may have another one.
            for group, decay in zip(optimizer.param_groups, decays, strict=True):
                group["weight_decay"] = decay
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])


def model_rate(config: TrainConfig) -> CosineDecay:
    """Return the model's learning rate: it falls with the policy's, or, alone, all along."""
    total = config.total_iterations
    return CosineDecay(
        peak=config.optimization.model_lr,
        start=config.optimization.warmup_iterations if config.policy else 0,
        end=total,
        floor=LEAST_RATE if config.parts.lr_schedule == "cosine" else 1.0,
        ramp=min(100, math.ceil(total / 10)),
    )

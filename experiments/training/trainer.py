"""One iteration of joint training: batches, orders, updates, and all that a checkpoint holds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from agents.group_relative import policy_step
from agents.policies import PolicyConfig
from envs.rewards import reward_named
from envs.vector import ImageScanVectorEnv
from experiments.training.batches import Drawn, Ranked, Scans, make_stream, moved, repeated
from experiments.training.build import (
    build,
    build_optimizers,
    load_captions,
    load_split,
    load_weights,
)
from experiments.training.config import TrainConfig
from experiments.training.distributed import (
    Processes,
    descend,
    load_optimizer,
    parameters_together,
    sharded_like,
    whole,
)
from experiments.training.groups import PolicyTraining
from foveate.data import augment
from foveate.data.captions import Captions
from foveate.data.streaming import StreamState
from foveate.model.teachers import Teacher, make_teacher
from foveate.orders import check_rank, order_to_rank, rank_to_order, ranked, tie_prefix
from foveate.orders.semantic import model_ordering
from foveate.targets import fit_palette

if TYPE_CHECKING:
    from agents.joint_ppo import JointPPO

STREAM_SAMPLE = 256
"""Images of a stream that are looked at before training."""
NUM_TRACKS = 8
"""Tracks of words per image, at most."""
PALETTE_IMAGES = 5000
"""Training images whose colors a palette is fitted to."""

Learn = Callable[[list[Scans]], None]
"""Lets the model learn from the scans of each micro-batch."""


class Trainer:
    """Model, policy, their optimizers and all randomness; one :meth:`step` per iteration."""

    def __init__(self, config: TrainConfig, processes: Processes) -> None:
        self.config = config
        self.processes = processes
        torch.manual_seed(config.run.seed)
        self.stream = make_stream(config, processes) if config.data.stream else None
        with processes.one_before_the_others():
            # Of a stream a sample, the same for all processes, which must agree on a palette.
            limit = STREAM_SAMPLE if config.data.stream else config.data.limit
            self.images = load_split(config, "train", limit)
        self.pixels = self.images.images.to(config.run.device)
        self.captions: Captions | None = None
        words: tuple[str, ...] = ()
        max_words = 0
        if config.parts.tracks:
            self.captions = load_captions(config, self.images, "train")
            words, max_words = self.captions.vocabulary.words, self.captions.encoded.shape[1]
        if config.policy is not None:
            reward_named(config.policy.reward)
        self.model, self.policy = build(config, self.images.image_shape, words, max_words)
        if config.run.shard:
            processes.shard(self.model)
        self.model_optimizers = build_optimizers(config, self.model)
        self.teacher: Teacher | None = None
        if self.model.config.target == "features":
            self.teacher = make_teacher(config.model.teacher, self.model, config.run.device)
        if self.model.config.target == "colors":
            sample = self.images.images[:PALETTE_IMAGES]
            palette = fit_palette(sample, self.model.config.num_colors, seed=config.run.seed)
            self.model.palette.copy_(palette)
        self.ppo: JointPPO | None = None
        if config.policy is not None and config.policy.agent == "maskable-ppo":
            self.ppo = self._make_ppo(config.policy)
            self.policy, self.policy_optimizer = self.ppo.pointer, self.ppo.optimizer
        else:
            self.policy_optimizer = torch.optim.Adam(self.policy.parameters(), lr=0.0)
        self.num_micro_batches = config.optimization.micro_batches or 1
        self.order = model_ordering(config.parts.order, self.model, **config.parts.order_options)
        # An order that the parts do not take, or that is none, is refused before files are written.
        with torch.no_grad():
            images = self.images.batch(torch.arange(2) % len(self.images), config.run.device)
            rank = self.order(images, generator=torch.Generator().manual_seed(config.run.seed))
            check_rank(rank, self.model.num_patches)
            if self.model.config.queries == "own" and not config.run.shard:
                self.model.predict_in_turn(images, rank)
        self.generator = torch.Generator().manual_seed(config.run.seed)
        self.scans: list[Scans] = []
        self.measured: dict[str, float] = {}
        self.iteration = 0

    measured: dict[str, float]
    """Loss of the last iteration; of the last one that scanned auc, return and entropy."""

    def _make_ppo(self, options: PolicyTraining) -> JointPPO:
        # Seconds, which runs of the native agent need not wait.
        from agents.joint_ppo import JointPPO

        config = self.config
        env = ImageScanVectorEnv(
            options.batch_size * options.group,
            model=self.model,
            data=self.images,
            budget=config.scan.budget,
            reward=options.reward,
        )
        return JointPPO(
            env,
            discount=options.discount,
            hidden_dim=PolicyConfig().hidden_dim,
            seed=config.run.seed,
        )

    # --- one iteration

    def step(self) -> dict[str, float]:
        """Run one iteration and return the latest measurements."""
        self.measured |= self._iterate()
        return self.measured

    def _iterate(self) -> dict[str, float]:
        config, at = self.config, self.iteration
        since_warmup = at - config.optimization.warmup_iterations
        self.iteration += 1
        self._set_learning_rates(at)
        generators = self._generators()
        if since_warmup < 0:
            num_images = config.per_micro_batch(config.optimization.warmup_batch_size)
            return {"loss": self._learn_in_order(num_images, generators)}
        assert config.policy is not None
        if since_warmup % config.policy.policy_every and self.scans:
            return {"loss": self._learn_from_scans(generators)}
        model_learns = config.policy.schedule in ("joint", "frozen")
        policy_learns = config.policy.schedule in ("joint", "policy_only")
        if config.policy.schedule == "alternating":
            policy_learns = since_warmup // config.policy.alternate_every % 2 == 0
            model_learns = not policy_learns

        measured: dict[str, float] = {}

        def learn(scans: list[Scans]) -> None:
            self.scans = scans
            if model_learns:
                measured["loss"] = self._learn_from_scans(generators)

        if self.ppo is not None:
            return {**self._scan_with_ppo(self.ppo, at, learn), **measured}
        return {**self._scan_in_groups(at, policy_learns, generators, learn), **measured}

    def _generators(self) -> list[torch.Generator]:
        """Randomness of each micro-batch of this process.

        A single micro-batch draws from the trainer's own generator. Several draw from one each,
        seeded from it, so that whichever process works on a micro-batch draws the same.
        """
        if self.num_micro_batches == 1:
            return [self.generator]
        seeds = torch.randint(2**62, (self.num_micro_batches,), generator=self.generator)
        return [torch.Generator().manual_seed(s) for s in self.processes.share(seeds.tolist())]

    def _scan_in_groups(
        self, at: int, policy_learns: bool, generators: list[torch.Generator], learn: Learn
    ) -> dict[str, float]:
        """Scan with the native policy, update it, and hand the scans to the model."""
        config = self.config
        assert config.policy is not None
        num_images = config.per_micro_batch(config.policy.batch_size)
        batches = [self._batch(num_images, generator) for generator in generators]
        with parameters_together(self.model):
            steps = [
                policy_step(
                    self.model,
                    self.policy,
                    images,
                    budget=config.scan.budget,
                    reward=config.policy.reward,
                    group=config.policy.group,
                    discount=config.policy.discount,
                    entropy_weight=self._entropy_weight(at),
                    num_candidates=config.policy.num_candidates,
                    generator=generator,
                )
                for (images, _), generator in zip(batches, generators, strict=True)
            ]
        if policy_learns:
            # The graphs of all micro-batches are alive until the scale is known.
            advantage = torch.cat([step.advantage for step in steps])
            scale = self.processes.gather(advantage).std()
            for step in steps:
                (step.loss_scaled_by(scale) / self.num_micro_batches).backward()
            descend(self.policy, [self.policy_optimizer], self.processes)
        learn([(drawn, step.order) for drawn, step in zip(batches, steps, strict=True)])
        measured = [(step.auc, step.episode_return, step.entropy) for step in steps]
        sums = self.processes.sum([sum(values) for values in zip(*measured, strict=True)])
        means = (value / self.num_micro_batches for value in sums)
        return dict(zip(("auc", "return", "entropy"), means, strict=True))

    def _scan_with_ppo(self, ppo: JointPPO, at: int, learn: Learn) -> dict[str, float]:
        """Let MaskablePPO collect one rollout and learn from it; the model learns in between."""
        device = self.config.run.device
        return ppo.step(
            at,
            lambda index, order: learn(
                [((self.images.batch(index, device=device), index), order.to(device))]
            ),
            learning_rate=self.policy_optimizer.param_groups[0]["lr"],
            entropy_weight=self._entropy_weight(at),
        )

    def _learn_in_order(self, num_images: int, generators: list[torch.Generator]) -> float:
        """Update the model on micro-batches in the recipe's order."""
        batches = ([self.draw(num_images, each)] for each in generators)
        return self._update_model(batches, generators)

    def _learn_from_scans(self, generators: list[torch.Generator]) -> float:
        """Update the model on the policy's last scans and its share of random orders."""
        assert self.config.policy is not None
        batches: list[list[Ranked]] = []
        for (drawn, order), generator in zip(self.scans, generators, strict=True):
            pairs: list[Ranked] = []
            if self.config.policy.random_share < 1:
                scanned = repeated(drawn, len(order) // len(drawn[1]))
                pairs.append((scanned, order_to_rank(order, self.model.num_patches)))
            if self.config.num_random:
                pairs.append(self.draw(self.config.num_random, generator))
            batches.append(pairs)
        return self._update_model(batches, generators)

    def _update_model(
        self, batches: Iterable[list[Ranked]], generators: list[torch.Generator]
    ) -> float:
        """Take one step on micro-batches of (images, rank) pairs, each weighted by its images."""
        total = 0.0
        for pairs, generator in zip(batches, generators, strict=True):
            num_images = sum(len(rank) for _, rank in pairs)
            loss = torch.zeros((), device=self.config.run.device)
            for (images, index), rank in pairs:
                anchors = self._anchors(rank, generator)
                features = None if self.teacher is None else self.teacher(images)
                with self.autocast():
                    part = self.model(
                        images,
                        rank,
                        num_steps=self.config.scan.budget + 1,
                        generator=generator,
                        features=features,
                        anchors=anchors,
                        words=self._words(index, anchors),
                    )
                loss = loss + len(images) / num_images * part
            (loss / self.num_micro_batches).backward()
            total += float(loss.detach())
        value = self.processes.sum([total])[0] / self.num_micro_batches
        if not math.isfinite(value):
            raise ValueError(
                f"the loss is {value} at iteration {self.iteration}; lower --model-lr "
                "(the last checkpoint is kept)"
            )
        descend(self.model, self.model_optimizers, self.processes)
        if self.teacher is not None:
            self.teacher.update(self.model)
        return value

    def autocast(self) -> torch.autocast:
        """Return the context of the model's training passes."""
        device = torch.device(self.config.run.device).type
        return torch.autocast(
            device, torch.bfloat16, enabled=self.config.optimization.precision == "bf16"
        )

    # --- batches and orders

    def _anchors(
        self, rank: Int[Tensor, "B N"], generator: torch.Generator
    ) -> Int[Tensor, "B K"] | None:
        """Start tracks of words at the first patches of the order: a policy's first fixations."""
        if self.captions is None:
            return None
        number = min(NUM_TRACKS, self.config.scan.budget, self.model.num_patches)
        return rank_to_order(ranked(rank, generator))[:, :number]

    def _words(
        self, index: Int[Tensor, "B"], anchors: Int[Tensor, "B K"] | None
    ) -> Int[Tensor, "B K L"] | None:
        if self.captions is None or anchors is None:
            return None
        return self.captions.words(index, anchors)

    def _batch(self, size: int, generator: torch.Generator) -> Drawn:
        if self.stream is None:
            index = torch.randint(len(self.pixels), (size,), generator=generator)
            pixels = self.pixels[index.to(self.pixels.device)]
        else:
            index = torch.full((size,), -1)  # Nothing that needs numbers takes a stream.
            parts = [next(self.stream).images for _ in range(size // self.config.stream_batch)]
            pixels = torch.cat(parts).to(self.config.run.device)
        images = pixels.float() / 255
        if self.config.data.augment:
            images = augment(images, generator=generator)
        return images, index

    def draw(self, size: int, generator: torch.Generator) -> Ranked:
        """Draw images in the recipe's order; of unseen queries, scans of the budget's length.

        Now and then the whole batch has a tied prefix of any size.
        """
        drawn = self._batch(size, generator)
        rank = self.order(drawn[0], generator=generator)
        share = self.config.optimization.prefix_share
        if share > 0 and float(torch.rand((), generator=generator)) < share:
            prefix = int(torch.randint(1, self.model.num_patches, (), generator=generator))
            rank = tie_prefix(rank, prefix)
        if self.model.config.queries == "unseen":
            rank = rank.clamp(max=self.config.scan.budget)
        return drawn, rank

    # --- schedules

    def _decay(self, at: int) -> float:
        """Cosine from 1 to 0 over the iterations with the policy, or all if there are none."""
        first = self.config.optimization.warmup_iterations if self.config.iterations else 0
        progress = max(0, at - first) / max(1, self.config.total_iterations - first)
        return 0.5 * (1 + math.cos(math.pi * progress))

    def _entropy_weight(self, at: int) -> float:
        assert self.config.policy is not None
        return self.config.policy.entropy_weight * max(self._decay(at), 0.1)

    def _set_learning_rates(self, at: int) -> None:
        config = self.config
        # The model keeps 5% of its rate to the end: the policy's orders go on changing until then.
        left = self._decay(at) if config.parts.lr_schedule == "cosine" else 1.0
        ramp = min(100, math.ceil(config.total_iterations / 10))
        model_lr = config.optimization.model_lr * max(left, 0.05) * min(1.0, (at + 1) / ramp)
        for optimizer in self.model_optimizers:
            for group in optimizer.param_groups:
                group["lr"] = model_lr
        if config.policy is None:
            return
        policy_age = at - config.optimization.warmup_iterations + 1
        policy_lr = (
            config.policy.policy_lr * max(self._decay(at), 0.05) * min(1.0, max(policy_age, 0) / 10)
        )
        for group in self.policy_optimizer.param_groups:
            group["lr"] = policy_lr

    # --- checkpoints

    def state(self) -> dict[str, Any]:
        """Everything that the next iteration depends on, whether it is sharded or not."""
        rare = self.config.policy is not None and self.config.policy.policy_every > 1
        kept = self.scans if rare else []
        return {
            "iteration": self.iteration,
            "image_shape": self.images.image_shape,
            "model_config": dataclasses.asdict(self.model.config),
            "model": whole(self.model.state_dict()),
            "policy": self.policy.state_dict(),
            "model_optimizers": [whole(each.state_dict()) for each in self.model_optimizers],
            "policy_optimizer": self.policy_optimizer.state_dict(),
            "actor_critic": None if self.ppo is None else self.ppo.state_dict(),
            "generator": self.generator.get_state(),
            "streams": self.processes.gather_objects(self._stream_state()),
            "scans": list(chain(*self.processes.gather_objects(moved(kept, "cpu")))),
            "measured": self.measured,
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
        }

    def _stream_state(self) -> StreamState | None:
        return None if self.stream is None else self.stream.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        weights = sharded_like(state["model"], self.model.state_dict())
        load_weights(self.model, self.policy, {**state, "model": weights}, self.config.run.out)
        for optimizer, saved in zip(self.model_optimizers, state["model_optimizers"], strict=True):
            load_optimizer(optimizer, saved)
        if self.ppo is not None:
            self.ppo.load_state_dict(state["actor_critic"])
        self.policy_optimizer.load_state_dict(state["policy_optimizer"])
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])
        self.generator.set_state(state["generator"].cpu())
        scans = self.processes.share(state.get("scans", []))
        self.scans = moved(scans, self.config.run.device)
        if self.stream is not None:
            if len(state["streams"]) != self.processes.count:
                raise ValueError(
                    f"a streaming run of {len(state['streams'])} processes resumes with as many, "
                    f"got {self.processes.count}"
                )
            self.stream.load_state_dict(state["streams"][self.processes.rank])
        self.iteration = state["iteration"]
        self.measured = dict(state.get("measured", {}))

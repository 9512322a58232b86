"""The training loop of ``experiments.train``."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from sb3_contrib import MaskablePPO
from torch import Tensor, nn
from tqdm import tqdm

from agents.group_relative import policy_step
from agents.policies import PointerPolicy, PolicyConfig
from agents.sb3 import AfterRollout, make_maskable_ppo
from envs.vector import ImageScanVectorEnv
from experiments.config import TrainConfig
from experiments.run import (
    build,
    check_device,
    check_folder,
    git_commit,
    load_split,
    load_weights,
    read_manifest,
    save_checkpoint,
    seconds_so_far,
    set_threads,
    trim_metrics,
    write_config,
    write_manifest,
)
from foveate.checkpoint import CHECKPOINT, read_checkpoint
from foveate.data import augment
from foveate.orders import order_to_rank, ordering, tie_prefix

Learn = Callable[[Float[Tensor, "B C H W"], Int[Tensor, "B T"]], None]


class Trainer:
    """Model, policy, their optimizers and all randomness; one :meth:`step` per iteration."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        self.images = load_split(config, "train", config.limit)
        self.pixels = self.images.images.to(config.device)
        self.model, self.policy = build(config, self.images.image_shape)
        # Muon (Jordan et al. 2024) on the hidden matrices: at equal steps far ahead of AdamW
        # here. The rest is AdamW's, without decay, which would only pull positions and the start
        # token toward zero.
        blocks = [*self.model.encoder.blocks.parameters(), *self.model.decoder.parameters()]
        hidden = [p for p in blocks if p.ndim == 2]
        others = [p for p in self.model.parameters() if not any(p is matrix for matrix in hidden)]
        self.model_optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                hidden,
                lr=config.model_lr,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(others, lr=config.model_lr, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.ppo: MaskablePPO | None = None
        if config.agent == "maskable-ppo":
            self.ppo = self._make_ppo()
            self.policy = cast(PointerPolicy, self.ppo.policy.mlp_extractor.pointer)
            self.policy_optimizer = self.ppo.policy.optimizer
        else:
            self.policy_optimizer = torch.optim.Adam(self.policy.parameters(), lr=config.policy_lr)
        self.random_order = ordering("random", self.model.grid)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.iteration = 0

    def _make_ppo(self) -> MaskablePPO:
        config = self.config
        env = ImageScanVectorEnv(
            config.batch_size * config.group,
            model=self.model,
            data=self.images,
            budget=config.budget,
            reward=config.reward,
        )
        return make_maskable_ppo(
            env,
            learning_rate=config.policy_lr,
            discount=config.discount,
            entropy_weight=config.entropy_weight,
            hidden_dim=PolicyConfig().hidden_dim,
            seed=config.seed,
        )

    # --- one iteration

    def step(self) -> dict[str, float]:
        """Run one iteration and return its measurements."""
        config, at = self.config, self.iteration
        since_warmup = at - config.warmup_iterations
        self.iteration += 1
        self._set_learning_rates(at)
        if since_warmup < 0:
            return {"loss": self._update_model(*self._random_batch(config.warmup_batch_size))}
        model_learns = config.schedule in ("joint", "frozen")
        policy_learns = config.schedule in ("joint", "policy_only")
        if config.schedule == "alternating":
            policy_learns = since_warmup // config.alternate_every % 2 == 0
            model_learns = not policy_learns

        measured: dict[str, float] = {}

        def learn(images: Float[Tensor, "B C H W"], order: Int[Tensor, "B T"]) -> None:
            if model_learns:
                measured["loss"] = self._learn_from_scans(images, order)

        if config.agent == "maskable-ppo":
            return {**self._scan_with_ppo(at, learn), **measured}
        return {**self._scan_in_groups(at, policy_learns, learn), **measured}

    def _scan_in_groups(self, at: int, policy_learns: bool, learn: Learn) -> dict[str, float]:
        """Scan with the native policy, update it, and hand the scans to the model."""
        config = self.config
        images = self._batch(config.batch_size)
        scans = policy_step(
            self.model,
            self.policy,
            images,
            budget=config.budget,
            reward=config.reward,
            group=config.group,
            discount=config.discount,
            entropy_weight=self._entropy_weight(at),
            generator=self.generator,
        )
        if policy_learns:
            descend(self.policy, [self.policy_optimizer], scans.loss)
        learn(images.repeat_interleave(config.group, dim=0), scans.order)
        return {"auc": scans.auc, "return": scans.episode_return, "entropy": scans.entropy}

    def _scan_with_ppo(self, at: int, learn: Learn) -> dict[str, float]:
        """Let MaskablePPO collect one rollout and learn from it; the model learns in between."""
        assert self.ppo is not None
        # stable-baselines3 draws from the global generators: seeded anew for every iteration, a
        # resumed run goes on as if it had never stopped.
        self.ppo.set_random_seed(self.config.seed * 1_000_003 + at)
        self.ppo.ent_coef = self._entropy_weight(at)
        rate = self.policy_optimizer.param_groups[0]["lr"]
        self.ppo.lr_schedule = lambda _: rate
        self.ppo._last_obs = None  # Observations of the model as it was before its update.
        after = AfterRollout(
            lambda index, order: learn(
                self.images.batch(index, device=self.config.device), order.to(self.config.device)
            )
        )
        num_steps = self.ppo.n_steps * self.ppo.n_envs
        # An interval never reached: the measurements stay in the logger, to be read below.
        self.ppo.learn(num_steps, callback=after, log_interval=2**62, reset_num_timesteps=False)
        return {
            "auc": float(np.mean(after.errors)),
            "return": float(self.ppo.rollout_buffer.rewards.sum(0).mean()),
            "entropy": -float(self.ppo.logger.name_to_value["train/entropy_loss"]),
        }

    def _learn_from_scans(
        self, images: Float[Tensor, "B C H W"], order: Int[Tensor, "B T"]
    ) -> float:
        """Update the model on the policy's scans and its share of random orders."""
        batches: list[Tensor] = []
        if self.config.random_share < 1:
            batches += [images, order_to_rank(order, self.model.num_patches)]
        if self.config.num_random:
            batches += self._random_batch(self.config.num_random)
        return self._update_model(*batches)

    def _update_model(self, *batches: Tensor) -> float:
        """Take one step on (images, rank) pairs, each pair weighted by its images."""
        pairs = list(zip(batches[::2], batches[1::2], strict=True))
        total = sum(len(images) for images, _ in pairs)
        loss = torch.zeros((), device=self.config.device)
        for images, rank in pairs:
            num_steps = self.config.budget + 1
            loss = loss + len(images) / total * self.model(
                images, rank, num_steps=num_steps, generator=self.generator
            )
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(
                f"the loss is {value} at iteration {self.iteration}; lower --model-lr "
                "(the last checkpoint is kept)"
            )
        descend(self.model, self.model_optimizers, loss)
        return value

    # --- batches and orders

    def _batch(self, size: int) -> Float[Tensor, "B C H W"]:
        index = torch.randint(len(self.pixels), (size,), generator=self.generator)
        images = self.pixels[index.to(self.pixels.device)].float() / 255
        return augment(images, generator=self.generator) if self.config.augment else images

    def _random_batch(self, size: int) -> tuple[Float[Tensor, "B C H W"], Int[Tensor, "B N"]]:
        """Draw images with random scans of the budget's length.

        Now and then the whole batch has a tied prefix of any size.
        """
        images = self._batch(size)
        rank = self.random_order(images, generator=self.generator)
        if float(torch.rand((), generator=self.generator)) < self.config.prefix_share:
            prefix = int(torch.randint(1, self.model.num_patches, (), generator=self.generator))
            rank = tie_prefix(rank, prefix)
        return images, rank.clamp(max=self.config.budget)

    # --- schedules

    def _decay(self, at: int) -> float:
        """Cosine from 1 to 0 over the iterations after the warm-up; 1 before."""
        progress = max(0, at - self.config.warmup_iterations) / max(1, self.config.iterations)
        return 0.5 * (1 + math.cos(math.pi * progress))

    def _entropy_weight(self, at: int) -> float:
        return self.config.entropy_weight * max(self._decay(at), 0.1)

    def _set_learning_rates(self, at: int) -> None:
        config = self.config
        # The model keeps 5% of its rate to the end: the policy's orders go on changing until then.
        model_lr = config.model_lr * max(self._decay(at), 0.05) * min(1.0, (at + 1) / 100)
        policy_age = at - config.warmup_iterations + 1
        policy_lr = (
            config.policy_lr * max(self._decay(at), 0.05) * min(1.0, max(policy_age, 0) / 10)
        )
        for optimizer in self.model_optimizers:
            for group in optimizer.param_groups:
                group["lr"] = model_lr
        for group in self.policy_optimizer.param_groups:
            group["lr"] = policy_lr

    # --- checkpoints

    def state(self) -> dict[str, Any]:
        """Everything that the next iteration depends on."""
        return {
            "iteration": self.iteration,
            "image_shape": self.images.image_shape,
            "model_config": dataclasses.asdict(self.model.config),
            "model": self.model.state_dict(),
            "policy": self.policy.state_dict(),
            "model_optimizers": [optimizer.state_dict() for optimizer in self.model_optimizers],
            "policy_optimizer": self.policy_optimizer.state_dict(),
            "actor_critic": None if self.ppo is None else self.ppo.policy.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        load_weights(self.model, self.policy, state, self.config.out)
        for optimizer, saved in zip(self.model_optimizers, state["model_optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if self.ppo is not None:
            self.ppo.policy.load_state_dict(state["actor_critic"])
        self.policy_optimizer.load_state_dict(state["policy_optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.iteration = state["iteration"]


def descend(module: nn.Module, optimizers: list[torch.optim.Optimizer], loss: Tensor) -> None:
    """Take one step of a module's optimizers, gradients clipped to norm 1."""
    module.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()


def train(config: TrainConfig) -> Trainer:
    """Train as configured, write the run folder, and return the trainer."""
    set_threads(config.threads)
    check_device(config.device)
    check_folder(config)
    # Asked at the start: by the end of a long run the working tree may hold another commit.
    commit = git_commit()
    trainer = Trainer(config)
    if config.resume:
        trainer.load(read_checkpoint(config.out / CHECKPOINT, config.device))
        trim_metrics(config.out / "metrics.jsonl", trainer.iteration)
    else:
        write_config(config)
    first = trainer.iteration
    seconds_before = seconds_so_far(config.out / "metrics.jsonl")
    started, end = (
        time.perf_counter(),
        min(config.total_iterations, config.stop_after or config.total_iterations),
    )
    log = None
    if config.wandb != "disabled":
        import wandb

        log = wandb.init(
            project="foveate", mode=config.wandb, dir=config.out, config=dataclasses.asdict(config)
        )

    logged, logged_at = started, first
    progress = tqdm(
        total=config.total_iterations, initial=trainer.iteration, desc=config.out.name, unit="it"
    )
    with (config.out / "metrics.jsonl").open("a") as metrics, progress:
        while trainer.iteration < end:
            measured = trainer.step()
            at = trainer.iteration
            progress.update()
            if at % config.log_every == 0 or at == end:
                seconds = seconds_before + time.perf_counter() - started
                line = {"iteration": at, "seconds": round(seconds, 2), **measured}
                metrics.write(json.dumps(line) + "\n")
                metrics.flush()
                warming = at <= config.warmup_iterations
                images = config.warmup_batch_size if warming else config.batch_size
                now = time.perf_counter()
                speed = images * (at - logged_at) / (now - logged)
                logged, logged_at = now, at
                progress.set_postfix(
                    {**{k: f"{v:.3f}" for k, v in measured.items()}, "images/s": f"{speed:.0f}"}
                )
                if log is not None:
                    log.log(line, step=at)
            if at % config.save_every == 0 or at == end:
                save_checkpoint(config.out, trainer.state())
    if trainer.iteration > first:
        record_run(config, trainer, commit, seconds_before + time.perf_counter() - started)
    if log is not None:
        log.finish()
    if config.report and trainer.iteration == config.total_iterations:
        from experiments.report import report

        report(config.out)
    return trainer


def record_run(config: TrainConfig, trainer: Trainer, commit: str, seconds: float) -> None:
    """Write the manifest; a resumed run keeps the commits of its earlier parts."""
    earlier = read_manifest(config.out).get("commits", []) if config.resume else []
    write_manifest(
        config.out,
        commit=commit,
        commits=[*earlier, commit],
        iterations=trainer.iteration,
        train_seconds=round(seconds, 1),
        parameters={
            "model": sum(p.numel() for p in trainer.model.parameters()),
            "policy": sum(p.numel() for p in trainer.policy.parameters()),
        },
        data=config.data,
        train_images=len(trainer.images),
    )

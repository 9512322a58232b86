"""What a training run is made of.

No torch here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from foveate.config import Memory, TargetKind
from foveate.recipes import Recipe, recipe

POLICY_OPTIONS = (
    "reward",
    "discount",
    "entropy_weight",
    "group",
    "num_candidates",
    "policy_every",
    "agent",
    "schedule",
    "random_share",
    "policy_lr",
)
"""Options of iterations with a policy, and of nothing else."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One joint training run of policy and any-order transformer."""

    out: Path = Path("runs/demo")
    """Run folder: config, manifest, metrics, checkpoint and reports."""
    resume: bool = False
    """Continue the run in the run folder: from its checkpoint, or, before the first, anew."""
    stop_after: int | None = None
    """Stop with a checkpoint after this iteration, to be resumed later; None = run to the end."""
    report: bool = False
    """At the end compare orders, probe, and draw scanpaths."""
    seed: int = 0
    """Seed of all randomness: weights, batches, orders, actions."""
    device: str = "cpu"
    """Torch device."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the model's training passes: bf16 multiplies matrices in bfloat16 (autocast), with weights
    and their updates in float32. Rollouts are float32."""
    shard: bool = False
    """Shard the model over the processes of torchrun (FSDP2), if it is too large for each."""
    threads: int | None = None
    """CPU threads; None = torch's choice."""
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Weights & Biases beside metrics.jsonl."""

    data: str = "scenes"
    """scenes, a torchvision name (FashionMNIST, ...), a parquet file or folder, an image folder."""
    data_root: Path = Path("data")
    """Where torchvision sets lie or are downloaded to."""
    image_size: int | None = None
    """Resize and center-crop to this side, pixels; None = as they are."""
    limit: int | None = None
    """Use only the first so many training images; None = all."""
    stream: bool = False
    """Read training images from parquet or tar shards, or ``hf://NAME``, as they are needed,
    instead of holding all in memory. Needs image_size."""
    stream_workers: int = 0
    """Processes that decode streamed images."""
    channels: int | None = None
    """Color channels of streamed images, 1 or 3; None = 3."""
    augment: bool = False
    """Random flips and shifts of the training images (kornia)."""

    recipe: str = "foveate"
    """Row of foveate.recipes: order, stream, decoder and target of the model; or your own,
    ``MODULE:NAME``."""
    order: str | None = None
    """Order that the model learns from, in foveate.orders or foveate.orders.semantic, or your own,
    ``MODULE:NAME``; None = the recipe's."""
    order_options: dict[str, int | float] = field(default_factory=dict)
    """Options of the order, such as ``side 4`` of random_squares."""
    target: TargetKind | None = None
    """What the model predicts; None = the recipe's."""
    memory: Memory | None = None
    """What the decoder reads of the encoder (foveate/config.py); None = the recipe's."""
    teacher: str = "average"
    """Whose features are predicted (target="features"): ``average``, of the model's own weights
    over time, ``own``, of these weights as they are, or a timm model."""
    num_colors: int | None = None
    """Entries of the palette (target="colors"); None = the recipe's."""

    patch_size: int = 4
    """Side of a patch, pixels."""
    embed_dim: int = 96
    """Model width."""
    depth: int = 4
    """Encoder blocks."""
    num_heads: int = 4
    """Attention heads."""
    decoder_depth: int | None = None
    """Decoder blocks; None = the recipe's."""
    periphery: int = 2
    """Side, in patches, of the always-visible thumbnail; 0 = a blind scanner."""
    num_targets: int = 4
    """Random unseen patches predicted from each prefix."""

    budget: int = 12
    """Fixations per scan, T."""
    reward: str = "auc"
    """Reward per fixation: auc, gain, surprise, ease (envs/episode.py), or your own,
    ``MODULE:NAME``."""
    discount: float = 0.7
    """Discount per fixation."""
    entropy_weight: float = 0.03
    """Entropy bonus at the start; it falls with the learning rate."""
    group: int = 4
    """Scans of the same image that are one another's baseline."""

    num_candidates: int | None = None
    """In training the policy chooses among so many random unseen patches, whose errors stand for
    those of all, and only they are predicted; None = all. Cheaper scans, a noisier reward; the
    metrics auc and entropy are of this choice, and not comparable with those of another."""

    warmup_iterations: int = 1000
    """Model updates on the recipe's order alone, before the policy starts."""
    warmup_batch_size: int = 128
    """Images per warm-up iteration."""
    iterations: int = 1000
    """Iterations with the policy, after the warm-up; 0 = no policy."""
    batch_size: int = 16
    """Images scanned by the policy per iteration."""
    policy_every: int = 1
    """After the warm-up the policy scans and learns in every n-th iteration; in the others the
    model learns from its last scans again, beside new random orders."""
    micro_batches: int | None = None
    """Equal parts of every batch, each with its own randomness, whose gradients are accumulated.
    The processes of torchrun share them: with as many parts a run is the same, whatever the number
    of processes. None = one per process, or what the resumed run has."""
    agent: Literal["group-relative", "maskable-ppo"] = "group-relative"
    """Who learns the policy: the native group-relative policy gradient, or MaskablePPO of
    sb3-contrib (batch_size x group scans of as many images; schedules joint and policy_only)."""
    schedule: Literal["joint", "alternating", "policy_only", "frozen"] = "joint"
    """Who learns after the warm-up. joint: the policy in every iteration that scans, the model in
    every one; alternating: each for ``alternate_every`` iterations in turn; policy_only: the model
    is frozen; frozen: the policy is frozen as it started, uniformly random: the random-order
    control."""
    alternate_every: int = 10
    """Length of a phase of the alternating schedule, iterations."""
    random_share: float = 0.5
    """Share of random orders in the model's batches after warm-up; the rest are the policy's."""
    prefix_share: float = 0.25
    """Share of random-order batches that reveal a random number of first patches all at once
    (tied rank), so that the encoder also learns full attention."""
    model_optimizer: Literal["muon", "adamw"] = "muon"
    """Optimizer of the model's hidden matrices; all else is AdamW's. Muon needs them unsharded."""
    model_lr: float = 3e-3
    """Peak learning rate of the model, after 100 iterations, or a tenth of a run below 1000."""
    policy_lr: float = 2e-3
    """Peak learning rate of the policy, after the first 10 of its iterations."""
    weight_decay: float = 0.05
    """Weight decay of the model's hidden matrices; all else has none."""

    log_every: int = 10
    """Iterations per line of metrics.jsonl."""
    save_every: int = 200
    """Iterations per checkpoint."""

    def __post_init__(self) -> None:
        recipe(self.recipe)
        for name in ("random_share", "prefix_share", "discount"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}")
        at_least = {
            0: (
                "warmup_iterations",
                "iterations",
                "model_lr",
                "policy_lr",
                "weight_decay",
                "seed",
                "entropy_weight",
            ),
            1: (
                "budget",
                "warmup_batch_size",
                "batch_size",
                "micro_batches",
                "policy_every",
                "alternate_every",
                "log_every",
                "save_every",
                "threads",
                "stop_after",
                "limit",
                "image_size",
            ),
        }
        for least, names in at_least.items():
            for name in names:
                value = getattr(self, name)
                if value is not None and value < least:
                    raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.agent == "maskable-ppo" and self.schedule not in ("joint", "policy_only"):
            raise ValueError(
                f"schedule {self.schedule} needs --agent group-relative; "
                "maskable-ppo knows joint and policy_only"
            )
        if self.agent == "maskable-ppo" and self.augment:
            raise ValueError(
                "augment needs --agent group-relative; maskable-ppo scans images as they are stored"
            )
        if self.agent == "maskable-ppo" and self.num_candidates is not None:
            raise ValueError(
                "num_candidates needs --agent group-relative; maskable-ppo chooses among all"
            )
        if self.agent == "maskable-ppo" and (self.micro_batches or 1) > 1:
            raise ValueError(
                "micro_batches needs --agent group-relative; maskable-ppo takes a batch as a whole"
            )
        if self.shard and self.model_optimizer == "muon":
            raise ValueError("shard needs --model-optimizer adamw; Muon takes matrices as a whole")
        for name in self._batch_sizes:
            if getattr(self, name) % (self.micro_batches or 1):
                raise ValueError(
                    f"micro_batches (by default one per process) must divide {name} "
                    f"{getattr(self, name)}, got {self.micro_batches}"
                )
        if self.policy_every > 1 and self.schedule not in ("joint", "frozen"):
            raise ValueError("policy_every needs schedule joint or frozen; add --policy-every 1")
        if self.num_candidates is not None and self.num_candidates < 2:
            raise ValueError(f"num_candidates must be at least 2, got {self.num_candidates}")
        if self.stream and (self.image_size is None or self.agent == "maskable-ppo"):
            raise ValueError("stream needs --image-size, and --agent group-relative")
        parts = self.parts
        if self.augment and parts.tracks:
            raise ValueError("augment moves what words say the place of; leave it out with tracks")
        if self.prefix_share > 0 and parts.ranks != "any":
            raise ValueError(f"recipe {self.recipe} takes no tied prefixes; add --prefix-share 0")
        if self.teacher != "average" and parts.target != "features":
            raise ValueError("teacher needs target='features'")
        if self.num_colors is not None and parts.target != "colors":
            raise ValueError("num_colors needs target='colors'")
        if self.stream and self.limit is not None:
            raise ValueError("limit has no effect on a stream; add --limit None")
        if self.channels is not None and not self.stream:
            raise ValueError("channels goes with --stream")
        if self.stream and parts.tracks:
            raise ValueError(
                f"recipe {self.recipe} writes words, for which it needs all labels; "
                "leave out --stream"
            )
        if self.stream_workers < 0 or (self.stream_workers and not self.stream):
            raise ValueError("stream_workers goes with --stream, and must be at least 0")
        if self.group < 2:
            raise ValueError(
                f"group must be at least 2 (the others are the baseline), got {self.group}"
            )

    def check_effect(self) -> None:
        """Refuse options that nothing reads in this run, so that nobody compares their values.

        Raises:
            ValueError: names them all, and what to add.
        """
        parts = self.parts
        if self.total_iterations == 0:
            raise ValueError(
                "warmup_iterations and iterations are both 0, which trains nothing; "
                "--warmup-iterations 1 --model-lr 0 makes a run of the model as it starts"
            )
        idle: tuple[str, ...] = () if self.iterations else POLICY_OPTIONS
        if not self.iterations and not parts.scannable:
            idle += ("batch_size",) if parts.takes_budget else ("batch_size", "budget")
        changed = {
            name: getattr(type(self), name)
            for name in idle
            if getattr(self, name) != getattr(type(self), name)
        }
        if changed:
            options = " ".join(f"--{n.replace('_', '-')} {value}" for n, value in changed.items())
            raise ValueError(
                f"{', '.join(changed)}: of no effect without iterations with a policy; "
                f"leave out, or, where the preset says so, add {options}"
            )
        if self.schedule != "alternating" and self.alternate_every != type(self).alternate_every:
            raise ValueError("alternate_every needs --schedule alternating")
        if self.data in ("scenes", "cue") and self.data_root != type(self).data_root:
            raise ValueError(f"data_root has no effect on {self.data}, which needs no files")
        if self.stop_after is not None and self.stop_after > self.total_iterations:
            raise ValueError(
                f"stop_after {self.stop_after} lies beyond the end of the run, "
                f"iteration {self.total_iterations}"
            )

    def per_micro_batch(self, num_images: int) -> int:
        """Images of a batch that are in each of its micro-batches."""
        return num_images // (self.micro_batches or 1)

    @property
    def _batch_sizes(self) -> tuple[str, ...]:
        return ("batch_size", "warmup_batch_size") if self.iterations else ("warmup_batch_size",)

    @property
    def stream_batch(self) -> int:
        """Images that are streamed at once: the largest number that makes up every micro-batch."""
        sizes = [self.per_micro_batch(getattr(self, name)) for name in self._batch_sizes]
        return math.gcd(*sizes, *((self.num_random, self.num_learned) if self.iterations else ()))

    @property
    def parts(self) -> Recipe:
        """The recipe, with the parts that are swapped."""
        chosen = {
            "order": self.order,
            "target": self.target,
            "memory": self.memory,
            "decoder_depth": self.decoder_depth,
            "num_colors": self.num_colors,
            # Options of the recipe's order are not those of another.
            "order_options": self.order_options if self.order or self.order_options else None,
        }
        swapped = {name: part for name, part in chosen.items() if part is not None}
        return replace(recipe(self.recipe), **swapped)  # type: ignore[arg-type]

    @property
    def num_random(self) -> int:
        """Images with random orders in each of the model's micro-batches after the warm-up."""
        num_scans = self.per_micro_batch(self.batch_size) * self.group
        if self.random_share == 1:
            return num_scans
        return round(num_scans * self.random_share / (1 - self.random_share))

    @property
    def num_learned(self) -> int:
        """Images in each of the model's micro-batches after the warm-up."""
        scans = self.per_micro_batch(self.batch_size) * self.group
        return self.num_random + (scans if self.random_share < 1 else 0)

    @property
    def total_iterations(self) -> int:
        """Warm-up and policy iterations together."""
        return self.warmup_iterations + self.iterations

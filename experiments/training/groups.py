"""The options of a training run in six groups, each of which checks its own values.

``TrainConfig`` (config.py) composes them. No torch here, so that ``--help`` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from foveate.config import Memory, TargetKind
from foveate.recipes import Recipe, recipe

SYNTHETIC = ("scenes", "cue")
"""Data that are computed and need no files."""


def check_at_least(group: object, least: int, *names: str) -> None:
    """Raise ValueError if one of the named options is smaller; None is allowed."""
    for name in names:
        value = getattr(group, name)
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def check_share(group: object, *names: str) -> None:
    """Raise ValueError unless the named options lie in 0..1."""
    for name in names:
        value = getattr(group, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in 0..1, got {value}")


def default_of(group: type, name: str) -> object:
    """Return the default of an option that has one."""
    return next(each.default for each in fields(group) if each.name == name)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where the run is written, and what may differ between a run and its continuation."""

    out: Path = Path("runs/demo")
    """Run folder: config, manifest, metrics, checkpoint and reports."""
    resume: bool = False
    """Continue the run in the run folder, from its checkpoint. A run that was cut off before its
    first checkpoint starts anew."""
    stop_after: int | None = None
    """Stop with a checkpoint after this iteration, to be resumed later; None = run to the end."""
    report: bool = False
    """At the end compare orders, probe, and draw scanpaths."""
    seed: int = 0
    """Seed of all randomness: weights, batches, orders, actions."""
    device: str = "cpu"
    """Torch device."""
    shard: bool = False
    """Shard the model over the processes of torchrun (FSDP2), if it is too large for each."""
    threads: int | None = None
    """CPU threads; None = torch's choice."""
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Weights & Biases beside metrics.jsonl."""
    log_every: int = 10
    """Iterations per line of metrics.jsonl."""
    save_every: int = 200
    """Iterations per checkpoint."""
    evaluate_every: int | None = 200
    """Iterations per validation: the model's loss on held-out images, and the area under the error
    curve of the policy, of random and of uncertainty; None = never."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "seed")
        check_at_least(
            self, 1, "stop_after", "threads", "log_every", "save_every", "evaluate_every"
        )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The training images."""

    data: str = "scenes"
    """scenes, a torchvision name (FashionMNIST, ...), a parquet file or folder, an image folder."""
    data_root: Path = Path("data")
    """Where torchvision sets lie or are downloaded to."""
    image_size: int | None = None
    """Resize and center-crop to this side, pixels; None = as they are."""
    limit: int | None = None
    """Use only the first N training images; None = all."""
    stream: bool = False
    """Read training images from parquet or tar shards, or ``hf://NAME``, as they are needed,
    instead of holding all in memory. Needs image_size."""
    stream_workers: int = 0
    """Processes that decode streamed images."""
    channels: int | None = None
    """Color channels of streamed images, 1 or 3; None = 3."""
    augment: bool = False
    """Random flips and shifts of the training images (kornia)."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "limit", "image_size")
        if self.data in SYNTHETIC and self.data_root != default_of(DataConfig, "data_root"):
            raise ValueError(f"data_root has no effect on {self.data}, which needs no files")
        if self.stream and self.image_size is None:
            raise ValueError("stream needs --image-size, and --agent group-relative")
        if self.stream and self.limit is not None:
            raise ValueError("limit has no effect on a stream; add --limit None")
        if self.channels is not None and not self.stream:
            raise ValueError("channels goes with --stream")
        if self.stream_workers < 0 or (self.stream_workers and not self.stream):
            raise ValueError("stream_workers goes with --stream, and must be at least 0")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model: a recipe, what is swapped of it, and sizes."""

    recipe: str = "foveate"
    """Row of foveate.recipes: order, encoder stream, decoder and target of the model; or your own,
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

    def __post_init__(self) -> None:
        parts = self.parts
        if self.teacher != "average" and parts.target != "features":
            raise ValueError("teacher needs target='features'")
        if self.num_colors is not None and parts.target != "colors":
            raise ValueError("num_colors needs target='colors'")

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


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """A scan of an image. The model learns from scans of this length without a policy as well."""

    budget: int = 12
    """Fixations per scan, T."""
    fixation_size: int = 1
    """Side of the square that a fixation opens, patches; 1 = one patch at a time. The model then
    learns from squares as well: an order opens a whole square when it comes to one of its patches.
    Squares tile the grid; where the side does not divide it, those at the far edges are smaller."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "budget", "fixation_size")


@dataclass(frozen=True, kw_only=True)
class PolicyTraining:
    """The iterations after the warm-up, in which a policy scans and learns beside the model."""

    iterations: int = 1000
    """Iterations with the policy, after the warm-up; 0 = no policy."""
    batch_size: int = 16
    """Images scanned by the policy per iteration."""
    reward: str = "auc"
    """Reward per fixation: auc, gain, surprise, ease (envs/rewards.py), or your own,
    ``MODULE:NAME``."""
    discount: float = 0.7
    """Discount per fixation."""
    entropy_weight: float = 0.03
    """Entropy bonus at the start; it falls with the learning rate."""
    group: int = 4
    """Scans of the same image that are one another's baseline."""
    num_candidates: int | None = None
    """In training the policy chooses among this many random unseen patches, and only they are
    predicted; None = all. Their errors stand for those of all patches: scans are cheaper and the
    reward is noisier. Runs with different numbers differ in what auc and entropy mean."""
    policy_every: int = 1
    """After the warm-up the policy scans and learns in every n-th iteration. In the others the
    model learns from the policy's last scans again, beside new random orders."""
    agent: Literal["group-relative", "maskable-ppo"] = "group-relative"
    """How the policy learns: by the native group-relative policy gradient, or by MaskablePPO of
    sb3-contrib (batch_size x group scans of as many images; schedules joint and policy_only)."""
    schedule: Literal["joint", "alternating", "policy_only", "frozen"] = "joint"
    """Who learns after the warm-up. joint: the policy in every iteration that scans, the model in
    every iteration. alternating: each for ``alternate_every`` iterations in turn. policy_only: the
    model is frozen. frozen: the policy stays uniformly random, as it started: the control."""
    alternate_every: int = 10
    """Length of a phase of the alternating schedule, iterations."""
    random_share: float = 0.5
    """Share of random orders in the model's batches after warm-up; the rest are the policy's."""
    policy_lr: float = 2e-3
    """Peak learning rate of the policy, after the first 10 of its iterations."""

    def __post_init__(self) -> None:
        check_share(self, "random_share", "discount")
        check_at_least(self, 0, "policy_lr", "entropy_weight")
        check_at_least(self, 1, "iterations", "batch_size", "policy_every", "alternate_every")
        check_at_least(self, 2, "num_candidates")
        if self.group < 2:
            raise ValueError(
                f"group must be at least 2 (the others are the baseline), got {self.group}"
            )
        if self.agent == "maskable-ppo" and self.schedule not in ("joint", "policy_only"):
            raise ValueError(
                f"schedule {self.schedule} needs --agent group-relative; "
                "maskable-ppo knows joint and policy_only"
            )
        if self.agent == "maskable-ppo" and self.num_candidates is not None:
            raise ValueError(
                "num_candidates needs --agent group-relative; maskable-ppo chooses among all"
            )
        if self.policy_every > 1 and self.schedule not in ("joint", "frozen"):
            raise ValueError("policy_every needs schedule joint or frozen; add --policy-every 1")
        usual = default_of(PolicyTraining, "alternate_every")
        if self.schedule != "alternating" and self.alternate_every != usual:
            raise ValueError("alternate_every needs --schedule alternating")


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How the model learns, in the warm-up and after it."""

    warmup_iterations: int = 1000
    """Model updates on the recipe's order alone, before the policy starts."""
    warmup_batch_size: int = 128
    """Images per warm-up iteration."""
    micro_batches: int | None = None
    """Equal parts of every batch, each with its own randomness, whose gradients are accumulated.
    The processes of torchrun share them. A run of as many parts is the same for every number of
    processes. None = one per process, or what the resumed run has."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the model's training passes. bf16 multiplies matrices in bfloat16 (autocast),
    and keeps weights and their updates in float32. Rollouts are float32."""
    model_optimizer: Literal["muon", "adamw"] = "muon"
    """Optimizer of the model's hidden matrices; all else is AdamW's. Muon needs them unsharded."""
    model_lr: float = 3e-3
    """Peak learning rate of the model, after 100 iterations, or a tenth of a run below 1000."""
    weight_decay: float = 0.05
    """Weight decay of the model's hidden matrices; all else has none."""
    prefix_share: float = 0.25
    """Share of random-order batches whose first patches are revealed all at once (tied ranks).
    Their number is random. From them the encoder learns full attention."""

    def __post_init__(self) -> None:
        check_share(self, "prefix_share")
        check_at_least(self, 0, "warmup_iterations", "model_lr", "weight_decay")
        check_at_least(self, 1, "warmup_batch_size", "micro_batches")

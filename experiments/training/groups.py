"""The options of model, scans, policy and optimization, in groups that check their own values.

``TrainConfig`` (config.py) composes them with those of ``run_options``. No torch here, so that
``--help`` answers at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from foveate.config import Init, Memory, PixelUnits, TargetKind, WordsPrefix
from foveate.recipes import Recipe, recipe
from foveate.sizes import check_at_least, check_share


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
    init: Init | None = None
    """How weights start: as timm's, or Xavier-uniform as in MAE's public code; None = the
    recipe's. ``--init FILE`` is short for ``--start-from FILE``."""
    pixel_units: PixelUnits | None = None
    """Units of the pixels that are read and predicted: (x - 0.5) / 0.25, or by ImageNet's mean and
    deviation of each channel; None = the recipe's."""
    start_from: str | None = None
    """Weights that the model starts from: a run folder, a checkpoint, a model that ships, as
    ``scenes``, or for the encoder alone a folder or file that timm loads; None = as ``init`` says.
    With ``--schedule policy_only --warmup-iterations 0`` a policy learns to scan for a model that
    is there already; presets that scan rarely need ``--policy-every 1`` as well."""
    teacher: str = "average"
    """Whose features are predicted (targets features and pixels_features): ``average``, of the
    model's own weights over time, ``own``, of these weights as they are, or a timm model."""
    feature_weight: float | None = None
    """Weight of the features' error beside that of the pixels (target="pixels_features"); None =
    the recipe's."""
    num_colors: int | None = None
    """Entries of the palette (target="colors"); None = the recipe's."""
    words_prefix: WordsPrefix | None = None
    """How the visible patches that a caption is read from see one another: bidirectional, or
    causal in the order; None = the recipe's."""
    word_weight: float | None = None
    """Weight of the words' loss beside the image's; 0 = the image alone; None = the recipe's."""
    image_weight: float | None = None
    """Weight of the image's loss beside the words'; 0 = words alone; None = the recipe's."""
    num_subwords: int = 2000
    """Entries of the vocabulary that captions are written in, at most."""
    max_subwords: int = 32
    """Subwords of a caption, its end included; longer captions are cut."""
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
        check_at_least(self, 1, "patch_size", "embed_dim", "depth", "num_heads", "num_targets")
        check_at_least(self, 0, "decoder_depth", "periphery")
        check_at_least(self, 1, "max_subwords", "num_subwords")
        for name, value in self.order_options.items():
            if not math.isfinite(value):
                raise ValueError(f"order_options must be finite numbers, got {name} {value}")
        parts = self.parts
        if self.teacher != "average" and not parts.takes_features:
            raise ValueError("teacher needs target='features' or 'pixels_features'")
        if self.feature_weight is not None and parts.target != "pixels_features":
            raise ValueError("feature_weight needs target='pixels_features'")
        if self.num_colors is not None and parts.target != "colors":
            raise ValueError("num_colors needs target='colors'")
        idle = [
            name
            for name in ("words_prefix", "num_subwords", "max_subwords")
            if getattr(self, name) != getattr(type(self), name) and not parts.captions
        ]
        if idle:
            raise ValueError(f"{idle[0]} needs a recipe with captions, such as caption")
        if self.pixel_units is not None and parts.reads_colors:
            raise ValueError(
                "pixel_units has no effect with target='colors', whose model reads palette "
                "entries; leave it out"
            )

    @property
    def parts(self) -> Recipe:
        """The recipe, with the parts that are swapped."""
        chosen = {
            "order": self.order,
            "target": self.target,
            "memory": self.memory,
            "init": self.init,
            "pixel_units": self.pixel_units,
            "decoder_depth": self.decoder_depth,
            "feature_weight": self.feature_weight,
            "num_colors": self.num_colors,
            "words_prefix": self.words_prefix,
            "word_weight": self.word_weight,
            "image_weight": self.image_weight,
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
    ``MODULE:NAME``; with target="pixels_features" also auc_pixels and auc_features. recognition
    needs labels: the fall of the cross-entropy of a linear probe, which learns beside the policy,
    on what has been seen so far. reducible: by how much the opened patches are harder for the model
    than for ``reward_reference``; progress: by how much easier. rankme: the rise of the directions
    that the features add to those of the other images of the batch. caption needs a recipe with
    captions: the fall of the cross-entropy of a caption."""
    reward_reference: str = "average"
    """Whom the rewards reducible and progress compare with: average, of the model's weights over
    time, or a run folder or checkpoint. For reducible take a copy that learned from held-out images
    (``--learn-split val``; RHO-LOSS, Mindermann et al. 2022): against the average it is exactly
    minus progress."""
    saccade_cost: float = 0.0
    """Taken from the reward per patch of distance between the middles of successive fixations; the
    first one is free."""
    discount: float = 0.7
    """Discount per fixation."""
    entropy_weight: float = 0.03
    """Entropy bonus at the start; it falls with the learning rate."""
    doubt: float = 2.0
    """Factor of the model's expected log error in the logits of the untrained policy, which is thus
    a soft uncertainty rule; the factor is learned. 0 = the policy starts uniform, and does not see
    the expected error. With schedule frozen it is 0."""
    policy_depth: int = 0
    """Transformer blocks of the policy in which the candidates attend to one another; 0 = none."""
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
    random_share_end: float | None = None
    """That share in the last iteration: from ``random_share`` in the first iteration with the
    policy it goes there along a line. Batches keep their size, that of the smaller of the two
    shares; scans that are not needed teach the policy alone. None = it stays."""
    scan_direction: Literal["forward", "reversed"] = "forward"
    """How the model decodes what the policy scanned. forward: as it was scanned. reversed: what the
    policy left out comes first, in random order, then its fixations, its first one last. So they
    are asked from a context without them; with queries="unseen" as far as the budget goes."""
    policy_lr: float = 2e-3
    """Peak learning rate of the policy, after the first 10 of its iterations."""

    def __post_init__(self) -> None:
        check_share(self, "random_share", "random_share_end", "discount")
        check_at_least(self, 0, "policy_lr", "entropy_weight", "doubt")
        check_at_least(self, 0, "policy_depth", "saccade_cost")
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
        if self.agent == "maskable-ppo" and self.reward in ("recognition", "caption", "rankme"):
            raise ValueError(
                f"reward {self.reward} needs --agent group-relative, which knows classes, words "
                "and whole batches"
            )
        if self.policy_every > 1 and self.schedule not in ("joint", "frozen"):
            raise ValueError(
                f"policy_every {self.policy_every} needs schedule joint or frozen, in which the "
                f"model learns between the scans; with schedule {self.schedule} add "
                "--policy-every 1"
            )
        if self.least_random_share == 1 and self.scan_direction != "forward":
            raise ValueError(
                "scan_direction has no effect with --random-share 1, where the model learns from "
                "no scan; leave it out"
            )
        if self.reward_reference != "average" and self.reward not in ("reducible", "progress"):
            raise ValueError("reward_reference needs --reward reducible or progress")
        for name in ("scan_direction", "random_share_end"):
            given = getattr(self, name)
            if self.schedule == "policy_only" and given != getattr(type(self), name):
                raise ValueError(
                    f"{name} has no effect with --schedule policy_only, whose model learns from no "
                    "scan; leave it out"
                )
        if self.schedule != "alternating" and self.alternate_every != type(self).alternate_every:
            raise ValueError("alternate_every needs --schedule alternating")

    @property
    def pays_for_learning(self) -> bool:
        """Whether the reward compares the model with what it was before."""
        return self.reward in ("reducible", "progress") and self.reward_reference == "average"

    @property
    def last_random_share(self) -> float:
        """Share of random orders in the last iteration."""
        return self.random_share if self.random_share_end is None else self.random_share_end

    @property
    def least_random_share(self) -> float:
        """The smallest share of random orders, which says how large batches are."""
        return min(self.random_share, self.last_random_share)


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

"""The options of where a run is written, and of the images it learns from.

No torch here, so that ``--help`` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from experiments.training.image_sizes import ImageSizeOption, read_image_size
from foveate.choices import check_choice
from foveate.files import expanded
from foveate.sizes import check_at_least

Changeable = Literal["model_lr", "policy_lr", "weight_decay", "entropy_weight"]
"""Options that a run can change when it goes on: they shape no weights and no randomness."""

SYNTHETIC = ("scenes", "scenes_rgb", "cue")
"""Data that are computed and need no files."""

TAKING_RUNS = ("start_from", "reward_reference")
"""Options that name another run."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where the run is written, and what may differ between a run and its continuation."""

    out: Path = Path("runs/demo")
    """Run folder: config, manifest, metrics, checkpoint and reports."""
    resume: bool = False
    """Continue the run in the run folder, from its checkpoint. A run that was cut off before its
    first checkpoint starts anew."""
    change_on_resume: tuple[Changeable, ...] = ()
    """Rates and weights that may differ from those that the resumed run had, such as ``model_lr``.
    The manifest records what changed."""
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
    """Weights & Biases beside metrics.jsonl. offline asks no host."""
    wandb_project: str | None = None
    """Project there; None = that of WANDB_PROJECT, or foveate."""
    wandb_entity: str | None = None
    """User or team there; None = that of WANDB_ENTITY, or your own."""
    log_every: int = 10
    """Iterations per line of metrics.jsonl."""
    save_every: int = 200
    """Iterations per checkpoint."""
    keep_checkpoints: int = 2
    """Checkpoints that are kept: the newest, and those before it in case it gets damaged."""
    data_changed_ok: bool = False
    """Continue although the data changed since the run began; the manifest says so."""
    evaluate_every: int | None = 200
    """Iterations per validation: the model's loss on held-out images, and the area under the error
    curve of the policy, of random and of uncertainty; None = never."""

    def __post_init__(self) -> None:
        for name in self.change_on_resume:
            check_choice("option to change", name, get_args(Changeable))
        if self.change_on_resume and not self.resume:
            raise ValueError("change_on_resume goes with --resume")
        if self.wandb == "disabled" and (self.wandb_project or self.wandb_entity):
            raise ValueError("wandb_project and wandb_entity need --wandb online or offline")
        check_at_least(self, 0, "seed")
        if self.seed >= 2**32:  # NumPy's and scikit-learn's end there.
            raise ValueError(f"seed must be below 2**32, got {self.seed}")
        object.__setattr__(self, "out", expanded(self.out))
        counts = ("stop_after", "threads", "log_every", "save_every", "evaluate_every")
        check_at_least(self, 1, *counts, "keep_checkpoints")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The training images."""

    data: str = "scenes"
    """scenes, a torchvision name (FashionMNIST, ...), a parquet file or folder, an image folder
    (docs/data.md has the forms)."""
    data_root: Path = Path("data")
    """Where torchvision sets lie or are downloaded to."""
    image_size: ImageSizeOption = None
    """Resize to this side, or to height x width such as 192x256, pixels. Images of another shape
    are cropped at both ends; None = as they are."""
    image_column: str | None = None
    """Column of a parquet file that holds the images; None = image, else the only one that may."""
    learn_split: Literal["train", "val"] = "train"
    """Split that the run learns from. val makes a reference of held-out images for the reward
    reducible of another run; validations are then of images that it learns from."""
    caption_column: str | None = None
    """Column of a table with captions, text or lists of text; None = captions, else caption."""
    limit: int | None = None
    """Use only the first N training images; None = all."""
    stream: bool = False
    """Read training images from parquet or tar shards, or ``hf://NAME``, as they are needed,
    instead of holding all in memory. Needs image_size."""
    stream_workers: int = 0
    """Processes that decode streamed images."""
    channels: int | None = None
    """Color channels of streamed images, 1 or 3; None = 3."""
    split_column: str | None = "split"
    """Parquet column that names each row's split (``split``, where there is one): train, val or
    test. None = take all rows and files, and hold val and test out of them by name."""
    skip_damaged: bool = False
    """Leave out what cannot be read of a stream, and count it, instead of stopping there."""
    augment: bool = False
    """Random flips and shifts of the training images (kornia)."""
    crop_scale: float | None = None
    """With augment: random crops instead of shifts, of this share of the area or more, which are
    made as large as the image; 0.2 in MAE. None = shifts by up to 4 pixels."""
    color_jitter: float = 0.0
    """With augment: change brightness, contrast and saturation by up to this share; 0.4 in MoCo."""
    wander: float | None = None
    """Place every image on a gray canvas this many times as high and wide, 1.5 say: training images
    anywhere, anew whenever they are drawn, and those of evaluations each at a place of its own that
    stays. The model then sees the canvas. None = images fill what is seen."""

    def __post_init__(self) -> None:
        if not self.data.strip():
            raise ValueError("data must name images, got an empty text; --data . is this folder")
        check_at_least(self, 1, "limit")
        if self.crop_scale is not None:
            if not self.augment:
                raise ValueError("crop_scale needs --augment, or --crop-scale None")
            if not 0 < self.crop_scale <= 1:
                raise ValueError(f"crop_scale must lie in (0, 1], got {self.crop_scale:g}")
        if self.color_jitter != 0:
            if not self.augment:
                raise ValueError("color_jitter needs --augment, or --color-jitter 0")
            if not 0 <= self.color_jitter < 1:
                raise ValueError(f"color_jitter must lie in [0, 1), got {self.color_jitter:g}")
        if self.wander is not None and not 1 < self.wander <= 10:
            raise ValueError(f"wander must lie in (1, 10], such as 1.5, got {self.wander:g}")
        object.__setattr__(self, "image_size", read_image_size(self.image_size))
        for name in ("image_column", "caption_column"):
            if self.data in SYNTHETIC and getattr(self, name) is not None:
                raise ValueError(f"{name} has no effect on {self.data}, which has no columns")
        if self.data in SYNTHETIC and self.data_root != type(self).data_root:
            raise ValueError(f"data_root has no effect on {self.data}, which needs no files")
        if self.stream and self.data in SYNTHETIC:
            raise ValueError(
                f"{self.data} is computed, and there is nothing to stream; give --data"
            )
        if self.stream and self.image_size is None:
            raise ValueError("stream needs --image-size, to which streamed images are resized")
        if self.stream and self.limit is not None:
            raise ValueError("limit has no effect on a stream; add --limit None")
        if self.skip_damaged and not self.stream:
            raise ValueError("skip_damaged goes with --stream")
        if self.channels is not None and not self.stream:
            raise ValueError("channels goes with --stream")
        if self.stream_workers < 0 or (self.stream_workers and not self.stream):
            raise ValueError("stream_workers goes with --stream, and must be at least 0")

"""A run folder: config, manifest, metrics, checkpoint, and the reports made from them."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from agents.policies import PointerPolicy, PolicyAgent, PolicyConfig
from envs.toy import cue_set
from experiments.config import TrainConfig
from experiments.muon import Muon
from foveate.checkpoint import CHECKPOINT, read_checkpoint
from foveate.data import ImageSet, load_data
from foveate.model import AnyOrderTransformer
from foveate.streaming import first_images
from foveate.teachers import teacher_dim
from foveate.tracks import Captions, class_captions, scene_captions

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MANIFEST = "manifest.json"
STREAM_EVALUATED = 10_000
"""Images of a streamed split that are evaluated on, unless a number is asked for."""


def git_commit() -> str:
    """Return the commit of the working tree, or ``unknown`` outside a checkout.

    It ends in ``-dirty`` where the tree differs from the commit.
    """
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    here = Path(__file__).parent
    result = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2, default=str) + "\n")
    os.replace(partial, path)


FREE_IN_RESULT = ("run", "device")
"""Options of a measurement that do not shape its result."""


def set_aside(path: Path) -> None:
    """Keep a result, and the picture of it, under a number."""
    number = next(n for n in count(1) if not path.with_stem(f"{path.stem}_{n}").exists())
    for each in (path, path.with_suffix(".png")):
        if each.exists():
            os.replace(each, each.with_stem(f"{each.stem}_{number}"))
    print(f"kept: what was there, of other options, as {path.stem}_{number}{path.suffix}")


def write_result(path: Path, result: dict[str, Any], run: Run, config: DataclassInstance) -> None:
    """Write what a script measured of a run, and its options.

    A result of other options, or of an earlier iteration, is kept beside it, under a number.
    """
    options = {k: v for k, v in dataclasses.asdict(config).items() if k not in FREE_IN_RESULT}
    result = {**result, "options": options, "iteration": run.iteration}
    if path.is_file():
        before, now = json.loads(path.read_text()), json.loads(json.dumps(result, default=str))
        if any(before.get(key) != now[key] for key in ("options", "iteration")):
            set_aside(path)
    write_json(path, result)


def write_manifest(directory: Path, **facts: object) -> None:
    """Record what a result depends on beside its config: versions, machine, and given facts."""
    write_json(
        directory / MANIFEST,
        {
            "date": time.strftime("%Y-%m-%d"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "processor": platform.machine(),
            "cpu_count": os.cpu_count(),
            "threads": torch.get_num_threads(),
            **facts,
        },
    )


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of a run folder; empty if none has been written yet."""
    path = directory / MANIFEST
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content


def save_checkpoint(directory: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint atomically: an interrupted write leaves the old one."""
    partial = directory / f"{CHECKPOINT}.partial"
    torch.save(state, partial)
    os.replace(partial, directory / CHECKPOINT)


def read_config(directory: Path) -> TrainConfig:
    """Read the config of a run folder.

    Raises:
        ValueError: the folder holds no config, or one of another version.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{directory} is not a run folder (no config.json); "
            "train one with: python -m experiments.train"
        )
    try:
        content = json.loads(path.read_text())
        for name in ("out", "data_root"):
            content[name] = Path(content[name])
        # Runs from before micro-batches were one.
        return TrainConfig(**{"micro_batches": 1, **content})
    except (AttributeError, TypeError, KeyError, json.JSONDecodeError) as reason:
        raise ValueError(f"{path} does not fit this version of foveate: {reason}") from reason


def write_config(config: TrainConfig) -> None:
    """Make the run folder and write the config into it."""
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(config.out / "config.json", dataclasses.asdict(config))


# May differ between a run and its continuation; all else shapes the result.
FREE_ON_RESUME = {
    "out",
    "resume",
    "stop_after",
    "report",
    "device",
    "shard",
    "threads",
    "wandb",
    "data_root",
    "log_every",
    "save_every",
}


def check_folder(config: TrainConfig) -> None:
    """Check that the run folder is free for a new run, or is the one to continue.

    One that was cut off before its first checkpoint, hence before its manifest, is continued from
    its start.

    Raises:
        ValueError: the folder holds a run that would be lost, or one of another config.
    """
    if not config.resume:
        if config.out.exists() and not config.out.is_dir():
            raise ValueError(f"{config.out} is a file; choose a folder with --out")
        if (config.out / CHECKPOINT).exists():
            raise ValueError(
                f"{config.out} holds a run already; "
                "continue it with --resume or choose another --out"
            )
        for name in ("config.json", "metrics.jsonl"):
            if (config.out / name).exists():
                raise ValueError(
                    f"{config.out} holds {name} of a run without a checkpoint; start one that was "
                    "cut off before its first anew with --resume, or choose another --out"
                )
        return
    before, now = dataclasses.asdict(read_config(config.out)), dataclasses.asdict(config)
    metrics = read_metrics(config.out / "metrics.jsonl")
    was_saved = (config.out / MANIFEST).exists() or (
        bool(metrics) and metrics[-1]["iteration"] > before["save_every"]
    )
    if was_saved and not (config.out / CHECKPOINT).exists():
        raise ValueError(
            f"{config.out} holds results of a run whose checkpoint is gone; choose another --out"
        )
    changed = sorted(
        name for name in now if now[name] != before[name] and name not in FREE_ON_RESUME
    )
    if changed:
        listed = ", ".join(f"{name} was {before[name]}, is {now[name]}" for name in changed)
        raise ValueError(f"cannot resume {config.out} with another config: {listed}")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a metrics file, without a last one that was cut off."""
    metrics: list[dict[str, Any]] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            metrics.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return metrics


def trim_metrics(path: Path, iteration: int) -> None:
    """Drop lines written after the checkpoint that is being resumed."""
    kept = [line for line in read_metrics(path) if line["iteration"] <= iteration]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
    os.replace(partial, path)


def seconds_so_far(path: Path) -> float:
    """Training time that the metrics record, s."""
    metrics = read_metrics(path)
    return float(metrics[-1]["seconds"]) if metrics else 0.0


def load_split(config: TrainConfig, split: str, limit: int | None = None) -> ImageSet:
    """Load one split of a run's data; ``cue`` is the toy world of ``envs.toy``.

    Of streamed data it is the first images: STREAM_EVALUATED of them unless limit says otherwise.
    """
    if config.stream:
        assert config.image_size is not None
        return first_images(
            config.data,
            split,
            image_size=config.image_size,
            channels=config.channels or 3,
            limit=limit or STREAM_EVALUATED,
        )
    if config.data == "cue":
        images = cue_set(split)
        return images if limit is None else images.subset(limit)
    return load_data(
        config.data, split, image_size=config.image_size, limit=limit, root=config.data_root
    )


def load_captions(config: TrainConfig, images: ImageSet, split: str) -> Captions:
    """Say what is at each patch: of the default scenes object and place, else the image's class."""
    rows, cols = (side // config.patch_size for side in images.image_shape[1:])
    if config.data == "scenes":
        captions = scene_captions(split, images.image_shape[1], (rows, cols))
        return Captions(captions.sentences, captions.number[: len(images)])
    return class_captions(images, rows * cols)


def set_threads(threads: int | None) -> None:
    """Set torch's CPU threads; None leaves them as they are.

    Raises:
        ValueError: less than one.
    """
    if threads is None:
        return
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    torch.set_num_threads(threads)


def check_device(device: str) -> None:
    """Raise ValueError unless torch can use the device."""
    try:
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError) as reason:
        line = str(reason).strip().splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used here: {line}") from reason


def multiplies_bfloat16(side: int = 256) -> bool:
    """Measure whether this processor is less than four times slower in bfloat16 than in float32.

    Without instructions for it torch is hundreds of times slower, with them faster; that there are
    some, torch tells of few processors.
    """

    def fastest(dtype: torch.dtype) -> float:
        matrix, taken = torch.ones(side, side, dtype=dtype), []
        for _ in range(6):
            started = time.perf_counter()
            matrix @ matrix
            taken.append(time.perf_counter() - started)
        return min(taken)

    return fastest(torch.bfloat16) < 4 * fastest(torch.float32)


def check_precision(config: TrainConfig) -> None:
    """Warn if this processor is no good at the precision."""
    on_cpu = torch.device(config.device).type == "cpu"
    if config.precision == "bf16" and on_cpu and not multiplies_bfloat16():
        print(
            "warning: this processor has no arithmetic for bfloat16; --precision fp32 is many "
            "times faster here",
            file=sys.stderr,
        )


def build(
    config: TrainConfig,
    image_shape: tuple[int, int, int],
    vocabulary: tuple[str, ...] = (),
    max_words: int = 0,
) -> tuple[AnyOrderTransformer, PointerPolicy]:
    """Build model and policy for images of shape (C, H, W), and words of a recipe with tracks."""
    parts = config.parts
    feature_dim = None
    if parts.target == "features":
        feature_dim = teacher_dim(config.teacher, config.embed_dim)
    model = AnyOrderTransformer(
        parts.model_config(
            image_size=image_shape[1:],
            in_chans=image_shape[0],
            patch_size=config.patch_size,
            embed_dim=config.embed_dim,
            depth=config.depth,
            num_heads=config.num_heads,
            periphery=config.periphery,
            num_targets=config.num_targets,
            feature_dim=feature_dim,
            vocabulary=vocabulary,
            max_words=max_words,
        )
    ).to(config.device)
    if config.iterations and not model.config.scannable:
        raise ValueError(
            "the policy needs a causal stream whose decoder predicts raw pixels without lateral "
            f"attention, which recipe {config.recipe} is not with these options; add --iterations "
            "0, or for saim and semaim --target pixels"
        )
    if config.num_candidates is not None and config.num_candidates >= model.num_patches:
        raise ValueError(
            f"num_candidates must be less than the {model.num_patches} patches of an image, "
            f"got {config.num_candidates}; leave it out for all"
        )
    if model.config.scannable and not 1 <= config.budget < model.num_patches:
        raise ValueError(
            f"budget must lie in 1..{model.num_patches - 1} fixations for this grid, "
            f"got {config.budget}"
        )
    return model, PointerPolicy(config.embed_dim, PolicyConfig()).to(config.device)


def build_optimizers(
    config: TrainConfig, model: AnyOrderTransformer
) -> list[torch.optim.Optimizer]:
    """Build the optimizers of a model: one of its hidden matrices, one of all else."""
    decoders = [model.decoder, *([model.visible_decoder] if model.config.visible_decoder else [])]
    stacks = [model.encoder.blocks, *(decoder.blocks for decoder in decoders)]
    hidden = [p for stack in stacks for p in stack.parameters() if p.ndim == 2]
    learned = [p for p in model.parameters() if p.requires_grad]
    others = [p for p in learned if not any(p is matrix for matrix in hidden)]
    rate, decay, betas = config.model_lr, config.weight_decay, (0.9, 0.95)
    hidden_optimizer: torch.optim.Optimizer
    if config.model_optimizer == "muon":
        # Jordan et al. 2024: at equal steps far ahead of AdamW here.
        hidden_optimizer = Muon(hidden, lr=rate, weight_decay=decay)
    else:
        hidden_optimizer = torch.optim.AdamW(hidden, lr=rate, betas=betas, weight_decay=decay)
    # Decay would only pull positions and the start token toward zero.
    return [
        hidden_optimizer,
        torch.optim.AdamW(others, lr=rate, betas=betas, weight_decay=0.0),
    ]


@dataclass(frozen=True)
class Run:
    """A trained run, ready to evaluate."""

    directory: Path
    config: TrainConfig
    model: AnyOrderTransformer
    policy: PointerPolicy
    iteration: int

    @property
    def agent(self) -> PolicyAgent:
        """The policy at its most probable patch; uniform random if it never learned."""
        learned = self.config.schedule != "frozen" and self.config.iterations > 0
        return PolicyAgent(self.policy, greedy=learned)

    def split(self, split: str, limit: int | None = None) -> ImageSet:
        """Load one split of the data that the run was trained on."""
        return load_split(self.config, split, limit)


def load_run(directory: Path | str, device: str = "cpu") -> Run:
    """Load model and policy of a run folder, in eval mode.

    Raises:
        ValueError: no such run, or a checkpoint that does not fit its config.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(
            f"no run folder at {directory}; train one with: "
            f"python -m experiments.train PRESET --out {directory}"
        )
    check_device(device)
    config = dataclasses.replace(read_config(directory), device=device, out=directory)
    state = read_checkpoint(directory / CHECKPOINT, device)
    if "image_shape" not in state:
        raise ValueError(f"the checkpoint in {directory} holds no run, only a model; train one")
    saved = state["model_config"]
    words = tuple(saved.get("vocabulary", ())), saved.get("max_words", 0)
    model, policy = build(config, tuple(state["image_shape"]), *words)
    load_weights(model, policy, state, directory)
    return Run(directory, config, model.eval(), policy.eval(), state["iteration"])


def load_weights(
    model: AnyOrderTransformer, policy: PointerPolicy, state: dict[str, Any], directory: Path
) -> None:
    """Load the weights of a checkpoint.

    Raises:
        ValueError: the checkpoint is of another shape.
    """
    try:
        model.load_state_dict(state["model"])
        policy.load_state_dict(state["policy"])
    except (RuntimeError, KeyError) as reason:
        line = str(reason).strip().splitlines()[-1].strip()
        raise ValueError(
            f"the checkpoint in {directory} is of another shape than its config: {line}"
        ) from reason

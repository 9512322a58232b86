"""Does a device compute what the CPU computes: every recipe, tied orders, scans, environments."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import envs
from experiments.benchmarks.checking import Check, Compared, NotPossible, distance
from experiments.benchmarks.timing import DTYPES
from experiments.training.batches import Ranked
from experiments.training.build import multiplies_bfloat16
from experiments.training.distributed import Processes
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer
from foveate.data import load_data
from foveate.model import AnyOrderTransformer
from foveate.model.attention import attend, prefix_block_mask
from foveate.model.scanning import Scan
from foveate.orders import ordering, rank_to_order
from foveate.recipes import RECIPES

TINY: dict[str, object] = {
    "limit": 32,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "iterations": 0,
    "warmup_batch_size": 4,
    "prefix_share": 0.0,
    "report": False,
}
"""What a recipe's preset is shrunk to. Heads of 16, the least that flex attention takes on CUDA."""
ALLOWED = {
    "fp32": {"loss": 1e-4, "gradient": 1e-3, "predictions": 1e-4},
    "bf16": {"loss": 0.01, "gradient": 0.1, "predictions": 0.03},
}
"""The most that the device may differ from the CPU in float32, over the CPU's norm. Float32 differs
by rounding, some 1e-6; bfloat16 rounds to 8 bits, 0.4%, in every layer."""
ROUNDING = 1e-5
"""The most that two ways to compute the same in float32 may differ, relative."""
STEPS = 4
"""Fixations after which predictions are compared."""


@contextlib.contextmanager
def whole_float32() -> Iterator[None]:
    """Let no product of float32 be rounded to TF32, as torch lets convolutions on CUDA."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def agreement_checks(device: str, folder: Path) -> dict[str, Check]:
    """Return the checks of what a device computes, by name."""
    recipes: dict[str, Check] = {
        f"recipe {name}, {precision}": partial(compare_recipe, name, precision, device, folder)
        for name in RECIPES
        for precision in DTYPES
    }
    ties: dict[str, Check] = {
        f"tied order, {heads} heads": partial(compare_tied, device, heads) for heads in (4, 8)
    }
    return {
        **recipes,
        **ties,
        "flex attention against the dense mask": partial(compare_flex, device),
        "scan with caches against the parallel pass": partial(compare_scans, device),
        "environment, tensors against arrays": partial(compare_outputs, device),
    }


# --- recipes


def compare_recipe(name: str, precision: str, device: str, folder: Path) -> Mapping[str, Compared]:
    """Compare loss, gradient and predictions on the device with the CPU's in float32.

    Raises:
        NotPossible: an optional package is missing, or this processor is no good at bfloat16.
    """
    if RECIPES[name].captions and importlib.util.find_spec("tokenizers") is None:
        raise NotPossible("needs the package tokenizers")
    if precision == "bf16" and device == "cpu" and not multiplies_bfloat16():
        raise NotPossible("this processor has no arithmetic for bfloat16")
    here, there = (
        tiny_trainer(name, place, folder, kind)
        for place, kind in (("cpu", "fp32"), (device, precision))
    )
    generator = torch.Generator().manual_seed(0)
    batch = here.model_learner.draw(4, generator)
    all_words = here.model_learner.words_of(batch, generator)
    words = {key: each for key, each in all_words.items() if each is not None}
    expected = learned(here, batch, words)
    moved = replace(batch, images=batch.images.to(device), rank=batch.rank.to(device))
    found = learned(there, moved, {key: each.to(device) for key, each in words.items()})
    allowed = ALLOWED[precision]
    return {
        what: Compared(distance(found[what], expected[what]), allowed[what]) for what in allowed
    }


def tiny_trainer(name: str, device: str, folder: Path, precision: str = "fp32") -> Trainer:
    """Build the trainer of a recipe at a tiny size, which writes nothing."""
    config = PRESETS[name][1].replace(
        **TINY, device=device, precision=precision, out=folder / "none"
    )
    return Trainer(config, Processes.started(device))


def learned(trainer: Trainer, batch: Ranked, words: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the loss of a batch, its gradient, and what is predicted of it."""
    model, learner = trainer.model, trainer.model_learner
    generator = torch.Generator().manual_seed(1)
    with whole_float32():
        model.zero_grad()
        loss = learner.loss_of(batch, generator, words)
        loss.backward()
        with torch.no_grad(), learner.autocast():
            if model.config.queries == "unseen":
                predicted = model.predict_scan(batch.images, batch.rank, STEPS)
            else:
                turn = model.predict_in_turn(batch.images, batch.rank)
                # Elsewhere values mean nothing.
                predicted = turn.prediction.values * turn.predicted.unsqueeze(-1)
    gradients = [each.grad.flatten() for each in model.parameters() if each.grad is not None]
    return {"loss": loss, "gradient": torch.cat(gradients), "predictions": predicted}


# --- ties


def scenes(number: int) -> Tensor:
    """Return training scenes, (number, 1, 32, 32)."""
    return load_data("scenes", "train", limit=number).batch(torch.arange(number))


def small_model(num_heads: int = 4) -> AnyOrderTransformer:
    """Return the model of the demo at a small size, as it starts from seed 0."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 64, "depth": 4, "num_heads": num_heads, "periphery": 2}
    parts = PRESETS["demo"][1].parts
    return AnyOrderTransformer(parts.model_config(image_size=(32, 32), **sizes)).eval()


def compare_tied(device: str, num_heads: int) -> Mapping[str, Compared]:
    """Compare loss and gradient of a tied order with the CPU's.

    The CPU takes dense masks, a GPU flex attention or, of narrow heads, dense masks as well.
    """
    model, images = small_model(num_heads), scenes(32)
    generator = torch.Generator().manual_seed(0)
    rank = ordering("random_blobs", model.grid)(images, generator=generator)
    found = []
    for place in ("cpu", device):
        model = model.to(place)
        model.zero_grad()
        drawn = torch.Generator().manual_seed(1)
        with whole_float32():
            loss = model(images.to(place), rank.to(place), ties=True, generator=drawn)
            loss.backward()
        gradients = [each.grad.flatten() for each in model.parameters() if each.grad is not None]
        found.append({"loss": loss.detach().cpu(), "gradient": torch.cat(gradients).cpu()})
    expected, measured = found
    return {what: Compared(distance(measured[what], expected[what]), ROUNDING) for what in expected}


def compare_flex(device: str) -> Mapping[str, Compared]:
    """Compare flex attention of tied prefixes with a dense mask, both on the device."""
    num_always, length = 3, 61
    generator = torch.Generator().manual_seed(0)
    shape = 3, 2, 4, num_always + length, 16
    queries, keys, values = torch.randn(shape, generator=generator).to(device).unbind()
    # Ties: what stands at place n sees on to the end of its segment of random length.
    ends = (torch.rand(2, length, generator=generator) < 0.3).long()
    ends[:, -1] = 1
    places = torch.arange(1, length + 1).expand(2, -1)
    next_end = torch.where(ends > 0, places, length).flip(1).cummin(1).values.flip(1)
    counts = next_end.to(device)
    reach = torch.cat([torch.arange(1, num_always + 1).expand(2, -1), next_end + num_always], 1)
    dense = torch.arange(num_always + length) < reach.unsqueeze(-1)
    with torch.no_grad(), whole_float32(), warnings.catch_warnings():
        # On a CPU flex attention is not compiled, and says so.
        warnings.filterwarnings("ignore", message="flex_attention called without")
        block = attend(queries, keys, values, prefix_block_mask(counts, num_always))
        expected = attend(queries, keys, values, dense.unsqueeze(1).to(device))
    return {"": Compared(distance(block, expected), ROUNDING)}


# --- scans and environments


def compare_scans(device: str) -> Mapping[str, Compared]:
    """Compare scans with caches, growing and static, with the parallel pass, on the device."""
    model, images = small_model().to(device), scenes(8).to(device)
    rank = ordering("random", model.grid)(images, generator=torch.Generator().manual_seed(0))
    order = rank_to_order(rank)[:, :STEPS]
    found = {}
    with torch.no_grad(), whole_float32():
        expected = model.predict_scan(images, rank, STEPS)
        for name, static in (("growing", False), ("static", True)):
            predicted = scanned(model, images, order, static=static)
            found[name] = Compared(distance(predicted, expected), ROUNDING)
    return found


@torch.no_grad()
def scanned(
    model: AnyOrderTransformer, images: Tensor, order: Tensor, *, static: bool
) -> Float[Tensor, "B S N P"]:
    """Return what is predicted before the first step of a scan and after each, step by step.

    Args:
        model: who predicts.
        images: (B, C, H, W).
        order: the patch of each step, (B, T); S = T + 1.
        static: whether all is of shapes that never change.
    """
    scan = Scan.start(model, images, order.shape[1], static=static)
    values = [scan.predict().values]
    for patches in order.split(1, dim=1):
        scan.reveal(patches)
        values.append(scan.predict().values)
    return torch.stack(values, 1)


def compare_outputs(device: str) -> Mapping[str, Compared]:
    """Compare the rewards that an environment hands out as tensors with those in arrays."""
    order = torch.rand(4, 64, generator=torch.Generator().manual_seed(0)).argsort(1)
    paid = []
    with whole_float32():
        for output in ("numpy", "torch"):
            env: envs.ImageScanVectorEnv = envs.ImageScanVectorEnv(
                4, limit=16, budget=STEPS, device=device, output=output
            )
            env.reset(seed=0)
            # A patch twice, and on into the next episode.
            chosen = [*order[:, : STEPS - 1].unbind(1), order[:, 0], *order[:, :2].unbind(1)]
            paid.append(torch.stack([torch.as_tensor(env.step(each)[1]).cpu() for each in chosen]))
    return {"": Compared(distance(paid[1], paid[0]), ROUNDING)}

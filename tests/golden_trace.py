"""Twenty steps of training in numbers: what tests/test_golden.py compares, and how to make it anew.

python tests/golden_trace.py            writes tests/golden/*.json
python tests/golden_trace.py demo mae   these alone
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer

GOLDEN = Path(__file__).parent / "golden"
STEPS = 20
SHORT: dict[str, Any] = {"limit": 256, "threads": 1, "report": False}
SCANS: dict[str, Any] = {"warmup_iterations": 6, "iterations": 14}
TRACED: dict[str, tuple[str, dict[str, Any]]] = {
    "demo": ("demo", SCANS),
    "git": ("git", {**SCANS, "warmup_batch_size": 8, "batch_size": 1}),
    "digpt": ("digpt", {"warmup_iterations": 20, "warmup_batch_size": 16}),
    "mae": ("mae", {"warmup_iterations": 20, "warmup_batch_size": 16}),
    "igpt": ("igpt", {"warmup_iterations": 20, "warmup_batch_size": 4}),
    "randsac": ("randsac", {"warmup_iterations": 20, "warmup_batch_size": 16}),
    "semaim": ("semaim", {"warmup_iterations": 20, "warmup_batch_size": 16}),
    "candidates": ("demo", {**SCANS, "batch_size": 4, "num_candidates": 8, "micro_batches": 2}),
    "cue_maskable_ppo": (
        "cue",
        {"warmup_iterations": 6, "iterations": 14, "agent": "maskable-ppo", "limit": None},
    ),
}
"""Presets and what is changed of them: 20 steps, with and without the policy, of few images."""


def traced_config(name: str) -> TrainConfig:
    """Return the config of a trace."""
    preset, changes = TRACED[name]
    return PRESETS[preset][1].replace(**{**SHORT, **changes})


def fingerprint(module: nn.Module) -> dict[str, list[float]]:
    """Norm of each parameter, and its sum with fixed random signs, which order and sign change."""
    generator = torch.Generator().manual_seed(0)
    prints = {}
    for name, parameter in module.named_parameters():
        values = parameter.detach().double()
        signs = torch.randint(0, 2, values.shape, generator=generator).double() * 2 - 1
        prints[name] = [float(values.norm()), float((values * signs).sum())]
    return prints


def trace(config: TrainConfig) -> dict[str, Any]:
    """Train for STEPS steps; measurements and rates of each, and the weights at the end."""
    trainer = Trainer(config, Processes.started("cpu"))
    steps = []
    policy = trainer.policy_learner
    for at in range(STEPS):
        measured = dict(trainer.step())
        measured["model_lr"] = trainer.model_learner.optimizers[0].param_groups[0]["lr"]
        measured["policy_lr"] = 0.0 if policy is None else policy.rate(at)
        steps.append(measured)
    return {
        "steps": steps,
        "model": fingerprint(trainer.model),
        "policy": fingerprint(trainer.policy),
    }


def write(names: list[str]) -> None:
    """Write traces, each number with nine digits."""
    torch.set_num_threads(1)
    for name in names:
        made = json.loads(json.dumps(trace(traced_config(name))), parse_float=rounded)
        (GOLDEN / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n")
        print(f"written: tests/golden/{name}.json")


def rounded(number: str) -> float:
    """Keep nine digits: what float32 knows."""
    return float(f"{float(number):.9g}")


if __name__ == "__main__":
    write(sys.argv[1:] or list(TRACED))

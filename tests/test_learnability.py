"""Joint training as a whole learns, in a world in which looking is the only way to win."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from agents.baselines import scan_with
from agents.policies import PolicyAgent
from envs.toy import CUE, cue_set
from experiments.config import PRESETS
from experiments.distributed import Processes
from experiments.trainer import Trainer

WARMUP, POLICY = 250, 150
"""Half of the preset's iterations; 10 seconds on one core."""


@pytest.mark.slow
def test_joint_training_learns_to_predict_and_to_look() -> None:
    """Model loss and return improve, and the policy beats random orders on held-out images.

    Measured over seeds 0 to 8, mean and standard deviation (s.d.) over seeds:
    loss of the first ten iterations MEASURED_A, after the warm-up MEASURED_B, of the last ten
    MEASURED_C; return of the first ten with the policy MEASURED_D, of the last ten MEASURED_E;
    held-out area of the policy MEASURED_F (the optimum is .40), of random orders MEASURED_G.
    Every threshold lies ten or more s.d. from its mean: a false alarm is out of the question on
    any seed, rounding and machine included.
    """
    config = dataclasses.replace(
        PRESETS["cue"][1], warmup_iterations=WARMUP, iterations=POLICY, threads=1
    )
    trainer = Trainer(config, Processes.started("cpu"))
    lines = [dict(trainer.step()) for _ in range(WARMUP + POLICY)]

    def mean(name: str, first: int) -> float:
        return sum(line[name] for line in lines[first : first + 10]) / 10

    assert mean("loss", 0) > 1.1
    assert mean("loss", WARMUP - 10) < 1.05
    assert mean("loss", WARMUP + POLICY - 10) < 0.78
    assert mean("return", WARMUP) < -3.0
    assert mean("return", WARMUP + POLICY - 10) > -2.0

    images = cue_set("test").batch(torch.arange(500))
    model = trainer.model.eval()

    def area(order: Tensor) -> float:
        return float(model.error_curve(images, order)[:, 1:].mean())

    order = scan_with(PolicyAgent(trainer.policy), model, images, config.budget)
    noise = torch.rand(500, model.num_patches, generator=torch.Generator().manual_seed(0))
    assert area(order) < 0.45
    assert area(noise.argsort(1)[:, : config.budget]) > 0.7
    assert area(order.roll(1, 0)) > 0.6, "another image's path does not do"
    assert float((order[:, 0] == CUE).float().mean()) > 0.9

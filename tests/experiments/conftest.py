"""A run that tests of evaluations share, and where shapes are not checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from unchecked import unchecked

from experiments.runs import Run
from experiments.training.build import build
from experiments.training.config import TrainConfig


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run in memory that has learned nothing; its folder does not exist."""
    torch.manual_seed(0)
    sizes = {"patch_size": 2, "embed_dim": 16, "depth": 1, "num_heads": 2, "decoder_depth": 1}
    config = TrainConfig().replace(data="cue", budget=3, out=tmp_path / "run", **sizes)
    model, policy = build(config, (1, 8, 8))
    return Run(tmp_path / "run", config, model.eval(), policy.eval(), config.total_iterations)


@pytest.fixture(autouse=True)
def unchecked_shapes() -> Iterator[None]:
    """Check no shape of whole trainings; tests of the parts themselves check them."""
    with unchecked():
        yield

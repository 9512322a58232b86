"""A run keeps the start it had, whatever its recipe says by now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import runs
from experiments.training.build import build
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer
from foveate.checkpoint import Found


@pytest.mark.parametrize(("written", "expected"), [({}, "timm"), ({"init": "xavier"}, "xavier")])
def test_untrained_weights_start_as_those_of_the_run_did(
    written: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints from before there was a choice name no start."""
    sizes: dict[str, Any] = {"embed_dim": 32, "depth": 1, "periphery": 0, "iterations": 0}
    config = TrainConfig().replace(recipe="saim", prefix_share=0.0, **sizes)
    model, policy = build(config, (1, 8, 8))
    state = {
        "image_shape": (1, 8, 8),
        "model_config": written,
        "model": model.state_dict(),
        "policy": policy.state_dict(),
        "iteration": 1,
    }
    monkeypatch.setattr(runs, "read_config", lambda directory: config)
    monkeypatch.setattr(runs, "read_newest", lambda directory: Found(state, tmp_path, ()))
    run = runs.load_run(tmp_path)
    torch.manual_seed(0)
    untrained = run.untrained_model((1, 8, 8))
    assert untrained.config.init == expected
    assert run.model.config.init == expected


def test_a_run_that_goes_on_says_how_it_started_not_how_its_recipe_starts_now() -> None:
    config = PRESETS["smoke"][1].replace(
        recipe="saim", iterations=0, warmup_iterations=2, prefix_share=0.0, budget=12, limit=32
    )
    trainer = Trainer(config, Processes.started("cpu"))
    assert trainer.model.config.init == "xavier"
    state = trainer.state()
    trainer.load({**state, "model_config": {**state["model_config"], "init": "timm"}})
    assert trainer.state()["model_config"]["init"] == "timm"

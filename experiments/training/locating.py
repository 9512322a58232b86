"""Paths to data that hold in any working directory."""

from __future__ import annotations

import os
from pathlib import Path

from experiments.training.config import TrainConfig
from experiments.training.run_options import SYNTHETIC
from foveate.checkpoint import PRETRAINED
from foveate.data.loading import TORCHVISION_SETS


def located(config: TrainConfig) -> TrainConfig:
    """Return a config whose paths to data and weights hold in any working directory.

    Names of data sets, and of models that ship, stay as they are, whatever folders are called.
    """
    data, weights = config.data.data, {"start_from": config.model.start_from}
    if config.policy is not None and config.policy.reward_reference != "average":
        weights["reward_reference"] = config.policy.reward_reference
    for name, source in weights.items():
        if source is not None and source not in PRETRAINED:
            config = config.replace(**{name: os.path.abspath(Path(source).expanduser())})
    if data in SYNTHETIC or "://" in data:
        return config
    if data in TORCHVISION_SETS:
        root = config.data.data_root.expanduser()
        return config.replace(data_root=Path(os.path.abspath(root)))
    path = Path(data).expanduser()
    return config.replace(data=os.path.abspath(path)) if path.exists() else config

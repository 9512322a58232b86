"""Paths to data that hold in any working directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeGuard

from experiments.training.config import TrainConfig
from experiments.training.run_options import SYNTHETIC, TAKING_RUNS
from foveate.checkpoint import PRETRAINED
from foveate.data.loading import TORCHVISION_SETS
from foveate.files import expanded


def located(config: TrainConfig) -> TrainConfig:
    """Return a config whose paths to data and weights hold in any working directory.

    Names of data sets, and of models that ship, stay as they are, whatever folders are called.
    """
    data, options = config.data.data, config.flat()
    for name in TAKING_RUNS:
        if is_place(source := options.get(name)):
            config = config.replace(**{name: os.path.abspath(expanded(source))})
    if data in SYNTHETIC or "://" in data:
        return config
    if data in TORCHVISION_SETS:
        root = expanded(config.data.data_root)
        return config.replace(data_root=Path(os.path.abspath(root)))
    path = expanded(data)
    return config.replace(data=os.path.abspath(path)) if path.exists() else config


def is_place(source: str | None) -> TypeGuard[str]:
    """Whether an option that takes a run names one, or a file of weights, by its place.

    Else it names a model that ships, the run's own average, or nothing.
    """
    return source not in (None, "average", *PRETRAINED)

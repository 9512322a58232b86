"""Ids of the environments in gymnasium; registering them imports neither them nor torch.

gymnasium imports the module before the colon, in whatever process it makes an environment::

    gymnasium.make("foveate.ids:foveate/ImageScan-v0")

``import envs`` registers the ids as well, and so does who calls the entry points of the group
``gymnasium.envs``, as gymnasium did before 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping

import gymnasium as gym

from foveate.names import check_own

CUE: Mapping[str, object] = {"model": "cue", "data": "cue", "budget": 4}
"""The world in which looking is the only way to win."""
IDS: Mapping[str, Mapping[str, object]] = {
    "ImageScan-v0": {},
    "ImageScanContinuous-v0": {"action": "gaze"},
    "ImageScanTest-v0": {"split": "test"},
    "CueScan-v0": CUE,
    "CueScanTest-v0": {**CUE, "split": "test"},
    "CueRecognition-v0": {**CUE, "reward": "recognition"},
    "CueRecognitionTest-v0": {**CUE, "reward": "recognition", "split": "test"},
}
"""Arguments of each environment, by its id in the namespace ``foveate``."""


def register() -> None:
    """Register the ids that are not registered yet."""
    for name, options in IDS.items():
        if f"foveate/{name}" not in gym.registry:
            gym.register(
                id=f"foveate/{name}",
                entry_point="envs.image_scan:ImageScanEnv",
                vector_entry_point="envs.window:make_vector_env",
                kwargs=dict(options),
            )


check_own("envs")
register()

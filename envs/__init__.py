"""Image-scanning environments; importing this package registers them with gymnasium.

``foveate/ImageScan-v0``: choose patches. ``foveate/ImageScanContinuous-v0``: choose gaze points.
``foveate/CueScan-v0``: a world in which looking is the only way to win, for tests of algorithms.
"""

import gymnasium as gym

from envs.episode import Episode
from envs.image_scan import ImageScanEnv
from envs.rewards import REWARDS
from envs.vector import ImageScanVectorEnv

__all__ = ["REWARDS", "Episode", "ImageScanEnv", "ImageScanVectorEnv"]

for name, options in (
    ("ImageScan", {}),
    ("ImageScanContinuous", {"action": "gaze"}),
    ("CueScan", {"model": "cue", "data": "cue", "budget": 4}),
):
    gym.register(
        id=f"foveate/{name}-v0",
        entry_point="envs.image_scan:ImageScanEnv",
        vector_entry_point="envs.vector:ImageScanVectorEnv",
        kwargs=options,
    )

"""Image-scanning environments; importing this package registers them with gymnasium.

``foveate/ImageScan-v0``: choose patches. ``foveate/ImageScanContinuous-v0``: choose gaze points.
``foveate/CueScan-v0``: a world in which looking is the only way to win, for tests of algorithms;
``foveate/CueRecognition-v0``: the same world, where its class is to be named. With ``Test`` before
``-v0``: test images.

The public names are imported when they are first used: registering needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import foveate.ids  # noqa: F401  # registers
from foveate.lazy import importing

if TYPE_CHECKING:
    from envs.episode import Episode
    from envs.image_scan import ImageScanEnv
    from envs.rewards import REWARDS
    from envs.vector import ImageScanVectorEnv

__all__ = ["REWARDS", "Episode", "ImageScanEnv", "ImageScanVectorEnv"]

HOMES = {
    "REWARDS": "envs.rewards",
    "Episode": "envs.episode",
    "ImageScanEnv": "envs.image_scan",
    "ImageScanVectorEnv": "envs.vector",
}
"""The module of each public name."""

__getattr__ = importing(__name__, HOMES)

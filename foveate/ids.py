"""Ids of the environments in gymnasium; registering them imports neither them nor torch.

gymnasium imports the module before the colon, in whatever process it makes an environment::

    gymnasium.make("foveate.ids:foveate/ImageScan-v0")

``import envs`` registers the ids as well, and so does who calls the entry points of the group
``gymnasium.envs``, as gymnasium did before 1.0.

Most ids are made of a world, a task and a split: ``foveate/ScenesRGBGuessTest-v0``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import gymnasium as gym

from foveate.names import check_own

Options = Mapping[str, object]


@dataclass(frozen=True)
class EntryPoints:
    """Where gymnasium finds what makes an environment, and a batch of them."""

    single: str = "envs.image_scan:ImageScanEnv"
    batch: str = "envs.window:make_vector_env"


GUESSING = EntryPoints("envs.guessing:GuessScanEnv", "envs.window:make_guess_vector_env")
"""Of environments whose action has a guess of the class."""


@dataclass(frozen=True)
class Id:
    """What an id stands for."""

    options: Options = field(default_factory=dict)
    """Arguments of the environment."""
    entry_points: EntryPoints = EntryPoints()


LARGE: Options = {"data": "scenes_rgb", "image_size": 96, "budget": 16}
WORLDS: Mapping[str, Options] = {
    "Cue": {"model": "cue", "data": "cue", "budget": 4},
    "Scenes": {},
    "ScenesBlind": {"model": "scenes_blind"},
    "ScenesRGB": {"model": "scenes_rgb", "data": "scenes_rgb"},
    "ScenesRGBBlind": {"model": "scenes_rgb_blind", "data": "scenes_rgb"},
    "ScenesRGB96": {"model": "scenes_rgb_96", **LARGE},
    "ScenesRGB96Blind": {"model": "scenes_rgb_96_blind", **LARGE},
}
"""Models and the images that they scan. ``Cue`` is the world in which looking is the only way to
win. The others: gray or RGB, 32 or 96 pixels, with a thumbnail of the image or blind."""
TASKS: Mapping[str, Id] = {
    "Scan": Id(),
    "Recognition": Id({"reward": "recognition"}),
    "Guess": Id(entry_points=GUESSING),
}
"""What is paid: reconstruction, how sure a classifier is of the class, or the agent's own guess."""
SPLITS: Mapping[str, Options] = {"": {}, "Test": {"split": "test"}}
"""What is before ``-v0``, and the images that it stands for."""
IDS: Mapping[str, Id] = {
    "ImageScan-v0": Id(),
    "ImageScanContinuous-v0": Id({"action": "gaze"}),
    "ImageScanTest-v0": Id({"split": "test"}),
    **{
        f"{world}{task}{split}-v0": Id({**look, **paid.options, **images}, paid.entry_points)
        for world, look in WORLDS.items()
        for task, paid in TASKS.items()
        for split, images in SPLITS.items()
    },
}
"""Every id in the namespace ``foveate``."""


def register() -> None:
    """Register the ids that are not registered yet."""
    for name, of in IDS.items():
        if f"foveate/{name}" not in gym.registry:
            gym.register(
                id=f"foveate/{name}",
                entry_point=of.entry_points.single,
                vector_entry_point=of.entry_points.batch,
                kwargs=dict(of.options),
            )


check_own("envs")
register()

"""Picture of the environments: a row for each id, with what is seen and predicted half-way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from agents.policies import Agent
from envs.rendering import draw_episode
from envs.vector import ImageScanVectorEnv

NUM_SHOWN = 2
"""Images of each id."""
HEIGHT_PX, GAP_PX, LABEL_PX = 120, 22, 180
"""Height of a row, the gap between rows and columns, and the room for its name."""
DPI = 72
"""On which a point is a pixel."""


@dataclass(frozen=True)
class Shown:
    """What is drawn of one id."""

    name: str
    after: int
    """Fixations of all that the budget has."""
    budget: int
    frames: tuple[UInt8[np.ndarray, "H W 3"], ...]
    """Of each image: scanpath, what has been seen, prediction."""
    titles: tuple[str, ...]
    """The class of each image; empty where it is nothing to the id."""

    @classmethod
    def of(cls, name: str, env: ImageScanVectorEnv, agent: Agent, classes: tuple[str, ...]) -> Self:
        """Scan the first images of an environment with half of the budget, and draw them."""
        index = torch.arange(min(NUM_SHOWN, len(env.images)))
        prices = {"revisit_penalty": env.revisit_penalty, "saccade_cost": env.saccade_cost}
        episode = env.world.episode(index, reward=env.reward, **prices, static=False)
        after = max(1, env.budget // 2)
        for _ in range(after):
            episode.step(agent(episode))
        labels = env.images.labels[index].tolist()
        titles = tuple(classes[label] for label in labels) if classes else ("",) * len(labels)
        return cls(name, after, env.budget, draw_episode(episode), titles)


@dataclass(frozen=True)
class Pictures:
    """All rows."""

    rows: tuple[Shown, ...]

    def draw(self, path: Path) -> None:
        """Write a PNG: of every id the fixations of the native learner on its first images."""
        width = LABEL_PX + NUM_SHOWN * (3 * HEIGHT_PX + GAP_PX)
        height = len(self.rows) * (HEIGHT_PX + GAP_PX)
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        FigureCanvasAgg(figure)
        for number, row in enumerate(self.rows):
            top = number * (HEIGHT_PX + GAP_PX) + GAP_PX
            figure.text(
                0.01,
                1 - (top + HEIGHT_PX / 2) / height,
                f"{row.name}\n{row.after} of {row.budget} fixations",
                fontsize=9,
                va="center",
            )
            for place, (frame, title) in enumerate(zip(row.frames, row.titles, strict=True)):
                left = LABEL_PX + place * (3 * HEIGHT_PX + GAP_PX)
                small = np.asarray(Image.fromarray(frame).resize((3 * HEIGHT_PX, HEIGHT_PX)))
                bottom = height - top - HEIGHT_PX
                box = (left / width, bottom / height, 3 * HEIGHT_PX / width, HEIGHT_PX / height)
                axis = figure.add_axes(box)
                axis.imshow(small, interpolation="nearest")
                axis.set_axis_off()
                axis.set_title(title, fontsize=9, pad=3)
        figure.savefig(path)

"""What an environment tells beside its observations: facts for logs, which may look ahead."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.episode import Episode
from envs.observations import gaze_points, to_numpy
from envs.starts import Starts


def facts_of(episode: Episode, starts: Starts, error_before: NDArray[np.float64]) -> dict[str, Any]:
    """Return an array of every fact, one entry per row, and under ``_NAME`` that all rows have it.

    Labels and errors are of the whole image, hence none of an agent's business.

    Returns:
        ``action_mask`` (B, A) int8: 1 = shows something new; ``error`` (B,): error of what is
        unseen, over the image's own at first; ``error_before`` (B,): that before the last fixation;
        ``index`` (B,): number of the image; ``lap`` (B,): how often it was visited before, in turn;
        ``label`` (B,): its class, -1 = unknown; ``fixated`` (B, S): patches of the last fixation,
        -1 = none yet, or padding; ``gaze_px`` (B, 2): their middle, x and y in pixels, before the
        first fixation the middle of the image; ``scanpath`` (B, T), or (B, T, S) with squares: new
        patches of each fixation so far, -1 = none. With the reward ``recognition`` also ``guess``
        (B,): the class that the probe finds most probable.
    """
    height, width = episode.scan.model.config.image_size
    gaze = (gaze_points(episode) + 1) / 2
    facts = {
        "action_mask": to_numpy(episode.selectable.to(torch.int8)),
        "error": to_numpy(episode.error.double()),
        "error_before": error_before.copy(),
        "index": starts.index.copy(),
        "lap": starts.lap.copy(),
        # Not made anew by a step, as the others are.
        "label": to_numpy(episode.labels).copy(),
        "fixated": to_numpy(episode.newest),
        "gaze_px": to_numpy(gaze * gaze.new_tensor([width, height])),
        "scanpath": to_numpy(episode.order),
    }
    if episode.probe is not None:
        facts["guess"] = to_numpy(episode.probe(episode.scan.mean_content).argmax(-1))
    every = np.ones(len(error_before), np.bool_)
    return {**facts, **{f"_{name}": every.copy() for name in facts}}

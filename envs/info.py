"""What an environment tells beside its observations: facts for logs, which may look ahead."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.episode import Episode
from envs.observations import to_numpy
from envs.starts import Starts
from foveate.config import ModelConfig


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
    fixated = to_numpy(episode.newest)
    facts = {
        "action_mask": to_numpy(episode.selectable.to(torch.int8)),
        "error": to_numpy(episode.error.double()),
        "error_before": error_before.copy(),
        "index": starts.index.copy(),
        "lap": starts.lap.copy(),
        # Not made anew by a step, as the others are.
        "label": to_numpy(episode.labels).copy(),
        "fixated": fixated,
        "gaze_px": middles_px(fixated, episode.scan.model.config),
        "scanpath": to_numpy(episode.order),
    }
    if episode.probe is not None:
        facts["guess"] = to_numpy(episode.probe(episode.scan.mean_content).argmax(-1))
    every = np.ones(len(error_before), np.bool_)
    return {**facts, **{f"_{name}": every.copy() for name in facts}}


def middles_px(segments: NDArray[np.int64], config: ModelConfig) -> NDArray[np.float32]:
    """Return the middle of each segment's patches, x and y in pixels, (B, 2).

    That of a segment which holds none is the middle of the image.

    Args:
        segments: patches, (B, S); -1 = padding.
        config: of the model, which says where patches lie.
    """
    exists, num_columns = segments >= 0, config.grid[1]
    number = np.maximum(exists.sum(1), 1)
    x, y = (
        ((cells + 0.5) * exists).sum(1) / number * config.patch_size
        for cells in (segments % num_columns, segments // num_columns)
    )
    middle = config.image_size[1] / 2, config.image_size[0] / 2
    middles = np.where(exists.any(1, keepdims=True), np.stack([x, y], axis=1), middle)
    return middles.astype(np.float32)

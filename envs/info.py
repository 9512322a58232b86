"""What an environment tells beside its observations: facts for logs, which may look ahead."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from envs.episode import Episode
from envs.starts import Starts
from foveate.config import ModelConfig
from foveate.devices import send
from foveate.orders.saccades import centers_of


def facts_of(episode: Episode, starts: Starts, error_before: Float[Tensor, "B"]) -> dict[str, Any]:
    """Return every fact, one entry per row, and under ``_NAME`` that all rows have it.

    They are tensors where the model lies, and arrays of what is known on the CPU.

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
    facts = {
        "action_mask": episode.selectable.to(torch.int8),
        "error": episode.error.to(torch.float64, copy=True),
        "error_before": error_before.clone(),
        "index": starts.index.copy(),
        "lap": starts.lap.copy(),
        # Copies: whoever is told may write into what an episode still needs.
        "label": episode.labels.clone(),
        "fixated": episode.newest.clone(),
        "gaze_px": middles_px(episode.newest, episode.scan.model.config),
        "scanpath": episode.order.clone(),
    }
    if episode.probe is not None:
        facts["guess"] = episode.probe(episode.scan.mean_content).argmax(-1)
    every = np.ones(len(starts.index), np.bool_)
    return {**facts, **{f"_{name}": every.copy() for name in facts}}


def middles_px(segments: Int[Tensor, "B S"], config: ModelConfig) -> Float[Tensor, "B 2"]:
    """Return the middle of each segment's patches, x and y in pixels.

    That of a segment which holds none is the middle of the image.

    Args:
        segments: patches; -1 = padding.
        config: of the model, which says where patches lie.
    """
    height, width = config.image_size
    center = send(torch.tensor([height, width]), segments.device) / 2
    row_col = (centers_of(segments, config.grid) + 0.5) * config.patch_size
    return torch.where(row_col.isnan(), center, row_col).flip(-1)

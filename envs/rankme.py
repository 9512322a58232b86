"""A reward that needs no labels: the directions that a scan adds to the features of other images.

It sets the scans of a batch against one another. So it is for training: the rows of an environment
know nothing of each other.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from foveate.smooth_rank import singular_values, smooth_rank


def rankme(fixation: Any) -> Float[Tensor, "B"]:
    """Rise, by the fixation, of the directions that a scan adds to those of the other images.

    Features are the mean encoder state of what has been seen. Other scans of the same image are
    left out: else a scan would be paid for differing from them.

    Reference: RankMe (Garrido et al. 2023, arXiv 2210.02885), Eqs. 2 and 3, there of an encoder, on
    many images. Differs: here of what one scan adds, among the images of a batch.

    Raises:
        ValueError: all scans are of one image.
    """
    before, after = (
        directions_added(known.mean_content, fixation.group)
        for known in (fixation.known_before, fixation.known_after)
    )
    return after - before


def directions_added(features: Float[Tensor, "B D"], group: int) -> Float[Tensor, "B"]:
    """Return by how many directions each row exceeds the rows of the other images.

    Args:
        features: a row for each scan.
        group: scans of each image, in succession.

    Raises:
        ValueError: all rows are of one image.
    """
    num_rows = len(features)
    if num_rows <= group:
        raise ValueError("it needs scans of two images or more at once, and got those of one")
    # From the image after each around to the one before it.
    own = torch.arange(0, num_rows, group, device=features.device)
    steps = torch.arange(group, num_rows, device=features.device)
    others = features[(own.unsqueeze(1) + steps) % num_rows]
    whole = torch.cat([others.repeat_interleave(group, 0), features.unsqueeze(1)], 1)
    return directions(whole) - directions(others).repeat_interleave(group)


def directions(features: Float[Tensor, "*B M D"]) -> Float[Tensor, "*B"]:
    """Return the number of directions that M features take, as ``foveate.probes.rank_me`` does.

    NaN = a feature is not finite.
    """
    return smooth_rank(singular_values(features))

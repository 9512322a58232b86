"""Error curves of many scanpaths of the same images; what they have in common is computed once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from torch import Tensor

from experiments.evaluation.progress import Advance, unheard
from experiments.evaluation.scanpaths import MEMORY, pixels_of, split_rows
from foveate.errors import unseen_error
from foveate.model import AnyOrderTransformer
from foveate.model.scanning import Scan, bytes_per_row
from foveate.orders import check_order
from foveate.orders.ranks import as_segments
from foveate.orders.segments import patches_in


def error_curves_of(
    model: AnyOrderTransformer,
    images: Num[Tensor, "B C H W"],
    orders: Mapping[str, Int[Tensor, "R T *S"]],
    *,
    memory: int = MEMORY,
    advance: Advance = unheard,
) -> dict[str, Float[np.ndarray, "R S"]]:
    """Compute the error curves of scanpaths, by order; R scanpaths are of the first R images.

    The same numbers as ``model.error_curve``. Scanpaths of an image that begin alike share a scan
    until they part, so that all share what is predicted before the first fixation.

    Args:
        model: who measures.
        images: pixels in [0, 1], or bytes.
        orders: scanpaths of the same number of fixations; -1 = it showed nothing new, or padding.
        memory: bound on what is computed at once, bytes.
        advance: told of the predictions as they are done.
    """
    curves: dict[str, Float[np.ndarray, "R S"]] = {}
    for number in {len(order) for order in orders.values()}:
        alike = {name: order for name, order in orders.items() if len(order) == number}
        opened = stacked(list(alike.values()))
        for order in opened.unbind(1):
            check_order(order, model.num_patches)
        each = bytes_per_row(model, opened.shape[2] * opened.shape[3]) * len(alike)
        parts = []
        for part, paths in zip(
            split_rows(images[:number], model.num_patches * len(alike), each, memory),
            split_rows(opened, model.num_patches * len(alike), each, memory),
            strict=True,
        ):
            parts.append(_curves(model, pixels_of(part, opened.device), paths).cpu())
            advance(len(part) * predictions_of(model, len(alike), opened.shape[2]))
        measured = torch.cat(parts).numpy()
        curves |= {name: measured[:, place] for place, name in enumerate(alike)}
    return curves


def predictions_of(model: AnyOrderTransformer, num_orders: int, budget: int) -> int:
    """Patches that are predicted for the curves of an image, at most."""
    return model.num_patches * (num_orders * budget + 1)


def stacked(orders: list[Int[Tensor, "R T *S"]]) -> Int[Tensor, "R O T S"]:
    """Lay scanpaths out as segments of one size, padded with -1."""
    segments = [as_segments(order) for order in orders]
    size = max(each.shape[2] for each in segments)
    return torch.stack(
        [F.pad(each, (0, size - each.shape[2]), value=-1) for each in segments], dim=1
    )


@torch.no_grad()
def _curves(
    model: AnyOrderTransformer, images: Float[Tensor, "B C H W"], opened: Int[Tensor, "B O T S"]
) -> Float[Tensor, "B O L"]:
    """Walk down the tree of scanpaths of each image: a node is all that begin alike."""
    num_images, num_orders, budget, size = opened.shape
    targets, target = model.targets(images), model.target
    unseen = torch.ones(targets.shape[:2], dtype=torch.bool, device=targets.device)
    scan = Scan.start(model, images, min(model.num_patches, budget * size))
    node = torch.arange(num_images, device=targets.device).repeat_interleave(num_orders)
    remaining = [unseen_error(target, scan.predict().values, targets, unseen).sum(1)[node]]
    for step in range(budget):
        steps = torch.cat([node.unsqueeze(1), opened[:, :, step].flatten(0, 1)], dim=1)
        kept, node = steps.unique(dim=0, return_inverse=True)
        parent, patches = kept[:, 0], kept[:, 1:]
        # Every node goes on, and nodes are sorted: as many as before are the same ones.
        if len(parent) > len(unseen):
            scan, targets, unseen = scan.take(parent), targets[parent], unseen[parent]
        present = patches >= 0
        scan.make_room(size)
        scan.reveal(patches.clamp_min(0), None if bool(present.all()) else present)
        unseen = unseen & ~patches_in(patches, model.num_patches)
        remaining.append(unseen_error(target, scan.predict().values, targets, unseen).sum(1)[node])
    curves = torch.stack(remaining, dim=1).unflatten(0, (num_images, num_orders))
    return curves / curves[..., :1].clamp_min(1e-12)

"""A whole scan as one CUDA graph: does it see what single steps see, and how much sooner?

A step of a scan is a hundred small kernels, and a host takes longer to start them than a GPU to run
them. A graph starts the kernels of all steps at once. It needs shapes that never change, a static
scan (``foveate.model.scanning``), and values that no one looks at meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

import torch
from torch import Tensor

from experiments.benchmarks.agreement import ROUNDING, scanned, scenes, small_model, whole_float32
from experiments.benchmarks.checking import Compared, NotPossible, distance
from experiments.benchmarks.timing import alternate, awaited
from foveate.orders import ordering, rank_to_order

BUDGET = 12
ScanOf = Callable[[Tensor, Tensor], Tensor]
"""Takes images, (B, C, H, W), and the patches of each step, (B, T); returns what is predicted
before the first and after each, (B, T + 1, N, P)."""


def static_scan(device: str) -> ScanOf:
    """Return what scans images with a small model, in shapes that never change."""
    return partial(scanned, small_model().to(device), static=True)


def as_graph(scan_of: ScanOf, images: Tensor, order: Tensor) -> ScanOf:
    """Capture a scan of images and orders of these shapes; later calls take others of the same.

    What a call returns is overwritten by the next one.

    Raises:
        NotPossible: the images are on no GPU.
    """
    if not images.is_cuda:
        raise NotPossible("CUDA alone has graphs")
    return cast(ScanOf, torch.cuda.make_graphed_callables(scan_of, (images, order)))


def scanned_images(rows: int, device: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return images and random orders of the first patches, by which they are scanned."""
    images, grid = scenes(rows), small_model().grid
    rank = ordering("random", grid)(images, generator=torch.Generator().manual_seed(seed))
    return images.to(device), rank_to_order(rank)[:, :BUDGET].to(device)


def compare_graphs(device: str) -> Mapping[str, Compared]:
    """Compare what a graph predicts with single steps, of other images than it was captured with.

    Raises:
        NotPossible: the device is no GPU.
    """
    scan_of = static_scan(device)
    images, order = scanned_images(8, device)
    with whole_float32():
        graphed = as_graph(scan_of, images, order)
        others, ways = images.flip(0), scanned_images(8, device, seed=1)[1]
        found = distance(graphed(others, ways), scan_of(others, ways))
    return {"": Compared(found, ROUNDING)}


def seconds_of_scans(rows: int, device: str, repeats: int) -> dict[str, float]:
    """Measure a scan of so many images step by step, and as a graph, seconds.

    Raises:
        NotPossible: the device is no GPU.
    """
    scan_of = static_scan(device)
    given = scanned_images(rows, device)
    contenders = {"steps": scan_of, "graph": as_graph(scan_of, *given)}
    runs = {name: awaited(partial(run, *given), device) for name, run in contenders.items()}
    return alternate(runs, repeats)

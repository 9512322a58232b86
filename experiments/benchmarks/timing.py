"""Timing for the benchmarks: contenders take turns, medians are compared, peaks are measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from experiments.runs import git_commit, write_json

Shape: TypeAlias = torch.Size | tuple[int, ...]
PEAK_SIDE = 1536
"""Side of the square matrices whose product is taken as the machine's peak."""


def alternate(contenders: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each contender; all run once per round, the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def matrix_product(dtype: torch.dtype) -> Callable[[], Tensor]:
    """Return a product of square matrices: what the machine can do at best."""
    left, right = torch.randn(2, PEAK_SIDE, PEAK_SIDE).to(dtype).unbind()
    return lambda: left @ right


PRODUCT_FLOPS = 2 * PEAK_SIDE**3


def _attention_flops(query: Shape, key: Shape, value: Shape, *args: Any, **options: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward_flops(
    gradient: Shape, query: Shape, key: Shape, value: Shape, *args: Any, **options: Any
) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


# torch's counter knows the fused kernels of GPUs alone.
CPU_ATTENTION: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


def count_flops(run: Callable[[], object]) -> int:
    """Floating-point operations of a call, backward passes included.

    Attention counts as if nothing were masked, as torch counts it elsewhere.
    """
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        run()
    return int(counter.get_total_flops())


def saved_megabytes(run: Callable[[], object]) -> float:
    """Memory of the tensors that a call saves for its backward pass, each storage once, MB."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(sizes.values()) / 2**20


@dataclass(frozen=True)
class Table:
    """A benchmark's result."""

    what: str
    """Which benchmark."""
    caption: str
    """What was measured, in one line."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]
    """One cell per column; the first is the row's name."""
    keys: dict[str, float | None]
    """The numbers that later checks read; None = cannot be measured here."""
    curves: dict[str, list[float]] = field(default_factory=dict)
    """Series that stand behind a number, by name."""

    def finish(self, path: Path, threads: int, repeats: int) -> dict[str, object]:
        """Print the table and write it with its compute."""
        result: dict[str, object] = {
            "kind": "bench",
            "what": self.what,
            "caption": self.caption,
            "columns": self.columns,
            "rows": self.rows,
            **self.keys,
            "keys": sorted(self.keys),
            "curves": self.curves,
            "threads": threads,
            "repeats": repeats,
            "commit": git_commit(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result)
        print(self.caption)
        for row in (self.columns, *self.rows):
            cells = [cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row]
            print(f"{cells[0]:<34}" + "".join(f"{cell:>18}" for cell in cells[1:]))
        for key, value in self.keys.items():
            print(f"{key}: {'cannot be measured here' if value is None else format(value, '.4g')}")
        print(f"written: {path}")
        return result

"""Timing for the benchmarks: contenders take turns, medians are compared, peaks are measured."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from experiments.tables import Result, Table, plural, short_commit

Shape: TypeAlias = torch.Size | tuple[int, ...]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""By the name of the precision."""
PEAK_SIDE = 1536
"""Side of the square matrices whose product is taken as the machine's peak."""


def alternate(
    contenders: dict[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each contender; all run once per round, the first round warms up.

    Where others share the cores, ``time.process_time`` as clock counts what this process took.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, run in contenders.items():
            started = clock()
            run()
            if repeat:
                seconds[name].append(clock() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def awaited(run: Callable[[], object], device: str) -> Callable[[], object]:
    """Return a call that waits until the device has done its work."""

    def waiting() -> object:
        result = run()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return result

    return waiting


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


def _singular_values_flops(matrix: Shape, *args: Any, **options: Any) -> int:
    """Count singular values alone (Golub and Van Loan 2013, Matrix Computations, Sec. 8.6.3)."""
    *batch, rows, columns = matrix
    long, short = max(rows, columns), min(rows, columns)
    return math.prod(batch) * (4 * long * short**2 - 4 * short**3 // 3)


# torch's counter knows the fused kernels of GPUs alone, and no decompositions.
UNKNOWN_TO_TORCH: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    torch.ops.aten._linalg_svd: _singular_values_flops,
}


def count_flops(run: Callable[[], object]) -> int:
    """Floating-point operations of a call, backward passes included.

    Attention counts as if nothing were masked, as torch counts it elsewhere.
    """
    with FlopCounterMode(display=False, custom_mapping=UNKNOWN_TO_TORCH) as counter:
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


@dataclass(frozen=True, kw_only=True)
class BenchResult(Result):
    """A benchmark: contenders in rows, and the numbers that checks read."""

    kind: ClassVar[str] = "bench"

    what: str
    """Which benchmark."""
    caption: str
    """What was measured, in one line."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]
    """One cell per column; the first is the row's name."""
    numbers: dict[str, float | None]
    """What later checks read, a key each in the file; None = cannot be measured here."""
    curves: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    """Series that stand behind a number, by name."""
    failed: tuple[str, ...] = ()
    """Checks that failed and measurements that broke; the command then ends with exit code 1."""
    threads: int
    repeats: int
    commit: str

    def content(self) -> dict[str, Any]:
        """Return what is written: every number under its own name, and their names as ``keys``."""
        content = super().content()
        numbers = content.pop("numbers")
        return {**content, **numbers, "keys": sorted(numbers)}

    @classmethod
    def from_content(cls, content: dict[str, Any], path: Path) -> Self:
        """Read the numbers back from under their names."""
        keys = content.get("keys")
        listed = keys if isinstance(keys, list) else ()
        numbers = {str(key): content.get(str(key)) for key in listed}
        return super().from_content({**content, "numbers": numbers}, path)

    def tables(self) -> list[Table]:
        """Return the rows, and under them the numbers that checks read."""
        numbers = [f"`{key}` {cell(self.numbers[key])}" for key in sorted(self.numbers)]
        return [
            Table(
                caption=f"{self.caption}. {plural(self.threads, 'CPU thread')}, median of "
                f"{self.repeats}, commit `{short_commit(self.commit)}`.",
                columns=self.columns,
                rows=tuple(tuple(map(cell, row)) for row in self.rows),
                notes=(", ".join(numbers) + ".",),
            )
        ]


def cell(value: str | float | None) -> str:
    """Write a value with four digits."""
    if value is None:
        return "cannot be measured"
    return value if isinstance(value, str) else f"{value:.4g}"

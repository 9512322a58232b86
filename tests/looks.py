"""Counts how often the host waits for values of a tensor, as it would for those of a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

LOOKS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.nonzero.default,
}
"""Operations whose result, or its shape, the host waits for."""


class CountLooks(TorchDispatchMode):
    """Counts the times that the host waits for values of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = {}
    ) -> Any:
        self.looks += func in LOOKS
        return func(*args, **kwargs)


@contextmanager
def looks() -> Iterator[CountLooks]:
    with CountLooks() as counted:
        yield counted

"""Environments compute the same in whatever mode torch is where they are stepped, or forked."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch

from foveate.devices import device_of

Method = TypeVar("Method", bound=Callable[..., Any])


def in_own_mode(method: Method) -> Method:
    """Let a method of a batch of environments run outside inference mode and autocast.

    What a step makes is changed by later steps, which may be outside inference mode; and
    observations are of the dtypes of their space. Whether gradients are recorded stays as it is.
    """

    @functools.wraps(method)
    def run(self: Any, *args: Any, **options: Any) -> Any:
        records, where = torch.is_grad_enabled(), device_of(self.model).type
        knows_autocast = torch.amp.is_autocast_available(where)
        precise = torch.autocast(where, enabled=False) if knows_autocast else nullcontext()
        with torch.inference_mode(False), torch.set_grad_enabled(records), precise:
            return method(self, *args, **options)

    return run  # type: ignore[return-value]


# A forked process, such as a worker of gymnasium's AsyncVectorEnv, would wait forever for the other
# threads of its parent, which are not forked.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

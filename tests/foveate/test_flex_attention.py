"""Where flex attention is taken, which a GPU alone does; what of it can be tried on a CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from foveate.model import AnyOrderTransformer
from foveate.model import encoder as encoding
from foveate.model.flex import takes_flex
from foveate.orders import ordering

CUDA = torch.device("cuda")
MANY_SHAPES = """
import torch
from foveate.model import attention
from foveate.model.attention import attend, prefix_block_mask
from foveate.model.flex import compiled_flex

attention.flex = lambda like: compiled_flex()  # As on a GPU.
plain = torch.compile
torch.compile = lambda call: plain(call, backend="eager", dynamic=False)
told = torch._dynamo.utils.counters["stats"]
for number in range(10):
    parts = torch.randn(3, 1, 1, 4 + number, 16)
    counts = torch.arange(1, 4 + number).unsqueeze(0)
    attend(*parts, prefix_block_mask(counts, 1))
    assert told["unique_graphs"] == number + 1, told
"""


def test_wide_heads_on_a_gpu_take_it() -> None:
    assert takes_flex(CUDA, 16)
    assert not takes_flex(CUDA, 8)
    assert not takes_flex(torch.device("cpu"), 16)


def test_operations_of_tied_orders_are_counted_where_flex_attention_is_taken(
    model: AnyOrderTransformer, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under torch's counter flex attention fails; a dense mask counts the same."""
    rank = ordering("random_blobs", model.grid)(images)

    def counted() -> int:
        drawn = torch.Generator().manual_seed(0)
        with FlopCounterMode(display=False) as counter:
            model(images, rank, generator=drawn).backward()
        return int(counter.get_total_flops())

    expected = counted()
    monkeypatch.setattr(encoding, "takes_flex", lambda *_: takes_flex(CUDA, 16))
    assert counted() == expected > 0


@pytest.mark.slow
def test_many_shapes_stay_compiled() -> None:
    """In a process of its own, where no annotation is checked. torch gives up after eight."""
    done = subprocess.run(
        [sys.executable, "-c", MANY_SHAPES],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr

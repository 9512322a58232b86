"""A static scan says what a scan that grows says, in shapes that never change, without a look."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from looks import looks
from torch import Tensor

from envs.episode import Episode
from foveate.model import AnyOrderTransformer
from foveate.model.scanning import Scan
from foveate.orders.segments import Fixations

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
COMPILED = """
import torch
from foveate.config import ModelConfig
from foveate.model import AnyOrderTransformer
from foveate.model.scanning import Scan

sizes = dict(image_size=(6, 8), patch_size=2, embed_dim=16, depth=2, num_heads=2)
model = AnyOrderTransformer(ModelConfig(**sizes)).eval()
images = torch.rand(3, 1, 6, 8)
plain, compiled = (Scan.start(model, images, 4, static=True) for _ in range(2))

def step(scan, patches):
    scan.reveal(patches)
    return scan.predict().values

# Whole: what breaks the graph is an error, and so is a second graph.
fast = torch.compile(step, fullgraph=True, backend="eager")
with torch._dynamo.config.patch(error_on_recompile=True):
    for patch in range(4):
        patches = torch.full((3, 1), patch)
        torch.testing.assert_close(fast(compiled, patches), step(plain, patches))
"""


def test_a_static_scan_equals_one_that_grows(model: AnyOrderTransformer, images: Tensor) -> None:
    """With padding, with segments, and where a row restarts."""
    grows, static = (Scan.start(model, images, 6, static=kind) for kind in (False, True))

    def compare() -> None:
        torch.testing.assert_close(static.predict().values, grows.predict().values, **CLOSE)
        torch.testing.assert_close(static.content, grows.content, **CLOSE)
        torch.testing.assert_close(static.mean_content, grows.mean_content, **CLOSE)

    compare()
    again = torch.tensor([False, True, False, False, True])
    for scan in (grows, static):
        scan.reveal(torch.arange(5).unsqueeze(1))
        scan.reveal(torch.tensor([[7, 8]] * 5), torch.tensor([[True, n > 2] for n in range(5)]))
    compare()
    for scan in (grows, static):
        scan.restart(again, images[:2] / 2)
        scan.reveal(torch.full((5, 1), 9))
    compare()
    torch.testing.assert_close(
        static.repeat(2).predict().values[1::2], grows.predict().values, **CLOSE
    )


@pytest.mark.parametrize("static", [False, True])
def test_a_scan_under_autocast_is_near_one_in_float32(
    static: bool, model: AnyOrderTransformer, images: Tensor
) -> None:
    """With padding, for which the place of every token is named."""
    said = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            scan = Scan.start(model, images, 6, static=static)
            scan.reveal(torch.tensor([[7, 8]] * 5), torch.tensor([[True, n > 2] for n in range(5)]))
            said.append(scan.predict().values.float())
    torch.testing.assert_close(*said, atol=0.1, rtol=0.1)


def test_what_a_static_scan_has_no_room_for_is_not_seen(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    scan = Scan.start(model, images, 2, static=True)
    for patch in range(2):
        scan.reveal(torch.full((5, 1), patch))
    before = scan.predict().values
    scan.reveal(torch.full((5, 1), 7))
    torch.testing.assert_close(scan.predict().values, before)


@pytest.mark.parametrize("side", [1, 2])
def test_a_static_episode_pays_what_one_that_looks_pays(
    side: int, model: AnyOrderTransformer, images: Tensor
) -> None:
    """Revisits included, and segments that overlap what has been seen; it never looks."""
    fixations = Fixations.squares(model.grid, side)
    looking, static = (
        Episode(model, images, budget=4, fixations=fixations, static=kind) for kind in (False, True)
    )
    for chosen in ([0, 1, 2, 3, 0], [0, 2, 3, 3, 1], [1, 1, 1, 1, 1]):
        patches = looking.opens(torch.tensor(chosen))
        expected = looking.step(patches)
        with looks() as counted:
            paid = static.step(patches)
        assert counted.looks == 0
        torch.testing.assert_close(paid, expected, **CLOSE)
        assert torch.equal(static.order, looking.order)
    again = torch.tensor([True, False, False, True, False])
    for episode in (looking, static):
        episode.restart(again, images[:2])
    torch.testing.assert_close(static.error, looking.error, **CLOSE)
    torch.testing.assert_close(static.initial_error, looking.initial_error, **CLOSE)


@pytest.mark.slow
def test_all_steps_of_a_static_scan_are_one_graph() -> None:
    """In a process of its own, where no annotation is checked."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr

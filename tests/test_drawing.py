"""Drawings show what they claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.drawing import (
    UNSEEN_GRAY,
    error_curves,
    fixation_heatmaps,
    fixation_shares,
    scanpath_animation,
    scanpath_sheet,
    seen_canvas,
    shown_steps,
)

GRID = (2, 3)


def test_only_fixated_patches_are_seen() -> None:
    image = torch.rand(3, 8, 12)
    canvas = seen_canvas(image, torch.tensor([1, 5]), GRID)
    assert torch.equal(canvas[:, :4, 4:8], image[:, :4, 4:8])
    assert torch.equal(canvas[:, 4:, 8:], image[:, 4:, 8:])
    assert (canvas[:, 4:, :8] == UNSEEN_GRAY).all()
    assert (canvas[:, :4, :4] == UNSEEN_GRAY).all()


def test_fixation_shares_sum_to_one() -> None:
    shares = fixation_shares(torch.tensor([[0, 5], [0, 4]]), GRID)
    assert shares.shape == (2, 2, 3)
    assert shares[0, 0, 0] == 1
    assert shares[1, 1].tolist() == [0.0, 0.5, 0.5]


def test_shown_steps_end_with_the_budget() -> None:
    assert shown_steps(3) == [1, 2, 3]
    assert shown_steps(16) == [1, 5, 8, 12, 16]


@pytest.mark.parametrize("chans", [1, 3])
def test_sheets_and_animations(chans: int, tmp_path: Path) -> None:
    images = torch.rand(2, chans, 8, 12)
    order = torch.tensor([[0, 3, 5], [2, 1, 4]])
    canvas = torch.rand(2, 4, chans, 8, 12)
    scanpath_sheet(images, order, canvas, GRID, tmp_path / "sheet.png", errors=torch.rand(2, 4))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert np.asarray(sheet).std() > 10
    scanpath_animation(images, order, canvas, GRID, tmp_path / "scan.gif")
    with Image.open(tmp_path / "scan.gif") as scan:
        assert scan.n_frames == 4  # type: ignore[attr-defined]


def test_heat_maps_and_curves_are_written(tmp_path: Path) -> None:
    fixation_heatmaps(torch.randint(0, 6, (20, 3)), GRID, tmp_path / "heat.png")
    curve = {
        "policy": np.array([1, 0.5, 0.2]),
        "random": np.array([1, 0.8, 0.6]),
        "mine": np.array([1, 0.9, 0.8]),
    }
    error_curves(curve, curve, curve, tmp_path / "curves.png")
    assert (tmp_path / "heat.png").stat().st_size > 1000
    assert (tmp_path / "curves.png").stat().st_size > 1000

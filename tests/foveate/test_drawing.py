"""Drawings show what they claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import picture, share_of
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


def test_heat_maps_are_bright_where_the_scanpaths_fixate(tmp_path: Path) -> None:
    """All take one path: a sixth of each of three panels, and half of the last, is bright."""
    fixation_heatmaps(torch.tensor([[0, 3, 5]]).expand(20, -1), GRID, tmp_path / "heat.png")
    heat = picture(tmp_path / "heat.png", 594, 176)
    brightest, darkest = share_of(heat, (252, 253, 191)), share_of(heat, (0, 0, 4))
    assert brightest > 0.03
    assert brightest / darkest == pytest.approx((3 * 1 / 6 + 1 / 2) / (3 * 5 / 6 + 1 / 2), rel=0.1)


def test_error_curves_show_the_policy_in_black_controls_in_color_and_all_else_in_gray(
    tmp_path: Path,
) -> None:
    black, blue, gray = (0, 0, 0), (31, 119, 180), (204, 204, 204)
    curves = {
        "policy": np.array([1, 0.5, 0.2]),
        "random": np.array([1, 0.8, 0.6]),
        "mine": np.array([1, 0.9, 0.8]),
    }
    shares: dict[str, list[float]] = {}
    for left_out in ("none", *curves):
        drawn = {name: curve for name, curve in curves.items() if name != left_out}
        error_curves(drawn, drawn, drawn, tmp_path / "curves.png")
        pixels = picture(tmp_path / "curves.png", 840, 504)
        shares[left_out] = [share_of(pixels, color) for color in (black, blue, gray)]
    whole = shares.pop("none")
    for place, left_out in enumerate(curves):
        drawn_without = shares[left_out]
        for other in range(3):
            assert (drawn_without[other] < 0.5 * whole[other]) == (other == place), left_out

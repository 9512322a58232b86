"""Drawings show what they claim."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from image_files import picture, share_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from foveate.drawing import (
    UNSEEN_GRAY,
    as_written,
    draw_scanpath,
    error_curves,
    fixation_heatmaps,
    fixation_shares,
    numbered_steps,
    scanpath_animation,
    scanpath_sheet,
    seen_canvas,
    shown_steps,
)
from foveate.drawing.statistics import _CONTROLS

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


def test_long_scanpaths_number_the_first_every_kth_and_the_last() -> None:
    assert numbered_steps(20) == set(range(1, 21))
    assert numbered_steps(36) == {1, 3, 5, *range(2, 37, 2)}
    assert numbered_steps(64) == {1, 2, 3, 4, *range(5, 65, 5), 64}
    assert len(numbered_steps(1000)) == 25


@pytest.mark.parametrize(("grid", "budget"), [((12, 16), 48), ((16, 16), 255), ((2, 3), 5)])
@pytest.mark.parametrize("panel_px", [80, 288])
def test_numbers_do_not_overlap_and_the_first_is_there(
    grid: tuple[int, int], budget: int, panel_px: int
) -> None:
    figure = Figure(figsize=(panel_px / 72, panel_px / 72), dpi=72)
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    axis = figure.add_axes((0, 0, 1, 1))
    image = torch.zeros(1, 48, 48)
    order = torch.randperm(grid[0] * grid[1], generator=torch.Generator().manual_seed(0))[:budget]
    draw_scanpath(axis, image, order, grid, budget)
    written = [text.get_text() for text in axis.texts]
    assert written[0] == "1"
    # Every fixation is a number or a dot, and all but the first are reached by a saccade.
    assert len(written) + len(axis.lines) == budget + budget - 1
    boxes = [text.get_window_extent(renderer) for text in axis.texts]
    for place, box in enumerate(boxes):
        assert box.height > 7.5
        for other in boxes[:place]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert min(across, down) < 0.5
    if panel_px == 288:
        assert set(written) == {str(step) for step in numbered_steps(budget)}


@pytest.mark.parametrize("chans", [1, 3])
@pytest.mark.parametrize("labels", [None, ["a sheep", "a name that is longer than the picture is"]])
def test_sheets_and_animations(chans: int, labels: list[str] | None, tmp_path: Path) -> None:
    """Beside a label, a sheet of 2 rows of 3 columns is of panels and lines of text alone."""
    images = torch.rand(2, chans, 8, 12) / 2  # Nothing but the frame is white.
    order = torch.tensor([[0, 3, 5], [2, 1, 4]])
    canvas = torch.rand(2, 4, chans, 8, 12) / 2
    errors, margin = torch.rand(2, 4), 16 if labels else 0
    scanpath_sheet(
        images, order, canvas, GRID, tmp_path / "sheet.png", errors=errors, labels=labels
    )
    # 12 pixels become 288, and 8 become 192; small panels have (192 - 4 - 16) / 2 = 86 rows.
    picture(tmp_path / "sheet.png", margin + 288 + 16 + 3 * (129 + 4) - 4, 16 + 2 * (192 + 4))
    scanpath_animation(images, order, canvas, GRID, tmp_path / "scan.gif", labels=labels)
    with Image.open(tmp_path / "scan.gif") as scan:
        assert scan.n_frames == 4  # type: ignore[attr-defined]
        assert scan.size == (16 + 2 * (192 + 4) - 4, margin + 16 + 3 * (128 + 4) - 4)
        frames = []
        for step in range(4):
            scan.seek(step)
            frames.append(np.asarray(scan.convert("RGB")).astype(int))
    # The white frame around the latest fixation, patch 3 of the first image, is there alone.
    top, left = margin + 16 + 64, 16
    edge = [float(frame[top + 20 : top + 44, left].mean()) for frame in frames]
    assert [brightness > 220 for brightness in edge] == [False, False, True, False]


def test_what_is_unseen_differs_from_what_is_gray_and_what_is_not_predicted_is_left_out(
    tmp_path: Path,
) -> None:
    """Of six gray patches three are seen at last: they are bare, and the others hatched."""
    images, order = torch.full((1, 3, 8, 12), UNSEEN_GRAY), torch.tensor([[0, 1, 2]])
    errors = torch.zeros(1, 4)
    scanpath_sheet(images, order, None, GRID, tmp_path / "sheet.png", errors=errors)
    # One row of panels of 192 - 16 = 176 by 264 pixels.
    sheet = picture(tmp_path / "sheet.png", 288 + 16 + 3 * (264 + 4) - 4, 16 + 192 + 4)
    seen, unseen = sheet[20:100, -260:-4], sheet[110:190, -260:-4]
    assert np.ptp(seen.astype(int)) == 0
    assert np.ptp(unseen.astype(int)) > 20
    scanpath_animation(images, order, None, GRID, tmp_path / "scan.gif")
    with Image.open(tmp_path / "scan.gif") as scan:
        assert scan.size == (16 + 192, 16 + 2 * (128 + 4) - 4)


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
    colors = [mpl.colormaps["tab20"](number) for number in _CONTROLS.values()]
    assert len({*colors}) == len(colors)
    assert all(np.ptp(color[:3]) > 0.1 for color in colors), "none is gray"
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


def test_dollars_are_signs_and_no_formula(tmp_path: Path) -> None:
    images, order = torch.rand(2, 1, 8, 12), torch.tensor([[0, 1], [2, 3]])
    error = torch.ones(2, 3)
    pages = [tmp_path / name for name in ("plain.png", "broken.png")]
    for page, label in zip(pages, ("a b", r"$\frac{$"), strict=True):
        labels = [label, label]
        scanpath_sheet(images, order, None, GRID, page, errors=error, labels=labels)
        assert page.stat().st_size
    assert as_written("a$b$c") == r"a\$b\$c"

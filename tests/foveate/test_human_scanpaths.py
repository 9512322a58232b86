"""Human scanpaths: what is read of a parquet file, and how it comes to lie on a grid."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from foveate.human import HumanScanpaths, Skipped, Trial, cell_paths, read_scanpaths
from foveate.human.cells import cells_of, center_cell, middles_of
from foveate.human.reading import in_crop
from tests.image_files import write_parquet

Rows = list[list[tuple[object, float, float]]]


def write_fixations(path: Path, rows: Rows, size: tuple[int, int] = (8, 6), **more: object) -> None:
    """Write images of which each row lists viewer, x and y of every fixation."""
    images = [Image.new("RGB", size, (number, 0, 0)) for number in range(len(rows))]
    lists = {
        name: [[each[place] for each in row] for row in rows]
        for place, name in enumerate(("fix_subject", "fix_x", "fix_y"))
    }
    write_parquet(path, images, **lists, **more)


def human(*trials: list[tuple[float, float]]) -> HumanScanpaths:
    """Scanpaths of one image each, by row and column."""
    import torch

    found = tuple(Trial(n, "a", np.array(each)) for n, each in enumerate(trials))
    images = torch.zeros(len(trials), 1, 4, 4, dtype=torch.uint8)
    return HumanScanpaths(images, found, Skipped(), "these")


def test_fixations_are_read_by_viewer_in_their_order(tmp_path: Path) -> None:
    rows: Rows = [[("b", 4, 3), ("a", 0, 0), ("b", 7.9, 5.9), ("a", 2, 1.5)]]
    write_fixations(tmp_path / "f.parquet", rows, split=["test"])
    found = read_scanpaths(tmp_path / "f.parquet", "test")
    assert found.images.shape == (1, 3, 6, 8)
    assert [trial.viewer for trial in found.trials] == ["b", "a"]
    b, a = found.trials
    np.testing.assert_allclose(b.place, [[0.5, 0.5], [5.9 / 6, 7.9 / 8]])
    np.testing.assert_allclose(a.place, [[0, 0], [0.25, 0.25]])
    assert not found.skipped.lines()


def test_what_cannot_be_used_is_left_out_and_counted(tmp_path: Path) -> None:
    rows: Rows = [
        [(1, 1, 1), (1, 2, 2), (1, 8, 1), (1, float("nan"), 1), (2, 3, 3)],  # 8 = the far edge.
        [(1, 1, 1), (1, -1, 1)],
        [],
        [(1, 1, 1), (1, 2, 2)],
    ]
    write_fixations(tmp_path / "f.parquet", rows, split=["test"] * 4)
    found = read_scanpaths(tmp_path / "f.parquet", "test", limit=2)
    assert found.skipped == Skipped(3, 2, 2)
    assert [(trial.image, trial.viewer) for trial in found.trials] == [(0, "1"), (1, "1")]
    # Images without viewers are not among those that are numbered.
    assert found.images[:, 0, 0, 0].tolist() == [0, 3]
    assert found.skipped.lines()[1] == "left out: 2 scanpaths of less than two fixations"


def test_fixations_move_with_the_part_of_an_image_that_a_model_reads(tmp_path: Path) -> None:
    # 16 x 8 pixels, of which a square model sees the middle 8 x 8.
    rows: Rows = [[(1, 4, 0), (1, 8, 4), (1, 11.9, 7.9), (1, 3, 4), (1, 12, 4)]]
    write_fixations(tmp_path / "f.parquet", rows, (16, 8), split=["test"])
    found = read_scanpaths(tmp_path / "f.parquet", "test", image_shape=(1, 4, 4))
    assert found.images.shape == (1, 1, 4, 4)
    np.testing.assert_allclose(found.trials[0].place[:2], [[0, 0], [0.5, 0.5]])
    assert len(found.trials[0].place) == 3
    assert found.skipped.fixations_outside == 2
    same = in_crop(np.array([[0.2, 0.9]]), np.array([600.0, 800.0]), np.array([192.0, 256.0]))
    np.testing.assert_allclose(same, [[0.2, 0.9]])


def test_a_file_without_splits_holds_test_images_out_of_train(tmp_path: Path) -> None:
    rows: Rows = [[(1, 1, 1), (1, 2, 2)]] * 12
    write_fixations(tmp_path / "f.parquet", rows)
    sides = [read_scanpaths(tmp_path / "f.parquet", split) for split in ("train", "val", "test")]
    numbers = [set(side.images[:, 0, 0, 0].tolist()) for side in sides]
    assert all(numbers)
    assert set.union(*numbers) == set(range(12))
    assert sum(map(len, numbers)) == 12


def test_a_file_is_the_split_that_its_name_says(tmp_path: Path) -> None:
    rows: Rows = [[(1, 1, 1), (1, 2, 2)]] * 4
    write_fixations(tmp_path / "eyes_test.parquet", rows)
    assert len(read_scanpaths(tmp_path / "eyes_test.parquet", "test").images) == 4
    with pytest.raises(ValueError, match="train"):
        read_scanpaths(tmp_path / "eyes_test.parquet", "train")


def test_splits_and_images_may_stand_in_other_columns(tmp_path: Path) -> None:
    file, rows = tmp_path / "f.parquet", [[(1, 1, 1), (1, 2, 2)]] * 12
    write_fixations(file, rows, split=["test"] * 12, fold=["train"] * 11 + ["test"])
    found = read_scanpaths(file, "test", split_column="fold")
    assert found.images[:, 0, 0, 0].tolist() == [11]
    sides = [read_scanpaths(file, split, split_column=None) for split in ("train", "val", "test")]
    assert sum(len(side.images) for side in sides) == 12
    assert 0 < len(sides[2].images) < 12
    with pytest.raises(ValueError, match="no column 'picture' for --image-column"):
        read_scanpaths(file, "test", image_column="picture")


def test_files_that_hold_no_fixations_are_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "f.parquet"
    with pytest.raises(ValueError, match="no file of fixations at"):
        read_scanpaths(file, "test")
    file.write_text("nothing")
    with pytest.raises(ValueError, match="as parquet"):
        read_scanpaths(file, "test")
    write_parquet(file, [Image.new("RGB", (8, 6))], fix_x=[[1.0]])
    with pytest.raises(ValueError, match="no fixation columns fix_subject, fix_y"):
        read_scanpaths(file, "test")
    uneven = {"fix_subject": [["a", "a"]], "fix_x": [[1.0, 1.0]], "fix_y": [[1.0]]}
    write_parquet(file, [Image.new("RGB", (8, 6))], split=["test"], **uneven)
    with pytest.raises(ValueError, match=r"different lengths .*fix_x 2.*fix_y 1"):
        read_scanpaths(file, "test")
    write_fixations(file, [[(1, 1, 1)]], split=["test"])
    with pytest.raises(ValueError, match="of two or more fixations; left out: 1 scanpaths of less"):
        read_scanpaths(file, "test")
    write_fixations(file, [[(1, 1, 1), (1, 2, 2)]], split=["test"])
    with pytest.raises(ValueError, match="the model reads 2 channels"):
        read_scanpaths(file, "test", image_shape=(2, 6, 8))
    table = pq.read_table(file).set_column(2, "fix_x", pa.array([["a", "b"]]))
    pq.write_table(table, file)
    with pytest.raises(ValueError, match="fix_x must hold numbers"):
        read_scanpaths(file, "test")
    pq.write_table(table.set_column(2, "fix_x", pa.array([4.0])), file)
    with pytest.raises(ValueError, match="fix_x must be a list, one entry for each fixation"):
        read_scanpaths(file, "test")
    for missing in (None, math.nan):
        write_fixations(file, [[(missing, 1, 1), (1.0, 2, 2)]], split=["test"])
        with pytest.raises(ValueError, match="does not name the viewer of every fixation"):
            read_scanpaths(file, "test")


# --- cells


def test_places_fall_into_the_cells_of_a_grid_that_is_not_square() -> None:
    place = np.array([[0.0, 0.0], [0.0, 0.999], [0.5, 0.25], [0.999, 0.999]])
    assert cells_of(place, (2, 4)).tolist() == [0, 3, 5, 7]
    np.testing.assert_allclose(middles_of(np.array([5, -1]), (2, 4)), [[0.75, 0.375], [np.nan] * 2])
    assert center_cell((12, 16)) == 6 * 16 + 8


def test_revisits_are_kept_or_dropped_and_first_fixations_scored_or_given() -> None:
    path = [(0.1, 0.1), (0.9, 0.9), (0.1, 0.2), (0.1, 0.9)]  # Cells 0, 3, 0, 1 of 2 x 2.
    kept = cell_paths(human(path), (2, 2), revisits=True, first_fixation=True)
    assert kept.cell.tolist() == [[0, 3, 0, 1]]
    assert kept.steps.cell.tolist() == [0, 3, 0, 1]
    assert kept.steps.viewed.tolist() == [
        [False] * 4,
        [True, False, False, False],
        [True, False, False, True],
        [True, False, False, True],
    ]
    assert kept.steps.returns.tolist() == [False, False, True, False]
    assert kept.steps.available.all()
    dropped = cell_paths(human(path), (2, 2))
    assert dropped.cell.tolist() == [[0, 3, 1]]
    assert dropped.steps.cell.tolist() == [3, 1]
    assert dropped.steps.number.tolist() == [1, 2]
    assert dropped.steps.available.sum(1).tolist() == [3, 2]
    assert cell_paths(human(path), (2, 2), most=2).cell.tolist() == [[0, 3]]


def test_scanpaths_of_one_cell_are_left_out_and_counted() -> None:
    still, moving = [(0.1, 0.1), (0.2, 0.2)], [(0.1, 0.1), (0.9, 0.1), (0.9, 0.9)]
    found = cell_paths(human(still, moving), (2, 2))
    assert (found.num_short, found.image.tolist(), found.length.tolist()) == (1, [1], [3])
    assert found.of_first(1).cell.shape[0] == 0
    with pytest.raises(ValueError, match=r"no scanpath of these has two fixations on a 2x2 grid"):
        cell_paths(human(still), (2, 2))

"""Pictures of scanpaths say what is known of the images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from experiments.evaluation.draw import draw, names_of
from experiments.runs import Run
from experiments.tables import read_object
from foveate.data import ImageSet
from foveate.data.pictures import read_pictures


def test_pictures_name_the_classes_that_are_known() -> None:
    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    labels = torch.tensor([1, -1, 0])
    assert names_of(ImageSet(images, labels, ("cat", "dog"), "set")) == ["dog", "", "cat"]
    assert names_of(ImageSet(images, labels, (), "set")) is None


def test_own_pictures_need_no_data_set(run: Run, tmp_path: Path) -> None:
    gone = replace(run, config=run.config.replace(data="gone/"))
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    (photos / "note.txt").touch()
    run.directory.mkdir()
    Image.new("RGB", (40, 30), "red").save(photos / "a.jpg")
    Image.new("L", (8, 9)).save(photos / "more" / "b.png")
    files = draw(gone, image=[photos, photos / "a.jpg"])
    assert [file.name for file in files] == [
        "scanpaths_own.png", "scanpaths_own.gif", "fixations_own.png", "scanpaths_own.json"
    ]  # fmt: skip
    said = read_object(run.directory / "scanpaths_own.json")
    assert said["dataset"] == "pictures"
    assert said["options"]["index"] == [0, 1, 2]
    elsewhere = draw(gone, image=[photos], out=tmp_path / "deep" / "out")
    assert {file.parent for file in elsewhere} == {tmp_path / "deep" / "out"}
    assert all(file.stat().st_size for file in elsewhere)
    with pytest.raises(ValueError, match=r"image 3 of --index does not exist.*pictures 0\.\.2"):
        draw(gone, image=[photos, photos / "a.jpg"], index=(3,))


def test_drawings_of_another_run_in_the_same_folder_are_kept(run: Run, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    given = {"image": [tmp_path / "a.png"], "out": tmp_path / "out"}
    draw(run, **given)
    draw(replace(run, directory=tmp_path / "another"), **given)
    kept = read_object(tmp_path / "out" / "scanpaths_own_1.json")
    assert kept["options"]["scanned_by"] == str(run.directory)
    assert (tmp_path / "out" / "scanpaths_own_1.png").is_file()


@pytest.mark.parametrize("order", ["uncertainty", "raster"])
def test_rules_and_orders_are_drawn_as_the_policy_is(
    run: Run, tmp_path: Path, order: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    files = draw(run, image=[tmp_path / "a.png"], out=tmp_path / "out", order=order)
    assert files[0].name == f"scanpaths_own_{order}.png"
    assert not capsys.readouterr().err


def test_predictions_that_are_not_finite_are_not_drawn(run: Run, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    run.model.decoder.head.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="predicts numbers that are not finite"):
        draw(run, image=[tmp_path / "a.png"], out=tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


def test_what_is_no_picture_is_counted_and_equal_names_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    for name in ("cat/1.png", "dog/1.png", "dog/2.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(photos / name)
    (photos / "note.txt").touch()
    (photos / "gone.png").symlink_to(photos / "nowhere.png")
    _, names = read_pictures([photos], (1, 8, 8))
    assert names == ["photos/cat/1", "photos/dog/1", "2"]
    given = [photos / "cat/1.png", photos / "dog/1.png"]
    assert read_pictures(given, (1, 8, 8))[1] == ["cat/1", "dog/1"]
    said = f"note: 2 of 5 files in {photos} are no pictures and are skipped: gone.png, note.txt\n"
    assert capsys.readouterr().err == said


def test_pictures_are_brought_to_what_a_model_reads(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    Image.new("L", (8, 9), 7).save(tmp_path / "b.png")
    images, names = read_pictures([tmp_path], (3, 4, 8))
    assert names == ["a", "b"]
    assert images.image_shape == (3, 4, 8)
    torch.testing.assert_close(images.images[0].float().mean((1, 2)), torch.tensor([255.0, 0, 0]))
    assert (images.images[1] == 7).all()
    assert read_pictures([tmp_path], (1, 4, 8), limit=1)[0].images.shape == (1, 1, 4, 8)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jpg").write_text("no picture")
    for path, complaint in (
        ("nowhere.jpg", "no picture at"),
        ("empty", "no pictures in"),
        ("bad.jpg", "cannot read"),
    ):
        with pytest.raises(ValueError, match=complaint):
            read_pictures([tmp_path / path], (3, 4, 8))
    with pytest.raises(ValueError, match="the model reads 2 channels"):
        read_pictures([tmp_path], (2, 4, 8))


def test_a_file_or_a_link_to_nothing_is_no_folder_of_drawings(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, what in (("file", "a file"), ("link", "a link to nothing")):
        with pytest.raises(ValueError, match=f"{name} is {what}; choose a folder with --out"):
            draw(run, out=tmp_path / name)


@pytest.mark.parametrize("index", [(), (0, -1)])
def test_numbers_of_no_image_are_refused(run: Run, tmp_path: Path, index: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one or more test image numbers from 0"):
        draw(run, index=index, out=tmp_path / "out")

"""Folders: which files are images, of which class and split, and what is said of the rest."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import numbered, numbers, write_parquet

from foveate.data import load_data, scenes
from foveate.data.folders import files_under
from foveate.data.sources import find_rows
from foveate.data.streaming import ImageStream


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path_factory.mktemp("cache")))


def fill(folder: Path, first: int, count: int = 10, ending: str = "png") -> None:
    """Write images of these numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        numbered(number).save(folder / f"{number:03}.{ending}")


def load_all(folder: Path) -> dict[str, set[int]]:
    return {split: numbers(load_data(str(folder), split)) for split in scenes.SPLITS}


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    fill(tmp_path / "far" / "b", 10)
    fill(tmp_path / "set" / "a", 0, 9)
    (tmp_path / "set" / "b").symlink_to(tmp_path / "far" / "b", target_is_directory=True)
    numbered(9).save(tmp_path / "far" / "x.png")
    (tmp_path / "set" / "a" / "009.png").symlink_to(tmp_path / "far" / "x.png")
    (tmp_path / "set" / "a" / "up").symlink_to(tmp_path / "set", target_is_directory=True)
    (tmp_path / "far" / "b" / "self").symlink_to(tmp_path / "far" / "b", target_is_directory=True)
    (tmp_path / "set" / "b2").symlink_to("b2")
    assert set.union(*load_all(tmp_path / "set").values()) == set(range(20))
    loaded = load_data(str(tmp_path / "set"))
    assert loaded.class_names == ("a", "b")
    assert (loaded.labels == loaded.images[:, 0, 0, 0] // 10).all()


def test_what_is_skipped_is_counted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "a", 0)
    fill(tmp_path / "b", 10, ending="tga")
    for name in ("a/x.txt", "a/y.TXT", "notes.json", "LICENSE", ".hidden", "a/.DS_Store"):
        (tmp_path / name).write_text("text")
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert sum(map(len, load_all(tmp_path).values())) == 20
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"skipped in {tmp_path}: 5 files that are no images "
        "(.txt 2, no ending 1, .json 1, broken links 1)"
    ]


def test_a_folder_around_everything_is_seen_through(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 20)):
        fill(tmp_path / "set" / "set" / split / "a", first)
        fill(tmp_path / "set" / "set" / split / "b", first + 10)
    (tmp_path / "set" / "README").write_text("unpacked")
    assert load_all(tmp_path)["test"] == set(range(20, 40))
    assert load_data(str(tmp_path)).class_names == ("a", "b")


def test_images_without_any_class_folder_have_no_labels(tmp_path: Path) -> None:
    fill(tmp_path / "flat", 0, 30)
    fill(tmp_path / "splits" / "train", 0)
    fill(tmp_path / "splits" / "Validation", 10)
    fill(tmp_path / "splits" / "test", 20)
    for folder in (tmp_path / "flat", tmp_path / "splits"):
        found = load_all(folder)
        assert set.union(*found.values()) == set(range(30))
        loaded = load_data(str(folder))
        assert loaded.class_names == ()
        assert set(loaded.labels.tolist()) == {-1}
    assert found["val"] == set(range(10, 20))


@pytest.mark.parametrize(
    ("folders", "flat"),
    [("train", "test"), ("train", "train"), ("train", "val"), (".", ".")],
)
def test_images_beside_class_folders_are_refused(tmp_path: Path, folders: str, flat: str) -> None:
    """A test split is never carved from train where there is a folder called test."""
    fill(tmp_path / folders / "a", 0)
    fill(tmp_path / folders / "b", 10)
    fill(tmp_path / flat, 20)
    place = tmp_path / flat
    with pytest.raises(ValueError, match=f"{place} has images without class folders, such as 020"):
        load_data(str(tmp_path), "test")


@pytest.mark.parametrize("folders", [("train/a", "train/b"), ("train", "test")])
def test_images_beside_splits_are_refused(tmp_path: Path, folders: tuple[str, ...]) -> None:
    for place, folder in enumerate(folders):
        fill(tmp_path / folder, 10 * place)
    fill(tmp_path, 20)
    with pytest.raises(ValueError, match="has images beside the folders of splits, such as 020"):
        load_data(str(tmp_path), "test")


@pytest.mark.parametrize(
    ("folders", "empty"),
    [
        (("train2017/a", "train2017/b"), "val2017"),
        (("train2017",), "val2017"),
        (("sets/train2017/a", "sets/train2017/b"), "sets/val2017"),
        (("train/a", "train/b"), "validation"),
    ],
)
def test_an_empty_split_is_refused_however_splits_are_called(
    tmp_path: Path, folders: tuple[str, ...], empty: str
) -> None:
    """It would be held out of train."""
    for place, folder in enumerate(folders):
        fill(tmp_path / folder, 10 * place)
    load_data(str(tmp_path), "val")
    (tmp_path / empty).mkdir()
    with pytest.raises(ValueError, match=f"{empty} holds no images; put the split's there"):
        load_data(str(tmp_path), "val")


def test_an_empty_folder_beside_images_alone_is_no_split(tmp_path: Path) -> None:
    fill(tmp_path, 0, 20)
    (tmp_path / "dev-notes").mkdir()
    assert set.union(*load_all(tmp_path).values()) == set(range(20))


def test_an_empty_folder_beside_classes_is_none(tmp_path: Path) -> None:
    fill(tmp_path / "bullet_train", 0)
    fill(tmp_path / "zebra", 10)
    (tmp_path / "test_tube").mkdir()
    assert load_data(str(tmp_path)).class_names == ("bullet_train", "zebra")


def test_an_empty_split_and_folders_beside_splits_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "train" / "a", 0)
    fill(tmp_path / "extra" / "a", 10)
    assert set.union(*load_all(tmp_path).values()) == set(range(10))
    line = f"left out of {tmp_path}: 10 images in {tmp_path / 'extra'}, which is no split\n"
    assert capsys.readouterr().err == line
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match="test holds no images; put the split's there"):
        load_data(str(tmp_path), "test")


def test_two_splits_beside_another_folder_are_splits_without_class_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "train", 0)
    fill(tmp_path / "test", 10)
    fill(tmp_path / "unlabeled", 20)
    found = load_all(tmp_path)
    assert found["test"] == set(range(10, 20))
    assert found["train"] | found["val"] == set(range(10))
    assert load_data(str(tmp_path)).class_names == ()
    assert f"10 images in {tmp_path / 'unlabeled'}, which is no split" in capsys.readouterr().err


def test_a_class_has_one_name_in_all_unicode_forms(tmp_path: Path) -> None:
    for form, split, first in (("NFC", "train", 0), ("NFD", "test", 10)):
        fill(tmp_path / split / unicodedata.normalize(form, "café"), first)
    assert load_data(str(tmp_path), "test").class_names == ("café",)


def test_images_that_a_table_names_are_not_called_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "images", 0)
    (tmp_path / "linked").symlink_to(tmp_path / "images", target_is_directory=True)
    paths = [f"linked/{number:03}.png" for number in range(10)]
    pq.write_table(pa.table({"file_name": paths}), tmp_path / "metadata.PARQUET")
    assert set.union(*load_all(tmp_path).values()) == set(range(10))
    assert capsys.readouterr().err == ""
    fill(tmp_path / "images", 10, 2)
    (tmp_path / "notes.txt").write_text("text")
    pq.write_table(pa.table({"file_name": paths[1:]}), tmp_path / "metadata.PARQUET")
    assert set.union(*load_all(tmp_path).values()) == set(range(1, 10))
    said = capsys.readouterr().err
    assert "1 file that is no table (.txt 1)\n" in said
    assert "6 files that are no tables (.png 6)\n" in said


@pytest.mark.parametrize("link", ["all", "a/000b.png"])
def test_files_that_links_make_part_of_the_set_again_are_counted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], link: str
) -> None:
    fill(tmp_path / "set" / "a", 0)
    fill(tmp_path / "set" / "b", 10)
    target = "a" if link == "all" else "a/000.png"
    (tmp_path / "set" / link).symlink_to(tmp_path / "set" / target)
    (tmp_path / "link").symlink_to(tmp_path / "set")
    for split in scenes.SPLITS:
        load_data(str(tmp_path / "link"), split)
    (said,) = capsys.readouterr().err.splitlines()
    again = "all/000.png" if link == "all" else link
    several = "10 files" if link == "all" else "1 file"
    assert said.startswith(
        f"more than once in {tmp_path / 'set'}: {several}, by links, such as "
        f"{tmp_path / 'set' / 'a' / '000.png'} and {tmp_path / 'set' / again};"
    )


@pytest.mark.parametrize(
    "load", [load_data, lambda path: ImageStream(path, image_size=6, batch_size=1)]
)
def test_a_table_that_a_link_makes_part_of_the_set_again_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], load: Callable[[str], object]
) -> None:
    write_parquet(tmp_path / "train.PARQUET", [numbered(number) for number in range(20)])
    (tmp_path / "test.parquet").symlink_to(tmp_path / "train.PARQUET")
    load(str(tmp_path))
    assert f"more than once in {tmp_path}: 1 file, by links, such as " in capsys.readouterr().err


def test_a_big_folder_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only links are asked whether they lead anywhere, and paths are not compared anew."""
    fill(tmp_path / "set" / "a", 0)
    asked: list[Path] = []
    exists, relative_to = Path.exists, Path.relative_to
    monkeypatch.setattr(Path, "exists", lambda self: asked.append(self) or exists(self))
    monkeypatch.setattr(
        Path, "relative_to", lambda self, *other: asked.append(self) or relative_to(self, *other)
    )
    find_rows(tmp_path)
    assert asked == []


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_a_shard_that_is_a_link_to_nothing_is_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"train.{kind}").symlink_to(tmp_path / "nowhere")
    says = f"train.{kind} is a link to nothing; mend or remove it"
    with pytest.raises(ValueError, match=says):
        ImageStream(tmp_path, image_size=6, batch_size=1)
    if kind == "parquet":
        with pytest.raises(ValueError, match=says):
            load_data(str(tmp_path))


def test_hidden_files_and_folders_do_not_count(tmp_path: Path) -> None:
    fill(tmp_path / ".thumbs", 0)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.tar").write_text("")
    assert [file.path for file in files_under(tmp_path)] == [tmp_path / "a" / "x.tar"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX's")
def test_pipes_are_counted_and_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "set" / "a", 0)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "set" / "a" / "zz.png").symlink_to(tmp_path / "pipe.png")
    (tmp_path / "set" / "a" / "zzz.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "set" / "a" / "y.png")
    assert set.union(*load_all(tmp_path / "set").values()) == set(range(10))
    said = "3 files that are no images (pipes and devices 2, broken links 1)"
    assert said in capsys.readouterr().err
    os.mkfifo(tmp_path / "set" / "train.parquet")
    with pytest.raises(ValueError, match=r"train.parquet is no regular file; mend or remove it"):
        load_data(str(tmp_path / "set"))

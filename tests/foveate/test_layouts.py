"""Data as others lay it out: what is read is right, or a line says what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_files import encoded, numbered, numbers, write_parquet, write_tar

from foveate.checkpoint import load_model
from foveate.data import ImageSet, load_data
from foveate.data.first_images import first_images
from foveate.data.streaming import ImageStream


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path_factory.mktemp("cache")))


def write(folder: Path, chosen: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in chosen:
        numbered(number).save(folder / f"{number}.png")


def streamed(source: Any, split: str, limit: int) -> ImageSet:
    return first_images(source, split, image_size=6, channels=1, limit=limit)


SPLITS = {"train": range(40), "val": range(40, 50), "test": range(50, 60)}


def check_splits(folder: Path, class_names: tuple[str, ...]) -> None:
    for split, chosen in SPLITS.items():
        loaded = load_data(str(folder), split)
        assert numbers(loaded) == {*chosen}
        assert loaded.class_names == class_names


@pytest.mark.parametrize(
    "names",
    [
        ("train2017", "val2017", "test2017"),
        ("train_images", "val_images", "test_images"),
        ("seg_train", "seg_dev", "seg_test"),
        ("Training_Set", "validation", "testing"),
    ],
)
def test_folders_whose_names_all_have_a_split_in_them_are_splits(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name, chosen in zip(names, SPLITS.values(), strict=True):
        write(tmp_path / name, chosen)
    check_splits(tmp_path, ())


def test_classes_that_are_called_like_splits_stay_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, name in enumerate(("bullet_train", "test_tube", "zebra")):
        write(tmp_path / name, range(20 * place, 20 * place + 20))
    assert load_data(str(tmp_path)).class_names == ("bullet_train", "test_tube", "zebra")
    assert "read as classes, since not all are called like splits" in capsys.readouterr().err


@pytest.mark.parametrize("wrappers", [("train", "val", "test"), ("images", "images", "images")])
def test_a_single_folder_in_each_split_is_seen_through(
    tmp_path: Path, wrappers: tuple[str, ...]
) -> None:
    for (split, chosen), wrapper in zip(SPLITS.items(), wrappers, strict=True):
        write(tmp_path / split / wrapper / "cat", chosen[::2])
        write(tmp_path / split / wrapper / "dog", chosen[1::2])
    check_splits(tmp_path, ("cat", "dog"))
    loaded = load_data(str(tmp_path))
    assert torch.equal(loaded.labels, loaded.images[:, 0, 0, 0] % 2)


def test_a_folder_called_images_is_no_class(tmp_path: Path) -> None:
    for split, chosen in SPLITS.items():
        write(tmp_path / "yolo" / split / "images", chosen)
    check_splits(tmp_path / "yolo", ())
    write(tmp_path / "flat" / "images", range(30))
    assert load_data(str(tmp_path / "flat")).class_names == ()
    # As in tiny-imagenet, whose validation images have their classes in a table.
    write(tmp_path / "tiny" / "train" / "cat" / "images", range(20))
    write(tmp_path / "tiny" / "train" / "dog" / "images", range(20, 40))
    write(tmp_path / "tiny" / "val" / "images", range(40, 50))
    with pytest.raises(ValueError, match="images has images without class folders"):
        load_data(str(tmp_path / "tiny"))


def test_the_only_class_of_a_split_stays_its_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "train" / "cat", range(20))
    write(tmp_path / "train" / "dog", range(20, 40))
    write(tmp_path / "test" / "dog" / "monday", range(50, 55))
    write(tmp_path / "test" / "dog" / "friday", range(55, 60))
    assert load_data(str(tmp_path), "test").labels.tolist() == [1] * 10
    assert "no class of" not in capsys.readouterr().err
    write(tmp_path / "val" / "cow", range(40, 50))
    load_data(str(tmp_path), "val")
    assert "no class of val is one of train" in capsys.readouterr().err


def test_a_table_is_known_by_the_name_of_the_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    write_parquet(tmp_path / "blobs" / "3f2a", [numbered(n) for n in range(30)])
    link = tmp_path / "snapshot" / "test-00000-of-00001.parquet"
    link.symlink_to("../blobs/3f2a")
    assert numbers(load_data(str(link), "test")) == {*range(30)}
    assert numbers(streamed(link, "test", 30)) == {*range(30)}


@pytest.mark.parametrize("stream", [False, True])
def test_shards_of_other_splits_are_no_part_of_train(
    tmp_path: Path, stream: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("train-00000-of-00001", "test-00000-of-00001", "extra-00000-of-00001", "more")
    for place, name in enumerate(names):
        shard = [numbered(n) for n in range(20 * place, 20 * place + 20)]
        write_parquet(tmp_path / f"{name}.parquet", shard)

    def read(split: str) -> set[int]:
        if stream:
            return numbers(streamed(tmp_path, split, 80))
        return numbers(load_data(str(tmp_path), split))

    assert read("train") | read("val") == {*range(20), *range(60, 80)}
    assert read("test") == {*range(20, 40)}
    said = capsys.readouterr().err
    assert "1 file that names no split, such as more.parquet" in said
    assert "20 rows of split 'extra'" in said


def test_shards_of_no_split_are_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in range(2):
        shard = [numbered(n) for n in range(20 * place, 20 * place + 20)]
        write_parquet(tmp_path / f"mine-{place:05}-of-00002.parquet", shard)
    found = [numbers(load_data(str(tmp_path), split)) for split in ("train", "val", "test")]
    assert set.union(*found) == {*range(40)}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("there", "complaint"),
    [
        ((0, 3), "2 of the 4 files of mine, such as mine-00001-of-00004.parquet"),
        ((1, 2, 4), "1 of the 4 files of mine, such as mine-00003-of-00004.parquet"),
        ((0, 1, 2, 3), None),
        ((1, 2, 3, 4), None),
    ],
)
def test_shards_that_are_not_there_are_counted(
    tmp_path: Path,
    there: tuple[int, ...],
    complaint: str | None,
    stream: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for place in there:
        shard = [numbered(n) for n in range(20 * place, 20 * place + 20)]
        write_parquet(tmp_path / f"mine-{place:05}-of-00004.parquet", shard)
    if stream:
        streamed(tmp_path, "train", 20)
    else:
        load_data(str(tmp_path))
    said = capsys.readouterr().err
    assert said == (f"not there in {tmp_path}: {complaint}\n" if complaint else "")


@pytest.mark.parametrize("stream", [False, True])
def test_several_configurations_of_a_repository_are_named(
    tmp_path: Path, stream: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, name in enumerate(("plain", "large")):
        (tmp_path / name).mkdir()
        shard = [numbered(n) for n in range(20 * place, 20 * place + 20)]
        write_parquet(tmp_path / name / "train-00000-of-00001.parquet", shard)
    card = tmp_path / "README.md"
    card.write_text(
        "---\nconfigs:\n- config_name: plain\n  data_files: x\n- config_name: large\n---\nText.\n"
    )

    def said() -> str:
        if stream:
            streamed(tmp_path, "train", 30)
        else:
            load_data(str(tmp_path))
        return capsys.readouterr().err

    assert "read as one set of" in (first := said())
    assert "its configurations ['large', 'plain']; give the folder of one" in first
    card.write_text("---\nconfigs:\n- config_name: plain\n---\nconfig_name: no part of it\n")
    assert "read as one set of" not in said()
    card.write_text("---\nconfigs:\n- config_name: plain\n- config_name: not_there\n---\n")
    assert "read as one set of" not in said()


def test_a_column_that_holds_no_classes_gives_way_to_one_that_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, several = [numbered(n) for n in range(30)], pa.array([["a", "b"]] * 30)
    write_parquet(tmp_path / "a.parquet", images, label=several, fine_label=[0, 1] * 15)
    assert {*load_data(str(tmp_path / "a.parquet")).labels.tolist()} == {0, 1}
    assert "not used of" in (said := capsys.readouterr().err)
    assert "column label, of type list" in said


def test_columns_of_paths_and_of_other_text(tmp_path: Path) -> None:
    write(tmp_path, range(30))
    paths = [f"{n}.png" for n in range(30)]
    table = {"image": pa.array([{"path": path} for path in paths])}
    pq.write_table(pa.table(table), tmp_path / "struct.parquet")
    assert numbers(load_data(str(tmp_path / "struct.parquet"))) < {*range(30)}
    pq.write_table(pa.table({"img_path": paths}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"name one of paths by --image-column; .*img_path"):
        load_data(str(tmp_path / "other.parquet"))
    assert len(load_data(str(tmp_path / "other.parquet"), image_column="img_path")) > 15
    both = {"image": paths, "jpg": [encoded(numbered(n)) for n in range(30)]}
    pq.write_table(pa.table(both), tmp_path / "both.parquet")
    with pytest.raises(ValueError, match="may hold images, image, jpg; choose one"):
        load_data(str(tmp_path / "both.parquet"))
    far = {"image": ["https://a.example/0.jpg"] * 30}
    pq.write_table(pa.table(far), tmp_path / "far.parquet")
    with pytest.raises(ValueError, match=r"no file 'https://a.example/0.jpg' .*store the bytes"):
        load_data(str(tmp_path / "far.parquet"))
    long = {"image": ["A" * 5000] * 30}
    pq.write_table(pa.table(long), tmp_path / "long.parquet")
    with pytest.raises(ValueError, match="no file 'AAA") as error:
        load_data(str(tmp_path / "long.parquet"))
    assert len(str(error.value)) < 700


def test_names_of_folders_that_nobody_reads_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, name in enumerate(("cat", "dog")):
        folder = tmp_path / f"label={name}"
        folder.mkdir()
        shard = [numbered(n) for n in range(20 * place, 20 * place + 20)]
        write_parquet(folder / "part-0.parquet", shard)
    assert {*load_data(str(tmp_path)).labels.tolist()} == {-1}
    assert "label in the names of folders, such as label=cat" in capsys.readouterr().err


def test_tables_beside_tar_files_of_their_names_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [(f"{n}.png", encoded(numbered(n))) for n in range(20)]
    write_tar(tmp_path / "train-00000.tar", members)
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "train-00000.parquet")
    assert numbers(streamed(tmp_path, "train", 20)) == {*range(20)}
    assert "1 file that is no tar file (.parquet 1)" in capsys.readouterr().err
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="both parquet and tar files"):
        streamed(tmp_path, "train", 20)


def test_arrow_files_and_what_map_has_cached_beside_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pa.table({"image": [encoded(numbered(n)) for n in range(30)]})
    with pa.ipc.new_stream(tmp_path / "x-train.arrow", table.schema) as stream:
        stream.write_table(table)
    (tmp_path / "cache-12ab.arrow").write_bytes((tmp_path / "x-train.arrow").read_bytes())
    found = [numbers(load_data(str(tmp_path), split)) for split in ("train", "val", "test")]
    assert sum(map(len, found)) == 30
    assert "(.arrow 1)" in capsys.readouterr().err
    feather = tmp_path / "feather"
    feather.mkdir()
    with pa.ipc.new_file(feather / "a.arrow", table.schema) as file:
        file.write_table(table)
    assert numbers(load_data(str(feather))) < {*range(30)}


def test_paths_may_be_paths_and_homes_must_be_there(tmp_path: Path) -> None:
    write(tmp_path, range(30))
    assert len(load_data(tmp_path)) > 15
    with pytest.raises(ValueError, match=r"no data '.*missing'"):
        load_data(tmp_path / "missing")
    for read in (load_data, lambda data: ImageStream(data, "train", image_size=6, batch_size=2)):
        with pytest.raises(ValueError, match=r"~nobody_here/x: there is no such home"):
            read("~nobody_here/x")


def test_a_stream_in_the_form_of_another_library_is_read_as_it_is() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(2))
    rows = {"image": [numbered(n) for n in range(20)], "label": [0, 1] * 10}
    stored = datasets.Dataset.from_dict(rows, features=features, split="train")
    plain, *formed = (
        streamed(stored.to_iterable_dataset().with_format(kind), "train", 20)
        for kind in (None, "numpy", "torch", "arrow")
    )
    assert numbers(plain) == {*range(20)}
    for each in formed:
        assert np.array_equal(each.images, plain.images)
        assert torch.equal(each.labels, plain.labels)


def test_rows_that_name_no_split_are_told_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [numbered(number) for number in range(40)]
    splits = [None if number < 3 else "train" for number in range(40)]
    write_parquet(tmp_path / "set.parquet", images, split=splits)
    assert 0 not in numbers(load_data(str(tmp_path / "set.parquet"), "train", image_size=6))
    assert "3 rows that name no split; known are train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("fold0/cat", "fold0/dog", "fold1/cat", "fold1/dog"), "['cat', 'dog']"),
        (("a/images/cat", "a/images/dog", "b/images/cat", "b/images/dog"), "['cat', 'dog']"),
        (("a/cat", "a/dog", "b/cat", "b/fir"), None),
        (("a/x", "b/x"), None),
        (("a", "b"), None),
    ],
)
def test_classes_that_hold_folders_of_the_same_names_are_told(
    classes: tuple[str, ...], said: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The outer folders may be folds or domains, and no classes."""
    for number, name in enumerate(classes):
        (tmp_path / name).mkdir(parents=True)
        for own in range(9):
            numbered(9 * number + own).save(tmp_path / name / f"{own}.png")
    load_data(str(tmp_path), "train", image_size=6)
    line = capsys.readouterr().err
    assert (f"and each holds {said}; if the latter are the classes" in line) == (said is not None)


def test_an_empty_text_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python takes it for the working directory, with all that lies there."""
    monkeypatch.chdir(tmp_path)
    numbered(0).save(tmp_path / "0.png")
    for load in (lambda: load_data("", "train"), lambda: load_model("")):
        with pytest.raises(ValueError, match=r"an empty text; the working directory is \."):
            load()

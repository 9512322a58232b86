"""Held-out splits: an image's side is its own, and what a split holds can be compared later."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import encoded, numbered, numbers, write_parquet

from foveate.data import load_data, scenes
from foveate.data.first_images import first_images
from foveate.data.pieces import _find_files
from foveate.data.splits import (
    Fingerprint,
    changes,
    fingerprint,
    place,
    split_in_name,
    splits_in_names,
)
from foveate.data.streaming import ImageStream


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path_factory.mktemp("cache")))


def write_folder(data: Path, chosen: list[int]) -> None:
    for number in chosen:
        folder = data / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        numbered(number).save(folder / f"{number}.png")


def write_named(data: Path, chosen: list[int], name: Callable[[int], str | None]) -> None:
    data.mkdir(parents=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": encoded(numbered(n)), "path": name(n)} for n in chosen]
    pq.write_table(pa.table({"image": pa.array(cells, kind)}), data / "a.parquet", row_group_size=7)


def write_paths(data: Path, chosen: list[int]) -> None:
    write_folder(data, chosen)
    paths = [f"{('cat', 'dog')[n % 2]}/{n}.png" for n in chosen]
    pq.write_table(pa.table({"image": paths}), data / "a.parquet", row_group_size=7)


WRITERS: dict[str, Callable[[Path, list[int]], None]] = {
    "folder": write_folder,
    "names": lambda data, chosen: write_named(data, chosen, lambda n: f"{n}.png"),
    "no names": lambda data, chosen: write_named(data, chosen, lambda _: None),
    "one name": lambda data, chosen: write_named(data, chosen, lambda _: "image.png"),
    "few names": lambda data, chosen: write_named(data, chosen, lambda n: f"class{n % 8}.png"),
    # Fewer rows make the name more or less than a tenth of them.
    "one of ten": lambda data, chosen: write_named(
        data, chosen, lambda n: "0.png" if n % 10 == 0 else f"{n}.png"
    ),
    "files": lambda data, chosen: write_paths(data, chosen),
}


def sides(data: Path) -> dict[int, str]:
    """Split of each image, by its number."""
    found = {split: numbers(load_data(str(data), split)) for split in scenes.SPLITS}
    assert sum(map(len, found.values())) == len(set.union(*found.values()))
    return {number: split for split in found for number in found[split]}


@pytest.mark.parametrize("kind", WRITERS)
def test_no_image_changes_sides_when_others_come_or_go(kind: str, tmp_path: Path) -> None:
    every = list(range(200))
    generator = np.random.default_rng(0)
    WRITERS[kind](tmp_path / "all", every)
    before = sides(tmp_path / "all")
    assert set(before) == set(every)
    for split, least, most in (("train", 140, 180), ("val", 8, 32), ("test", 8, 32)):
        assert least < sum(side == split for side in before.values()) < most
    fewer = sorted(generator.permutation(200)[:150].tolist())
    WRITERS[kind](tmp_path / "fewer", fewer)
    assert sides(tmp_path / "fewer") == {number: before[number] for number in fewer}


@pytest.mark.parametrize("kind", ["names", "no names", "one name", "few names", "files"])
def test_streams_hold_out_what_memory_does(kind: str, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path / "set", list(range(60)))
    for split in scenes.SPLITS:
        expected = numbers(load_data(str(tmp_path / "set"), split))
        streamed = first_images(tmp_path / "set", split, image_size=6, channels=1, limit=99)
        assert numbers(streamed) == expected


def test_a_path_beside_the_bytes_does_not_hold_out_a_class(tmp_path: Path) -> None:
    write_named(tmp_path / "set", list(range(200)), lambda n: f"class{n % 8}.png")
    found = sides(tmp_path / "set")
    for kind in range(8):
        assert len({found[number] for number in range(kind, 200, 8)}) > 1


def test_an_image_that_is_a_file_goes_by_its_path_from_a_folder_or_a_table(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", list(range(60)))
    write_paths(tmp_path / "table", list(range(60)))
    assert sides(tmp_path / "folder") == sides(tmp_path / "table")


@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_tiny_sets_have_an_image_in_every_split(count: int, tmp_path: Path) -> None:
    for start in range(0, 60, 10):
        write_named(tmp_path / str(start), [start + n for n in range(count)], lambda n: f"{n}.png")
        assert set(sides(tmp_path / str(start)).values()) == set(scenes.SPLITS)


def test_too_few_images_to_hold_any_out_are_an_error(tmp_path: Path) -> None:
    write_named(tmp_path / "set", [1, 2], str)
    with pytest.raises(ValueError, match="a has too few images for its val split: 2 in train"):
        load_data(str(tmp_path / "set"), "val")


def test_a_place_is_the_same_in_every_unicode_form_and_below_one() -> None:
    assert place("caf\u00e9") == place("cafe\u0301") != place("cafe")
    assert place("a") == place(b"a")


# Names of splits.


def test_rows_of_other_splits_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = ["Training"] * 20 + ["dev"] * 5 + ["testing"] * 5 + ["unassigned"] * 9 + ["all"]
    # One of another size and color, which must not matter.
    images = [*(numbered(n) for n in range(39)), numbered(39, "RGB", (9, 9))]
    write_parquet(tmp_path / "set.parquet", images, split=split)
    assert sides(tmp_path / "set.parquet") == {
        n: "train" if n < 20 else "val" if n < 25 else "test" for n in range(30)
    }
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "left out of set: 1 rows of split 'all'",
        "left out of set: 9 rows of split 'unassigned'",
    ]
    assert "dev" in lines[0]
    first_images(tmp_path / "set.parquet", "val", image_size=6, channels=1, limit=9)
    assert "9 rows of split 'unassigned'" in capsys.readouterr().err


@pytest.mark.parametrize("stored", ["all", "test"])
def test_a_set_without_train_says_how_to_hold_out(stored: str, tmp_path: Path) -> None:
    file = tmp_path / "set.parquet"
    write_parquet(file, [numbered(n) for n in range(40)], split=[stored] * 40)
    with pytest.raises(ValueError, match=rf"\['{stored}'\].*known are.*--split-column None"):
        load_data(str(file), "train")
    found = [load_data(str(file), split, split_column=None) for split in scenes.SPLITS]
    assert set.union(*map(numbers, found)) == set(range(40))
    assert len(found[0]) > 25
    streamed = first_images(file, "val", image_size=6, channels=1, limit=99, split_column=None)
    assert numbers(streamed) == numbers(found[1])


def test_a_split_column_may_have_another_name(tmp_path: Path) -> None:
    file, fold = tmp_path / "set.parquet", ["train", "val", "test"] * 10
    write_parquet(file, [numbered(n) for n in range(30)], fold=fold)
    assert numbers(load_data(str(file), "val", split_column="fold")) == set(range(1, 30, 3))
    stream = ImageStream(file, "test", image_size=6, batch_size=10, channels=1, split_column="fold")
    assert set(next(stream).images[:, 0, 0, 0].tolist()) == set(range(2, 30, 3))
    with pytest.raises(ValueError, match=r"no column 'part' for --split-column; .*fold"):
        load_data(str(file), split_column="part")
    write_folder(tmp_path / "folder", list(range(9)))
    for data in ("scenes", "CIFAR10", str(tmp_path / "folder")):
        with pytest.raises(ValueError, match="split_column has no effect on"):
            load_data(data, split_column="fold")


# Fingerprints.


def test_changes_are_said_in_words() -> None:
    had = Fingerprint(72, 1000, "a")
    assert changes({"train": had}, {"train": had}) == []
    assert changes({"train": had}, {"train": Fingerprint(73, 1010, "b")}) == [
        "train had 72 images, has 73"
    ]
    assert changes({"val": had}, {"val": Fingerprint(72, 1010, "b")}) == [
        "val had 1000 bytes, has 1010"
    ]
    assert changes({"val": had}, {"val": Fingerprint(72, 1000, "b")}) == [
        "val has other images or labels, as many as before"
    ]
    assert changes({"val": had}, {"test": had}) == [
        "test was not there, is now",
        "val was there, is not now",
    ]


def test_a_fingerprint_tells_names_and_sizes_in_any_order() -> None:
    one = fingerprint(2, [("a", 1), ("b", 2)])
    assert one == fingerprint(2, [("b", 2), ("a", 1)])
    assert (one.images, one.bytes) == (2, 3)
    for other in ([("a", 2), ("b", 1)], [("a", 1), ("c", 2)], [("a 1b", 3)], []):
        assert fingerprint(2, other).names != one.names


@pytest.mark.parametrize("kind", ["folder", "names", "no names"])
def test_every_split_knows_what_all_splits_hold(kind: str, tmp_path: Path) -> None:
    def prints(data: Path) -> dict[str, Fingerprint]:
        found = [load_data(str(data), split).fingerprints for split in scenes.SPLITS]
        assert found[0] == found[1] == found[2]
        assert found[0] == load_data(str(data)).subset(2).fingerprints  # From the cache.
        assert found[0] is not None
        return dict(found[0])

    WRITERS[kind](tmp_path / "set", list(range(60)))
    before = prints(tmp_path / "set")
    counts = {split: len(load_data(str(tmp_path / "set"), split)) for split in scenes.SPLITS}
    assert {split: found.images for split, found in before.items()} == counts
    shutil.copytree(tmp_path / "set", tmp_path / "moved")
    assert prints(tmp_path / "moved") == before
    shutil.rmtree(tmp_path / "set")
    WRITERS[kind](tmp_path / "set", list(range(61)))
    assert len(changes(before, prints(tmp_path / "set"))) == 1
    assert load_data("scenes", "val", image_size=16).fingerprints is None


@pytest.mark.parametrize("column", ["label", "caption"])
def test_other_labels_or_captions_change_a_fingerprint(column: str, tmp_path: Path) -> None:
    images, file = [numbered(n) for n in range(40)], tmp_path / "set.parquet"
    before = []
    for turn in range(2):
        values = [(n + turn) % 4 for n in range(40)]
        stored = values if column == "label" else [str(value) for value in values]
        write_parquet(file, images, split=["train"] * 40, **{column: stored})
        before.append(load_data(str(file)).fingerprints or {})
    assert changes(*before) == [
        f"{split} has other images or labels, as many as before"
        for split in ("test", "train", "val")
    ]


def test_a_stream_knows_what_its_shards_are(tmp_path: Path) -> None:
    def stream() -> ImageStream:
        return ImageStream(tmp_path / "set", image_size=6, batch_size=1, channels=1)

    train = tmp_path / "set" / "train"
    for own in scenes.SPLITS:
        WRITERS["names"](tmp_path / "set" / own, list(range(40)))
    before, state = stream().fingerprints, stream().state_dict()
    assert before is not None
    assert before["train"].images == 40
    shutil.rmtree(train)
    WRITERS["names"](train, list(range(20)))
    assert changes(before, stream().fingerprints or {}) == ["train had 40 images, has 20"]
    with pytest.raises(ValueError, match="the state has source"):
        stream().load_state_dict(state)
    stream().load_state_dict(state, data_changed_ok=True)
    shutil.rmtree(train)
    # The same names and counts, other images.
    write_named(train, list(range(40, 80)), lambda n: f"{n - 40}.png")
    assert changes(before, stream().fingerprints or {})
    with pytest.raises(ValueError, match="files of the stream have changed since the state"):
        stream().load_state_dict(state)


# --- what files and folders are called


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("TRAINING", "train"),
        ("test2017", "test"),
        ("trainset", "train"),
        ("testset", "test"),
        ("tests", None),
        ("trainA", "train"),
        ("ImagesTrain", "train"),
        ("myTest-1", "test"),
        ("validation", "val"),
        ("latest", None),
        ("trainer", None),
        ("TRAINER", None),
        ("contest", None),
    ],
)
def test_a_name_says_its_split(name: str, split: str | None) -> None:
    assert split_in_name(name) == split


def test_a_shard_of_another_split_may_have_a_hash(tmp_path: Path) -> None:
    names = ("train-00000-of-00001-b42a77.parquet", "extra-000000-of-000012-0f3e.parquet")
    files = [tmp_path / name for name in names]
    assert splits_in_names(files, tmp_path) == ["train", "extra"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train/v1-dev/0", "test/v1-dev/0"), ["train", "test"]),
        (("v1-dev/train-0", "v1-dev/test-0"), ["train", "test"]),
        (("train/train/0", "train/test/0"), ["train", "test"]),
        (("en/train/my-val", "fr/test/0"), ["train", "test"]),
        (("train/cats-val",), ["train"]),
        (("train/train", "train/val", "extra/test"), ["train", "val", "test"]),
        (("train/val-0", "test/test_0", "train/1"), ["val", "test", "train"]),
        (("dev/train", "dev/test2017", "other"), ["train", "test", "train"]),
    ],
)
def test_a_folder_called_as_a_split_says_more_than_a_name_with_one_in_it(
    tmp_path: Path, names: tuple[str, ...], splits: list[str]
) -> None:
    assert splits_in_names([tmp_path / f"{name}.parquet" for name in names], tmp_path) == splits


def test_a_link_names_the_split_in_memory_as_in_a_stream(tmp_path: Path) -> None:
    stored = tmp_path / "raw.parquet"
    write_parquet(stored, [*map(numbered, range(20))])
    for split in ("train", "test"):
        link = tmp_path / f"{split}.parquet"
        link.symlink_to(stored)
        loaded = load_data(str(link), split)
        stream = ImageStream(link, split, image_size=6, batch_size=20)
        # Of a link called test no image is train; of one called train some are held out.
        streamed = next(stream).images[:, 0, 0, 0].unique()
        assert len(loaded) == len(streamed) == (20 if split == "test" else len(loaded))
        assert loaded.images[:, 0, 0, 0].unique().tolist() == streamed.tolist()


def write_sides(folder: Path) -> list[Path]:
    """Ten images in train, ten others in test, in folders of their names."""
    files = []
    for split, first in (("train", 0), ("test", 10)):
        files.append(folder / split / "0.parquet")
        files[-1].parent.mkdir()
        write_parquet(files[-1], [*map(numbered, range(first, first + 10))])
    return files


def streamed(source: list[Path]) -> set[int]:
    stream = ImageStream(source, "test", image_size=6, batch_size=10)
    return set(next(stream).images[:, 0, 0, 0].tolist())


def test_a_list_of_files_is_split_as_their_folders_say(tmp_path: Path) -> None:
    files = write_sides(tmp_path)
    links = [tmp_path / "train.parquet", tmp_path / "test.parquet"]
    for link, file in zip(links, files, strict=True):
        link.symlink_to(file.rename(file.parent.parent / f"raw_{file.parent.name}.bin.parquet"))
    for given in (links, [*reversed(links)]):
        assert streamed(given) == {*range(10, 20)}


def test_a_list_of_folders_is_split_as_they_are_called(tmp_path: Path) -> None:
    folders = [file.parent for file in write_sides(tmp_path)]
    assert streamed(folders) == {*range(10, 20)}


def test_what_a_list_lies_below_names_no_split(tmp_path: Path) -> None:
    files = []
    for number, below in enumerate(("dev/one", "cars")):
        files.append(tmp_path / below / f"{number}.parquet")
        files[-1].parent.mkdir(parents=True)
        write_parquet(files[-1], [*map(numbered, range(20 * number, 20 * number + 20))])
    alone = {split for _, split in _find_files(files, "list")}
    assert alone == {"train"}


def test_an_empty_shard_of_a_split_that_has_rows_is_read(tmp_path: Path) -> None:
    write_sides(tmp_path)
    write_parquet(tmp_path / "test" / "1.parquet", [])
    assert len(load_data(str(tmp_path), "test")) == 10


def test_a_split_without_rows_is_not_held_out_of_train(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [*map(numbered, range(20))])
    write_parquet(tmp_path / "test.parquet", [])
    with pytest.raises(ValueError, match=r"test.parquet is called like a split, test, and has no"):
        load_data(str(tmp_path), "test")
    with pytest.raises(ValueError, match="has no rows"):
        ImageStream(tmp_path, "train", image_size=8, batch_size=10)


def test_splits_within_classes_are_refused(tmp_path: Path) -> None:
    for name in ("horse", "zebra"):
        for split in ("train", "test"):
            (tmp_path / name / split).mkdir(parents=True)
            numbered(1).save(tmp_path / name / split / "1.png")
    with pytest.raises(ValueError, match="expected split/class/image, so that they are outside"):
        load_data(str(tmp_path), "train")


def test_what_was_skipped_is_said_where_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photo.heic").write_bytes(b"heic")
    with pytest.raises(ValueError, match="no images in"):
        load_data(str(tmp_path), "train")
    assert "1 file that is no image (.heic 1)" in capsys.readouterr().err

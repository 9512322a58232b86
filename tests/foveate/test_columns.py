"""Tables: every usual form of images and labels is read, whole and streamed; others are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_files import encoded, numbered, numbers, write_parquet
from PIL import Image

from foveate.data import load_data, scenes
from foveate.data.decoding import ImageSize
from foveate.data.first_images import first_images
from foveate.data.streaming import ImageStream

FILES = [encoded(numbered(n)) for n in range(30)]
STRUCTS = [{"bytes": file, "path": f"{n}.png"} for n, file in enumerate(FILES)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
LABELS = [n % 3 for n in range(30)]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path_factory.mktemp("cache")))


def write(folder: Path, metadata: dict[str, str] | None = None, **columns: object) -> Path:
    folder.mkdir(exist_ok=True)
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, folder / "set.parquet", row_group_size=8)
    return folder / "set.parquet"


def write_named(folder: Path, files: dict[str, tuple[list[str] | None, list[object]]]) -> None:
    """Write files of numbered images, whose labels repeat, each with class names of its own."""
    for name, (class_names, labels) in files.items():
        stored = [labels[number % len(labels)] for number in range(10)]
        metadata = {"class_names": json.dumps(class_names)} if class_names else None
        write(folder, metadata, image=FILES[:10], label=stored).rename(folder / f"{name}.parquet")


def read_both(file: Path, **options: object) -> dict[int, int]:
    """Return the label of each numbered image; a stream holds the same images, labels and names."""
    of_number: dict[int, int] = {}
    for split in scenes.SPLITS:
        loaded = load_data(str(file), split, **options)
        streamed = first_images(file, split, image_size=6, channels=1, limit=99, **options)
        assert streamed.class_names == loaded.class_names
        both = []
        for each in (loaded, streamed):
            found = each.images[:, 0, 0, 0].tolist()
            both.append(dict(zip(found, each.labels.tolist(), strict=True)))
        assert both[0] == both[1]
        of_number |= both[0]
    assert sorted(of_number) == list(range(30))
    return of_number


@pytest.mark.parametrize(
    "images",
    [
        pa.array(FILES, pa.binary()),
        pa.array(FILES, pa.large_binary()),
        pa.array(FILES, pa.binary_view()),
        pa.array(STRUCTS, STRUCT),
        pa.array([[each, None] for each in STRUCTS], pa.list_(STRUCT)),
        pa.array([[each] for each in FILES], pa.large_list(pa.binary())),
        pa.array([[each] * 2 for each in FILES], pa.list_(pa.binary(), 2)),
        pa.array(FILES, pa.binary()).dictionary_encode(),
    ],
    ids=lambda array: str(array.type)[:30],
)
def test_images_are_bytes_or_structs_or_lists_of_which_the_first_counts(
    tmp_path: Path, images: pa.Array
) -> None:
    file = write(tmp_path / "set", picture=images, label=LABELS)
    assert read_both(file) == dict(enumerate(LABELS))


def test_images_may_be_paths_that_exist(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for number, content in enumerate(FILES):
        (tmp_path / "files" / f"{number}.png").write_bytes(content)
    near = [f"../files/{number}.png" for number in range(30)]
    far = [str(tmp_path / "files" / f"{number}.png") for number in range(30)]
    for image in (
        pa.array(near),
        pa.array(far).dictionary_encode(),
        pa.array([{"bytes": None, "path": path} for path in near], STRUCT),
        pa.array([[path, "x"] for path in near]),
    ):
        file = write(tmp_path / "set", image=image, label=LABELS)
        assert read_both(file) == dict(enumerate(LABELS))
    with pytest.raises(
        ValueError, match=r"row 0 of .*parquet has no image bytes, and no file 'x' is in"
    ):
        load_data(str(write(tmp_path / "set", image=["x"] * 30)))
    with pytest.raises(ValueError, match=r"row 0 of .*parquet has no image bytes; embed"):
        load_data(str(write(tmp_path / "set", image=pa.array([[]] * 30, pa.list_(STRUCT)))))


def test_several_image_columns_need_a_choice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blank = pa.array([encoded(numbered(99))] * 30)
    images = pa.array(STRUCTS, STRUCT)
    file = write(tmp_path / "set", mask=blank, image=images, wnid=["n1"] * 30, label=LABELS)
    assert read_both(file) == dict(enumerate(LABELS))
    assert (
        capsys.readouterr().err.splitlines().count(f"not read of {file}: columns mask, wnid") == 1
    )
    file = write(tmp_path / "set", mask=blank, photo=images, label=LABELS)
    says = "several columns that may hold images, mask, photo; choose one by --image-column"
    with pytest.raises(ValueError, match=says):
        load_data(str(file))
    with pytest.raises(ValueError, match=says):
        ImageStream(file, image_size=6, batch_size=1)
    assert read_both(file, image_column="photo") == dict(enumerate(LABELS))
    with pytest.raises(ValueError, match=r"no column 'foto' .*\['mask', 'photo', 'label'\]"):
        load_data(str(file), image_column="foto")
    with pytest.raises(ValueError, match="--image-column label must hold bytes"):
        load_data(str(file), image_column="label")
    (tmp_path / "a").mkdir()
    numbered(1).save(tmp_path / "a" / "1.png")
    for data in (str(tmp_path / "a"), "scenes"):
        with pytest.raises(ValueError, match="image_column has no effect"):
            load_data(data, image_column="photo")


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (pa.array(LABELS, pa.uint8()), ("0", "1", "2"), LABELS),
        (pa.array(LABELS, pa.float64()), ("0", "1", "2"), LABELS),
        (pa.array([["owl", "cat", "dog"][k] for k in LABELS]), ("cat", "dog", "owl"), [2, 0, 1]),
        (pa.array(["b", "a", "c"] * 10).dictionary_encode(), ("a", "b", "c"), [1, 0, 2]),
        (pa.array([4, 0, 1] * 10).dictionary_encode(), ("0", "1", "2", "3", "4"), [4, 0, 1]),
        (pa.array([True, False, True] * 10), ("False", "True"), [1, 0, 1]),
        (pa.array([10**9, 7, 10**9 + 1] * 10), ("7", "1000000000", "1000000001"), [1, 0, 2]),
        (pa.array([2**63 - 1, 0, 0] * 10, pa.uint64()), ("0", str(2**63 - 1)), [1, 0, 0]),
        (pa.array([1.0, float("nan"), None] * 10), ("0", "1"), [1, -1, -1]),
        (pa.nulls(30), (), [-1, -1, -1]),
        (pa.array([-1] * 30), (), [-1, -1, -1]),
    ],
    ids=lambda value: str(getattr(value, "type", ""))[:20],
)
@pytest.mark.parametrize("column", ["label", "cls"])
def test_labels_are_numbers_or_text_of_any_kind(
    tmp_path: Path, labels: pa.Array, names: tuple[str, ...], expected: list[int], column: str
) -> None:
    file = write(tmp_path / "set", image=FILES, **{column: labels})
    found = read_both(file)
    assert [found[number] for number in range(30)] == (expected * 10)[:30]
    assert load_data(str(file)).class_names == names


def test_text_is_numbered_over_all_files(tmp_path: Path) -> None:
    for name, label, part in (("train", "dog", FILES[:20]), ("test", "cat", FILES[20:])):
        table = pa.table({"image": part, "label": [label] * len(part)})
        (tmp_path / "set").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "set" / f"{name}.parquet")
    for split, label in (("train", 1), ("test", 0)):
        for loaded in (
            load_data(str(tmp_path / "set"), split),
            first_images(tmp_path / "set", split, image_size=6, limit=9),
        ):
            assert loaded.class_names == ("cat", "dog")
            assert set(loaded.labels.tolist()) == {label}


@pytest.mark.parametrize(
    ("first", "second", "names", "labels"),
    [
        ((["b", "a"], [0, 1]), (["a", "b"], [0, 1]), ("b", "a"), ([0, 1], [1, 0])),
        ((["b", "a"], [0, 1]), (["a", "c"], [0, 1]), ("b", "a", "c"), ([0, 1], [1, 2])),
        ((["b", "a"], [0, -1]), (None, [1, 0]), ("b", "a"), ([0, -1], [1, 0])),
        ((["b", "a"], ["a", "b"]), (["a", "b"], ["a", "b"]), ("b", "a"), ([1, 0], [1, 0])),
        ((None, [0, 1]), (None, [2, 0]), ("0", "1", "2"), ([0, 1], [2, 0])),
    ],
)
def test_every_file_may_number_the_classes_in_its_own_order(
    tmp_path: Path,
    first: tuple[list[str] | None, list[object]],
    second: tuple[list[str] | None, list[object]],
    names: tuple[str, ...],
    labels: tuple[list[int], list[int]],
) -> None:
    write_named(tmp_path, {"test": first, "train": second})
    for split, expected in zip(("test", "train"), labels, strict=True):
        for loaded in (
            load_data(str(tmp_path), split),
            first_images(tmp_path, split, image_size=6, limit=9),
        ):
            assert loaded.class_names == names
            numbered = zip(loaded.images[:, 0, 0, 0].tolist(), loaded.labels.tolist(), strict=True)
            assert all(label == expected[number % 2] for number, label in numbered)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a": (["x"], [0]), "b": (["x", "y"], [2])}, r"b.parquet: label 2 has no name"),
        ({"a": (["x"], [0]), "b": (["y"], ["y"])}, "some labels are text"),
        ({"a": (["x"], [0]), "b": (["y"], [0]), "c": (None, [0])}, "c.parquet has numbers without"),
        ({"a": (["x", "x"], [0])}, "class_names has 'x' twice"),
    ],
)
def test_class_names_that_leave_a_label_open_are_one_line(
    tmp_path: Path, files: dict[str, tuple[list[str] | None, list[object]]], says: str
) -> None:
    write_named(tmp_path, files)
    for read in (load_data, lambda data: ImageStream(data, image_size=6, batch_size=1)):
        with pytest.raises(ValueError, match=says) as caught:
            read(str(tmp_path))
        assert "\n" not in str(caught.value)


def test_endings_of_tables_may_be_in_upper_case(tmp_path: Path) -> None:
    file = write(tmp_path / "set", image=STRUCTS, label=LABELS).rename(
        tmp_path / "set" / "A.PARQUET"
    )
    for data in (file, file.parent):
        assert read_both(data) == dict(enumerate(LABELS))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0.5] * 30, "integer, text, true or false, got 0.5"),
        ([float("inf")] * 30, "got inf"),
        ([-2] * 30, "label -2 is no class number; they begin at 0"),
        (pa.array([2**63] * 30, pa.uint64()), f"label {2**63} is no class number"),
        ([[1]] * 30, "label must hold integers, text, .* got list"),
        (pa.array([b"\xff"] * 30).view(pa.string()), "cannot read .* as parquet .*UTF8"),
        ([b"cat"] * 30, "label must hold integers, text, .* got binary"),
    ],
)
def test_other_labels_are_one_line(tmp_path: Path, labels: object, says: str) -> None:
    file = write(tmp_path / "set", image=STRUCTS, label=labels)
    for read in (load_data, lambda data: ImageStream(data, image_size=6, batch_size=1)):
        with pytest.raises(ValueError, match=says) as caught:
            read(str(file))
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_metadata_of_another_form_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    for names in ('{"0": "cat"}', "[1, 2, 3]", "null", "[", deep, '["cat"]'):
        file = write(tmp_path / "set", {"class_names": names}, image=FILES, label=LABELS)
        with pytest.raises(ValueError, match=r"set\.parquet: .*class_names") as caught:
            load_data(str(file))
        assert len(str(caught.value)) < 400
    file = write(tmp_path / "set", {"class_names": '["b", "a"]'}, image=FILES, label=["a"] * 30)
    assert set(read_both(file).values()) == {1}
    names = {"info": {"features": {"label": {"names": {"0": "cat"}}}}}
    for n, metadata in enumerate(("[", deep, "[]", '{"info": [1]}', json.dumps(names))):
        file = write(tmp_path / f"{n}", {"huggingface": metadata}, image=FILES, label=LABELS)
        assert load_data(str(file)).class_names == ("0", "1", "2")
        assert f"passed over: {file}: its huggingface" in capsys.readouterr().err


def test_folders_of_save_to_disk_are_read(tmp_path: Path) -> None:
    """Written here as datasets does: Arrow streams, and JSON that says which belong to the set."""
    names = {"info": {"features": {"label": {"names": ["x", "y", "z"], "_type": "ClassLabel"}}}}
    metadata = {"huggingface": json.dumps(names)}
    for split, part in (("train", slice(0, 20)), ("test", slice(20, 30))):
        folder = tmp_path / "saved" / split
        folder.mkdir(parents=True)
        images = pa.array(STRUCTS[part], STRUCT)
        table = pa.table({"image": images, "label": LABELS[part]}).replace_schema_metadata(metadata)
        listed = [{"filename": "data-00000-of-00001.arrow"}]
        (folder / "state.json").write_text(json.dumps({"_data_files": listed}))
        (folder / "dataset_info.json").write_text("{}")
        for name in ("data-00000-of-00001", "cache-0123"):
            with pa.ipc.new_stream(folder / f"{name}.arrow", table.schema) as writer:
                writer.write_table(table)
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert numbers(load_data(str(tmp_path / "saved"), "test")) == set(range(20, 30))
    train = load_data(str(tmp_path / "saved"))
    assert train.class_names == ("x", "y", "z")
    assert numbers(train) < set(range(20))
    (folder / "data-00000-of-00001.arrow").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"cannot read .*arrow .*load_from_disk\(.*to_parquet"):
        load_data(str(tmp_path / "saved"))


def test_mixed_sizes_are_brought_to_height_and_width(tmp_path: Path) -> None:
    images = [encoded(numbered(n, size=(8 + n % 3, 9))) for n in range(30)]
    file = write(tmp_path / "set", image=images)
    assert load_data(str(file), image_size=(4, 8)).image_shape == (1, 4, 8)
    batch = next(ImageStream(file, image_size=(4, 8), batch_size=2))
    assert batch.images.shape == (2, 3, 4, 8)


@pytest.mark.parametrize(("size", "whole"), [((12, 16), True), ((16, 12), False), (12, False)])
def test_height_x_width_of_the_images_shape_keeps_all_of_them(
    tmp_path: Path, size: ImageSize, whole: bool
) -> None:
    """Black above white, with gray at both ends, which squares and upright images lose."""
    pixels = np.full((120, 160), 60, np.uint8)
    pixels[:60, 20:140], pixels[60:, 20:140] = 0, 255
    file = write(tmp_path / "set", image=[encoded(Image.fromarray(pixels))] * 30)
    drawn = load_data(str(file), image_size=size).images[0, 0]
    batch = next(ImageStream(file, image_size=size, batch_size=2, channels=1))
    assert torch.equal(batch.images[0, 0], drawn)
    assert drawn[[0, -1], 6].tolist() == [0, 255]
    ends = [abs(pixel - 60) < 5 for pixel in drawn[[0, -1]][:, [0, -1]].flatten().tolist()]
    assert ends == [whole] * 4


def test_names_hold_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.data.labels.MOST_NUMBERS", 2)
    names = ["cat", "dog", "hen"]
    write_named(tmp_path, {"a": (names, [0, 2]), "b": (names[::-1], [0, 2])})
    loaded = load_data(str(tmp_path))
    assert loaded.class_names == ("cat", "dog", "hen")
    assert set(loaded.labels.tolist()) == {0, 2}


def test_tables_without_the_labels_of_others_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        labels = {"label": [0, 1] * 10} if number else {}
        images = [numbered(20 * number + n) for n in range(20)]
        write_parquet(tmp_path / f"{number}.parquet", images, **labels)
    unlabeled = sum(int((load_data(str(tmp_path), own).labels < 0).sum()) for own in scenes.SPLITS)
    assert unlabeled == 20
    said = f"without labels in {tmp_path}: 1 of 3 files, such as 0.parquet, have no column of"
    assert capsys.readouterr().err.count(said) == 1
    next(ImageStream(tmp_path, "train", image_size=6, batch_size=4))
    assert said not in capsys.readouterr().err  # Once is enough.

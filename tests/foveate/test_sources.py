"""Sources: all agree, splits never overlap, errors name the file and say what to do."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_files import NAMES, encoded, numbered, numbers, write_parquet
from PIL import Image
from torchvision import datasets

from foveate.data import load_data, scenes
from foveate.data.decoding import decode_image


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path_factory.mktemp("cache")))


# Parquet.


def test_parquet_file_with_a_split_column_keeps_its_own_splits(tmp_path):
    images = [numbered(n) for n in range(40)]
    split = ["train"] * 30 + ["test"] * 10
    write_parquet(
        tmp_path / "set.parquet",
        images,
        NAMES,
        label=pa.array([0, 1] * 20, pa.int16()),
        split=split,
    )
    test = load_data(str(tmp_path / "set.parquet"), "test")
    assert numbers(test) == set(range(30, 40))
    assert test.image_shape == (1, 6, 6)
    assert test.class_names == ("cat", "dog")
    assert test.labels.dtype == torch.int64
    assert (test.labels == test.images[:, 0, 0, 0] % 2).all()
    assert test.name == "set"


def test_folder_of_parquet_files_takes_splits_from_file_names_and_names_from_class_label(tmp_path):
    label = {"_type": "ClassLabel", "names": ["cat", "dog"]}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": label}}})}
    for part in range(2):
        images = [numbered(part * 10 + n) for n in range(10)]
        name = f"train-0000{part}-of-00002.parquet"
        write_parquet(tmp_path / name, images, metadata, label=[n % 2 for n in range(10)])
    write_parquet(
        tmp_path / "validation-00000-of-00001.parquet", [numbered(99)], metadata, label=[1]
    )
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [numbered(98)], metadata, label=[0])
    splits = {split: load_data(str(tmp_path), split) for split in scenes.SPLITS}
    assert numbers(splits["train"]) == set(range(20))
    assert numbers(splits["val"]) == {99}
    assert numbers(splits["test"]) == {98}
    assert splits["train"].class_names == ("cat", "dog")
    assert splits["train"].labels.tolist() == [0, 1] * 10


def test_parquet_without_labels_says_minus_one(tmp_path):
    write_parquet(tmp_path / "plain.parquet", [numbered(n) for n in range(20)])
    loaded = load_data(str(tmp_path / "plain.parquet"))
    assert loaded.labels.unique().tolist() == [-1]
    assert loaded.class_names == ()
    again = load_data(str(tmp_path / "plain.parquet"))
    assert again.class_names == ()


@pytest.mark.parametrize(
    "own", [("train",), ("train", "test"), ("train", "val"), ("train", "val", "test")]
)
def test_splits_never_overlap_and_together_hold_every_image(tmp_path, own):
    split = [own[min(n // 40, len(own) - 1)] for n in range(120)]
    images = [numbered(n) for n in range(120)]
    write_parquet(tmp_path / "set.parquet", images, split=split)
    found = [numbers(load_data(str(tmp_path / "set.parquet"), split)) for split in scenes.SPLITS]
    assert all(found)
    assert sum(len(part) for part in found) == 120
    assert set.union(*found) == set(range(120))
    stored = {name: {n for n in range(120) if split[n] == name} for name in own}
    if "test" in own:
        assert found[2] == stored["test"]
    elif "val" in own:
        assert found[2] == stored["val"]
    if own[1:] == ("val", "test"):
        assert found[1] == stored["val"]
    else:
        assert 0.04 < len(found[1]) / len(stored["train"]) < 0.16


def test_every_prefix_is_balanced_over_the_classes(tmp_path):
    images = [numbered(n) for n in range(60)]
    write_parquet(tmp_path / "train.parquet", images, label=[n // 20 for n in range(60)])
    first = load_data(str(tmp_path), limit=9)
    assert first.labels.bincount().tolist() == [3, 3, 3]
    assert first.class_names == ("0", "1", "2")


# Folders.


@pytest.mark.parametrize("has_splits", [False, True])
def test_folder_of_class_folders_loads_with_and_without_split_folders(tmp_path, has_splits):
    for number in range(60):
        split = ("train", "val", "test")[number % 3] if has_splits else ""
        folder = tmp_path / split / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        numbered(number).save(folder / f"{number}.png")
    found = {split: load_data(str(tmp_path), split) for split in scenes.SPLITS}
    assert set.union(*(numbers(loaded) for loaded in found.values())) == set(range(60))
    assert sum(len(loaded) for loaded in found.values()) == 60
    for loaded in found.values():
        assert loaded.class_names == ("cat", "dog")
        assert (loaded.labels == loaded.images[:, 0, 0, 0] % 2).all()
    if has_splits:
        assert numbers(found["val"]) == set(range(1, 60, 3))


def test_class_folder_called_train_is_no_split(tmp_path):
    for name in ("car", "train"):
        (tmp_path / name).mkdir()
        for number in range(10):
            numbered(number).save(tmp_path / name / f"{number}.png")
    assert load_data(str(tmp_path)).class_names == ("car", "train")


def test_one_color_image_makes_every_split_rgb(tmp_path):
    images = [numbered(n) for n in range(20)] + [numbered(20, "RGB")]
    write_parquet(tmp_path / "set.parquet", images, split=["train"] * 20 + ["test"])
    assert load_data(str(tmp_path / "set.parquet"), "train").image_shape == (3, 6, 6)
    assert load_data(str(tmp_path / "set.parquet"), "test").image_shape == (3, 6, 6)


def test_image_size_resizes_the_shorter_side_and_keeps_the_center(tmp_path):
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 200
    write_parquet(tmp_path / "set.parquet", [Image.fromarray(wide)] * 5 + [numbered(200)] * 5)
    with pytest.raises(ValueError, match="2 sizes, 6x6 to 24x8 pixels; pass image_size"):
        load_data(str(tmp_path / "set.parquet"))
    loaded = load_data(str(tmp_path / "set.parquet"), image_size=4)
    assert loaded.image_shape == (1, 4, 4)
    # Bicubic filtering overshoots a little; the black sides are gone.
    assert ((loaded.images.float() - 200).abs().flatten(1).amax(dim=1) < 15).any()


# torchvision, from tiny files of its own formats.


def test_torchvision_fashion_mnist_is_read_from_root(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 30), ("t10k", 10)):
        pixels = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = bytes(n % 10 for n in range(count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels)
    found = {split: load_data("FashionMNIST", split, root=tmp_path) for split in scenes.SPLITS}
    assert len(found["test"]) == 10
    assert all(found.values())
    assert numbers(found["train"]) | numbers(found["val"]) == set(range(30))
    assert found["test"].image_shape == (1, 28, 28)
    assert found["test"].class_names[1] == "Trouser"
    assert (found["test"].labels == found["test"].images[:, 0, 0, 0]).all()


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_torchvision_cifar_is_read_from_root(tmp_path, monkeypatch, name):
    source = getattr(datasets, name)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    folder = tmp_path / source.base_folder
    folder.mkdir()
    for file, _ in source.train_list + source.test_list:
        rows = {"data": np.full((10, 3 * 32 * 32), 9, np.uint8), "labels": list(range(10))}
        if name == "CIFAR100":
            rows["fine_labels"] = rows.pop("labels")
        (folder / file).write_bytes(pickle.dumps(rows))
    names = [f"class {n}" for n in range(10)]
    meta = {source.meta["key"]: names}
    (folder / source.meta["filename"]).write_bytes(pickle.dumps(meta))
    loaded = load_data(name, "test", root=tmp_path)
    assert loaded.image_shape == (3, 32, 32)
    assert sorted(loaded.labels.tolist()) == list(range(10))
    assert loaded.class_names == tuple(names)
    decoded: list[str] = []

    def watched(item, where, *size):
        decoded.append(where)
        return decode_image(item, where, *size)

    monkeypatch.setattr("foveate.data.rows.decode_image", watched)
    first = load_data(name, "test", root=tmp_path, limit=3)
    assert len(decoded) == 3, "what is left out is not decoded"
    assert first.labels.tolist() == loaded.labels[:3].tolist()


def test_torchvision_stl10_is_read_from_root(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.stl10.check_integrity", lambda *_: True)
    folder = tmp_path / datasets.STL10.base_folder
    folder.mkdir()
    channels = np.zeros((20, 3, 96, 96), np.uint8)
    channels[:, 1] = 5
    channels[:, :, 0, 95] = 8  # stored column by column: lands in the first column, last row
    for part in ("train", "test"):
        (folder / f"{part}_X.bin").write_bytes(channels.tobytes())
        (folder / f"{part}_y.bin").write_bytes(bytes(1 + n % 10 for n in range(20)))
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    loaded = load_data("STL10", "test", root=tmp_path)
    assert loaded.image_shape == (3, 96, 96)
    assert loaded.images[0, :, 3, 3].tolist() == [0, 5, 0]
    assert loaded.images[0, :, 95, 0].tolist() == [8, 8, 8]
    assert loaded.labels.bincount().tolist() == [2] * 10


def test_missing_torchvision_set_that_cannot_be_downloaded_says_how_to_get_it(
    tmp_path, monkeypatch
):
    def no_network(self: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(datasets.FashionMNIST, "download", no_network)
    with pytest.raises(ValueError, match=r"FashionMNIST is not in .*no network.*download=True"):
        load_data("FashionMNIST", root=tmp_path)


def test_torchvision_files_that_are_damaged_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 20), ("t10k", 20)):
        images = bytes([0, 0, 8, 3, *(20).to_bytes(4, "big"), *(28).to_bytes(4, "big") * 2])
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images + bytes(20 * 784))
        labels = bytes([0, 0, 8, 1, *count.to_bytes(4, "big"), *range(10), *range(10)])
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    assert len(load_data("FashionMNIST", "test", root=tmp_path)) == 20
    few = folder / "train-labels-idx1-ubyte"
    few.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 10, *range(10)]))
    with pytest.raises(ValueError, match=r"damaged \(20 images, 10 labels\); remove them"):
        load_data("FashionMNIST", "test", root=tmp_path)
    few.write_bytes(b"")
    with pytest.raises(ValueError, match=r"files of FashionMNIST in .* are damaged"):
        load_data("FashionMNIST", "test", root=tmp_path)


# Errors.


def test_wrong_files_are_named(tmp_path):
    def says(text: str, data: Path = tmp_path, split: str = "train") -> None:
        with pytest.raises(ValueError, match=text) as caught:
            load_data(str(data), split)
        assert "\n" not in str(caught.value)

    says("no images in")
    (tmp_path / "notes.txt").write_text("text")
    says("neither a parquet file nor a folder", tmp_path / "notes.txt")
    file = tmp_path / "set.parquet"
    file.write_bytes(b"not parquet at all")
    says("cannot read .* as parquet", file)
    pq.write_table(pa.table({"label": [1]}), file)
    says(r"no image column .*\['label'\]", file)
    write_parquet(file, [numbered(1)], label=[["cat"]])
    says("label must hold integers, text, .* got list", file)
    write_parquet(file, [numbered(1)], NAMES, label=[2])
    says("label 2 has no name", file)
    write_parquet(file, [numbered(1)])
    says("too few images", file)
    write_parquet(file, [numbered(1)], split=["extra"])
    says(r"has no test split.*\['extra'\]", file, "test")
    write_parquet(file, [Image.fromarray(np.ones((4, 4), np.uint16))] * 3)
    says("more than 8 bits", file)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for content, text in (
        (b"junk", r"cannot read row 0 of .*set\.parquet; replace or remove it"),
        (None, r"row 0 of .*set\.parquet has no image bytes; embed the images"),
    ):
        cells = pa.array([{"bytes": content, "path": None}] * 9, kind)
        pq.write_table(pa.table({"image": cells}), file)
        says(text, file)
    cut = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32), np.uint8)))
    pq.write_table(
        pa.table({"image": pa.array([{"bytes": cut[:400], "path": ""}] * 9, kind)}), file
    )
    says(r"cannot read row \d of .*set\.parquet; replace or remove it", file)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_hugging_faces_other_column_names_are_known(kind: pa.DataType, tmp_path: Path) -> None:
    """CIFAR-100 there has img and fine_label; writers differ in the order of the struct."""
    cells = [{"path": f"{n}.png", "bytes": encoded(numbered(n))} for n in range(12)]
    column = pa.array(cells, pa.struct([("path", pa.string()), ("bytes", kind)]))
    table = pa.table({"img": column, "fine_label": [n % 2 for n in range(12)]})
    features = {"fine_label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "set.parquet")
    loaded = load_data(str(tmp_path / "set.parquet"))
    assert loaded.class_names == ("cat", "dog")
    assert set(loaded.labels.tolist()) == {0, 1}

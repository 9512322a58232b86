"""A data set brings its own captions, and keeps them wherever its images go."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from image_files import numbered, write_parquet

from foveate.data import ImageSet, load_data
from foveate.data.captions import patch_captions


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))


def number_of(images: ImageSet) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


def test_a_parquet_file_brings_captions_of_its_own(tmp_path: Path) -> None:
    images = [numbered(n) for n in range(20)]
    sentences = [[f"number {n}", f"{n} again"] if n % 3 else [] for n in range(20)]
    write_parquet(tmp_path / "set.parquet", images, label=[0, 1] * 10, captions=sentences)
    for split in ("train", "val", "test"):
        for _ in ("decoded", "from the cache"):
            loaded = load_data(str(tmp_path / "set.parquet"), split)
            assert loaded.captions == tuple(tuple(sentences[n]) for n in number_of(loaded))
    first = load_data(str(tmp_path / "set.parquet"), limit=3).to("cpu")
    assert first.captions == tuple(tuple(sentences[n]) for n in number_of(first))
    swapped = first.take(torch.tensor([2, 0]))
    assert swapped.captions == (first.captions[2], first.captions[0])


def test_one_sentence_per_image_is_text(tmp_path: Path) -> None:
    sentences = ["a cat", None, *(f"dog {n}" for n in range(18))]
    write_parquet(tmp_path / "set.parquet", [numbered(n) for n in range(20)], captions=sentences)
    loaded = load_data(str(tmp_path / "set.parquet"))
    expected = [() if sentences[n] is None else (sentences[n],) for n in number_of(loaded)]
    assert loaded.captions == tuple(expected)


def test_captions_that_are_no_text_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "set.parquet", [numbered(0)], captions=pa.array([[1, 2]]))
    with pytest.raises(ValueError, match="captions must be text or lists of text, got list"):
        load_data(str(tmp_path / "set.parquet"))


def test_every_image_has_its_captions_or_the_set_has_none(tmp_path: Path) -> None:
    write_parquet(tmp_path / "set.parquet", [numbered(n) for n in range(20)])
    assert load_data(str(tmp_path / "set.parquet")).captions is None
    pixels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="1 captions for 2 images"):
        ImageSet(pixels, torch.zeros(2).long(), (), "two", captions=(("one",),))


def test_scenes_say_what_is_in_them_and_where() -> None:
    scenes = load_data("scenes", "val", limit=50)
    assert scenes.captions is not None
    assert scenes.boxes_px is not None
    for sentences, label, box in zip(
        scenes.captions, scenes.labels.tolist(), scenes.boxes_px.tolist(), strict=True
    ):
        name = scenes.class_names[label].lower()
        row = ("top", "middle", "bottom")[int((box[0] + box[2] / 2) * 3 / 32)]
        column = ("left", "center", "right")[int((box[1] + box[3] / 2) * 3 / 32)]
        assert sentences == (f"a {name} at the {row} {column}",)
    patches = patch_captions(scenes, (8, 8))
    named = patches.sentences[int(patches.number[3].max())]
    assert named.startswith(scenes.class_names[int(scenes.labels[3])].lower())


def test_without_boxes_a_patch_is_of_its_images_class(tmp_path: Path) -> None:
    write_parquet(tmp_path / "set.parquet", [numbered(n) for n in range(20)], label=[0, 1] * 10)
    captions = patch_captions(load_data(str(tmp_path / "set.parquet")), (2, 2))
    assert captions.sentences == ("a photo of a 0", "a photo of a 1")

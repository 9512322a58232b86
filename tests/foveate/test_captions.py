"""A data set brings its own captions, and keeps them wherever its images go."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from image_files import numbered, write_parquet

from foveate.data import ImageSet, load_data
from foveate.data.captions import patch_captions
from foveate.data.first_images import first_images
from foveate.data.streaming import ImageStream
from foveate.data.subwords import Subwords
from foveate.data.texts import ImageTexts, captions_in

SENTENCES = ("a dog runs", "two dogs run", "three dogs ran over a dog") * 9


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def subwords() -> Subwords:
    pytest.importorskip("tokenizers")
    return Subwords.learned(SENTENCES, 300)


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


def test_captions_that_are_no_text_are_refused_where_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [numbered(n) for n in range(20)]
    write_parquet(tmp_path / "set.parquet", images, captions=pa.array([[1, 2]] * 20))
    assert load_data(str(tmp_path / "set.parquet")).captions is None
    assert "not used of" in (said := capsys.readouterr().err)
    assert "column captions, of type list" in said
    with pytest.raises(ValueError, match="captions must be text or lists of text, got list"):
        load_data(str(tmp_path / "set.parquet"), caption_column="captions")


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


def test_a_column_of_any_name_holds_captions_if_it_is_named(tmp_path: Path) -> None:
    told = [[f"number {n}"] for n in range(20)]
    write_parquet(tmp_path / "set.parquet", [numbered(n) for n in range(20)], told=told)
    path = str(tmp_path / "set.parquet")
    loaded = load_data(path, caption_column="told")
    assert loaded.captions == tuple(tuple(told[n]) for n in number_of(loaded))
    missing = r"has no column 'tld' for --caption-column; its columns: \['image', 'told'\]"
    with pytest.raises(ValueError, match=missing):
        load_data(path, caption_column="tld")
    columns = r"no captions: .*--caption-column, .*; its columns: \['image"
    with pytest.raises(ValueError, match=columns):
        captions_in(load_data(path))
    with pytest.raises(ValueError, match="caption_column has no effect on scenes"):
        load_data("scenes", caption_column="told")


def test_captions_are_streamed_with_their_images(tmp_path: Path) -> None:
    told = [f"number {n}" if n % 3 else None for n in range(20)]
    write_parquet(
        tmp_path / "set.parquet", [numbered(n) for n in range(20)], told=told, split=["train"] * 20
    )
    options = {"image_size": 6, "channels": 1, "caption_column": "told", "split_column": None}
    stream = ImageStream(tmp_path / "set.parquet", batch_size=4, **options)
    held = first_images(tmp_path / "set.parquet", "train", limit=9, **options)
    for batch in (next(stream), next(stream), held):
        numbers = batch.images[:, 0, 0, 0].tolist()
        assert batch.captions == tuple(() if n % 3 == 0 else (told[n],) for n in numbers)


def test_an_image_has_any_number_of_captions(subwords: Subwords) -> None:
    """Empty ones are none, long ones are cut, and no language is unknown."""
    told = [("A dog.", "two dogs run"), (), (" ", "Ein Hund über 犬"), ("dog " * 30,)]
    texts = ImageTexts.of(told, subwords, max_words=20)
    assert texts.count.tolist() == [2, 0, 1, 1]
    assert texts.owner.tolist() == [0, 0, 2, 3]
    written = [subwords.decode(row) for row in texts.tokens]
    assert written[:3] == ["a dog.", "two dogs run", "ein hund über 犬"]
    assert (texts.num_empty, texts.num_cut) == (1, 1)
    assert texts.num_words.tolist()[:3] == [3, 4, 5]
    assert texts.num_words[3] == len(written[3].split())
    assert list(texts.notes()) == [
        "1 of 4 images have no caption, and teach no words",
        "1 captions are empty, and left out",
        "1 captions are longer than 20 subwords, and cut there",
    ]


def test_every_caption_of_an_image_is_drawn_and_none_of_another(subwords: Subwords) -> None:
    texts = ImageTexts.of([("one dog", "two dogs"), (), ("three",)], subwords, max_words=9)
    generator = torch.Generator().manual_seed(0)
    drawn = texts.draw(torch.tensor([0, 1, 2] * 40), generator).unflatten(0, (40, 3))
    said = [{subwords.decode(row[0]) for row in drawn[:, image]} for image in range(3)]
    assert said == [{"one dog", "two dogs"}, {""}, {"three"}]
    assert bool((drawn[:, 1] == -1).all())
    every = texts.draw(torch.tensor([0, 1, 2]), generator, number=3)
    several = [sorted(subwords.decode(row) for row in own) for own in every]
    assert several == [["", "one dog", "two dogs"], ["", "", ""], ["", "", "three"]]


def test_subwords_are_learned_alike_and_kept_in_two_lists(subwords: Subwords) -> None:
    again = Subwords.learned(SENTENCES, 300)
    assert (again.vocabulary, again.merges) == (subwords.vocabulary, subwords.merges)
    assert 257 < len(subwords.vocabulary) <= 300
    assert subwords.vocabulary[0] == "<end>"
    rebuilt = Subwords(subwords.vocabulary, subwords.merges)
    sentence = "a <end> of dogs"
    assert rebuilt.numbers([sentence]) == subwords.numbers([sentence])
    assert rebuilt.numbers([sentence])[0].count(0) == 1
    with pytest.raises(ValueError, match=r"num_subwords must be at least 257, .*, got 256"):
        Subwords.learned(SENTENCES, 256)


def test_a_set_of_empty_captions_teaches_nothing() -> None:
    pixels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    images = ImageSet(pixels, torch.zeros(2).long(), (), "two", captions=((), ("  ",)))
    with pytest.raises(ValueError, match="all captions of two are empty"):
        captions_in(images)

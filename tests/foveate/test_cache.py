"""The cache of decoded sets: bounded, listed, emptied, and never served for other files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_files import numbered, numbers, write_parquet

from experiments.cache import CacheConfig, main
from foveate.data import ImageSet, cache, load_data, rows, scenes


@pytest.fixture(autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FOVEATE_CACHE", str(made))
    return made


def write_sets(data: Path, *names: str) -> None:
    for name in names:
        write_parquet(data / f"{name}.parquet", [numbered(n) for n in range(20)])


def test_sets_are_listed_and_removed_by_a_command(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sets(tmp_path, "a", "b")
    for name in "ab":
        load_data(str(tmp_path / f"{name}.parquet"), "test")
    (folder / "mine.npz").write_text("not the cache's")
    (folder / "partial-cut").mkdir()
    main(CacheConfig())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"MiB  test   {tmp_path / 'b.parquet'}")
    assert lines[1].endswith(f"MiB  test   {tmp_path / 'a.parquet'}")
    assert lines[2].startswith("2 sets, 0.0 of 4096 MiB, in ")
    main(CacheConfig(empty=True))
    assert capsys.readouterr().out.endswith(": removed\n")
    assert [path.name for path in folder.iterdir()] == ["mine.npz"]


def test_an_image_that_a_table_names_is_read_again_when_it_changed(tmp_path: Path) -> None:
    for number in range(30):
        numbered(number).save(tmp_path / f"{number}.png")
    table = pa.table({"image": [f"{number}.png" for number in range(30)]})
    pq.write_table(table, tmp_path / "set.parquet")
    before = load_data(str(tmp_path / "set.parquet"))
    changed = min(numbers(before))
    numbered(200).save(tmp_path / f"{changed}.png")
    after = load_data(str(tmp_path / "set.parquet"))
    assert numbers(after) == numbers(before) - {changed} | {200}
    assert len(cache.entries()) == 1


def test_the_set_not_used_for_longest_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sets(tmp_path, "a", "b", "c")
    load_data(str(tmp_path / "a.parquet"))
    size = cache.entries()[0].num_bytes
    monkeypatch.setenv("FOVEATE_CACHE_LIMIT", str(2 * size + size // 2))
    load_data(str(tmp_path / "b.parquet"))
    for number, entry in enumerate(cache.entries()):
        os.utime(entry.path, (1000.0 - number, 1000.0 - number))
    load_data(str(tmp_path / "a.parquet"))  # Used again, hence b is the oldest.
    load_data(str(tmp_path / "c.parquet"))
    assert {Path(entry.name).stem for entry in cache.entries()} == {"a", "c"}
    monkeypatch.setenv("FOVEATE_CACHE_LIMIT", "0")
    assert len(load_data(str(tmp_path / "b.parquet"))) > 0
    assert len(cache.entries()) == 2
    monkeypatch.setenv("FOVEATE_CACHE_LIMIT", "4GB")
    with pytest.raises(ValueError, match="FOVEATE_CACHE_LIMIT must be a number of bytes"):
        load_data(str(tmp_path / "b.parquet"))


def image_set(images: int, text: str = "") -> ImageSet:
    pixels, labels = torch.zeros(images, 1, 4, 4, dtype=torch.uint8), torch.zeros(images).long()
    return ImageSet(pixels, labels, (), "set", captions=((text,),) * images)


def test_a_set_too_large_by_its_captions_pushes_none_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_CACHE_LIMIT", "20000")
    for name in "ab":
        cache.cached(name, "train", [], lambda: (image_set(1), ()))
    cache.cached("large", "train", [], lambda: (image_set(1, "x" * 20_000), ()))
    assert {entry.name for entry in cache.entries()} == {"a", "b"}


def test_a_set_that_still_fits_stays_when_one_used_later_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for used, (name, text) in enumerate({"old": "", "wide": "x" * 10_000}.items()):
        cache.cached(name, "train", [], lambda text=text: (image_set(1, text), ()))
        os.utime(cache.entries()[0].path, (1000.0 + used, 1000.0 + used))
    monkeypatch.setenv("FOVEATE_CACHE_LIMIT", "10000")
    cache.cached("new", "train", [], lambda: (image_set(1), ()))
    assert {entry.name for entry in cache.entries()} == {"old", "new"}


@pytest.mark.parametrize("field", range(4, 12))
def test_a_set_with_a_damaged_header_is_made_anew(folder: Path, field: int) -> None:
    """Zip files may claim to be encrypted, or packed in ways that nobody knows."""
    cache.cached("set", "train", [], lambda: (image_set(1), ()))
    (path,) = folder.glob("*.npz")
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"PK\x01\x02") + field] ^= 0xFF
    path.write_bytes(whole)
    assert [entry.num_bytes for entry in cache.entries()] == [len(whole)]
    cache.cached("set", "train", [], lambda: (image_set(2), ()))
    assert len(cache.cached("set", "train", [], lambda: (image_set(3), ()))) in (1, 2)


def test_an_image_that_changes_while_it_is_decoded_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        numbered(number).save(tmp_path / f"{number}.png")
    table = pa.table({"image": [f"{number}.png" for number in range(30)]})
    pq.write_table(table, tmp_path / "train.parquet")
    decode = rows.decode

    def decode_then_change(*given: object) -> object:
        decoded = decode(*given)
        numbered(200).save(tmp_path / f"{changed}.png")
        return decoded

    monkeypatch.setenv("FOVEATE_CACHE_LIMIT", "0")
    changed = min(numbers(load_data(str(tmp_path / "train.parquet"))))
    monkeypatch.delenv("FOVEATE_CACHE_LIMIT")
    monkeypatch.setattr(rows, "decode", decode_then_change)
    assert 200 not in numbers(load_data(str(tmp_path / "train.parquet")))
    assert 200 in numbers(load_data(str(tmp_path / "train.parquet")))


def test_another_pillow_decodes_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.cached("set", "train", [], lambda: (image_set(1), ()))
    monkeypatch.setattr("PIL.__version__", "0.0")
    assert len(cache.cached("set", "train", [], lambda: (image_set(2), ()))) == 2


def test_a_file_as_old_and_as_large_is_another(tmp_path: Path) -> None:
    (tmp_path / "set" / "cat").mkdir(parents=True)
    for number in range(20):
        numbered(number).save(tmp_path / "set" / "cat" / f"{number}.pgm")
    file, other = tmp_path / "set" / "cat" / "0.pgm", tmp_path / "other.pgm"
    numbered(99).save(other)
    state = file.stat()
    splits = [numbers(load_data(str(tmp_path / "set"), split)) for split in scenes.SPLITS]
    other.replace(file)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file.stat().st_size == state.st_size
    again = [numbers(load_data(str(tmp_path / "set"), split)) for split in scenes.SPLITS]
    assert set.union(*again) ^ set.union(*splits) == {0, 99}


def test_a_folder_of_the_same_relative_name_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, first in (("here", 0), ("there", 50)):
        (tmp_path / place).mkdir()
        images = [numbered(n) for n in range(first, first + 20)]
        write_parquet(tmp_path / place / "set.parquet", images)
    monkeypatch.chdir(tmp_path / "here")
    assert max(numbers(load_data("set.parquet"))) < 20
    monkeypatch.chdir(tmp_path / "there")
    assert min(numbers(load_data("set.parquet"))) >= 50


def test_what_was_left_out_is_said_of_a_cached_set_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = ["train"] * 18 + ["extra"] * 2
    write_parquet(tmp_path / "set.parquet", [numbered(n) for n in range(20)], split=split)
    for _ in range(2):  # As two processes would.
        monkeypatch.setattr("foveate.data.notes._said", set())
        load_data(str(tmp_path / "set.parquet"))
        load_data(str(tmp_path / "set.parquet"))
        assert capsys.readouterr().err.count("left out of set: 2 rows of split 'extra'") == 1


def test_a_user_without_a_home_has_a_temporary_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(ValueError, match="there is no such home; give the path without ~"):
        cache.cache_folder()
    monkeypatch.delenv("FOVEATE_CACHE")
    assert cache.cache_folder() == Path(tempfile.gettempdir()) / "foveate"

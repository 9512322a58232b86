"""What a stream leaves out is counted, and what a table names counts as its content."""

from __future__ import annotations

import time
from pathlib import Path

import jaxtyping
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import encoded, numbered
from PIL import Image

from foveate.data import hub
from foveate.data.first_images import first_images
from foveate.data.streaming import ImageStream


def make(source: object, **options: object) -> ImageStream:
    settings = {"image_size": 6, "batch_size": 1, "channels": 1, "shuffle_buffer": 4}
    return ImageStream(source, **{**settings, **options})


def write_damaged(file: Path) -> None:
    """Forty numbered images, of which every third is missing and one is junk."""
    cells = [None if n % 3 == 0 else encoded(numbered(n)) for n in range(40)]
    cells[1] = b"junk"
    split = ["train"] * 38 + ["val", "test"]
    pq.write_table(pa.table({"image": cells, "split": split}), file, row_group_size=10)


def test_rows_without_an_image_are_skipped_and_counted_and_keep_their_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_damaged(tmp_path / "a.parquet")
    expected = {n for n in range(38) if n % 3 and n != 1}
    with pytest.raises(ValueError, match=r"has no image bytes|cannot read row"):
        list(zip(range(40), make(tmp_path), strict=False))
    stream, states, found = make(tmp_path, skip_damaged=True), [], []
    for _ in range(len(expected) * 3):
        states.append(stream.state_dict())
        found.append(int(next(stream).images[0, 0, 0, 0]))
    assert set(found[: len(expected)]) == expected == set(found[-len(expected) :])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3, "the first, ten, and how many of every epoch"
    assert lines[0].startswith("skipped: ")
    assert lines[1:] == [
        f"skipped {when}: {count} images that cannot be read, by worker 1 of 1"
        for when, count in (("so far in an epoch", 10), ("in an epoch", 38 - len(expected)))
    ]
    for stop in range(0, 30, 7):
        resumed = make(tmp_path, skip_damaged=True)
        resumed.load_state_dict(states[stop])
        again = [int(next(resumed).images[0, 0, 0, 0]) for _ in range(9)]
        assert again == found[stop : stop + 9]


def test_hugging_face_rows_without_an_image_are_skipped() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image()})
    cells = [{"bytes": None if n == 3 else encoded(numbered(n)), "path": None} for n in range(8)]
    dataset = datasets.Dataset.from_dict({"image": cells}, features=features)
    source: hub.HubDataset = dataset.to_iterable_dataset()
    images = first_images(
        source, "train", image_size=6, channels=1, limit=99, skip_damaged=True
    ).images
    assert set(images[:, 0, 0, 0].tolist()) == set(range(8)) - {3}


def test_a_split_column_of_many_values_is_one_short_line_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = 12_000
    own = [f"id{n}" for n in range(number)]
    table = pa.table({"image": [encoded(numbered(1))] * number, "id": own})
    pq.write_table(table, tmp_path / "a.parquet")
    began = time.perf_counter()
    with pytest.raises(ValueError, match=r"'id10004'\] and 11990 more, and known") as caught:
        make(tmp_path, split_column="id")
    assert len(str(caught.value)) < 1000
    own[:60] = ["train"] * 60
    pq.write_table(table.set_column(1, "id", [own]), tmp_path / "a.parquet")
    make(tmp_path, split_column="id")
    assert time.perf_counter() - began < 15
    lines = capsys.readouterr().err.splitlines()
    assert [len(line) < 1000 for line in lines if line.startswith("left out")] == [True]


def test_a_table_of_paths_changes_with_the_files_that_it_names(tmp_path: Path) -> None:
    for n in range(12):
        numbered(n).save(tmp_path / f"{n}.png")
    names = [f"{n}.png" for n in range(12)]
    pq.write_table(pa.table({"image": names}), tmp_path / "a.parquet")
    stream = make(tmp_path / "a.parquet")
    state = stream.state_dict()
    make(tmp_path / "a.parquet").load_state_dict(state)
    noise = np.random.default_rng(0).integers(0, 256, (9, 9), np.uint8)
    (tmp_path / "7.png").write_bytes(encoded(Image.fromarray(noise)))
    changed = make(tmp_path / "a.parquet")
    assert changed.fingerprints != stream.fingerprints
    with pytest.raises(ValueError, match="files of the stream have changed"):
        changed.load_state_dict(state)


def test_what_is_left_out_is_counted_also_after_a_resume(tmp_path: Path) -> None:
    write_damaged(tmp_path / "a.parquet")
    stream = make(tmp_path, skip_damaged=True)
    for _ in range(9):
        next(stream)
    state = stream.state_dict()
    for _ in range(16):
        next(stream)
    resumed = make(tmp_path, skip_damaged=True)
    resumed.load_state_dict(state)
    for _ in range(16):
        next(resumed)
    assert 0 < state["skipped"] < stream.num_skipped == resumed.num_skipped
    # Behind the last image of an epoch the next one has begun at most.
    assert 38 - 25 <= stream.num_skipped + 1


def test_a_damaged_row_group_is_left_out_however_many_rows_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.data.workers.SKIPPED_IN_A_ROW", 5)
    cells = [encoded(numbered(n)) for n in range(40)]
    split = ["train"] * 38 + ["val", "test"]
    file = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"image": cells, "split": split}), file, row_group_size=10, compression="none"
    )
    column = pq.ParquetFile(file).metadata.row_group(1).column(0)
    begin = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(file.read_bytes())
    content[begin : begin + 20] = b"\xff" * 20
    file.write_bytes(content)
    with pytest.raises(ValueError, match="row group 1: "):
        list(zip(range(40), make(tmp_path), strict=False))
    stream = make(tmp_path, skip_damaged=True)
    found = {int(next(stream).images[0, 0, 0, 0]) for _ in range(28)}
    assert found == {*range(38)} - {*range(10, 20)}
    assert stream.num_skipped == 10
    file.rename(tmp_path / "gone")
    with pytest.raises(ValueError, match="No such file"):
        list(zip(range(40), stream, strict=False))


def test_what_is_no_state_or_no_number_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    cells = [encoded(numbered(n)) for n in range(9)]
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    stream = make(tmp_path)
    state = stream.state_dict()
    for wrong, says in (
        ({}, "must be one of state_dict"),
        (None, "must be one of state_dict"),
        ({**state, "turn": 5}, "of 1 workers, the next of which is 5; this stream has 1"),
        ({**state, "positions": []}, "of 0 workers"),
        ({**state, "settings": {}}, "the state has split None"),
    ):
        with pytest.raises(ValueError, match=says):
            stream.load_state_dict(wrong)
    with pytest.raises(ValueError, match="limit must be at least 1 image, got 0"):
        first_images(tmp_path, "train", image_size=6, channels=1, limit=0)

"""Streams: every sample once an epoch, the same batches again, also from a position in between."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import queue
import signal
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_files import encoded, numbered, write_parquet, write_tar
from PIL import Image

from foveate.data import decoding, load_data, pieces, row_groups, scenes, workers
from foveate.data.first_images import first_images
from foveate.data.samples import Sample
from foveate.data.streaming import ImageStream
from foveate.data.workers import Delivery, ImageBatch

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    # From Python 3.12 on, where torch's own threads make every worker's fork suspect.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def write_groups(file: Path, images: list[Image.Image], group_size: int, **columns: object) -> None:
    write_parquet(file, images, **columns)
    pq.write_table(pq.read_table(file, partitioning=None), file, row_group_size=group_size)


def write_numbered(folder: Path, kind: str) -> None:
    """Images 0..49 with their parity as labels, in 6 row groups or 5 tar files of unequal size."""
    folder.mkdir(exist_ok=True)
    if kind == "parquet":
        for name, first, last in (("a", 0, 30), ("b", 30, 50)):
            images = [numbered(n) for n in range(first, last)]
            label = [n % 2 for n in range(first, last)]
            split = ["train"] * len(images)
            write_groups(folder / f"{name}.parquet", images, 9, label=label, split=split)
        # Nothing is held out of train when the other splits are there.
        write_groups(
            folder / "z.parquet", [numbered(99)] * 2, 1, label=[1] * 2, split=["val", "test"]
        )
        return
    for shard, (first, last) in enumerate(itertools.pairwise((0, 5, 20, 27, 28, 50))):
        members = []
        for n in range(first, last):
            members += [
                (f"./{n:03d}.png", encoded(numbered(n))),
                (f"./{n:03d}.cls", b"%d\n" % (n % 2)),
            ]
        write_tar(folder / f"train-{shard}.tar", members)


@pytest.fixture(params=["parquet", "tar"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write_numbered(tmp_path / "set", request.param)
    return tmp_path / "set"


def make(source: object, **options: object) -> ImageStream:
    settings = {"image_size": 6, "batch_size": 4, "channels": 1, "shuffle_buffer": 7}
    return ImageStream(source, **{**settings, **options})


def contents(batch: ImageBatch) -> list[int]:
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous()
    numbers = batch.images[:, 0, 0, 0].tolist()
    assert batch.labels.tolist() == [number % 2 for number in numbers]
    return numbers


def take(stream: ImageStream, num_batches: int) -> list[list[int]]:
    return [contents(batch) for batch in itertools.islice(stream, num_batches)]


def epochs_of_lanes(source: Path, num_workers: int, num_processes: int) -> list[list[list[int]]]:
    """Numbers per lane (one worker of one process) and epoch, of each lane's first three epochs."""
    lanes = []
    for process in range(num_processes):
        stream = make(
            source,
            batch_size=1,
            num_workers=num_workers,
            process=process,
            num_processes=num_processes,
        )
        found = [([], [], [], []) for _ in range(max(1, num_workers))]
        for turn in itertools.cycle(range(len(found))):
            (number,) = contents(next(stream))
            epoch = stream.state_dict()["positions"][turn]["epoch"]
            found[turn][min(epoch, 3)].append(number)
            if all(lane[3] for lane in found):
                break
        lanes += [lane[:3] for lane in found]
    return lanes


@pytest.mark.parametrize(("num_workers", "num_processes"), [(0, 1), (2, 1), (0, 3), (2, 2)])
def test_every_sample_comes_once_an_epoch_over_all_processes_and_workers(
    source: Path, num_workers: int, num_processes: int
) -> None:
    lanes = epochs_of_lanes(source, num_workers, num_processes)
    assert len(lanes) == max(1, num_workers) * num_processes
    orders = []
    for epoch in range(3):
        dealt = [number for lane in lanes for number in lane[epoch]]
        assert sorted(dealt) == list(range(50))
        assert all(lane[epoch] for lane in lanes)
        orders.append(dealt)
    assert orders[0] != orders[1] != orders[2]


def test_samples_of_several_pieces_meet_in_a_buffer(source: Path) -> None:
    assert sorted(take(make(source, batch_size=50, shuffle_buffer=50), 1)[0]) == list(range(50))
    in_order = take(make(source, batch_size=50, shuffle_buffer=1), 1)[0]
    breaks = sum(after != before + 1 for before, after in itertools.pairwise(in_order))
    assert breaks < 6
    mixed = take(make(source, batch_size=50, shuffle_buffer=50), 1)[0]
    assert sum(abs(after - before) > 9 for before, after in itertools.pairwise(mixed)) > 15


def test_batches_are_whole_where_epochs_meet(source: Path) -> None:
    numbers = [*itertools.chain(*take(make(source, batch_size=40), 5))]
    assert len(numbers) == 200
    for epoch in range(4):
        assert sorted(numbers[50 * epoch : 50 * (epoch + 1)]) == list(range(50))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_seed_determines_the_batches(source: Path, num_workers: int) -> None:
    first, again, other = (
        take(make(source, num_workers=num_workers, seed=seed), 20) for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumed_batches_are_those_of_an_uninterrupted_stream(
    source: Path, num_workers: int
) -> None:
    stream = make(source, num_workers=num_workers, batch_size=3, num_processes=2, process=1)
    states, batches = [], []
    for _ in range(45):
        states.append(json.dumps(stream.state_dict()))
        batches += take(stream, 1)
    # Every place of the first epoch without workers; odd and even turns with them.
    for stop in range(30) if num_workers == 0 else (0, 5, 18, 21):
        resumed = make(source, num_workers=num_workers, batch_size=3, num_processes=2, process=1)
        resumed.load_state_dict(json.loads(states[stop]))
        assert json.dumps(resumed.state_dict()) == states[stop]
        assert take(resumed, 15) == batches[stop : stop + 15]
    stream.load_state_dict(json.loads(states[2]))
    assert take(stream, 9) == batches[2:11]


def test_resuming_decodes_nothing_that_was_delivered(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = make(source, batch_size=5, shuffle_buffer=20)
    batches = take(stream, 9)
    resumed = make(source, batch_size=5, shuffle_buffer=20)
    resumed.load_state_dict(stream.state_dict())
    decode, decoded = decoding.decode_image, []

    def counting(*arguments: object) -> np.ndarray:
        decoded.append(decode(*arguments)[0, 0, 0])
        return decode(*arguments)

    monkeypatch.setattr(decoding, "decode_image", counting)
    (batch,) = take(resumed, 1)
    assert decoded == batch
    assert sorted(itertools.chain(batch, *batches)) == list(range(50))


def test_a_state_of_other_settings_or_data_is_refused(source: Path) -> None:
    state = make(source, num_workers=2).state_dict()
    for name, options in {
        "num_workers": {"num_workers": 0},
        "seed": {"num_workers": 2, "seed": 1},
        "num_processes": {"num_workers": 2, "num_processes": 2},
        "batch_size": {"num_workers": 2, "batch_size": 5},
        "shuffle_buffer": {"num_workers": 2, "shuffle_buffer": 5},
        "split_column": {"num_workers": 2, "split_column": None},
    }.items():
        with pytest.raises(ValueError, match=f"the state has {name} .*; make the stream with"):
            make(source, **options).load_state_dict(state)
    if (source / "train-0.tar").exists():
        write_tar(source / "train-9.tar", [("7.png", encoded(numbered(7)))])
    else:
        write_groups(source / "c.parquet", [numbered(7)], 1, split=["train"])
    with pytest.raises(ValueError, match="the state has source"):
        make(source, num_workers=2).load_state_dict(state)


def test_a_state_of_older_names_continues(source: Path) -> None:
    stream = make(source)
    take(stream, 1)
    state = stream.state_dict()
    settings = state["settings"]
    settings["rank"], settings["world_size"] = (
        settings.pop("process"),
        settings.pop("num_processes"),
    )
    del settings["image_column"], settings["split_column"]
    resumed = make(source)
    resumed.load_state_dict(state)
    assert take(resumed, 1) == take(stream, 1)


def test_random_state_is_left_as_it_was(source: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    take(make(source), 3)
    take(make(source, num_workers=2), 3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


# Parquet.


@pytest.mark.parametrize("own", [("train",), ("train", "val"), ("train", "val", "test")])
@pytest.mark.parametrize("stored", ["column", "file name"])
def test_a_split_of_parquet_holds_what_load_data_says(
    own: tuple[str, ...], stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    images = [
        Image.fromarray(generator.integers(0, 255, (9, 12, 3), dtype=np.uint8)) for _ in range(60)
    ]
    (tmp_path / "set").mkdir()
    names = [own[n % len(own)] for n in range(60)]
    if stored == "column":
        write_groups(tmp_path / "set" / "a.parquet", images[:37], 7, split=names[:37])
        write_groups(tmp_path / "set" / "b.parquet", images[37:], 7, split=names[37:])
    else:
        for split in own:
            chosen = [image for image, name in zip(images, names, strict=True) if name == split]
            write_groups(tmp_path / "set" / f"{split}-0.parquet", chosen, 7)
    for split in scenes.SPLITS:
        expected = load_data(str(tmp_path / "set"), split, image_size=5)
        stream = ImageStream(tmp_path / "set", split, image_size=5, batch_size=len(expected))
        batch = next(stream)
        assert {image.numpy().tobytes() for image in batch.images} == {
            image.numpy().tobytes() for image in expected.images
        }
        assert batch.labels.eq(-1).all()


def test_the_first_images_come_once(source: Path) -> None:
    few = first_images(source, "train", image_size=6, channels=1, limit=9)
    assert len(few) == len(set(few.images[:, 0, 0, 0].tolist())) == 9
    every = first_images(source, "train", image_size=6, channels=1, limit=1000)
    numbers = every.images[:, 0, 0, 0].tolist()
    assert sorted(numbers) == list(range(50))
    assert set(few.images[:, 0, 0, 0].tolist()) <= set(numbers)
    assert every.labels.tolist() == [number % 2 for number in numbers]
    assert every.class_names == ("0", "1")


def test_a_list_of_files_is_a_source_in_any_order(tmp_path: Path) -> None:
    write_numbered(tmp_path, "parquet")
    files = sorted(tmp_path.glob("*.parquet"))
    assert take(make(files), 9) == take(make([str(file) for file in files[::-1]]), 9)
    only = make([tmp_path / "b.parquet", tmp_path / "z.parquet"], batch_size=20)
    assert sorted(take(only, 1)[0]) == list(range(30, 50))


def test_one_row_group_and_one_buffer_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_numbered(tmp_path, "parquet")
    tables: list[weakref.ref[pa.Table]] = []
    samples: weakref.WeakSet[Sample] = weakref.WeakSet()
    most_samples = 0
    read_group, read = pq.ParquetFile.read_row_group, row_groups.ParquetSource.read

    def counted_group(self: pq.ParquetFile, *arguments: object, **options: object) -> pa.Table:
        assert not any(table() is not None for table in tables)
        table = read_group(self, *arguments, **options)
        tables.append(weakref.ref(table))
        return table

    def counted_read(*arguments: object) -> Iterator[Sample]:
        nonlocal most_samples
        for sample in read(*arguments):
            samples.add(sample)
            most_samples = max(most_samples, len(samples))
            yield sample
            del sample

    stream = make(tmp_path, shuffle_buffer=10)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted_group)
    monkeypatch.setattr(row_groups.ParquetSource, "read", counted_read)
    monkeypatch.setattr(pq.ParquetFile, "read", None)
    take(stream, 40)
    assert len(tables) > 12
    # Beside the buffer: the sample being decoded, and the last of the block before.
    assert 10 <= most_samples <= 12


# Hugging Face.


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """A streamed data set of the 50 numbered images in five shards."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    columns = {
        "image": [{"bytes": encoded(numbered(n)), "path": None} for n in range(50)],
        "label": [n % 2 for n in range(50)],
    }
    dataset = datasets.Dataset.from_dict(columns, features=features)
    return lambda: dataset.to_iterable_dataset(num_shards=5)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_hugging_face_streams_come_once_an_epoch_and_resume(
    hub: Callable[[], object], num_workers: int
) -> None:
    for dataset in (hub, lambda: hub().filter(lambda row: row["label"] == 1)):
        stream = make(dataset(), num_workers=num_workers, batch_size=3)
        states, batches = [], []
        for _ in range(25):
            states.append(json.dumps(stream.state_dict()))
            batches += take(stream, 1)
        for stop in range(0, 15, 1 if num_workers == 0 else 5):
            resumed = make(dataset(), num_workers=num_workers, batch_size=3)
            resumed.load_state_dict(json.loads(states[stop]))
            assert take(resumed, 10) == batches[stop : stop + 10]
    lanes = epochs_of_lanes(hub(), num_workers, 2)
    for epoch in range(3):
        assert sorted(itertools.chain(*(lane[epoch] for lane in lanes))) == list(range(50))


def test_hugging_face_names_and_folders_are_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "plain").mkdir()
    write_parquet(tmp_path / "plain" / "train-0.parquet", [numbered(n) for n in range(9)])
    for number in (1, 2):
        folder = tmp_path / "folder" / "train" / "ab"[number % 2]
        folder.mkdir(parents=True)
        numbered(number).save(folder / "x.png")
    plain = next(make(f"hf://{tmp_path / 'plain'}", batch_size=9))
    assert set(plain.images[:, 0, 0, 0].tolist()) == set(range(9))
    with pytest.raises(ValueError, match=r"cannot open hf://.*nothing.*check the name"):
        make(f"hf://{tmp_path / 'nothing'}")
    with pytest.raises(ValueError, match=r"no val split; it has \['train'\]"):
        make(f"hf://{tmp_path / 'folder'}", split="val")
    batch = next(make(f"hf://{tmp_path / 'folder'}", batch_size=2))
    assert set(batch.images[:, 0, 0, 0].tolist()) == {1, 2}
    assert set(batch.labels.tolist()) == {0, 1}


def test_hugging_face_columns_follow_the_rules_of_parquet(hub: Callable[[], object]) -> None:
    import datasets

    def with_lists(rows: dict[str, list[object]]) -> dict[str, list[object]]:
        return {"photos": [[image, image] for image in rows["image"]]}

    features = {"photos": datasets.List(datasets.Image()), "label": datasets.Value("float32")}
    listed = hub().map(
        with_lists, batched=True, remove_columns="image", features=datasets.Features(features)
    )
    assert take(make(listed), 3) == take(make(hub()), 3)
    two = {"mask": datasets.Image(), **features}
    both = hub().map(
        lambda rows: {**with_lists(rows), "mask": rows["image"]},
        batched=True,
        remove_columns="image",
        features=datasets.Features(two),
    )
    with pytest.raises(ValueError, match="may hold images, mask, photos; choose one"):
        make(both)
    assert take(make(both, image_column="photos"), 3) == take(make(hub()), 3)
    named = datasets.ClassLabel(names=["even", "odd"])
    assert make(hub().cast_column("label", named)).class_names == ("even", "odd")


def test_wrong_hugging_face_data_sets_are_named(hub: Callable[[], object]) -> None:
    import datasets

    with pytest.raises(ValueError, match="5 shards cannot be dealt to 6 workers x 1 processes"):
        make(hub(), num_workers=6)
    with pytest.raises(ValueError, match=r"no image column .*; its columns: \['label'\]"):
        make(hub().remove_columns("image"))
    with pytest.raises(ValueError, match=r"label must be an integer column, got .*string"):
        make(hub().cast_column("label", datasets.Value("string")))
    with pytest.raises(ValueError, match="got IterableDatasetDict"):
        pieces.open_source(datasets.IterableDatasetDict(train=hub()), "train")
    named = datasets.IterableDataset.from_generator(lambda: iter([]), split=datasets.Split.TRAIN)
    with pytest.raises(ValueError, match="the dataset is a train split, not val"):
        make(named, split="val")
    with pytest.raises(ValueError, match=r"got Dataset; .* has to_iterable_dataset"):
        pieces.open_source(datasets.Dataset.from_dict({"label": [1]}), "train")


def test_missing_datasets_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"install \.\[stream\]"):
        make("hf://someone/something")


# Errors.


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"split": "dev"}, "train, val, test"),
        ({"image_size": 0}, "image_size must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"channels": 2}, "channels must be 1 .* or 3"),
        ({"seed": -1}, "seed must not be negative"),
        ({"shuffle_buffer": 0}, "shuffle_buffer must be at least 1"),
        ({"num_workers": -1}, "num_workers must not be negative"),
        ({"process": 2, "num_processes": 2}, "process must lie in"),
        (
            {"num_workers": 4, "num_processes": 2},
            "to 4 workers x 2 processes; use fewer",
        ),
    ],
)
def test_options_out_of_range_are_refused(
    source: Path, options: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        make(source, **options)
    assert "\n" not in str(caught.value)


def test_wrong_sources_are_named(tmp_path: Path) -> None:
    def says(text: str, data: object = tmp_path) -> None:
        with pytest.raises(ValueError, match=text) as caught:
            make(data)
        assert "\n" not in str(caught.value)

    says("no data .*nowhere; give", tmp_path / "nowhere")
    says("no parquet or tar files in .*; an image folder is read as a whole, without --stream")
    says("no parquet or tar files in the list", [])
    (tmp_path / "notes.txt").write_text("text")
    says("neither a parquet nor a tar file", tmp_path / "notes.txt")
    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    says("cannot read .*a.parquet as parquet .*; write it again")
    write_tar(tmp_path / "b.tar", [])
    says("both parquet and tar files")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "a.parquet")
    says("no image column", tmp_path / "a.parquet")
    write_parquet(tmp_path / "a.parquet", [numbered(1)], label=[["cat"]])
    says("label must hold integers, text", tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"source must be a path, .* got int"):
        pieces.open_source(5, "train")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_images_are_named_in_one_line(tmp_path: Path, num_workers: int) -> None:
    def says(text: str, file: Path) -> None:
        stream = make(file, num_workers=num_workers, shuffle_buffer=1)
        with pytest.raises(ValueError, match=text) as caught:
            take(stream, 9)
        assert "\n" not in str(caught.value)

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    deep = encoded(Image.fromarray(np.ones((4, 4), np.uint16)))
    file = tmp_path / "train.parquet"
    for content, text in (
        (b"junk", r"cannot read row \d of row group \d of .*train.parquet; replace or remove it"),
        (None, r"row \d of row group \d of .*train.parquet has no image bytes"),
        (deep, "more than 8 bits"),
    ):
        cells = pa.array([{"bytes": content, "path": None}] * 20, kind)
        pq.write_table(pa.table({"image": cells}), file, row_group_size=5)
        says(text, file)

    png = encoded(numbered(1))
    for members, text in (
        ([("a.png", b"junk")], "cannot read sample a of .*; replace or remove it"),
        ([("a.txt", b"text")], "sample a of .* has 0 images; give every sample one"),
        ([("a.png", png), ("a.jpg", png)], "sample a of .* has 2 images"),
        (
            [("a.png", png), ("a.cls", b"cat")],
            "its .cls must hold a class number.*take no text as classes",
        ),
        ([("a.png", png), ("a.json", b'{"label": "cat"}')], "must be an integer, got 'cat'"),
        ([("a.png", png), ("a.json", b"[" * 99_999)], "sample a of .* cannot be read"),
        ([("a.png", png), ("a.json", b'{"label": 0.5}')], "sample a of .*, got 0.5"),
        ([("a.png", png), ("a.cls", b"1000000000")], "label 1000000000 has no name among the num"),
        ([("a.png", png), ("a.cls", b"-7")], "label -7 is no class number"),
        ([], "no images in (a worker's share of )?2 tar files; (remove empty|give some)"),
    ):
        for number in range(2):
            write_tar(tmp_path / f"{number}.tar", members)
        says(text, [tmp_path / "0.tar", tmp_path / "1.tar"])
    for number in range(2):
        whole = (tmp_path / f"{number}.tar").read_bytes()
        (tmp_path / f"{number}.tar").write_bytes(b"x" + whole)
    says("cannot read .*tar as tar", [tmp_path / "0.tar", tmp_path / "1.tar"])


# Workers.


def hold_workers(source: Path, connection: Connection) -> None:
    stream = make(source, num_workers=2)
    next(stream)
    connection.send(len(multiprocessing.active_children()))
    time.sleep(60)


def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    write_numbered(tmp_path, "tar")
    fork = multiprocessing.get_context("fork")
    mine, theirs = fork.Pipe(duplex=False)
    parent = fork.Process(target=hold_workers, args=[tmp_path, theirs])
    parent.start()
    # From here on the parent and its workers hold the only other ends, until they end.
    theirs.close()
    assert mine.recv() == 2
    assert parent.pid is not None
    os.kill(parent.pid, signal.SIGKILL)
    assert mine.poll(2)
    with pytest.raises(EOFError):
        mine.recv()
    parent.join()


def test_a_worker_watches_its_parent_before_it_is_asked_for_a_batch(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: queue.Queue[int] = queue.Queue()
    monkeypatch.setattr(workers, "get_worker_info", lambda: SimpleNamespace(id=0))
    monkeypatch.setattr(workers, "_end_with", watched.put)
    stream = make(source)
    iter(workers.Worker(stream._reader, [workers.Start(0, stream._positions[0])]))
    assert watched.get(timeout=10) == os.getpid()


def test_a_worker_that_was_killed_is_one_line(source: Path) -> None:
    def killed() -> Iterator[Delivery]:
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. ")
        yield

    stream = make(source)
    stream._deliveries = killed()
    with pytest.raises(ValueError, match=r"a worker .* was killed.*checkpoint is intact.*--resume"):
        next(stream)

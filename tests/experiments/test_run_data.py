"""The data of a run: every way to read them takes the same options."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_files import encoded, numbered, numbers, write_parquet, write_tar

from experiments.training.batches import make_stream
from experiments.training.build import check_stream, load_split
from experiments.training.distributed import Processes
from experiments.training.presets import PRESETS
from foveate.data import scenes

SMOKE = PRESETS["smoke"][1].replace(limit=None, image_size=6)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))


def test_a_split_column_is_read_in_memory_and_streamed(tmp_path: Path) -> None:
    file, images = tmp_path / "set.parquet", [numbered(n) for n in range(30)]
    write_parquet(file, images, split=["all"] * 30, fold=["train", "val", "test"] * 10)
    for column, most in (("fold", 10), (None, 28)):
        config = SMOKE.replace(data=str(file), split_column=column)
        streamed = config.replace(stream=True, channels=1)
        found = {split: numbers(load_split(config, split)) for split in scenes.SPLITS}
        assert 10 <= len(found["train"]) <= most
        for split in scenes.SPLITS:
            check_stream(streamed, split)
            assert numbers(load_split(streamed, split)) == found[split]
        batch = next(make_stream(streamed.replace(warmup_batch_size=4), Processes.started("cpu")))
        assert set(batch.images[:, 0, 0, 0].tolist()) <= found["train"]


def test_damage_is_skipped_where_it_is_asked_for(tmp_path: Path) -> None:
    members = [(f"{n}.png", encoded(numbered(n))) for n in range(20)]
    for split in scenes.SPLITS:
        write_tar(tmp_path / f"{split}.tar", members)
        whole = (tmp_path / f"{split}.tar").read_bytes()
        (tmp_path / f"{split}.tar").write_bytes(whole[: 10 * 1024])
    config = SMOKE.replace(data=str(tmp_path), stream=True, channels=1)
    with pytest.raises(ValueError, match="it is cut off"):
        check_stream(config, "val")
    skipping = config.replace(skip_damaged=True)
    check_stream(skipping, "val")
    assert numbers(load_split(skipping, "val")) == set(range(10))
    assert (
        len(next(make_stream(skipping, Processes.started("cpu"))).images) == skipping.stream_batch
    )
    with pytest.raises(ValueError, match="skip_damaged goes with --stream"):
        SMOKE.replace(skip_damaged=True)

"""The data of a run: every way to read them takes the same options."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from image_files import encoded, numbered, numbers, write_parquet, write_tar

from experiments.runs import load_run
from experiments.training.batches import TrainingImages, make_stream
from experiments.training.build import check_stream, load_split
from experiments.training.distributed import Processes
from experiments.training.loop import train
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer
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


def test_images_wander_in_memory_as_in_a_stream(tmp_path: Path) -> None:
    """Each evaluated image has its place; the training draws other places all the time."""
    file, images = tmp_path / "set.parquet", [numbered(n) for n in range(30)]
    write_parquet(file, images, split=["train", "val", "test"] * 10)
    still = SMOKE.replace(data=str(file), patch_size=3)
    config = still.replace(wander=2)
    streamed = config.replace(stream=True, channels=1)
    for split in scenes.SPLITS:
        loaded, first = load_split(config, split), load_split(config, split, 3)
        assert loaded.image_shape == (1, 12, 12)
        assert torch.equal(loaded.images[:3], first.images)
        assert loaded.fingerprints == load_split(still, split).fingerprints
        bits = [
            set(map(bytes, each.images.numpy())) for each in (loaded, load_split(streamed, split))
        ]
        assert bits[0] == bits[1]
        assert len(bits[0]) == 10
    for chosen in (config, streamed):
        training = TrainingImages(chosen.replace(warmup_batch_size=4), Processes.started("cpu"))
        generator = torch.Generator().manual_seed(0)
        drawn = torch.cat([training.draw(4, generator)[0] for _ in range(20)])
        # Rows below the number are 7 throughout, and all around is gray.
        is_image = ((255 * drawn).round() == 7).flatten(1)
        assert (is_image.sum(1) == 30).all()
        assert len(is_image.unique(dim=0)) > 30


def test_features_are_standardized_by_images_where_evaluations_see_them() -> None:
    config = PRESETS["smoke"][1].replace(target="features", wander=1.5, limit=8)
    trainer = Trainer(config, Processes.started("cpu"))
    first = trainer.images.first(64)
    assert torch.equal(first, load_split(config, "train", 8).batch(torch.arange(8)))
    assert trainer.model.targets(first).shape[:2] == (8, trainer.model.num_patches)


def test_a_run_is_evaluated_where_its_images_wander(tmp_path: Path) -> None:
    config = SMOKE.replace(
        out=tmp_path / "run", image_size=None, wander=1.5, warmup_iterations=1, iterations=1,
        evaluate_every=None, report=False, limit=16,
    )  # fmt: skip
    train(config)
    run = load_run(config.run.out)
    assert run.model.config.image_size == (48, 48)
    assert torch.equal(run.split("test", 5).images, load_split(config, "test", 5).images)


def test_a_canvas_that_patches_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"canvas of 41 x 41 .* patches of 4 x 4; take 1\.375"):
        load_split(PRESETS["smoke"][1].replace(wander=1.28), "test", 2)

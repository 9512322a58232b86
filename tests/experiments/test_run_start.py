"""A run keeps the start it had, whatever its recipe says by now."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from experiments import runs
from experiments.finished_run import finished_run
from experiments.run_folder import check_folder, read_manifest, write_config
from experiments.tables import write_json
from experiments.training.build import build
from experiments.training.command_line import read_command_line
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.loop import train
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer
from experiments.training.weights import start_from
from foveate.checkpoint import CHECKPOINT, FoundCheckpoint, load_model
from foveate.config import ModelConfig
from foveate.export import export_program
from foveate.model import AnyOrderTransformer


@pytest.mark.parametrize(("written", "expected"), [({}, "timm"), ({"init": "xavier"}, "xavier")])
def test_untrained_weights_start_as_those_of_the_run_did(
    written: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints from before there was a choice name no start."""
    sizes: dict[str, Any] = {"embed_dim": 32, "depth": 1, "periphery": 0, "iterations": 0}
    config = TrainConfig().replace(recipe="saim", prefix_share=0.0, **sizes)
    model, policy = build(config, (1, 8, 8))
    state = {
        "image_shape": (1, 8, 8),
        "model_config": written,
        "model": model.state_dict(),
        "policy": policy.state_dict(),
        "iteration": 1,
    }
    monkeypatch.setattr(runs, "read_config", lambda directory: config)
    monkeypatch.setattr(runs, "read_newest", lambda directory: FoundCheckpoint(state, tmp_path, ()))
    run = runs.load_run(tmp_path)
    untrained = run.untrained_model((1, 8, 8), seed=0)
    assert untrained.config.init == expected
    assert run.model.config.init == expected


def test_a_run_that_goes_on_says_how_it_started_not_how_its_recipe_starts_now() -> None:
    config = PRESETS["smoke"][1].replace(
        recipe="saim", iterations=0, warmup_iterations=2, prefix_share=0.0, budget=12, limit=32
    )
    trainer = Trainer(config, Processes.started("cpu"))
    assert trainer.model.config.init == "xavier"
    state = trainer.state()
    trainer.load({**state, "model_config": {**state["model_config"], "init": "timm"}})
    assert trainer.state()["model_config"]["init"] == "timm"


def test_a_policy_learns_to_scan_for_the_model_of_another_run(tmp_path: Path) -> None:
    """The start is needed at the start alone: the run goes on without it."""
    short = PRESETS["smoke"][1].replace(report=False, limit=64, evaluate_every=None, threads=1)
    first, then = tmp_path / "first", tmp_path / "then"
    train(short.replace(out=first, schedule="frozen"))
    weights = load_model(first).state_dict()
    afterwards = short.replace(
        out=then, start_from=str(first), schedule="policy_only", warmup_iterations=0, stop_after=2
    )
    trainer = train(afterwards)
    first.rename(tmp_path / "gone")
    assert trainer.iteration == 2
    trainer = train(afterwards.replace(resume=True, stop_after=None))
    assert trainer.iteration == 4
    torch.testing.assert_close(trainer.model.state_dict(), weights, rtol=0, atol=0)


def test_the_size_of_a_palette_counts_only_where_there_is_one() -> None:
    ours = load_model("scenes").config
    other = AnyOrderTransformer(replace(ours, num_colors=ours.num_colors + 1))
    start_from(other, None, "scenes")
    torch.testing.assert_close(other.state_dict(), load_model("scenes").state_dict())
    colors = AnyOrderTransformer(replace(ours, target="colors", num_colors=7, periphery=0))
    with pytest.raises(ValueError, match=r"num_colors \d+, not 7"):
        start_from(colors, None, "scenes")


def test_a_model_of_other_sizes_is_no_start() -> None:
    config = PRESETS["smoke"][1].replace(start_from="cue", limit=32)
    with pytest.raises(ValueError, match=r"in cue cannot be the start.*patch_size 2, not 4"):
        Trainer(config, Processes.started("cpu"))
    with pytest.raises(ValueError, match="no checkpoint"):
        Trainer(config.replace(start_from="nowhere"), Processes.started("cpu"))


def test_a_run_does_not_lie_among_its_images(tmp_path: Path) -> None:
    for number in range(24):
        folder = tmp_path / "images" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), number).save(folder / f"{number}.png")
    data = {"data": str(tmp_path / "images"), "warmup_iterations": 1, "iterations": 0}
    config = PRESETS["smoke"][1].replace(**data, limit=None, patch_size=4, report=False)
    within = config.replace(out=tmp_path / "images" / "runs" / "mine")
    with pytest.raises(ValueError, match=r"lies within the images of .*give --out another folder"):
        train(within)
    assert not within.run.out.exists()
    train(config.replace(out=tmp_path / "mine"))


def test_a_training_starts_from_what_timm_saves_for_the_hub(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = PRESETS["smoke"][1].replace(limit=32, periphery=0, num_heads=2)
    torch.manual_seed(0)
    sizes = {"img_size": 32, "in_chans": 1, "patch_size": 4, "embed_dim": 32, "num_heads": 2}
    vit = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=3, **sizes)
    folder = tmp_path / "hub"
    save_for_hf(vit, folder, safe_serialization=True)
    torch.save({"state_dict": vit.state_dict()}, tmp_path / "weights.pth")
    images = torch.rand(2, 1, 32, 32)
    # Its own units are timm's default for these names, 0.5 and 0.5.
    expected = vit.eval().forward_features((images - 0.5) / 0.5)[:, 1:]
    for place in (folder, folder / "model.safetensors"):
        model = Trainer(
            config.replace(start_from=str(place)), Processes.started("cpu")
        ).model.eval()
        torch.testing.assert_close(model.features(images)[-1], expected, atol=1e-5, rtol=0)
    assert not capsys.readouterr().err
    # Another file in the folder is not taken for the folder's own weights.
    shutil.copy(folder / "model.safetensors", folder / "later.safetensors")
    save_for_hf(
        timm.create_model("vit_tiny_patch16_224", depth=2, **sizes), folder, safe_serialization=True
    )
    config_later = config.replace(start_from=str(folder / "later.safetensors"))
    later = Trainer(config_later, Processes.started("cpu")).model.eval()
    torch.testing.assert_close(later.features(images)[-1], expected, atol=1e-5, rtol=0)
    config = config.replace(start_from=str(tmp_path / "weights.pth"))
    model = Trainer(config, Processes.started("cpu")).model
    torch.testing.assert_close(model.encoder.blocks.state_dict(), vit.blocks.state_dict())
    assert "neither its number of heads nor its pixel units" in capsys.readouterr().err


def test_foreign_weights_are_no_start(tmp_path: Path) -> None:
    config = PRESETS["smoke"][1].replace(limit=32)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "text.safetensors").write_text("no weights")
    save_for_hf(timm.create_model("test_resnet"), tmp_path / "resnet", safe_serialization=True)
    made = AnyOrderTransformer(ModelConfig(image_size=(8, 8), patch_size=4, embed_dim=16))
    export_program(made.eval(), tmp_path / "graph")
    for name, complaint in (
        ("graph/encoder.pt2", "as a graph of torch.export, for [^;]*; a whole model"),
        ("other.pth", r"no patch_embed\.proj\.weight"),
        ("text.safetensors", "no weights that timm loads"),
        ("resnet", "a ResNet of timm, no VisionTransformer"),
        ("resnet/config.json", "no weights that timm loads"),
        ("resnet/nowhere.safetensors", "no checkpoint at"),
    ):
        with pytest.raises(ValueError, match=complaint) as told:
            Trainer(config.replace(start_from=str(tmp_path / name)), Processes.started("cpu"))
        assert "\n" not in str(told.value)


def test_a_model_that_starts_from_another_keeps_its_palette(tmp_path: Path) -> None:
    igpt = PRESETS["smoke"][1].replace(
        recipe="igpt", iterations=0, warmup_iterations=1, report=False, limit=32, num_colors=8,
        evaluate_every=None, threads=1, prefix_share=0.0, budget=12, seed=0, periphery=0,
        out=tmp_path / "first",
    )  # fmt: skip
    first = train(igpt).model
    others = igpt.replace(seed=1, out=tmp_path / "then")
    then = Trainer(others.replace(start_from=str(igpt.run.out)), Processes.started("cpu")).model
    assert torch.equal(then.palette, first.palette)
    assert not torch.equal(Trainer(others, Processes.started("cpu")).model.palette, first.palette)


def test_the_start_may_be_gone_only_once_there_is_a_checkpoint(tmp_path: Path) -> None:
    config = PRESETS["smoke"][1].replace(out=tmp_path / "run", start_from="cue")
    write_config(config)
    again = config.replace(resume=True, start_from=None)
    with pytest.raises(ValueError, match=r"cannot resume .*: start_from was cue, is None"):
        check_folder(again)
    (config.run.out / CHECKPOINT).touch()
    check_folder(again)


def test_a_run_whose_optimizer_knows_of_no_error_head_is_not_resumed_but_a_start(
    tmp_path: Path,
) -> None:
    """As of features before models learned their error."""
    config = PRESETS["smoke"][1].replace(target="features", limit=32, out=tmp_path / "run")
    trainer = Trainer(config, Processes.started("cpu"))
    state = trainer.state()
    state["model_optimizers"][1]["param_groups"][0]["params"].pop()
    with pytest.raises(ValueError, match=r"tensors of weights.*begin another run.*--start-from"):
        trainer.load(state)


@pytest.mark.parametrize(
    ("option", "init", "start"),
    [
        (["--init", "runs/other"], None, "runs/other"),
        (["--init=vit.safetensors"], None, "vit.safetensors"),
        (["--init", "xavier"], "xavier", None),
        (["--init", "xavier", "--start-from", "cue"], "xavier", "cue"),
    ],
)
def test_init_takes_a_place_of_weights_as_start_from_does(
    option: list[str], init: str | None, start: str | None
) -> None:
    model = read_command_line(["smoke", *option, "--depth", "2"]).model
    assert (model.init, model.start_from, model.depth) == (init, start, 2)


def test_a_run_that_was_killed_before_its_last_manifest_is_completed(tmp_path: Path) -> None:
    config = PRESETS["smoke"][1].replace(out=tmp_path, report=False, threads=1, evaluate_every=None)
    finished_run(config)
    manifest = read_manifest(tmp_path)
    del manifest["train_seconds"]
    write_json(tmp_path / "manifest.json", {**manifest, "iterations": 4})
    finished_run(config)
    assert read_manifest(tmp_path)["train_seconds"] > 0
    assert read_manifest(tmp_path)["iterations"] == 8


def test_a_model_that_cannot_be_scanned_starts_with_its_own_teacher(tmp_path: Path) -> None:
    sizes = {"embed_dim": 16, "depth": 1, "num_heads": 2, "warmup_batch_size": 4, "limit": 32}
    config = TrainConfig().replace(
        recipe="digpt", teacher="average", iterations=0, warmup_iterations=3, **sizes
    )
    first = train(config.replace(out=tmp_path / "first"))
    then = Trainer(
        config.replace(start_from=str(tmp_path / "first"), out=tmp_path / "then"),
        Processes.started("cpu"),
    )
    teachers = [each.model_learner.teacher for each in (first, then)]
    kept, taken = (each.state_dict() for each in teachers if each is not None)
    assert kept.keys() == taken.keys()
    torch.testing.assert_close(taken, kept, rtol=0, atol=0)
    assert [int(value) for name, value in taken.items() if name.endswith("n_averaged")] == [3]

"""Training: resumed equals uninterrupted, schedules train whom they say, no run is overwritten."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from agents.baselines import scan_with
from experiments.finished_run import finished_run
from experiments.metrics_file import read_metrics
from experiments.run_folder import read_config, read_manifest, write_config
from experiments.runs import load_run
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.loop import train
from experiments.training.model_learner import model_rate
from experiments.training.policy_learner import entropy_bonus, policy_rate
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer
from foveate.checkpoint import CHECKPOINT, MANIFEST, checkpoints_in, load_model, read_checkpoint
from foveate.data import load_data

SMOKE = PRESETS["smoke"][1].replace(report=False, threads=1)


@pytest.fixture(autouse=True)
def keep_thread_count() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    state = read_checkpoint(directory / CHECKPOINT)
    return {f"{part}.{name}": w for part in ("model", "policy") for name, w in state[part].items()}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"augment": True},
        {"agent": "maskable-ppo"},
        {"num_candidates": 8, "policy_every": 2, "precision": "bf16"},
        {"fixation_size": 2, "policy_every": 2, "num_candidates": 8},
    ],
)
@pytest.mark.parametrize("stop", [3, 5])
def test_resumed_equals_uninterrupted(change: dict[str, Any], stop: int, tmp_path: Path) -> None:
    config = SMOKE.replace(out=tmp_path / "whole", **change)
    train(config)
    half = config.replace(out=tmp_path / "half")
    train(half.replace(stop_after=stop))
    train(half.replace(resume=True))
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "half")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    def metrics(directory: Path) -> list[dict[str, float]]:
        lines = [
            json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()
        ]
        return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]

    assert metrics(tmp_path / "whole") == metrics(tmp_path / "half")


def test_a_run_says_when_nothing_is_left_to_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = SMOKE.replace(iterations=0, warmup_iterations=3, out=tmp_path / "run")
    train(config.replace(stop_after=2))
    last = weights(config.run.out)
    capsys.readouterr()
    train(config.replace(resume=True, stop_after=1))
    said = "goes on after iteration 2 of 3, --stop-after is 1: nothing is left to train"
    assert said in capsys.readouterr().out
    assert all(torch.equal(last[name], each) for name, each in weights(config.run.out).items())
    train(config.replace(resume=True))
    assert "nothing is left" not in capsys.readouterr().out
    train(config.replace(resume=True))
    assert "goes on after iteration 3 of 3: nothing is left to train" in capsys.readouterr().out


def test_what_draws_from_torchs_own_generator_resumes_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import torch\ndef drawn(grid): return lambda images, generator=None: "
    (tmp_path / "own_drawing.py").write_text(f"{text}torch.rand(len(images), 64).argsort(1)")
    monkeypatch.syspath_prepend(tmp_path)
    config = SMOKE.replace(order="own_drawing:drawn", iterations=0, warmup_iterations=4)
    whole, half = (config.replace(out=tmp_path / name) for name in ("whole", "half"))
    train(whole)
    train(half.replace(stop_after=2))
    train(half.replace(resume=True))
    before, after = weights(whole.run.out), weights(half.run.out)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_says_when_the_code_of_ones_own_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "import torch\ndef drawn(grid): return lambda images, generator=None: "
    own = tmp_path / "own_changing.py"
    own.write_text(f"{text}torch.arange(64).repeat(len(images), 1)")
    monkeypatch.syspath_prepend(tmp_path)
    config = SMOKE.replace(
        order="own_changing:drawn", iterations=0, warmup_iterations=2, out=tmp_path / "run"
    )
    train(config.replace(stop_after=1))
    finished_run(config)
    line = "note: the code of own_changing:drawn has changed"
    assert line not in capsys.readouterr().out
    assert read_manifest(config.run.out)["source_changes"] == []
    own.write_text(f"{text}torch.arange(64).flip(0).repeat(len(images), 1)")
    finished_run(config)
    assert line in capsys.readouterr().out
    train(config.replace(resume=True))
    assert line in capsys.readouterr().out
    half = config.replace(out=tmp_path / "half")
    train(half.replace(stop_after=1))
    own.write_text(f"{text}torch.arange(64).roll(3).repeat(len(images), 1)")
    train(half.replace(resume=True))
    manifest = read_manifest(half.run.out)
    assert manifest["source_changes"] == ["after iteration 1: own_changing:drawn"]
    # A note needs no code: a finished run is there without it.
    own.unlink()
    sys.modules.pop("own_changing")
    assert finished_run(half).iteration == 2


def test_metrics_after_the_checkpoint_are_written_again_not_twice(tmp_path: Path) -> None:
    config = SMOKE.replace(out=tmp_path / "run")
    train(config.replace(stop_after=4))
    with (config.run.out / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 5, "seconds": 1, "loss": 0}\n')
    train(config.replace(resume=True))
    at = [
        json.loads(line)["iteration"]
        for line in (config.run.out / "metrics.jsonl").read_text().splitlines()
    ]
    assert at == list(range(1, 9))


@pytest.mark.parametrize(
    ("agent", "schedule", "model_moves", "policy_moves"),
    [
        ("group-relative", "joint", True, True),
        ("group-relative", "policy_only", False, True),
        ("group-relative", "frozen", True, False),
        ("group-relative", "alternating", True, True),
        ("maskable-ppo", "joint", True, True),
        ("maskable-ppo", "policy_only", False, True),
    ],
)
def test_each_schedule_trains_whom_it_says(
    agent: str, schedule: str, model_moves: bool, policy_moves: bool, tmp_path: Path
) -> None:
    config = SMOKE.replace(out=tmp_path / "run", agent=agent, schedule=schedule)
    if schedule == "alternating":
        config = config.replace(alternate_every=2)
    train(config.replace(stop_after=config.optimization.warmup_iterations))
    before = weights(config.run.out)
    train(config.replace(resume=True))
    after = weights(config.run.out)
    for part, moves in (("model", model_moves), ("policy", policy_moves)):
        moved = [
            not torch.equal(before[name], after[name]) for name in before if name.startswith(part)
        ]
        assert any(moved) == moves, part


def test_an_alternating_phase_trains_one_of_the_two(tmp_path: Path) -> None:
    config = SMOKE.replace(out=tmp_path / "run", schedule="alternating", alternate_every=4)
    train(config.replace(stop_after=config.optimization.warmup_iterations))
    before = weights(config.run.out)
    train(config.replace(resume=True))
    after = weights(config.run.out)
    assert all(
        torch.equal(before[name], after[name]) for name in before if name.startswith("model")
    )
    assert any(
        not torch.equal(before[name], after[name]) for name in before if name.startswith("policy")
    )


def test_a_run_is_not_overwritten_nor_resumed_with_another_config(tmp_path: Path) -> None:
    config = SMOKE.replace(out=tmp_path / "run")
    train(config)
    with pytest.raises(ValueError, match="holds a run already"):
        train(config)
    with pytest.raises(ValueError, match="budget was 4, is 5"):
        train(config.replace(budget=5, resume=True))
    with pytest.raises(ValueError, match="not a run folder"):
        train(config.replace(out=tmp_path / "none", resume=True))


def test_a_failed_start_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data"):
        train(SMOKE.replace(out=tmp_path / "new", data="nowhere"))
    assert not (tmp_path / "new").exists()
    kept = tmp_path / "record" / "metrics.jsonl"
    kept.parent.mkdir()
    kept.write_text("precious")
    with pytest.raises(ValueError, match="without a checkpoint"):
        train(SMOKE.replace(out=kept.parent))
    write_config(SMOKE.replace(out=kept.parent))
    (kept.parent / MANIFEST).write_text("{}")
    with pytest.raises(ValueError, match="checkpoint is gone"):
        train(SMOKE.replace(out=kept.parent, resume=True))
    assert kept.read_text() == "precious"
    with pytest.raises(ValueError, match="is a file"):
        train(SMOKE.replace(out=kept))


def test_a_run_cut_off_before_its_first_checkpoint_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = SMOKE.replace(out=tmp_path / "whole", save_every=100)
    train(whole)
    config = whole.replace(out=tmp_path / "cut")
    step = Trainer.step

    def interrupted(self: Trainer) -> dict[str, float]:
        if self.iteration == 3:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="anew with --resume"):
        train(config)
    # Killed once more, with metrics beyond the first command's save_every: there is none to miss.
    write_config(read_config(config.run.out).replace(save_every=1))
    train(config.replace(resume=True))
    assert read_manifest(config.run.out)["saved"] is True
    for file in config.run.out.glob("checkpoint*"):
        file.unlink()
    with pytest.raises(ValueError, match="checkpoint is gone"):
        train(config.replace(resume=True))
    train(config.replace(out=tmp_path / "again"))
    config = config.replace(out=tmp_path / "again")
    assert all(
        torch.equal(w, weights(whole.run.out)[name]) for name, w in weights(config.run.out).items()
    )
    assert len(read_metrics(config.run.out / "metrics.jsonl")) == SMOKE.total_iterations


@pytest.mark.parametrize(("length", "ramp"), [(50, 5), (3000, 100)])
def test_the_learning_rate_rises_over_a_hundred_iterations_or_a_tenth(
    length: int, ramp: int
) -> None:
    rate = model_rate(config := SMOKE.replace(iterations=0, warmup_iterations=length))
    rates = [rate(at) for at in range(ramp + 1)]
    assert rates.index(max(rates)) == ramp - 1
    assert rates[0] == pytest.approx(config.optimization.model_lr / ramp, rel=1e-3)


def test_rates_and_bonus_are_cosines_down_to_their_floors() -> None:
    def cosine(progress: float) -> float:
        return (1 + math.cos(math.pi * progress)) / 2

    config = SMOKE.replace(warmup_iterations=20, iterations=40)
    assert config.policy is not None
    model, policy = model_rate(config), policy_rate(config, config.policy)
    bonus = entropy_bonus(config, config.policy)
    assert [model(at) for at in range(20)] == pytest.approx(
        [3e-3 * min(1, (at + 1) / 6) for at in range(20)]
    )
    assert [policy(at) for at in range(20)] == [0] * 20
    for at in range(40):
        fall = cosine(at / 40)
        assert model(20 + at) == pytest.approx(3e-3 * max(0.05, fall))
        assert policy(20 + at) == pytest.approx(2e-3 * max(0.05, fall) * min(1, (at + 1) / 10))
        assert bonus(20 + at) == pytest.approx(0.03 * max(0.1, fall))
    constant = model_rate(
        config.replace(recipe="autonat", iterations=0, prefix_share=0.0, budget=12)
    )
    assert constant(19) == constant(6) == 3e-3


def test_a_run_of_no_iterations_is_refused() -> None:
    with pytest.raises(ValueError, match="trains nothing"):
        SMOKE.replace(iterations=0, warmup_iterations=0)


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(tmp_path: Path) -> None:
    config = SMOKE.replace(out=tmp_path / "run", model_lr=1e30, save_every=1)
    with pytest.raises(ValueError, match=r"no checkpoint is written.*--resume --model-lr"):
        train(config)


def test_resuming_keeps_the_commits_and_a_finished_run_keeps_its_manifest(tmp_path: Path) -> None:
    config = SMOKE.replace(out=tmp_path / "run")
    train(config.replace(stop_after=3))
    with (config.run.out / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 4, "sec')
    train(config.replace(resume=True))
    manifest = (config.run.out / "manifest.json").read_text()
    assert len(json.loads(manifest)["commits"]) == 2
    train(config.replace(resume=True))
    assert (config.run.out / "manifest.json").read_text() == manifest
    (config.run.out / "manifest.json").unlink()
    train(config.replace(resume=True))
    again = json.loads((config.run.out / "manifest.json").read_text())
    assert again["iterations"] == config.total_iterations, "it was cut off before it wrote one"


def test_a_policy_that_never_learned_is_random_not_raster(tmp_path: Path) -> None:
    config = SMOKE.replace(out=tmp_path / "run", schedule="frozen")
    trainer = train(config)
    images = trainer.images.held.batch(torch.arange(6))
    generator = torch.Generator().manual_seed(0)
    order = scan_with(load_run(config.run.out).agent, trainer.model, images, 4, generator)
    assert len(torch.unique(order, dim=0)) == 6


def test_a_checkpoint_of_another_shape_is_named(tmp_path: Path) -> None:
    config = SMOKE.replace(out=tmp_path / "run")
    train(config)
    content = json.loads((config.run.out / "config.json").read_text())
    (config.run.out / "config.json").write_text(json.dumps({**content, "embed_dim": 64}))
    with pytest.raises(ValueError, match="another shape than its config"):
        load_run(config.run.out)
    for path in checkpoints_in(config.run.out):
        path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not a readable foveate checkpoint"):
        load_run(config.run.out)


@pytest.mark.parametrize(
    "change",
    [
        {"group": 1},
        {"discount": 1.5},
        {"budget": 0},
        {"random_share": -0.1},
        {"iterations": -1},
        {"threads": 0},
        {"seed": 2**32},
        {"model_lr": -1.0},
        {"limit": 0},
        {"agent": "maskable-ppo", "schedule": "frozen"},
        {"agent": "maskable-ppo", "num_candidates": 8},
        {"num_candidates": 1},
        {"num_candidates": 8, "iterations": 0},
        {"policy_every": 2, "schedule": "policy_only"},
        {"policy_every": 2, "iterations": 0},
        {"reward": "ease", "iterations": 0},
        {"recipe": "saim", "prefix_share": 0.0, "iterations": 0, "budget": 3},
        {"alternate_every": 2},
        {"data_root": Path("elsewhere")},
        {"stop_after": 2001},
        {"prefix_share": 2.0},
        {"fixation_size": 0},
        {"recipe": "mae", "prefix_share": 0.0, "iterations": 0, "fixation_size": 2},
        {"prefix_share": 0.5, "recipe": "igpt_bert"},
        {"seed": -1},
        {"channels": 1},
        {"stream_workers": 2},
        {"data": "shards", "stream": True},
        {"data": "shards", "stream": True, "image_size": 8, "limit": 5},
        {"data": "shards", "stream": True, "image_size": 8, "recipe": "git"},
        {"data": "shards", "stream": True, "image_size": 8, "agent": "maskable-ppo"},
        {"augment": True, "agent": "maskable-ppo"},
        {"wander": 1.5, "agent": "maskable-ppo"},
        {"wander": 1.5, "recipe": "git"},
        {"wander": 1.0},
        {"wander": 150.0},
        {"crop_scale": 0.5},
        {"augment": True, "crop_scale": 0.0},
        {"color_jitter": 0.4},
        {"augment": True, "color_jitter": 1.0},
        {"teacher": "own"},
        {"num_colors": 8},
    ],
)
def test_configs_out_of_range_are_refused(change: dict[str, Any]) -> None:
    message = r"must|needs|no effect|lies beyond|takes no|goes with|leave it out"
    with pytest.raises(ValueError, match=message):
        TrainConfig().replace(**change)


def test_what_has_no_effect_is_named_at_once_with_what_to_add() -> None:
    with pytest.raises(ValueError, match=r"--policy-every, --reward: of no effect .*--iterations"):
        SMOKE.replace(iterations=0, policy_every=4, reward="ease")
    with pytest.raises(ValueError, match=r"budget has no effect on recipe mae.*--budget 12"):
        SMOKE.replace(iterations=0, recipe="mae", prefix_share=0.0)
    assert SMOKE.replace(iterations=0).policy is None
    # The budget is the length of scans, from which these models learn without a policy as well.
    unseen = {"target": "patch_norm", "budget": 3}
    TrainConfig().replace(**unseen, iterations=0, micro_batches=3, warmup_batch_size=9)


@pytest.mark.parametrize("agent", ["group-relative", "maskable-ppo"])
def test_fixations_of_four_patches_are_what_policy_and_model_learn_from(agent: str) -> None:
    config = SMOKE.replace(fixation_size=2, warmup_iterations=1, agent=agent, prefix_share=0.0)
    trainer = Trainer(config, Processes.started("cpu"))
    for _ in range(2):
        trainer.step()
    ((_, order),) = trainer.scans
    assert order.shape == (16, 4, 4)
    tops = order.amin(2)
    assert torch.equal(order - tops.unsqueeze(2), torch.tensor([0, 1, 8, 9]).expand_as(order))
    rank = trainer.model_learner.draw(3, torch.Generator().manual_seed(0)).rank
    squares = rank.view(3, 4, 2, 4, 2)
    assert torch.equal(squares, squares[:, :, :1, :, :1].expand_as(squares))
    assert [int(n) for n in rank.flatten().bincount()] == [12, 12, 12, 12, 3 * 48]


def test_budgets_larger_than_the_grid_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1\.\.15 fixations"):
        train(SMOKE.replace(out=tmp_path / "run", budget=16, fixation_size=2))
    with pytest.raises(ValueError, match="less than the 16 fixations"):
        train(SMOKE.replace(out=tmp_path / "run", num_candidates=16, fixation_size=2))
    with pytest.raises(ValueError, match=r"1\.\.63 fixations"):
        train(SMOKE.replace(out=tmp_path / "run", budget=64))


def test_a_run_folder_is_a_model_by_itself(tmp_path: Path) -> None:
    config = SMOKE.replace(out=tmp_path / "run")
    trainer = train(config)
    images = trainer.images.held.batch(torch.arange(3))
    loaded = load_model(config.run.out)
    rank = trainer.model_learner.order(images).clamp(max=3)
    with torch.no_grad():
        expected = trainer.model.eval().predict_scan(images, rank, 3)
        torch.testing.assert_close(loaded.predict_scan(images, rank, 3), expected)
    with pytest.raises(ValueError, match="no checkpoint at"):
        load_model("nowhere")


def test_a_streamed_run_resumes_where_it_stopped(tmp_path: Path) -> None:
    images = load_data("scenes", "train", limit=120).images.squeeze(1).numpy()
    encoded = []
    for pixels in images:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="PNG")
        encoded.append({"bytes": file.getvalue(), "path": None})
    (tmp_path / "shards").mkdir()
    for part in range(3):
        table = pa.table({"image": encoded[40 * part : 40 * part + 40]})
        pq.write_table(table, tmp_path / "shards" / f"train-{part}.parquet", row_group_size=10)
    streamed = SMOKE.replace(
        data=str(tmp_path / "shards"), limit=None, stream=True, image_size=32, channels=1
    )
    config = streamed.replace(out=tmp_path / "whole")
    train(config)
    half = config.replace(out=tmp_path / "half")
    train(half.replace(stop_after=5))
    train(half.replace(resume=True))
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "half")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    # Evaluated on what the stream holds out.
    test = load_run(tmp_path / "whole").split("test")
    assert 0 < len(test) < 120
    assert torch.equal(test.subset(3).images, load_run(tmp_path / "half").split("test", 3).images)

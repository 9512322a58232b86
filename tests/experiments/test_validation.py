"""Validation while training measures what an evaluation would, and changes nothing."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from image_files import encoded, numbered

from agents.baselines import OrderAgent, UncertaintyAgent, scan_with
from agents.policies import PolicyAgent
from experiments.metrics_file import read_metrics
from experiments.runs import load_run
from experiments.training import validation
from experiments.training.distributed import Processes
from experiments.training.loop import train
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer
from experiments.training.validation import NUM_IMAGES, Validation
from foveate.checkpoint import CHECKPOINT, read_checkpoint
from foveate.orders import ordering
from foveate.orders.segments import Fixations

SMOKE = PRESETS["smoke"][1].replace(report=False, threads=1)
AREAS = {f"validation_auc_{name}" for name in ("policy", "random", "uncertainty")}


@pytest.mark.parametrize("fixation_size", [1, 2])
def test_the_areas_are_those_of_scans_by_the_same_agents(
    fixation_size: int, tmp_path: Path
) -> None:
    """At the last iteration, so that the run folder holds the model and policy that were looked at.

    The error curve is the parallel pass of the transformer, not the environment's.
    """
    config = SMOKE.replace(
        out=tmp_path / "run", evaluate_every=SMOKE.total_iterations, fixation_size=fixation_size
    )
    train(config)
    line = read_metrics(config.run.out / "metrics.jsonl")[-1]
    run = load_run(config.run.out)
    images = run.split("val", NUM_IMAGES).batch(torch.arange(NUM_IMAGES))
    generator = torch.Generator().manual_seed(0)
    fixations = Fixations.squares(run.model.grid, fixation_size)
    noise = torch.rand(NUM_IMAGES, len(fixations), generator=generator)
    random = fixations.scanpath(noise.argsort(1)[:, :4])
    agents = {
        "policy": PolicyAgent(run.policy, greedy=True),
        "random": OrderAgent(random),
        "uncertainty": UncertaintyAgent(),
    }
    for name, agent in agents.items():
        order = scan_with(agent, run.model, images, 4, fixations=fixations)
        with torch.no_grad():
            curve = run.model.error_curve(images, order)
        assert line[f"validation_auc_{name}"] == pytest.approx(float(curve[:, 1:].mean()), rel=1e-4)
    with torch.no_grad():
        generator.manual_seed(0)
        rank = ordering("random", run.model.grid)(images, generator=generator)
        rank = fixations.merged(rank).clamp(max=4)
        loss = run.model(images, rank, num_steps=5, generator=generator)
    assert line["validation_loss"] == pytest.approx(float(loss), rel=1e-5)


def test_words_and_scans_are_measured_with_the_parameters_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both use parts of a model without calling it, of which a shard alone would be there."""
    trainer = Trainer(SMOKE.replace(evaluate_every=1, limit=16), Processes.started("cpu"))
    are_together: list[bool] = [False]
    looked: dict[str, bool] = {}

    @contextmanager
    def together(_: object) -> Iterator[None]:
        are_together[0] = True
        yield
        are_together[0] = False

    def look(name: str, value: Any) -> Any:
        looked[name] = are_together[0]
        return value

    monkeypatch.setattr(validation, "parameters_together", together)
    monkeypatch.setattr(Validation, "_surprise", lambda *_: look("words", {}))
    monkeypatch.setattr(validation, "error_area", lambda *_: look("scans", 0.5))
    Validation(trainer).measure(trainer)
    assert looked == {"words": True, "scans": True}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"agent": "maskable-ppo", "fixation_size": 2},
        {"recipe": "mae", "iterations": 0, "prefix_share": 0.0, "budget": 12},
    ],
    ids=["native", "maskable-ppo", "mae"],
)
def test_training_is_the_same_to_the_bit_with_and_without(
    change: dict[str, Any], tmp_path: Path
) -> None:
    states = []
    for every in (2, None):
        config = SMOKE.replace(out=tmp_path / str(every), evaluate_every=every, **change)
        train(config)
        states.append(read_checkpoint(config.run.out / CHECKPOINT))
        validated = [
            {key for key in line if key.startswith("validation_")}
            for line in read_metrics(config.run.out / "metrics.jsonl")
        ]
        if every is None:
            assert not any(validated)
            continue
        assert [bool(keys) for keys in validated] == [
            at % every == every - 1 for at in range(config.total_iterations)
        ]
        scans = AREAS if "recipe" not in change else set()
        assert validated[-1] == {"validation_loss"} | scans
        assert validated[1] == validated[-1] - {"validation_auc_policy"}, "not before it learns"
    validated_state, plain = states
    for part in ("model", "policy"):
        assert all(torch.equal(w, plain[part][name]) for name, w in validated_state[part].items())
    assert torch.equal(validated_state["generator"], plain["generator"])


def test_the_global_generator_is_left_as_it_is() -> None:
    trainer = Trainer(SMOKE, Processes.started("cpu"))
    validation = Validation(trainer)
    before = torch.get_rng_state()
    first, second = validation.measure(trainer), validation.measure(trainer)
    assert first == second
    assert torch.equal(before, torch.get_rng_state())


def test_a_frozen_policy_is_random_and_not_validated(tmp_path: Path) -> None:
    config = SMOKE.replace(out=tmp_path / "run", schedule="frozen", evaluate_every=8)
    train(config)
    line = read_metrics(config.run.out / "metrics.jsonl")[-1]
    assert set(line) >= AREAS - {"validation_auc_policy"}
    assert "validation_auc_policy" not in line


def test_a_stream_without_held_out_images_trains_without_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(tmp_path / "train-0.tar", "w") as shard:
        for number in range(40):
            content = encoded(numbered(number, "RGB", (32, 32)))
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    stream = {"data": str(tmp_path), "stream": True, "image_size": 32, "limit": None}
    config = SMOKE.replace(out=tmp_path / "run", evaluate_every=2, channels=3, **stream)
    train(config)
    lines = read_metrics(config.run.out / "metrics.jsonl")
    assert len(lines) == config.total_iterations
    assert not any(key.startswith("validation_") for line in lines for key in line)
    assert "warning: no validation while training: " in capsys.readouterr().err

"""Processes of torchrun: they compute what one computes, and continue what one has begun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents.group_relative import policy_step
from experiments.cli import lost_process
from experiments.run_folder import read_config
from experiments.training import model_learner, policy_learner
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.loop import train
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer
from foveate.checkpoint import CHECKPOINT, read_checkpoint

ROOT = Path(__file__).parents[2]
PLAIN = PRESETS["smoke"][1].replace(
    report=False,
    iterations=24,
    policy_every=2,
    policy_lr=0.03,
    micro_batches=2,
    threads=1,
)
SHARD: dict[str, Any] = {"shard": True, "model_optimizer": "adamw"}


@pytest.fixture(scope="module", autouse=True)
def keep_thread_count() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def options_of(config: TrainConfig) -> list[str]:
    """Return what is typed behind ``experiments.train`` for a config near the smoke preset's."""
    options, smoke = ["smoke"], PRESETS["smoke"][1].flat()
    for name, value in config.flat().items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            options.append(f"--{option}" if value else f"--no-{option}")
        elif value != smoke[name]:
            options += [f"--{option}", str(value)]
    return options


def torchrun(num_processes: int, *command: str) -> str:
    """Run a command in so many processes and return what it wrote to standard error."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    with subprocess.Popen(
        [*launcher, "--nproc-per-node", str(num_processes), *command],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as launched:
        try:
            _, complaints = launched.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            launched.terminate()  # torchrun ends its processes before itself.
            raise
    assert launched.returncode == 0, complaints
    return complaints


def metrics(directory: Path) -> list[dict[str, float]]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def assert_same_metrics(directory: Path, expected: Path, iterations: int) -> None:
    lines = metrics(directory)
    assert len(lines) == iterations
    for line, wanted in zip(lines, metrics(expected), strict=False):
        assert line == pytest.approx(wanted, abs=1e-4)


def assert_same_run(directory: Path, expected: Path) -> None:
    """Metrics and weights of finished runs."""
    assert_same_metrics(directory, expected, len(metrics(expected)))
    state, wanted = (read_checkpoint(d / CHECKPOINT) for d in (directory, expected))
    # A softmax ignores a shift: this gradient is rounding, which Adam blows up.
    for each in (state, wanted):
        del each["policy"]["score.bias"]
    for part in ("model", "policy", "generator"):
        torch.testing.assert_close(state[part], wanted[part], atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process."""
    config = PLAIN.replace(out=tmp_path_factory.mktemp("alone") / "run")
    train(config)
    entropy = [line["entropy"] for line in metrics(config.run.out) if "entropy" in line]
    assert len(entropy) == 24
    assert entropy[-1] < entropy[0] - 0.01, "the policy must have learned, else it says little"
    return config.run.out


@dataclass(frozen=True)
class Together:
    """What two processes trained, one run after another under one torchrun."""

    from_scratch: TrainConfig
    continued: TrainConfig
    """One process began it."""
    sharded: TrainConfig
    """One process began it, as a whole model."""
    whole: Path
    """The run of one process, unsharded, that ``sharded`` must equal."""
    complaints: str


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    folder = tmp_path_factory.mktemp("together")
    from_scratch = PLAIN.replace(out=folder / "from_scratch")
    continued = PLAIN.replace(out=folder / "continued")
    # Over few iterations, since rounding differs and might in the end choose another patch.
    whole = PLAIN.replace(
        out=folder / "whole", model_optimizer="adamw", iterations=8, policy_lr=2e-3
    )
    sharded = whole.replace(out=folder / "sharded")
    train(continued.replace(stop_after=7))
    train(whole)
    train(sharded.replace(stop_after=3))
    commands = [
        from_scratch.replace(stop_after=24),
        continued.replace(resume=True),
        sharded.replace(resume=True, shard=True, stop_after=9),
    ]
    (folder / "commands.json").write_text(json.dumps([options_of(each) for each in commands]))
    script = str(Path(__file__).with_name("trainings.py"))
    complaints = torchrun(2, script, str(folder / "commands.json"))
    return Together(from_scratch, continued, sharded, whole.run.out, complaints)


@pytest.mark.slow
def test_two_processes_train_as_one_which_continues(alone: Path, together: Together) -> None:
    config = together.from_scratch
    assert "Traceback" not in together.complaints
    assert together.complaints.count("iteration 1/28") == 1, "one process alone reports progress"
    assert_same_metrics(config.run.out, alone, 24)
    assert json.loads((config.run.out / "manifest.json").read_text())["world_size"] == 2
    train(config.replace(micro_batches=None, resume=True))
    assert_same_run(config.run.out, alone)


@pytest.mark.slow
def test_two_processes_continue_what_one_began(alone: Path, together: Together) -> None:
    assert_same_run(together.continued.run.out, alone)


@pytest.mark.slow
def test_one_process_that_is_connected_trains_as_one_that_is_not(
    alone: Path, tmp_path: Path
) -> None:
    config = PLAIN.replace(out=tmp_path / "run")
    torchrun(1, "-m", "experiments.train", *options_of(config))
    assert json.loads((config.run.out / "manifest.json").read_text())["world_size"] == 1
    assert_same_run(config.run.out, alone)


@pytest.mark.slow
def test_a_sharded_model_trains_as_a_whole_one(together: Together) -> None:
    config = together.sharded
    assert len(metrics(config.run.out)) == 9
    train(config.replace(resume=True))
    assert_same_run(config.run.out, together.whole)


@pytest.mark.parametrize(
    ("environment", "change", "message"),
    [
        ({"WORLD_SIZE": "2"}, {"agent": "maskable-ppo"}, "single process"),
        ({"WORLD_SIZE": "2"}, {"micro_batches": 1}, "2 processes cannot share 1 micro-batches"),
        ({"RANK": "1"}, {}, "RANK '1', LOCAL_RANK '0', WORLD_SIZE '1', which is no process"),
        ({"WORLD_SIZE": "abc"}, {}, "WORLD_SIZE 'abc', which is no process of as many; unset"),
        ({"WORLD_SIZE": "3"}, {}, "must divide batch_size 4, got 3"),
        ({"WORLD_SIZE": "2"}, {"device": "cuda:1"}, "need --device cpu or cuda"),
        ({}, SHARD, "needs several processes"),
        ({}, {"reward": "rankme", "micro_batches": 4}, "two images or more in every micro-batch"),
        ({"WORLD_SIZE": "2"}, {**SHARD, "recipe": "semaim"}, "needs another --order than"),
        ({"WORLD_SIZE": "2"}, {**SHARD, "recipe": "digpt"}, "needs a timm model as --teacher"),
        (
            {"WORLD_SIZE": "2"},
            {**SHARD, "reward": "recognition"},
            "cannot pay --reward recognition",
        ),
        ({"WORLD_SIZE": "2"}, {**SHARD, "reward": "progress"}, "as --reward-reference; average"),
    ],
)
def test_processes_that_cannot_train_together_are_refused(
    environment: dict[str, str],
    change: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = PRESETS["smoke"][1].replace(out=tmp_path / "run", **change)
    with pytest.raises(ValueError, match=message):
        train(config)
    assert not config.run.out.exists()


@pytest.mark.parametrize(
    "change",
    [{"shard": True}, {"agent": "maskable-ppo", "micro_batches": 2}, {"micro_batches": 5}],
)
def test_options_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"needs|must divide"):
        TrainConfig().replace(**change)


def test_gradients_are_means_over_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    config = PLAIN.replace(warmup_iterations=1, warmup_batch_size=9, batch_size=6, micro_batches=3)
    gradients: dict[nn.Module, list[Tensor | None]] = {}

    def keep_gradient(module: nn.Module, *_: object) -> None:
        gradients[module] = [p.grad for p in module.parameters()]

    monkeypatch.setattr(model_learner, "clip_and_step", keep_gradient)
    monkeypatch.setattr(policy_learner, "clip", keep_gradient)
    monkeypatch.setattr(policy_learner, "take_step", lambda *_: None)
    trainer = Trainer(config, Processes.started("cpu"))
    model, policy = trainer.model, trainer.policy
    before = trainer.generator.get_state()
    loss = trainer.step()["loss"]

    trainer.generator.set_state(before)
    losses = []
    for generator in trainer.generators():
        drawn = trainer.model_learner.draw(3, generator)
        losses.append(
            model(drawn.images, drawn.rank, num_steps=config.scan.budget + 1, generator=generator)
        )
    mean = torch.stack(losses).mean()
    assert loss == pytest.approx(float(mean.detach()))
    torch.testing.assert_close(
        gradients[model], list(torch.autograd.grad(mean, list(model.parameters())))
    )

    nn.init.normal_(policy.score.weight)
    before = trainer.generator.get_state()
    trainer.step()

    trainer.generator.set_state(before)
    steps = [
        policy_step(
            model,
            policy,
            trainer.images.draw(2, generator)[0],
            budget=config.scan.budget,
            reward=config.policy.reward,
            group=config.policy.group,
            discount=config.policy.discount,
            entropy_weight=config.policy.entropy_weight,
            generator=generator,
        )
        for generator in trainer.generators()
    ]
    advantage, log_prob, entropy = (
        torch.cat([getattr(step, name) for step in steps])
        for name in ("advantage", "log_prob", "entropies")
    )
    scaled = advantage / advantage.std()
    expected = -(scaled * log_prob).mean() - config.policy.entropy_weight * entropy.mean()
    torch.testing.assert_close(
        gradients[policy], list(torch.autograd.grad(expected, list(policy.parameters())))
    )


@pytest.mark.slow
def test_one_processs_run_goes_on_as_it_began(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    config = read_config(alone).replace(resume=True, micro_batches=None)
    with pytest.raises(ValueError, match=r"3 processes cannot share 2.*as many as it began with"):
        train(config)


def test_a_process_that_lost_another_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = RuntimeError("[/pytorch/gloo] Connection closed by peer [127.0.0.1]:1")
    assert lost_process(lost) is None, "no torchrun"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "another process of the run has ended" in (lost_process(lost) or "")
    reset = torch.distributed.DistBackendError("NCCL: Connection reset by peer")
    assert "go on with --resume [NCCL: Connection reset" in (lost_process(reset) or "")
    assert lost_process(torch.distributed.DistBackendError("Duplicate GPU detected")) is None

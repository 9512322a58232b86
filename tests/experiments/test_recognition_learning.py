"""Training on the reward of classes: it finds the patch that tells, resumes, and needs labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import envs
from experiments import runs
from experiments.evaluation.probe import tuning as recognition_tuning
from experiments.evaluation.probe.result import ProbeResult
from experiments.probe import ProbeConfig, main
from experiments.runs import Run
from experiments.training import batches, recognition
from experiments.training.build import build
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.loop import train
from experiments.training.presets import PRESETS
from experiments.training.recognition import ProbeLearner
from experiments.training.trainer import Trainer
from foveate.checkpoint import CHECKPOINT, read_checkpoint
from foveate.data import ImageSet

TELLING = 7
"""The patch of the 4 x 4 grid that holds the class."""
WORLD = PRESETS["smoke"][1].replace(
    reward="recognition",
    schedule="policy_only",
    embed_dim=16,
    num_heads=2,
    depth=1,
    periphery=0,
    budget=2,
    warmup_iterations=0,
    iterations=30,
    batch_size=16,
    warmup_batch_size=16,
    policy_lr=0.05,
    report=False,
    threads=1,
)


def telling_set(labels: torch.Tensor) -> ImageSet:
    """16 x 16 pixels of noise; one patch is dark (class 0) or bright (class 1)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (len(labels), 1, 16, 16), generator=generator, dtype=torch.uint8)
    row, col = divmod(TELLING, 4)
    place = (slice(None), slice(None), slice(4 * row, 4 * row + 4), slice(4 * col, 4 * col + 4))
    images[place] = (255 * labels.clamp_min(0)).to(torch.uint8).view(-1, 1, 1, 1)
    return ImageSet(images, labels, ("dark", "bright"), "telling")


@pytest.fixture(autouse=True)
def few_first_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognition, "FIRST_STEPS", 60)


def trainer_on(data: ImageSet, monkeypatch: pytest.MonkeyPatch, **change: Any) -> Trainer:
    monkeypatch.setattr(batches, "load_stored", lambda *_: data)
    return Trainer(WORLD.replace(**change), Processes.started("cpu"))


def test_the_policy_learns_to_look_where_the_class_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 patches one tells; by chance an eighth of the scans of two fixations finds it."""
    trainer = trainer_on(telling_set(torch.arange(400) % 2), monkeypatch)
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    for _ in range(WORLD.iterations):
        measured = trainer.step()
    images = trainer.images.held.batch(torch.arange(100))
    episode = envs.Episode(trainer.model, images, budget=2)
    for _ in range(2):
        choice = trainer.policy.distribution(episode.observe()).probs.argmax(1)
        episode.step(episode.patch_of(choice))
    found = (episode.order == TELLING).any(1).float().mean()
    assert found > 0.9
    assert measured["recognized"] > 0.7
    assert measured["return"] > 0.3, "nats of log 2 = 0.69"
    after = trainer.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "probes teach no model"


def test_the_probe_knows_something_before_the_policy_first_scans(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = trainer_on(telling_set(torch.arange(400) % 2), monkeypatch, budget=15)
    assert trainer.step()["recognized"] > 0.75


def test_images_without_a_label_pay_nothing_and_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = torch.arange(40) % 2
    labels[:30] = -1
    trainer = trainer_on(telling_set(labels), monkeypatch)
    assert "30 of 40 training images have no label" in capsys.readouterr().err
    trainer.step()
    learner: ProbeLearner = trainer.policy_learner.probe_learner  # type: ignore[union-attr]
    weights = [w.clone() for w in learner.probe.parameters()]
    # Rates alone would move weights that decay.
    drawn = (trainer.images.held.batch(torch.arange(4)), torch.arange(4))
    gradients: list[torch.Tensor] = []
    for parameter in learner.probe.parameters():
        parameter.register_hook(lambda gradient: gradients.append(gradient.clone()))
    learner.learn([(drawn, torch.tensor([[0, 1]] * 4))])
    assert all(gradient.eq(0).all() for gradient in gradients)
    assert len(gradients) == len(weights)


@pytest.mark.parametrize("labels", [[-1] * 40, [1] * 40])
def test_data_without_classes_are_refused_before_training(
    labels: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="needs labels of two classes or more") as refusal:
        trainer_on(telling_set(torch.tensor(labels)), monkeypatch)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agent": "maskable-ppo"}, "reward recognition needs --agent group-relative"),
        (
            {"data": "shards", "stream": True, "image_size": 16, "limit": None},
            "needs all labels; leave out --stream",
        ),
    ],
)
def test_what_has_no_labels_or_no_probe_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WORLD.replace(**change)


def test_micro_batches_teach_the_probe_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two parts of a batch move it as the whole batch does."""
    data = telling_set(torch.arange(40) % 2)
    weights = []
    for parts in (1, 2):
        trainer = trainer_on(data, monkeypatch, micro_batches=parts)
        learner: ProbeLearner = trainer.policy_learner.probe_learner  # type: ignore[union-attr]
        index, order = torch.arange(8), torch.arange(16).view(8, 2)
        scans = [((data.batch(part), part), order[part]) for part in index.chunk(parts)]
        learner.learn(scans)
        weights.append(learner.probe.linear.weight.clone())
    torch.testing.assert_close(*weights, atol=1e-5, rtol=1e-3)


def test_a_resumed_run_has_the_probe_of_one_that_never_stopped(tmp_path: Path) -> None:
    """And an environment pays by it."""
    config: TrainConfig = PRESETS["smoke"][1].replace(
        reward="recognition",
        warmup_batch_size=16,
        report=False,
        threads=1,
        out=tmp_path / "whole",
        micro_batches=2,
    )
    train(config)
    half = config.replace(out=tmp_path / "half")
    train(half.replace(stop_after=6))
    train(half.replace(resume=True))
    whole, resumed = (read_checkpoint(tmp_path / d / CHECKPOINT) for d in ("whole", "half"))
    for part in ("model", "policy"):
        assert all(torch.equal(w, resumed[part][name]) for name, w in whole[part].items())
    probe = whole["recognition"]["probe"]
    assert all(torch.equal(w, resumed["recognition"]["probe"][name]) for name, w in probe.items())
    assert probe["linear.weight"].abs().max() > 0
    env = envs.ImageScanVectorEnv(
        2, model=str(tmp_path / "whole"), reward="recognition", budget=2, limit=20
    )
    env.reset(seed=0)
    assert np.abs(env.step(np.array([0, 1]))[1]).min() > 0


def test_probe_fine_tunes_by_fixations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every order, from the run's weights and from untrained ones; the result reads back."""
    config = TrainConfig().replace(
        data="cue", patch_size=2, embed_dim=16, depth=1, num_heads=2, decoder_depth=1, budget=4
    )
    torch.manual_seed(0)
    model, policy = build(config, (1, 8, 8))
    run = Run(tmp_path, config, model.eval(), policy.eval(), config.total_iterations)
    monkeypatch.setattr(runs, "load_run", lambda *_: run)
    options: dict[str, Any] = {"probes": ("finetune",), "fixations": (4, 1), "train_limit": 60}
    with pytest.raises(ValueError, match=r"fixations must lie in 1\.\.4"):
        main(ProbeConfig(run=tmp_path, **{**options, "fixations": (5,)}))
    scans: list[Any] = []
    tune = recognition_tuning.fine_tune_by_fixations
    monkeypatch.setattr(
        recognition_tuning,
        "fine_tune_by_fixations",
        lambda *given: scans.append(given[3:5]) or tune(*given),
    )
    main(
        ProbeConfig(run=tmp_path, **options, finetune_epochs=1, finetune_lr=(0.001,), test_limit=30)
    )
    result = ProbeResult.read(tmp_path / "probe_finetune.json")
    assert result.finetune_fixations is not None
    orders = [start + order for order in ("policy", "random") for start in ("", "random_weights_")]
    assert list(result.finetune_fixations) == orders
    for trained, untrained in zip(scans[::2], scans[1::2], strict=True):
        assert all(torch.equal(one, two) for one, two in zip(trained, untrained, strict=True))
    for row in result.finetune_fixations.values():
        assert [*row] == [1, 4]
        assert all(each.ci95 is not None and each.attention == "causal" for each in row.values())
    assert "random_weights_policy" in result.to_text()

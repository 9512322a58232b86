"""Runs whose world is features: they train with a policy, resume, and are evaluated like others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from envs.episode import Episode
from envs.vector import ImageScanVectorEnv
from experiments.evaluation.compare.evaluate import compare
from experiments.evaluation.draw import draw
from experiments.metrics_file import read_metrics
from experiments.runs import Run, load_run
from experiments.training.config import TrainConfig
from experiments.training.loop import train
from experiments.training.presets import PRESETS
from foveate.checkpoint import CHECKPOINT, load_model, read_checkpoint, save_model

SMOKE = PRESETS["smoke"][1].replace(
    report=False, threads=1, limit=64, budget=3, warmup_iterations=2, evaluate_every=4
)
TARGETS = ("features", "pixels_features")


@pytest.fixture(scope="module", params=TARGETS)
def config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A finished run: 2 iterations of the model alone, and 2 with the policy."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    config = SMOKE.replace(target=request.param, iterations=2, out=out)
    train(config)
    return config


@pytest.fixture(scope="module")
def run(config: TrainConfig) -> Run:
    return load_run(config.run.out)


def episode_rank(first: Tensor, num_patches: int) -> Tensor:
    """Rank 0 for the patch that a row has seen, 1 for all others."""
    rank = torch.ones(len(first), num_patches, dtype=torch.long)
    return rank.scatter(1, first.unsqueeze(1), 0)


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = SMOKE.replace(target="pixels_features", iterations=1, out=tmp_path / "whole")
    stopped = whole.replace(out=tmp_path / "run", stop_after=2)
    for config in (whole, stopped, stopped.replace(stop_after=None, resume=True)):
        train(config)
    one, other = (read_checkpoint(c.run.out / CHECKPOINT) for c in (whole, stopped))
    for part in ("model", "policy", "teacher"):
        assert one[part].keys() == other[part].keys()
        assert all(torch.equal(one[part][name], other[part][name]) for name in one[part]), part
    assert "feature_moments" in one["teacher"]


def test_the_error_of_an_image_does_not_depend_on_the_others(run: Run) -> None:
    images = run.split("val").batch(torch.arange(6))
    order = torch.tensor([[3, 0, 1]])
    together = run.model.error_curve(images, order.expand(6, -1))
    alone = torch.cat([run.model.error_curve(image, order) for image in images.split(1)])
    torch.testing.assert_close(together, alone)
    targets = run.model.targets(images)
    torch.testing.assert_close(targets[:1], run.model.targets(images[:1]))


def test_what_an_episode_pays_is_the_loss_of_the_target(run: Run) -> None:
    images = run.split("val").batch(torch.arange(4))
    with torch.no_grad():
        episode = Episode(run.model, images, budget=2)
        episode.step(torch.tensor([5, 1, 0, 2]))
        order = torch.tensor([[5], [1], [0], [2]])
        torch.testing.assert_close(episode.error, run.model.error_curve(images, order)[:, 1])
        rank = episode_rank(order[:, 0], run.model.num_patches)
        values = run.model.predict_scan(images, rank, 1)
        loss = run.model.target.loss(values, run.model.targets(images).unsqueeze(1))
    unseen = rank.bool()
    by_hand = (loss[:, 1] * unseen).sum(1) / loss[:, 0].sum(1)
    torch.testing.assert_close(episode.error, by_hand)


def test_the_validation_tells_how_far_features_spread(config: TrainConfig) -> None:
    line = read_metrics(config.run.out / "metrics.jsonl")[-1]
    assert 0 < line["validation_feature_std"] < 2
    assert 1 < line["validation_feature_rank"] <= config.model.embed_dim
    assert 0 < line["validation_auc_policy"] < 2
    assert "validation_auc_uncertainty" in line


def test_features_alone_are_drawn_gray_where_unseen(run: Run) -> None:
    images = run.split("val").batch(torch.arange(2))
    canvas = run.model.reconstructions(images, torch.tensor([[5], [1]]))
    predicted = run.model.patchify(canvas[:, 0])
    is_gray = bool((predicted == 0.5).all())
    assert is_gray == (run.model.config.target == "features")
    torch.testing.assert_close(
        run.model.patchify(canvas[:, 1])[0, 5], run.model.patchify(images)[0, 5]
    )


def test_it_is_an_environment_by_its_folder_and_by_its_file(
    config: TrainConfig, run: Run, tmp_path: Path
) -> None:
    save_model(run.model, tmp_path / "model.safetensors")
    rewards = []
    for model in (str(config.run.out), str(tmp_path / "model.safetensors")):
        env = ImageScanVectorEnv(2, model=model, budget=2, obs="canvas", render_mode="rgb_array")
        env.reset(seed=0, options={"index": [3, 4]})
        rewards.append(env.step(env.action_space.sample() * 0 + 5)[1])
        assert len(env.render()) == 2
    assert (rewards[0] == rewards[1]).all()


def test_a_model_without_its_teacher_says_so(run: Run, tmp_path: Path) -> None:
    state = run.model.state_dict()
    assert not any("teacher" in name for name in state)
    run.model.target.teacher, teacher = None, run.model.target.teacher
    try:
        save_model(run.model, tmp_path / "model.safetensors")
    finally:
        run.model.target.teacher = teacher
    bare = load_model(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="needs features, and this model has no teacher"):
        ImageScanVectorEnv(model=bare, budget=2)


def test_it_is_trained_by_maskable_ppo_compared_and_drawn(tmp_path: Path) -> None:
    config = SMOKE.replace(
        target="features", iterations=1, agent="maskable-ppo", out=tmp_path / "run"
    )
    train(config)
    assert read_metrics(config.run.out / "metrics.jsonl")[-1]["auc"] > 0
    run = load_run(config.run.out)
    comparison = compare(run, limit=3, oracle_limit=3)
    assert comparison.orders["oracle"].auc < comparison.orders["random"].auc
    assert all(path.is_file() for path in draw(run, index=(0,), heatmap_limit=1))


def test_rewards_of_one_part_add_up_to_that_of_all(run: Run) -> None:
    images, order = run.split("val").batch(torch.arange(3)), torch.tensor([5, 1, 0])
    rewards = {}
    for reward in ("auc", "auc_pixels", "auc_features"):
        episode = Episode(run.model, images, budget=2, reward=reward)
        if run.model.config.target == "features" and reward != "auc":
            with pytest.raises(ValueError, match="needs a model with target='pixels_features'"):
                episode.step(order)
            return
        rewards[reward] = episode.step(order)
    total = rewards["auc_pixels"] + rewards["auc_features"]
    torch.testing.assert_close(rewards["auc"], total)
    with torch.no_grad():
        values = run.model.predict_scan(images, episode_rank(order, run.model.num_patches), 1)
    pixels = run.model.patchify(run.model.normalize(images)).unsqueeze(1)
    squared = (values[..., : pixels.shape[-1]] - pixels).square().mean(-1)[:, 1]
    unseen = episode_rank(order, run.model.num_patches) > 0
    by_hand = (squared * unseen).sum(1) / episode.initial_error
    torch.testing.assert_close(rewards["auc_pixels"], -by_hand)

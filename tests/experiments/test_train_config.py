"""A training run's options: groups and their flat form, the command line, folders of before."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from experiments.run_folder import read_config, write_config
from experiments.training.command_line import read_command_line
from experiments.training.config import GROUP_OF, GROUPS, TrainConfig
from experiments.training.groups import ModelOptions, PolicyTraining
from experiments.training.presets import PRESETS

ROOT = Path(__file__).parents[2]
RECORDED = sorted((ROOT / "experiments" / "records").glob("*/config.json"))


def read(*arguments: str) -> TrainConfig:
    with mock.patch.object(sys, "argv", ["train.py", *arguments]):
        return read_command_line(arguments)


def test_no_two_groups_have_an_option_of_the_same_name() -> None:
    assert len(GROUP_OF) == sum(len(dataclasses.fields(group)) for group in GROUPS.values())


@pytest.mark.parametrize("name", PRESETS)
def test_the_flat_form_is_the_config(name: str) -> None:
    config = PRESETS[name][1]
    stored = json.loads(json.dumps(config.flat(), default=str))
    assert TrainConfig.from_flat(stored) == config
    assert set(stored) <= set(GROUP_OF)
    assert read(name) == config


def test_options_are_replaced_by_their_names_alone() -> None:
    config = TrainConfig().replace(budget=5, embed_dim=32, reward="gain", out=Path("here"))
    assert (config.scan.budget, config.model.embed_dim) == (5, 32)
    assert config.policy == PolicyTraining(reward="gain")
    assert config.replace(iterations=0).policy is None
    assert config.replace(iterations=0).replace(iterations=7).policy == PolicyTraining(iterations=7)
    with pytest.raises(ValueError, match=r"unknown option 'budgt'; did you mean 'budget'"):
        config.replace(budgt=5)


def test_the_command_line_is_flat() -> None:
    config = read("demo", "--reward", "gain", "--embed-dim", "32", "--budget=5")
    assert config == PRESETS["demo"][1].replace(reward="gain", embed_dim=32, budget=5)


def test_iterations_say_whether_there_is_a_policy() -> None:
    assert read("smoke", "--iterations", "0").policy is None
    assert read("smoke", "--iterations=0", "--budget", "3").scan.budget == 3
    saim = read("saim", "--target", "pixels", "--iterations", "500", "--discount", "0.5")
    assert saim.policy == PolicyTraining(iterations=500, discount=0.5)
    assert read("saim", "--iterations", "0") == PRESETS["saim"][1]
    for arguments in (
        ("saim", "--reward=gain"),
        ("smoke", "--iterations", "0", "--reward", "gain"),
        ("smoke", "--reward", "gain", "--iterations=0"),
    ):
        with pytest.raises(ValueError, match=r"--reward: of no effect .* by --iterations 1000"):
            read(*arguments)


def test_a_preset_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_runs.py").write_text(
        "from experiments.training.config import TrainConfig\n"
        "from experiments.training.groups import ModelOptions\n"
        "big = TrainConfig(model=ModelOptions(embed_dim=256))\n"
        "def small():\n    return big.replace(embed_dim=8, iterations=0)\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert read("my_runs:big", "--depth", "2").model == ModelOptions(embed_dim=256, depth=2)
    assert read("my_runs:small").policy is None
    assert read("my_runs:small", "--iterations", "3").iterations == 3
    for name, message in (
        ("my_runs:number", "must be a TrainConfig or return one, got 3"),
        ("my_runs:none", "module my_runs has no 'none'"),
    ):
        with pytest.raises(ValueError, match=message):
            read(name)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
def test_configs_of_recorded_runs_load(path: Path) -> None:
    stored = json.loads(path.read_text())
    flat = json.loads(json.dumps(read_config(path.parent).flat(), default=str))
    assert stored.items() <= flat.items()


def test_options_of_no_policy_that_earlier_versions_wrote_are_left_out(tmp_path: Path) -> None:
    config = PRESETS["mae"][1].replace(out=tmp_path)
    write_config(config)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert "reward" not in stored
    idle = {**dataclasses.asdict(PolicyTraining(batch_size=8)), "iterations": 0}
    (tmp_path / "config.json").write_text(json.dumps({**stored, **idle, "micro_batches": 1}))
    assert read_config(tmp_path) == config.replace(micro_batches=1)


def test_a_config_that_does_not_load_names_the_version_that_reads_it(tmp_path: Path) -> None:
    write_config(TrainConfig().replace(out=tmp_path))
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**stored, "glimpses": 3}))
    with pytest.raises(ValueError, match=r"unknown option 'glimpses'.*the version that wrote it"):
        read_config(tmp_path)
    (tmp_path / "manifest.json").write_text('{"commit": "abc123"}')
    with pytest.raises(ValueError, match="its commit abc123 reads it"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("given", "size"), [("32", 32), ("32x64", (32, 64)), ("16x16", 16), ("None", None)]
)
def test_image_sizes_survive_the_command_line_and_the_disk(
    tmp_path: Path, given: str, size: object
) -> None:
    config = read("smoke", "--image-size", given, "--out", str(tmp_path))
    assert config.data.image_size == size
    write_config(config)
    assert read_config(tmp_path) == config
    for wrong in ("0", "32x", "32x0", "x", "1.5", "-8x8"):
        with pytest.raises(ValueError, match=f"such as 32x64; got {wrong}"):
            TrainConfig().replace(image_size=wrong)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("smoke", "--out", ""), "out must name a folder"),
        (("smoke", "--data", "cue", "--image-size", "64"), "image_size has no effect on cue"),
        (("smoke", "--data=cue", "--split-column=fold"), "split_column has no effect on cue"),
        (("saim", "--num-targets", "9"), "num_targets has no effect on recipe saim"),
        (("flickr8k", "--image-weight", "0", "--num-targets", "9"), "num_targets has no effect"),
        (("flickr8k", "--word-weight", "0", "--word-dropout", "0.3"), "word_dropout has no effect"),
        (
            (
                *("smoke", "--schedule=policy_only", "--policy-every=1"),
                *("--warmup-iterations=0", "--model-lr=0.1"),
            ),
            "model_lr has no effect on schedule policy_only without a warm-up",
        ),
        (
            ("smoke", "--schedule", "frozen", "--policy-lr", "0.1"),
            "policy_lr has no effect on schedule frozen, whose policy never learns",
        ),
        (
            ("smoke", "--schedule=policy_only", "--policy-every=1", "--random-share=0.3"),
            "random_share has no effect on schedule policy_only",
        ),
    ],
)
def test_what_nothing_reads_is_refused_where_it_is_given(
    words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(*words)
    assert read("igpt", "--data", "cue").data.image_size == 16


def test_a_folder_may_lie_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert str(read("smoke", "--out=~/runs/a").run.out) == "/home/me/runs/a"


def test_an_image_column_is_of_no_use_to_data_without_columns() -> None:
    assert TrainConfig().replace(data="a.parquet", image_column="photo").data.image_column
    with pytest.raises(ValueError, match="data must name images"):
        TrainConfig().replace(data=" ")
    with pytest.raises(ValueError, match="image_column has no effect on scenes"):
        TrainConfig().replace(image_column="photo")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "scenes is computed, and there is nothing to stream"),
        ({"data": "shards"}, "stream needs --image-size, to which"),
        (
            {"data": "shards", "image_size": 32, "agent": "maskable-ppo"},
            "stream needs --agent group",
        ),
    ],
)
def test_a_stream_says_what_it_lacks(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig().replace(stream=True, **options)

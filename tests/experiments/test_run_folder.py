"""Run folders: what is damaged is named, provenance survives kills, data are compared."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from image_files import numbered

from experiments import run_folder
from experiments.metrics_file import read_metrics, trim_metrics
from experiments.run_data import check_data
from experiments.run_folder import (
    check_folder,
    check_writable,
    git_commit,
    read_config,
    read_manifest,
    write_config,
    write_manifest,
)
from experiments.runs import load_run
from experiments.tables import json_line
from experiments.training import loop
from experiments.training.changes import record_changes, record_move
from experiments.training.command_line import read_command_line
from experiments.training.distributed import Processes
from experiments.training.locating import located
from experiments.training.loop import train
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer
from foveate.checkpoint import CHECKPOINT, OLD_CHECKPOINT, checkpoints_in, read_checkpoint
from foveate.data.splits import Fingerprint

SMALL = PRESETS["smoke"][1].replace(
    report=False, threads=1, iterations=0, warmup_iterations=4, evaluate_every=None
)
DATA = {"train": Fingerprint(72, 7200, "aa"), "test": Fingerprint(9, 900, "bb")}
GROWN = {**DATA, "train": Fingerprint(73, 7300, "cc")}


def test_a_damaged_line_of_metrics_is_named_and_nothing_after_it_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json_line({"iteration": at, "loss": at / 2}) for at in range(1, 5)]
    content = "\n".join([lines[0], "[3]", lines[2], lines[3], '{"iteration": 5, "lo'])
    path.write_text(content)
    assert [line["iteration"] for line in read_metrics(path)] == [1, 3, 4]
    assert capsys.readouterr().err == f"warning: line 2 of {path} is damaged and left out\n"
    with pytest.raises(ValueError, match=r"line 2 of .* is damaged"):
        trim_metrics(path, 3, 1)
    assert path.read_text() == content
    path.write_bytes(("\n".join(lines) + "\n").encode() + b"\xff\xfe")
    trim_metrics(path, 3, 1)
    assert path.read_text() == "\n".join(lines[:3]) + "\n"
    assert capsys.readouterr().err == ""


def test_lines_of_metrics_that_are_lost_or_there_twice_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.jsonl"

    def trimmed(*iterations: int) -> str:
        path.write_text("".join(f'{{"iteration": {at}}}\n' for at in iterations))
        trim_metrics(path, 25, 10)
        return capsys.readouterr().err

    assert trimmed(10, 20) == trimmed(10, 20, 25) == trimmed(5, 10, 20, 30) == ""
    for iterations, gap in (((), "0 and 26"), ((10,), "10 and 26"), ((20,), "0 and 20")):
        assert f"lacks lines between iterations {gap}" in trimmed(*iterations)
    with pytest.raises(ValueError, match="iteration 10 comes after 20"):
        trimmed(10, 20, 10, 20)


def test_lines_are_json_whatever_the_numbers() -> None:
    line = json_line({"iteration": 1, "loss": math.nan, "more": [math.inf, {"x": -math.inf}, 2.0]})
    assert json.loads(line, parse_constant=pytest.fail) == {
        "iteration": 1,
        "loss": None,
        "more": [None, {"x": None}, 2.0],
    }


@pytest.mark.parametrize("content", ["", '{"out": ', "[]", "3", "[" * 100_000, "\x00" * 50])
def test_damaged_configs_and_manifests_are_one_line(content: str, tmp_path: Path) -> None:
    for name, read in (("config.json", read_config), ("manifest.json", read_manifest)):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=f"{name} (is damaged|holds a)") as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)
        (tmp_path / name).unlink()


@pytest.mark.parametrize("name", ["commits", "data_changes", "changes", "source_changes"])
@pytest.mark.parametrize("value", [None, 3, {}])
def test_a_manifest_of_other_kinds_is_damaged(name: str, value: object, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({name: value}))
    with pytest.raises(ValueError, match=rf"manifest.json is damaged: {name} is no list"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("change", [{"model_lr": math.nan}, {"colour": 1}, {"budget": None}])
def test_configs_of_wrong_values_do_not_fit(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(change))
    with pytest.raises(ValueError, match="does not fit this version"):
        read_config(tmp_path)


def test_provenance_survives_a_kill_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SMALL.replace(out=tmp_path / "run", save_every=2)
    step = Trainer.step

    def killed(self: Trainer) -> dict[str, float]:
        if self.iteration == 3:
            raise KeyboardInterrupt
        return step(self)

    for at, commit in enumerate(["first", "second", "third"]):
        monkeypatch.setattr(loop, "git_commit", lambda commit=commit: commit)
        monkeypatch.setattr(Trainer, "step", step if commit == "third" else killed)
        try:
            train(config.replace(resume=at > 0))
        except KeyboardInterrupt:
            assert commit != "third"
        assert read_manifest(config.run.out)["commits"] == ["first", "second", "third"][: at + 1]
    finished = read_manifest(config.run.out)
    assert finished["iterations"] == 4
    # Killed between its last checkpoint and the completed manifest: nothing trained at a fourth.
    write_manifest(config.run.out, **{**finished, "iterations": 2})
    monkeypatch.setattr(loop, "git_commit", lambda: "fourth")
    train(config.replace(resume=True))
    again = read_manifest(config.run.out)
    assert (again["iterations"], again["commits"]) == (4, ["first", "second", "third"])


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_and_ends_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = SMALL.replace(out=tmp_path / "run", save_every=1)
    whole = train(config).state()["generator"].tolist()
    (config.run.out / CHECKPOINT).write_bytes(b"damaged")
    assert load_run(config.run.out).iteration == 3
    again = train(config.replace(resume=True))
    assert again.state()["generator"].tolist() == whole
    assert (config.run.out / f"{CHECKPOINT}.damaged").read_bytes() == b"damaged"
    assert [read_checkpoint(path)["iteration"] for path in checkpoints_in(config.run.out)] == [4, 3]
    lines = read_metrics(config.run.out / "metrics.jsonl")
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4]
    assert "of iteration 3 is taken instead" in capsys.readouterr().err


def test_checkpoints_of_the_version_before_are_resumed(tmp_path: Path) -> None:
    import torch

    config = SMALL.replace(out=tmp_path / "run")
    train(config.replace(stop_after=2))
    (newest,) = checkpoints_in(config.run.out)
    torch.save(read_checkpoint(newest), config.run.out / OLD_CHECKPOINT)
    newest.unlink()
    assert load_run(config.run.out).iteration == 2
    resumed, whole = train(config.replace(resume=True)), train(config.replace(out=tmp_path / "all"))
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name])


def test_a_checkpoint_of_another_kind_is_one_line(tmp_path: Path) -> None:
    from foveate.tensors import write_state

    config = SMALL.replace(out=tmp_path / "run")
    train(config.replace(stop_after=2))
    path = config.run.out / CHECKPOINT
    state = read_checkpoint(path)
    for change in ({"model_optimizers": [1, {}]}, {"model_optimizers": []}, {"iteration": -1}):
        write_state(path, {**state, **change})
        with pytest.raises(ValueError, match=r"does not fit its config|is of another run"):
            train(config.replace(resume=True))
    for change in ({"model": 3}, {"model_config": None}, {"image_shape": "x"}, {"iteration": None}):
        write_state(path, {**state, **change})
        with pytest.raises(ValueError, match="checkpoint"):
            load_run(config.run.out)
    assert not (config.run.out / "run.lock").exists()


def test_data_that_changed_are_refused_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    current: dict[str, Mapping[str, Fingerprint]] = {"data": DATA}
    prepare = Trainer.__init__

    def fingerprinted(self: Trainer, *arguments: Any) -> None:
        prepare(self, *arguments)
        self.images.held = replace(self.images.held, fingerprints=current["data"])

    monkeypatch.setattr(Trainer, "__init__", fingerprinted)
    config = SMALL.replace(out=tmp_path / "run")
    train(config.replace(stop_after=2))
    assert read_manifest(config.run.out)["splits"]["test"] == {
        "images": 9,
        "bytes": 900,
        "names": "bb",
    }
    assert check_data(config.run.out, DATA, changed_ok=False) == []
    assert check_data(config.run.out, None, changed_ok=False) == []
    current["data"] = GROWN
    with pytest.raises(ValueError, match=r"changed: train .*72.*73.*--data-changed-ok"):
        train(config.replace(resume=True))
    train(config.replace(resume=True, data_changed_ok=True))
    assert "warning: the data of" in capsys.readouterr().err
    manifest = read_manifest(config.run.out)
    assert manifest["splits"]["train"]["images"] == 73
    assert "after iteration 2: train" in manifest["data_changes"][0]


def test_paths_of_data_hold_in_any_folder_and_names_stay_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("images", "scenes", "CIFAR10"):
        (tmp_path / name).mkdir()
    for given, kept in (
        ("images", tmp_path / "images"),
        ("./images/", tmp_path / "images"),
        ("~/images", tmp_path / "images"),
        ("./scenes", tmp_path / "scenes"),
        ("scenes", "scenes"),
        ("CIFAR10", "CIFAR10"),
        ("hf://owner/images", "hf://owner/images"),
        ("missing", "missing"),
    ):
        assert located(SMALL.replace(data=given)).data.data == str(kept)
    assert located(SMALL.replace(data="CIFAR10")).data.data_root == tmp_path / "data"


def test_weights_that_a_run_names_hold_in_any_working_directory() -> None:
    for given, kept in (("runs/it", str(Path.cwd() / "runs" / "it")), ("cue", "cue")):
        config = SMALL.replace(
            start_from=given, iterations=2, reward="reducible", reward_reference=given
        )
        found = located(config)
        assert found.policy is not None
        assert (found.model.start_from, found.policy.reward_reference) == (kept, kept)
    average = located(SMALL.replace(iterations=2, reward="progress")).policy
    assert average is not None
    assert average.reward_reference == "average"


def test_kept_scans_are_made_anew_where_the_data_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {"warmup_iterations": 1, "iterations": 3, "policy_every": 3, "stop_after": 2}
    config = SMALL.replace(out=tmp_path / "run", **steps)
    train(config)
    again = config.replace(resume=True, stop_after=None)
    for changed in ([], ["train has 73 images, had 72"]):
        trainer = Trainer(again, Processes.started("cpu"))
        monkeypatch.setattr(loop, "check_data", lambda *_, changed=changed, **__: changed)
        loop.load_checkpoint(again, trainer)
        assert bool(trainer.scans) != bool(changed)


def test_where_data_lie_and_what_is_left_out_is_kept_when_a_run_goes_on(tmp_path: Path) -> None:
    config = SMALL.replace(out=tmp_path / "run", data="CIFAR10")
    write_config(config)
    assert record_move(config.replace(data_root=tmp_path / "there")) == [
        f"the data moved from {Path('data').absolute()} to {tmp_path / 'there'}"
    ]
    assert read_config(tmp_path / "run").data.data_root == tmp_path / "there"
    stream = config.replace(data="shards", stream=True, image_size=32, limit=None)
    write_config(stream)
    assert record_move(stream.replace(skip_damaged=True)) == []
    assert read_config(tmp_path / "run").data.skip_damaged
    (tmp_path / "run" / CHECKPOINT).touch()
    with pytest.raises(ValueError, match="has left out damaged images; go on with --skip-damaged"):
        check_folder(stream.replace(resume=True))


def test_an_option_that_changes_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = SMALL.replace(out=tmp_path / "run")
    write_config(config)
    record_changes(config.replace(resume=True, change_on_resume=("model_lr",)), 2)
    rate = config.optimization.model_lr
    assert capsys.readouterr().err == f"note: model_lr is {rate} already, and stays so\n"


@pytest.mark.parametrize("installed", [True, False])
def test_without_git_the_commit_is_unknown(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if installed:
        # Of a package inside another project's checkout nothing is known.
        monkeypatch.setattr(run_folder, "__file__", str(tmp_path / "experiments" / "run_folder.py"))
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() == "unknown"


def test_seeds_have_folders_of_their_own() -> None:
    def out(*options: str) -> str:
        return str(read_command_line(["demo", *options]).run.out)

    assert out() == out("--seed", "0") == "runs/demo"
    assert out("--seed", "1") == out("--seed=1", "--resume") == "runs/demo-seed1"
    assert out("--seed", "1", "--out", "runs/demo") == "runs/demo"
    assert str(read_command_line(["cue", "--seed", "3"]).run.out) == "runs/cue-seed3"


def test_folders_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="cannot write to"):
        check_writable(tmp_path / "missing")


def test_a_start_that_fails_leaves_no_folder_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("no login")

    config = SMALL.replace(out=tmp_path / "runs" / "run")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "RunLog", fail)
        with pytest.raises(ValueError, match="no login"):
            train(config)
    assert list(tmp_path.iterdir()) == []
    train(config)


def test_a_run_on_files_does_not_go_on_with_computed_images_and_keeps_where_its_data_are(
    tmp_path: Path,
) -> None:
    for name in ("a", "b"):
        for number in range(30):
            (tmp_path / name).mkdir(exist_ok=True)
            numbered(number, size=(16, 16)).save(tmp_path / name / f"{number}.png")
    config = SMALL.replace(out=tmp_path / "run", data=str(tmp_path / "a"), limit=None)
    train(config.replace(stop_after=2))
    with pytest.raises(ValueError, match=r"data was .*, is scenes"):
        train(config.replace(resume=True, data="scenes"))
    train(config.replace(resume=True, data=str(tmp_path / "b")))
    assert read_config(config.run.out).data.data == str(tmp_path / "b")
    (change,) = read_manifest(config.run.out)["data_changes"]
    assert "the data moved from" in change


def test_a_checkpoint_that_cannot_be_read_now_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SMALL.replace(out=tmp_path / "run")
    train(config.replace(stop_after=2))

    def stale(path: Path) -> Any:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    monkeypatch.setattr("foveate.checkpoint.read_state", stale)
    with pytest.raises(OSError, match="Stale"):
        train(config.replace(resume=True))
    assert (config.run.out / CHECKPOINT).exists()


def test_a_run_whose_config_is_gone_is_told_what_can_be_done(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).touch()
    with pytest.raises(ValueError, match=r"holds a run already; choose another --out$"):
        check_folder(SMALL.replace(out=tmp_path))
    with pytest.raises(ValueError, match=r"the config\.json of the run in .* is gone; put it back"):
        check_folder(SMALL.replace(out=tmp_path, resume=True))

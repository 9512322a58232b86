"""Checkpoints: what is read equals what was written, damage is named, and costs one checkpoint."""

from __future__ import annotations

import contextlib
import math
import pickle
import random
import resource
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foveate.checkpoint import (
    CHECKPOINT,
    OLD_CHECKPOINT,
    checkpoints_in,
    load_model,
    read_checkpoint,
    read_newest,
    save_checkpoint,
    save_model,
)
from foveate.tensors import read_outline, read_state, write_state

WEIGHT = torch.arange(12.0).view(3, 4)


def state_at(iteration: int) -> dict[str, Any]:
    """A state of every type, of which some tensors share memory."""
    return {
        "iteration": iteration,
        "model_config": {"image_size": (4, 4)},
        "model": {"a": WEIGHT, "b": WEIGHT.t(), "c": WEIGHT[1:], "d/e": WEIGHT},
        "d": {"e": WEIGHT.double()},
        "policy": {"p": torch.ones((), dtype=torch.bfloat16)},
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0)}, 1: {}},
            "groups": [{"lr": 1e-3, "betas": (0.9, 0.95), "foreach": None, "fused": False}],
        },
        "numpy": [np.float64(1 / 3), np.int64(2**62 + 1), np.bool_(True), np.arange(3)],
        "numbers": [2**70 + 1, -0.0, 0.1, math.inf, -math.inf, math.nan],
        "generator": torch.Generator().manual_seed(iteration).get_state(),
        "empty": [torch.zeros(0, 3), [], (), {}],
        "text": "é\n\u2028",
        0: 1,
        "0": 2,
    }


def assert_same(value: Any, wanted: Any) -> None:
    """Compare type by type."""
    assert type(value) is type(wanted)
    if isinstance(wanted, dict):
        assert list(value) == list(wanted)
        assert_same(list(value.values()), list(wanted.values()))
    elif isinstance(wanted, (list, tuple)):
        assert len(value) == len(wanted)
        for each, other in zip(value, wanted, strict=True):
            assert_same(each, other)
    elif isinstance(wanted, torch.Tensor):
        assert value.dtype == wanted.dtype
        assert torch.equal(value, wanted)
    else:
        np.testing.assert_array_equal(value, wanted, strict=not isinstance(wanted, (int, float)))


def test_a_state_comes_back_type_by_type(tmp_path: Path) -> None:
    write_state(path := tmp_path / "state", state_at(3))
    assert_same(read_state(path), state_at(3))
    assert read_outline(path)["model"]["b"] == "model/b"
    with pytest.raises(TypeError, match="a/0 is a set"):
        write_state(path, {"a": [{1, 2}]})
    assert [each.name for each in tmp_path.iterdir()] == ["state"], "no partial file is left"


def test_no_damage_goes_unnoticed(tmp_path: Path) -> None:
    write_state(path := tmp_path / CHECKPOINT, state_at(3))
    whole, choose = path.read_bytes(), random.Random(0)
    damaged = [whole[: choose.randrange(len(whole))] for _ in range(30)]
    for _ in range(120):
        flipped, at = bytearray(whole), choose.randrange(8 * len(whole))
        flipped[at // 8] ^= 1 << at % 8
        damaged.append(bytes(flipped))
    for content in [b"", b"nonsense", whole + b"x", *damaged]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a readable foveate checkpoint") as caught:
            read_checkpoint(path)
        assert "\n" not in str(caught.value)
    for wrong in ([1, 2], {"model": {}}, None):
        write_state(path, wrong)
        with pytest.raises(ValueError, match="no proper model_config"):
            read_checkpoint(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="not a readable"):
        read_checkpoint(path)


class Malicious:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_files_of_torch_are_read_but_run_no_code_and_have_their_checksums(tmp_path: Path) -> None:
    path = tmp_path / OLD_CHECKPOINT
    old = {"iteration": 3, "model_config": {}, "model": {"a": WEIGHT}}
    torch.save(old, path)
    assert_same(read_newest(tmp_path).state, old)
    content = bytearray(path.read_bytes())
    at = content.index(WEIGHT.numpy().tobytes())
    content[at + 7] ^= 0x40  # An exponent.
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        read_checkpoint(path)
    torch.save({**old, "bad": Malicious(tmp_path / "ran")}, path)
    with pytest.raises(ValueError, match="not a readable"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(Malicious(tmp_path / "ran")))
    with pytest.raises(ValueError, match="not a readable"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("something", "else")
    with pytest.raises(ValueError, match="not a readable"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_checkpoint_costs_the_iterations_since_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for iteration in (200, 400, 600):
        save_checkpoint(tmp_path, state_at(iteration))
    newest, earlier = checkpoints_in(tmp_path)
    assert (newest.name, earlier.name) == (CHECKPOINT, "checkpoint-000400.safetensors")
    assert read_newest(tmp_path).state["iteration"] == 600
    newest.write_bytes(newest.read_bytes()[:-1])
    found = read_newest(tmp_path)
    assert (found.state["iteration"], found.damaged) == (400, (newest,))
    (line,) = capsys.readouterr().err.splitlines()
    assert str(newest) in line
    assert "of iteration 400 is taken instead" in line
    earlier.write_bytes(b"")
    with pytest.raises(ValueError, match="nor is any of the 1 before it"):
        read_newest(tmp_path)


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_checkpoints_are_kept_as_asked(keep: int, tmp_path: Path) -> None:
    torch.save(state_at(100)["model"], tmp_path / OLD_CHECKPOINT)
    for iteration in (200, 400, 400, 600, 800):
        save_checkpoint(tmp_path, state_at(iteration), keep)
    kept = [read_checkpoint(path)["iteration"] for path in checkpoints_in(tmp_path)]
    assert kept == [800, 600, 400][:keep]


@pytest.mark.parametrize("part", ["model", "policy"])
def test_weights_that_are_not_finite_are_never_written(part: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state_at(2))
    bad = {**state_at(4), part: {"w": torch.tensor([0.0, math.nan])}}
    with pytest.raises(ValueError, match=rf"{part}\.w is not finite after iteration 4"):
        save_checkpoint(tmp_path, bad)
    assert read_newest(tmp_path).state["iteration"] == 2


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 1,000 bytes, not even the one that pytest's output goes to."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    kept = tmp_path / CHECKPOINT
    kept.write_bytes(b"precious")
    with pytest.raises(ValueError, match="File too large"), full_disk():
        save_checkpoint(tmp_path, state_at(2))
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"precious"]
    with pytest.raises(ValueError, match="cannot write"):
        save_checkpoint(tmp_path / "vanished", state_at(2))


def test_a_model_is_saved_and_loaded_by_path(tmp_path: Path) -> None:
    model = load_model("cue")
    save_model(model, tmp_path / "cue.any")
    again = load_model(tmp_path / "cue.any")
    assert_same(dict(again.state_dict()), dict(model.state_dict()))
    assert again.config == model.config


def test_a_folder_that_is_called_as_a_model_that_ships_is_told_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    load_model("cue")
    assert not capsys.readouterr().err
    Path("cue").mkdir()
    save_model(load_model("scenes_blind"), Path("cue/checkpoint.safetensors"))
    assert load_model("cue").config.patch_size == 2
    assert (
        "cue is the model that ships; the folder of that name is ./cue" in capsys.readouterr().err
    )
    assert load_model("./cue").config.patch_size == 4

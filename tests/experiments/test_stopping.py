"""Signals: the first ends the iteration with a checkpoint, the second acts at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from experiments.cli import Stopped, lacking_memory, run
from experiments.metrics_file import read_metrics
from experiments.run_folder import read_manifest
from experiments.training.distributed import Processes
from experiments.training.loop import train
from experiments.training.presets import PRESETS
from experiments.training.stopping import NAMES, StopSignals
from experiments.training.trainer import Trainer
from foveate.checkpoint import read_newest

ROOT = Path(__file__).parents[2]
SMALL = PRESETS["smoke"][1].replace(
    report=False, threads=1, iterations=0, warmup_iterations=4, evaluate_every=None
)


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_leaves_a_checkpoint_from_which_the_run_ends_as_if_without(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SMALL.replace(out=tmp_path / "run", save_every=100)
    number, step = int(getattr(signal, name)), Trainer.step

    def signaled(self: Trainer) -> dict[str, float]:
        if self.iteration == 2:
            os.kill(os.getpid(), number)
        return step(self)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", signaled)
        with pytest.raises(Stopped, match="after iteration 3 of 4, with a checkpoint") as caught:
            train(config)
    assert caught.value.number == number
    assert signal.getsignal(number) == before
    assert read_newest(config.run.out).state["iteration"] == 3
    assert read_manifest(config.run.out)["iterations"] == 3
    resumed = train(config.replace(resume=True))
    whole = train(config.replace(out=tmp_path / "whole"))
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name])
    assert [line["iteration"] for line in read_metrics(config.run.out / "metrics.jsonl")] == [
        1,
        2,
        3,
        4,
    ]


def test_the_exit_code_names_the_signal_and_the_line_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(config: None) -> None:
        raise Stopped(signal.SIGUSR1, "stopped by SIGUSR1")

    monkeypatch.setattr(sys, "argv", ["experiments/train.py", "demo", "--data", "my images"])
    with pytest.raises(SystemExit) as caught:
        run(stop, None)
    assert caught.value.code == 128 + signal.SIGUSR1
    wanted = "go on with: python -m experiments.train demo --data 'my images' --resume\n"
    assert capsys.readouterr().err.endswith(wanted)


def test_ctrl_c_in_an_evaluation_speaks_of_no_training(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(config: None) -> None:
        raise KeyboardInterrupt

    for script, line in (("compare", "interrupted\n"), ("train", "with --resume\n")):
        monkeypatch.setattr(sys, "argv", [f"experiments/{script}.py"])
        with pytest.raises(SystemExit) as caught:
            run(interrupted, None)
        assert caught.value.code == 130
        assert capsys.readouterr().err.endswith(line)


@pytest.mark.parametrize(
    ("mistake", "is_said"),
    [
        (MemoryError("Unable to allocate 9 GiB"), True),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 9 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9"), True),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_want_of_memory_is_one_line(mistake: Exception, is_said: bool) -> None:
    said = lacking_memory(mistake)
    assert (said is not None) == is_said
    assert said is None or ("not enough memory" in said and "\n" not in said)


def test_a_second_signal_acts_at_once_but_not_an_echo_of_the_first() -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with StopSignals(has_echo=True) as signals:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_worker_leaves_the_decision_to_its_parent() -> None:
    with StopSignals():
        worker = os.fork()
        if worker == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(worker, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM


def test_all_processes_stop_at_the_iteration_in_which_one_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Processes, "largest", lambda self, value: value or int(signal.SIGTERM))
    with pytest.raises(Stopped, match="stopped by SIGTERM after iteration 1 of 4"):
        train(SMALL.replace(out=tmp_path / "run"))


def test_ctrl_c_during_imports_is_one_line() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "experiments.train", "demo"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr is not None
        for line in started.stderr:
            if line.endswith("| experiments\n"):
                started.send_signal(signal.SIGINT)
                break
        said = [line for line in started.stderr if not line.startswith("import time:")]
    assert said == ["interrupted\n"]


LAUNCHED = """
import subprocess, sys, time
child = "from experiments.training.stopping import end_with_launcher as end; import time; end()"
child += "; print('on', flush=True); time.sleep(60)"
print(subprocess.Popen([sys.executable, "-c", child]).pid)
sys.stdout.flush()
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "getppid"), reason="needs parents")
def test_a_process_ends_when_what_launched_it_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHED], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stdout is not None
        assert int(launcher.stdout.readline())
        assert launcher.stdout.readline() == "on\n"
        launcher.kill()
        until = time.monotonic() + 20
        # The pipe is closed once the child is gone as well.
        assert launcher.stdout.read() == ""
        assert time.monotonic() < until

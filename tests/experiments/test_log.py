"""What a run says while it trains can be read by programs, and where there is no terminal."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from pathlib import Path

import pytest

from experiments.cli import LastingStream, one_line, print_anything
from experiments.training.command_line import read_command_line
from experiments.training.log import RunLog
from experiments.training.presets import PRESETS
from experiments.training.wandb_run import summary


def test_metrics_are_json_whatever_was_measured_and_a_line_each_without_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = PRESETS["smoke"][1].replace(out=tmp_path, log_every=2)
    with RunLog(config, 0, 0.0, writes=True) as log:
        for at in range(1, 5):
            measured = {"loss": 0.25, "skipped_steps": 1}
            log.advance(
                at, measured, {"validation_loss": math.nan} if at == 2 else {}, is_last=False
            )
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()

    def refuse(number: str) -> None:
        raise AssertionError(f"{number} is no JSON")

    first, second = (json.loads(line, parse_constant=refuse) for line in lines)
    assert first["validation_loss"] is None
    assert (second["iteration"], second["loss"]) == (4, 0.25)
    said = capsys.readouterr().err
    assert "\r" not in said
    assert [line.split(", images/s")[0] for line in said.splitlines()] == [
        f"{tmp_path.name}: iteration 2/8, loss 0.250, skipped_steps 1, validation_loss nan",
        f"{tmp_path.name}: iteration 4/8, loss 0.250, skipped_steps 1",
    ]


def test_a_standard_error_that_was_closed_beforehand_stops_no_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    print_anything()
    print("a line", file=sys.stderr, flush=True)
    sys.stderr.close()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("end", ["full", "gone"])
def test_lines_that_cannot_be_written_stop_no_run(
    end: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk of logs fills up, or the reader of a pipe leaves."""
    if end == "full":
        file = Path("/dev/full").open("w")
    else:
        reader, writer = os.pipe()
        os.close(reader)
        file = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, stream, file)
    print_anything()
    print_anything()
    lasting = getattr(sys, stream)
    for _ in range(3):
        print("a line", file=lasting, flush=True)
    assert isinstance(lasting, LastingStream)
    assert lasting.stream is file
    assert not lasting.isatty()
    assert (lasting.encoding, lasting.fileno()) == (file.encoding, file.fileno())
    with contextlib.suppress(OSError):
        file.close()


@pytest.mark.parametrize(
    ("argument", "value"),
    [("--augment=True", True), ("--augment=false", False), ("--no-augment", False)],
)
def test_flags_are_read_as_sweeps_write_them(argument: str, value: bool) -> None:
    config = read_command_line(["smoke", argument, "--limit=None", "--embed_dim=32"])
    assert config.data.augment == value
    assert config.data.limit is None
    assert config.model.embed_dim == 32


@pytest.mark.parametrize("dash", ["─", "-"])
def test_a_complaint_is_one_line_of_words_in_every_terminal(dash: str) -> None:
    bar = dash * 40
    box = f" Parsing error \n{bar}\n Error parsing --budget: invalid 'x' \n{bar}\n"
    assert one_line(box) == "--budget: invalid 'x'"


def test_numbers_of_a_report_are_named_by_their_places() -> None:
    content = {"orders": {"policy": {"auc": 0.5, "auc_ci95": [0.4, 0.6]}}, "kind": "compare"}
    assert summary(content, "compare") == {"compare/orders/policy/auc": 0.5}


def test_a_project_needs_weights_and_biases() -> None:
    with pytest.raises(ValueError, match="need --wandb online or offline"):
        PRESETS["smoke"][1].replace(wandb_project="mine")

"""Tiny training runs of every kind, and whether one that was cut off ended as one that was not."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import shutil
import socket
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .pictures import colored, encoded
from .process import Call, Done, Lost, Running, command, python, start, start_cold

SMALL = (
    *("smoke", "--no-report", "--limit", "64", "--warmup-iterations", "4", "--iterations", "8"),
    *("--evaluate-every", "6", "--threads", "1"),
)
UNSCANNED = ("--budget", "12")
"""The default: recipes that nothing scans take no other."""
PALETTE = ("--prefix-share", "0", "--periphery", "0", "--decoder-depth", "0")
STREAMED = ("--limit", "None", "--stream", "--stream-workers", "2", "--image-size", "16")


@dataclass(frozen=True)
class Kind:
    """A kind of run."""

    name: str
    options: tuple[str, ...] = ()
    processes: int = 1
    """Processes that train together."""
    data: str | None = None
    """Shards that it streams: parquet or tar; None = composed scenes."""

    def arguments(self, shared: Path) -> tuple[str, ...]:
        """Return preset and options; the shards lie in the shared folder."""
        data = () if self.data is None else ("--data", str(shared / self.data))
        return (*SMALL, *data, *self.options)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("native"),
        Kind("native every 2nd", ("--policy-every", "2", "--augment")),
        Kind("maskable-ppo", ("--agent", "maskable-ppo")),
        Kind("streamed parquet", STREAMED, data="parquet"),
        Kind("streamed tar", (*STREAMED, "--iterations", "0"), data="tar"),
        Kind("recipe saim", ("--recipe", "saim", "--iterations", "0", *UNSCANNED)),
        Kind("recipe digpt", ("--recipe", "digpt", "--iterations", "0", *UNSCANNED)),
        Kind(
            "recipe autonat",
            ("--recipe", "autonat", "--iterations", "0", *UNSCANNED, *PALETTE),
        ),
        Kind(
            "sharded",
            ("--shard", "--model-optimizer", "adamw", "--micro-batches", "2"),
            processes=2,
        ),
    )
}


_one_at_a_time = threading.Lock()


def write_shards(shared: Path) -> None:
    """Write the shards that the streaming runs read."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    sizes = {"train": (40, 40, 40), "val": (24,), "test": (24,)}
    for split, numbers in sizes.items():
        for shard, number in enumerate(numbers):
            pictures = [encoded(colored(i + 100 * shard, size=(16, 16))) for i in range(number)]
            labels = [i % 3 for i in range(number)]
            name = f"{split}-{shard:05}-of-{len(numbers):05}"
            (shared / "parquet").mkdir(parents=True, exist_ok=True)
            cells = [{"bytes": b, "path": f"{name}_{i}.png"} for i, b in enumerate(pictures)]
            table = pa.table({"image": pa.array(cells, kind), "label": pa.array(labels)})
            pq.write_table(table, shared / "parquet" / f"{name}.parquet", row_group_size=16)
            write_tar(
                shared / "tar" / f"{split}-{shard:06}.tar",
                [
                    (f"{i:05}.{suffix}", content)
                    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True))
                    for suffix, content in (("png", picture), ("cls", str(label).encode()))
                ],
            )


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write a tar file of named contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


# --- start and finish


def begin(
    kind: Kind, shared: Path, folder: Path, *more: str | Path, faults: Iterable[Call] = ()
) -> list[Running]:
    """Start a run into ``folder/run``, one process or several."""
    out = more if "--out" in more else ("--out", folder / "run", *more)
    call = command("train", *kind.arguments(shared), *out)
    if kind.processes == 1:
        return [start(call, folder, faults=faults)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    return [
        start(
            call,
            folder,
            faults=faults,
            environment={
                **common,
                **dict.fromkeys(("RANK", "LOCAL_RANK"), str(index)),
                "WORLD_SIZE": str(kind.processes),
            },
        )
        for index in range(kind.processes)
    ]


def begin_torchrun(kind: Kind, shared: Path, folder: Path, *more: str | Path) -> Running:
    """Start a run by torchrun, as a user does."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
    arguments = (*kind.arguments(shared), "--out", str(folder / "run"), *map(str, more))
    return start_cold(
        python(*launcher, str(kind.processes), "-m", "experiments.train", *arguments), folder
    )


def resumes(out: Path) -> tuple[str, ...]:
    """Return the option to go on; a run that was killed before its config begins anew."""
    return ("--resume",) if (out / "config.json").is_file() else ()


def finish(kind: Kind, shared: Path, folder: Path, *more: str | Path) -> Done:
    """Continue a run to its end; it must end well."""
    dones = [
        running.wait() for running in begin(kind, shared, folder, *resumes(folder / "run"), *more)
    ]
    for done in dones:
        done.well()
    return dones[0]


def half_run(kind: Kind, shared: Path, folder: Path) -> Path:
    """Put the first half of a run into ``folder/run``; it is trained once, and copied."""
    made = shared / f"half {kind.name}"
    with _one_at_a_time:
        if not made.exists():
            place = Path(tempfile.mkdtemp(prefix="half_", dir=shared))
            finish(kind, shared, place, "--stop-after", "6")
            place.rename(made)
    shutil.copytree(made / "run", folder / "run")
    return folder / "run"


# --- what a run has come to


_references: dict[tuple[Kind, Path], dict[str, Any]] = {}


def reference(kind: Kind, shared: Path) -> dict[str, Any]:
    """Return what an uninterrupted run comes to."""
    with _one_at_a_time:
        if (kind, shared) not in _references:
            folder = Path(tempfile.mkdtemp(prefix="reference_", dir=shared))
            finish(kind, shared, folder)
            _references[kind, shared] = outcome(folder / "run", folder)
    return _references[kind, shared]


def outcome(out: Path, folder: Path) -> dict[str, Any]:
    """Return weights (a digest), metrics without times, and the files of a run."""
    path = folder / f"outcome_{os.urandom(4).hex()}.json"
    start(functools.partial(_write_digest, out, path), folder).wait().well()
    lines = [strict_json(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": json.loads(path.read_text()),
        "metrics": [{k: v for k, v in line.items() if k != "seconds"} for line in lines],
        "files": files_of(out),
    }


def files_of(out: Path) -> list[str]:
    """Return the files of a run, but for damaged ones that were set aside.

    Which earlier checkpoints are kept depends on where it stopped.
    """
    others = r"\..*|checkpoint-\d+\.\w+|.*\.damaged"
    return sorted(each.name for each in out.iterdir() if not re.fullmatch(others, each.name))


def _write_digest(out: Path, path: Path) -> None:
    """Write a digest of model and policy of a run, and whether all weights are finite."""
    from experiments.cli import run

    def digest(_: None) -> None:
        from experiments.runs import load_run

        loaded = load_run(out)
        weights = {**loaded.model.state_dict(prefix="model."), **loaded.policy.state_dict()}
        summed = hashlib.sha256()
        for name in sorted(weights):
            summed.update(name.encode() + weights[name].contiguous().view(-1).numpy().tobytes())
        finite = all(bool(w.isfinite().all()) for w in weights.values() if w.is_floating_point())
        content = {"sha256": summed.hexdigest(), "finite": finite, "iteration": loaded.iteration}
        path.write_text(json.dumps(content))

    run(digest, None)


def strict_json(line: str) -> Any:
    """Read JSON as other programs do: without NaN and Infinity."""

    def refuse(token: str) -> Any:
        raise Lost(f"metrics hold {token}, which is no JSON")

    try:
        return json.loads(line, parse_constant=refuse)
    except ValueError as reason:
        raise Lost(f"a line of metrics is no JSON: {line[:80]!r}") from reason


def check_same(kind: Kind, shared: Path, folder: Path) -> None:
    """Check that the run in ``folder/run`` ended bit by bit as one that was never cut off."""
    expected, found = reference(kind, shared), outcome(folder / "run", folder)
    for part in ("weights", "metrics", "files"):
        if expected[part] != found[part]:
            differs = found[part] if part == "files" else ""
            raise Lost(f"{part} differ from those of an uninterrupted run {differs}".strip())
    check_manifest(folder / "run")


def write_commit(path: Path) -> None:
    """Write the commit of the working tree."""
    from experiments.run_folder import git_commit

    path.write_text(git_commit())


def check_manifest(out: Path) -> None:
    """Check that the run says what it was trained at."""
    path = out / "manifest.json"
    if not path.is_file() or not json.loads(path.read_text()).get("commit"):
        raise Lost("the run has no manifest with its commit")


def lines_of(out: Path) -> int:
    """Number of lines of the metrics so far."""
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def has_lines(out: Path, number: int) -> Callable[[], bool]:
    """Return a question: does the run have so many lines of metrics?"""
    return lambda: lines_of(out) >= number

"""Look-ups: training, its report and all evaluations ask no host for anything."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .faults import watch_network
from .plan import Plan, Trial
from .process import Done, Lost, Skipped, command, python, start, start_cold
from .runs import SMALL

LOCAL = re.compile(r'inet_addr\("127\.|inet6, "::1"|AF_UNIX|AF_NETLINK|AF_UNSPEC')
CALLS = "connect,sendto,sendmsg,sendmmsg"


def trials(plan: Plan) -> Iterator[Trial]:
    """List what is watched."""
    yield Trial("network", "training, wandb disabled", partial(watched, "disabled", False))
    if plan.short:
        return
    yield Trial("network", "training with a report", partial(watched, "disabled", True))
    yield Trial("network", "training, wandb offline", partial(watched, "offline", False))
    for mode in ("disabled", "offline"):
        yield Trial("network", f"system calls, wandb {mode}", partial(traced, mode))


def watched(mode: str, report: bool, folder: Path) -> None:
    """Train, and evaluate in every way, while look-ups and connections are written down."""
    log = folder / "network"
    options = (*SMALL, "--wandb", mode, "--report" if report else "--no-report")
    calls = [command("train", *options, "--out", folder / "run")]
    if report:
        calls += [command(name, "--run", folder / "run") for name in ("probe", "scanpaths")]
    for call in calls:
        start(call, folder, faults=[watch_network(log)]).wait().well()
    if log.exists():
        raise Lost(f"asked the network: {log.read_text().splitlines()[0]}")


def traced(mode: str, folder: Path) -> None:
    """Train under strace, which sees the programs that Python starts as well."""
    if shutil.which("strace") is None:
        raise Skipped("there is no strace")
    log = folder / "calls"
    strace = ["strace", "-f", "-qq", "-s", "200", "-e", f"trace={CALLS}", "-o", str(log)]
    options = (*SMALL, "--wandb", mode, "--out", str(folder / "run"))
    trained = start_cold([*strace, *python("-m", "experiments.train", *options)], folder)
    done: Done = trained.wait()
    if "ptrace" in done.err and done.code:
        raise Skipped("tracing is not permitted")
    done.well()
    for line in log.read_text(errors="replace").splitlines():
        if ("AF_INET" in line or "htons(53)" in line) and not LOCAL.search(line):
            raise Lost(f"reached out: {line[:160]}")

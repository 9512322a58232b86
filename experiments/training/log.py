"""What a run says while it trains: metrics.jsonl, a progress bar or lines, and Weights & Biases."""

from __future__ import annotations

import json
import math
import sys
import time
from types import TracebackType

import torch
from tqdm import tqdm

from experiments.training.config import TrainConfig
from experiments.training.wandb_run import open_run
from experiments.training.who_learns import images_learned


class RunLog:
    """Writes a line every ``log_every`` iterations, where validated, and at the end.

    Processes other than the first one write nothing. ``entropy_max`` stands beside ``entropy``:
    what it would be if the policy found all fixations equally good, nats.
    """

    def __init__(
        self,
        config: TrainConfig,
        first: int,
        seconds_before: float,
        *,
        writes: bool,
        entropy_max: float | None = None,
    ) -> None:
        self.config = config
        self.entropy_max = entropy_max
        self.writes = writes
        self.started = time.perf_counter() - seconds_before
        self.logged, self.logged_at = time.perf_counter(), first
        self.validated: dict[str, float] = {}
        # A bar draws over itself; what is no terminal gets a line per line of metrics.jsonl.
        self.has_bar = sys.stderr.isatty()
        self.progress = tqdm(
            total=config.total_iterations,
            initial=first,
            desc=config.run.out.name,
            unit="it",
            disable=not writes or not self.has_bar,
        )
        self.wandb = open_run(config) if writes else None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.close()
        if self.wandb is not None and error is None:
            self.wandb.finish()

    @property
    def seconds(self) -> float:
        """Training time so far, with that of the run's earlier parts, s."""
        return time.perf_counter() - self.started

    def advance(
        self,
        at: int,
        measured: dict[str, float],
        validated: dict[str, float],
        *,
        is_last: bool,
    ) -> None:
        """Count one iteration.

        Args:
            at: iterations so far.
            measured: what the trainer measures.
            validated: what validation measured after this iteration; empty if it did not.
            is_last: whether the loop ends here.
        """
        self.progress.update()
        self.validated = validated or self.validated
        if self.entropy_max is not None and "entropy" in measured:
            measured = {**measured, "entropy_max": self.entropy_max}
        if not self.writes or not (at % self.config.run.log_every == 0 or validated or is_last):
            return
        numbers = {"iteration": at, "seconds": round(self.seconds, 2), **measured, **validated}
        # JSON knows no numbers but finite ones.
        line = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
        with (self.config.run.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        # A bar is what is known now; a line is what was measured by then.
        self._show(at, {**measured, **(self.validated if self.has_bar else validated)})
        if self.wandb is not None:
            self.wandb.log(line, step=at)

    def _show(self, at: int, measured: dict[str, float]) -> None:
        shown = {k: f"{v:.3f}" if isinstance(v, float) else str(v) for k, v in measured.items()}
        shown["images/s"] = f"{self._images_per_s(at):.0f}"
        if self.has_bar:
            self.progress.set_postfix(shown)
            return
        values = ", ".join(f"{name} {value}" for name, value in shown.items())
        name, total = self.config.run.out.name, self.config.total_iterations
        sys.stderr.write(f"{name}: iteration {at}/{total}, {values}\n")

    def _images_per_s(self, at: int) -> float:
        """Images that the model learned from since the last line, per second."""
        now = time.perf_counter()
        speed = images_learned(self.config, self.logged_at, at) / (now - self.logged)
        self.logged, self.logged_at = now, at
        return speed


def peak_memory_mb(device: str) -> float | None:
    """Most memory in use so far: of the process on a CPU, of torch's tensors on a GPU.

    Windows does not say: None.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return None
    import resource

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if sys.platform == "darwin" else 2**10)

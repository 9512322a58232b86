"""What a run says while it trains: metrics.jsonl, a progress bar, and Weights & Biases."""

from __future__ import annotations

import json
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

from experiments.training.config import TrainConfig


class RunLog:
    """Writes a line every ``log_every`` iterations, where validated, and at the end.

    Processes other than the first one write nothing.
    """

    def __init__(
        self, config: TrainConfig, first: int, seconds_before: float, *, writes: bool
    ) -> None:
        self.config = config
        self.writes = writes
        self.started = time.perf_counter() - seconds_before
        self.logged, self.logged_at = time.perf_counter(), first
        self.validated: dict[str, float] = {}
        self.progress = tqdm(
            total=config.total_iterations,
            initial=first,
            desc=config.run.out.name,
            unit="it",
            disable=not writes,
        )
        self.wandb: Any = None
        if writes and config.run.wandb != "disabled":
            import wandb  # Seconds, and an extra.

            self.wandb = wandb.init(
                project="foveate",
                mode=config.run.wandb,
                dir=config.run.out,
                config=config.flat(),
            )

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
        if not self.writes or not (at % self.config.run.log_every == 0 or validated or is_last):
            return
        line = {"iteration": at, "seconds": round(self.seconds, 2), **measured, **validated}
        with (self.config.run.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        shown = {
            k: f"{v:.3f}" if isinstance(v, float) else v
            for k, v in {**measured, **self.validated}.items()
        }
        self.progress.set_postfix({**shown, "images/s": f"{self._images_per_s(at):.0f}"})
        if self.wandb is not None:
            self.wandb.log(line, step=at)

    def _images_per_s(self, at: int) -> float:
        """Images that the model learned from since the last line, per second."""
        config = self.config
        warming = at <= config.optimization.warmup_iterations
        learned = config.num_learned * (config.optimization.micro_batches or 1)
        images = config.optimization.warmup_batch_size if warming else learned
        now = time.perf_counter()
        speed = images * (at - self.logged_at) / (now - self.logged)
        self.logged, self.logged_at = now, at
        return speed

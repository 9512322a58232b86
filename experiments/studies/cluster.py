"""Jobs on a cluster, by way of submitit (extra ``cluster``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.studies.job import FAILED, NOT_REQUEUED, STOPPED, run_job
from experiments.studies.job_log import ERROR, LOG
from experiments.studies.runner import Running, Starter

Cluster = Literal["slurm", "local"]
STOPPED_STATES = ("CANCELLED", "TIMEOUT", "PREEMPTED", "INTERRUPTED")
"""How states of jobs begin that were ended from outside: a later call goes on with them. The last
is submitit's word for its own processes."""


@dataclass(frozen=True)
class Submitted:
    """A job that was handed in."""

    job: Any
    folder: Path

    @property
    def exitcode(self) -> int | None:
        """Return how it ended; None = it runs, or waits for a machine."""
        if not self.job.done():
            return None
        try:
            return int(self.job.result())
        except Exception as reason:
            # The job itself could not speak any more: its time was up, or its machine failed.
            stopped = str(self.job.state).startswith(STOPPED_STATES) or NOT_REQUEUED in str(reason)
            with (self.folder / LOG).open("a") as log:
                said = f"the cluster says: {' '.join(str(reason).split())}\n"
                log.write(said if stopped else f"{ERROR}{said}")
            return STOPPED if stopped else FAILED

    def terminate(self) -> None:
        """Ask it to stop, be it that it waits."""
        self.job.cancel(check=False)

    def kill(self) -> None:
        """Ask again: clusters kill what does not stop."""
        self.terminate()


def start_on(
    cluster: Cluster,
    folder: Path,
    *,
    partition: str | None = None,
    job_minutes: int = 120,
    threads: int | None = None,
    gpu: bool = False,
) -> Starter:
    """Return what hands jobs to a cluster.

    Args:
        cluster: ``slurm``, or ``local`` for processes that submitit keeps here.
        folder: for submitit's own files; all machines must see it.
        partition: of Slurm; None = its default.
        job_minutes: after which the cluster ends a job; the next call goes on.
        threads: CPU cores of each job; None = 1.
        gpu: whether each job gets one.

    Raises:
        ValueError: submitit is not installed, or there is no such cluster here.
    """
    try:
        import submitit
    except ImportError as reason:
        raise ValueError(
            "a cluster needs submitit: pip install 'foveate[cluster]', or leave out --cluster"
        ) from reason
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    except RuntimeError as reason:
        raise ValueError(f"no {cluster} here: {reason}; leave out --cluster") from reason
    executor.update_parameters(
        name="foveate",
        timeout_min=job_minutes,
        cpus_per_task=threads or 1,
        **({"gpus_per_node": 1} if gpu else {}),
        **({"slurm_partition": partition} if partition is not None else {}),
    )

    def start(job: Path) -> Running:
        return Submitted(executor.submit(run_job, job.resolve()), job)

    return start

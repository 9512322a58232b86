"""Train a fixation policy and an any-order transformer jointly.

    python -m experiments.train demo                     scenes, 6 to 13 minutes on a CPU
    python -m experiments.train fashion_mnist --data PATH
    python -m experiments.train my_runs:big              a TrainConfig in your own my_runs.py

Warm-up on random orders; then every ``--policy-every``-th iteration scans a batch of images with
the policy (G scans an image) and updates it by the group-relative policy gradient; every iteration
updates the model on the policy's last scans and on random orders.
"""

from __future__ import annotations

from experiments.cli import main_with_reader
from experiments.training.command_line import read_command_line
from experiments.training.config import TrainConfig


def main(config: TrainConfig) -> None:
    """Train as configured (the heavy imports wait until the command line is known to be good)."""
    from experiments.training.loop import train

    trainer = train(config)
    done = trainer.iteration == config.total_iterations
    if config.run.report and done and trainer.processes.is_first:
        from experiments.evaluation.report import report
        from experiments.training.wandb_run import log_results

        report(config.run.out, device=config.run.device, data_changed_ok=config.run.data_changed_ok)
        if config.run.wandb != "disabled":
            log_results(config)


if __name__ == "__main__":
    main_with_reader(main, read_command_line)

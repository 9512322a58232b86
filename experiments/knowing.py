"""Is an image known better after k fixations of the policy, and does its order teach the model?

    python -m experiments.knowing demo --seeds 0 1 2
    python -m experiments.knowing cifar10 --data PATH --periphery 0 --out runs/blind

PRESET and further options are those of experiments.train. The options below are the study's own.
For every seed three runs are trained into the output folder, all with as many model updates:

``policy_SEED`` learns model and policy jointly. ``random_SEED`` learns its model from uniformly
random scans instead. ``random_then_policy_SEED`` learns a policy on that model, which stays as it
is. With ``--no-teaching`` the first is trained alone. Finished runs are kept, others resumed, so
processes with different ``--seeds`` may share a folder; the last call, with all seeds, writes the
tables.

Seeing: one model, and what it knows after fixations of the policy and of other orders. Teaching:
the 2 x 2 of models trained on random scans or the policy's, asked after random fixations or their
own policy's. Differences are paired over seeds and test images. Writes knowing.json and
knowing.png.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import tyro

from experiments.cli import main_with_reader, program
from experiments.evaluation.knowing.plan import KnowingQuestions, check_joint, usual_fixations
from experiments.evaluation.options import check_seeds
from experiments.evaluation.recognition.options import (
    ORDERS,
    READ_OUTS,
    FixationsProbe,
    ReadOut,
)
from experiments.training.command_line import option_name, read_command_line
from experiments.training.config import TrainConfig

WITHOUT_EFFECT = {
    "seed": "every run has its own; use --seeds",
    "report": "the study is the report; leave it out",
    "resume": "runs that were cut off always go on; leave it out",
    "change_on_resume": "runs that go on keep their options; leave it out",
    "stop_after": "every run is trained to its end; use --iterations for shorter ones",
}
"""Options of a training that the study sets itself, and why."""


@dataclass(frozen=True, kw_only=True)
class KnowingConfig:
    """Options of the study, beside those of the training."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training; two or more for intervals over seeds."""
    out: Path = Path("runs/knowing")
    """Folder of the runs and of knowing.json."""
    fixations: tuple[int, ...] | None = None
    """Numbers of fixations after which is asked; None = powers of two, and the budget."""
    teaching: bool = True
    """Whether models of random scans are trained as well, for the 2 x 2; ``--no-teaching`` trains
    ``policy_SEED`` alone and asks of seeing."""
    orders: tuple[str, ...] = ORDERS
    """Orders of the fixations, as of experiments.probe. The model of random scans is asked after
    ``policy`` and ``random`` alone."""
    read_outs: tuple[ReadOut, ...] = READ_OUTS
    """Features of what has been seen, as of experiments.probe."""
    fixations_probe: FixationsProbe = "per_order"
    """Probes trained for each order and number of fixations, or once on random fixations."""
    train_limit: int = 5000
    """Training images of the probes."""
    test_limit: int | None = 5000
    """Test images of the probes; None = all."""
    area_limit: int = 1000
    """Test images on which the error of the reconstruction is measured."""
    finetune_epochs: int = 0
    """A copy of the model is fine-tuned by fixations as well, for every order, by so many passes
    over the training images; 0 = frozen features alone."""
    controls: bool = False
    """What the policy's path tells without a part of it as well, as experiments.probe asks: the
    places alone, their pixels without the model, and a model that has not learned."""
    label_shares: tuple[float, ...] = (1.0,)
    """Shares of the training labels that the probes have, such as 0.01 0.1 1; all are always among
    them."""

    def __post_init__(self) -> None:
        check_seeds(self.seeds)

    def asked(self, budget: int) -> KnowingQuestions:
        """Return what runs of this budget are asked.

        Raises:
            ValueError: they cannot be asked so.
        """
        asked = KnowingQuestions(
            orders=self.orders,
            after=tuple(
                sorted(usual_fixations(budget) if self.fixations is None else self.fixations)
            ),
            read_outs=self.read_outs,
            fixations_probe=self.fixations_probe,
            train_limit=self.train_limit,
            test_limit=self.test_limit,
            area_limit=self.area_limit,
            finetune_epochs=self.finetune_epochs,
            controls=self.controls,
            label_shares=self.label_shares,
        )
        asked.check(budget)
        return asked


@dataclass(frozen=True, kw_only=True)
class KnowingCommand:
    """What the command line asks for."""

    study: KnowingConfig
    training: TrainConfig
    asked: KnowingQuestions


def read_arguments(arguments: Sequence[str]) -> KnowingCommand:
    """Read the study's own options from among those of a training.

    Raises:
        ValueError: an option that does not exist, or a value that is not allowed.
        SystemExit: another mistake, or ``--help``, as by tyro.
    """
    own, others = split_options(
        arguments, {"no_teaching", "no_controls", *(each.name for each in fields(KnowingConfig))}
    )
    if {"-h", "--help"} & {*arguments}:
        own = ["--help"]
    study = tyro.cli(KnowingConfig, prog=f"{program()} PRESET", args=own, description=__doc__)
    given = [option_name(each).removeprefix("no_") for each in others]
    for name, why in WITHOUT_EFFECT.items():
        if name in given:
            raise ValueError(f"{name} has no effect, as {why}")
    training = read_command_line(others)
    check_joint(training, teaching=study.teaching)
    asked = study.asked(training.scan.budget)
    return KnowingCommand(study=study, training=training, asked=asked)


def split_options(arguments: Sequence[str], names: set[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the named options with their values, and all else."""
    own: list[str] = []
    others: list[str] = []
    into = others
    for argument in arguments:
        if name := option_name(argument):
            into = own if name in names else others
        into.append(argument)
    return own, others


def main(command: KnowingCommand) -> None:
    """Carry out the study as configured; write, draw and print."""
    from experiments.evaluation.knowing.evaluate import present_knowing, study_knowing

    study = command.study
    result = study_knowing(
        command.training,
        command.asked,
        seeds=study.seeds,
        out=study.out,
        teaching=study.teaching,
    )
    present_knowing(result, study.out)


if __name__ == "__main__":
    main_with_reader(main, read_arguments)

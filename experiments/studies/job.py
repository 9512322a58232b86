"""One seed of one cell: it is trained, asked, and its answers are kept in its run folder.

They are kept beside the question: what is asked again is read.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from experiments.cli import Stopped
from experiments.evaluation.kept import completed
from experiments.finished_run import finished_run
from experiments.run_folder import FORMER, FREE_ON_RESUME
from experiments.studies.answers import PICTURES, Answers, keep_answers, read_answers
from experiments.studies.asking import answers_of, draw_and_keep
from experiments.studies.compute import filled
from experiments.studies.grid import Asked, Split
from experiments.studies.job_log import BEGINS, ERROR, LOG
from experiments.tables import json_text, read_object, write_json
from experiments.training.build import set_threads
from experiments.training.changes import changed_sources, own_parts
from experiments.training.config import TrainConfig
from experiments.training.locating import located
from experiments.training.lock import Held, locked
from experiments.training.typed import typed
from foveate.choices import sources_of

BUSY, FAILED, STOPPED = 75, 1, 143
"""Exit codes: another process trains this cell, it cannot be trained or asked, or it was asked to
end, by a signal or a cluster, after which it goes on from a checkpoint."""


NOT_REQUEUED = "Job not requeued because"
"""What submitit raises in a job whose time is up, where no training notes its signal."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training, and what its run is asked."""

    cell: str
    config: TrainConfig
    """With its seed and folder."""
    asked: Asked | None
    """None = nothing: it is trained for runs that need it."""
    split: Split
    """Of the images that are asked about."""
    teraflops: float | None
    """Operations that the iterations are scaled to, 10^12; None = iterations are as they are."""
    folder: Path
    """Of its log and lock."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Runs that are trained before, beside its own, by the option that takes their folder."""
    trainings: Mapping[str, Any] = field(default_factory=dict)
    """What the trainings of these runs follow from, ``training_of``, by the same option."""

    @property
    def name(self) -> str:
        """Return ``CELL_SEED``."""
        return self.config.run.out.name

    @cached_property
    def question(self) -> str:
        """Write, once, all that the answers follow from, but the project's code and the images.

        Of what is one's own in the training, and of questions, orders and agents, the code counts
        as well. Runs that it needs stand there by name, so that a study may be moved, with what
        their own trainings follow from.
        """
        options = located(self.config).flat().items()
        return json_text(
            {
                "config": {
                    name: self.needs.get(name, each)
                    for name, each in options
                    if name not in FREE_ON_RESUME
                },
                "asked": self._asked,
                "split": self.split,
                "teraflops": self.teraflops,
                "needs": self.trainings,
                "sources": sources_of(
                    [*own_parts(self.config), *(self.asked.own_names if self.asked else ())]
                ),
            }
        )

    @property
    def _asked(self) -> dict[str, Any] | None:
        return None if self.asked is None else asdict(self.asked)

    @property
    def is_done(self) -> bool:
        """Whether its answers are there, and the pictures of its scans."""
        found = self._answered()
        if found is None or self.asked is None:
            return found is not None
        wanted = self.asked.pictures if self.config.parts.scannable else 0
        drawn: int = read_question(found.question)["asked"]["pictures"]
        return not wanted or (drawn >= wanted and (self.config.run.out / PICTURES).is_file())

    def _answered(self) -> Answers | None:
        """Return its answers, whatever pictures are there; None if they are not there."""
        found = read_answers(self.config.run.out)
        if found is None:
            return None
        return found if same(answered_by(found.question), answered_by(self.question)) else None

    def write(self) -> None:
        """Write ``job.json`` into its folder, for the process that carries it out."""
        self.folder.mkdir(parents=True, exist_ok=True)
        names = ("cell", "split", "teraflops", "needs", "trainings")
        own = {name: getattr(self, name) for name in names}
        content = {**own, "config": self.config.flat(), "asked": self._asked}
        write_json(self.folder / "job.json", content)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the job of a folder."""
        content: dict[str, Any] = read_object(folder / "job.json")
        return cls(
            cell=content["cell"],
            config=TrainConfig.from_flat(typed(content["config"])),
            asked=TypeAdapter(Asked | None).validate_python(content["asked"]),
            split=content["split"],
            teraflops=content["teraflops"],
            folder=folder,
            # Older files have none.
            needs=content.get("needs", {}),
            trainings=content.get("trainings", {}),
        )

    def carry_out(self) -> None:
        """Train the run, or what is left of it, and ask it; what is there is kept.

        Raises:
            ValueError: the training or a question is refused, or another process is at it.
        """
        set_threads(self.config.run.threads)
        if self.is_done:
            return
        self.config.run.out.parent.mkdir(parents=True, exist_ok=True)
        if changed := changed_sources(self.config):
            raise ValueError(
                f"the code of {', '.join(changed)} has changed since {self.config.run.out} began; "
                "put it back, or remove that folder, and the run is trained anew"
            )
        run = finished_run(self._begun())
        # A study that was moved names the runs that it needs by where they are now.
        now = self.config.flat()
        needed = run.config.replace(**{option: now[option] for option in self.needs})
        run = replace(run, config=needed)
        # Another seed may have been the first, whose scans are drawn, when this one was asked.
        answers = self._answered() or answers_of(run, self.asked, self.split)
        if self.asked is not None:
            draw_and_keep(run, self.asked.pictures)
        keep_answers(run.directory, self.question, answers)

    def _begun(self) -> TrainConfig:
        """Return the config with its final iterations, counted once and kept for a resume.

        Raises:
            ValueError: the run has begun, and what it needs was another, or trained otherwise.
        """
        path, now = self.folder / "iterations.json", training_of(self.question)
        kept = read_object(path) if path.is_file() else {}
        before = training_of(kept["question"]) if kept else now
        # Another question to the same training leaves its iterations as they were counted.
        if not kept or not same(before, now):
            out = self.config.run.out
            begun = (out / "config.json").is_file()
            if begun and before["needs"] not in ({}, now["needs"]):
                raise ValueError(
                    f"{out} began with another run than {', '.join(self.needs.values()) or 'none'} "
                    "as it is trained now; remove the former, and it is trained anew"
                )
            counted: dict[str, Any] = {"question": self.question, "options": self._iterations()}
            # A run that has begun may refuse others, and goes on with its own later.
            if not (begun and kept):
                self.folder.mkdir(parents=True, exist_ok=True)
                write_json(path, counted)
            kept = counted
        return self.config.replace(**kept["options"])

    def _iterations(self) -> dict[str, int]:
        """Return the options that fill the operations; none where iterations are as they are."""
        if self.teraflops is None:
            return {}
        # They are the same for all seeds of a cell, which draw other batches.
        chosen = filled(self.config.replace(seed=0), self.teraflops * 1e12)
        options = {"warmup_iterations": chosen.optimization.warmup_iterations}
        return options if chosen.policy is None else {**options, "iterations": chosen.iterations}


def answered_by(question: str) -> dict[str, Any]:
    """Return what answers follow from, of a job's question: all but the pictures of scans."""
    content = read_question(question)
    if content["asked"] is not None:
        del content["asked"]["pictures"]
    return content


def training_of(question: str) -> dict[str, Any]:
    """Return what a training follows from, of a job's question."""
    content = read_question(question)
    return {name: content[name] for name in ("config", "teraflops", "needs")}


def same(kept: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two questions, or what they say of a training, are the same.

    Older ones do not say what runs that were needed follow from, nor of the code of one's own;
    none says so of code that cannot be imported: all this counts as unchanged.
    """
    before, after = ({**each, "sources": {}} for each in (kept, now))
    sources = kept.get("sources", {})
    changed = any(sources.get(name, code) != code for name, code in now.get("sources", {}).items())
    return not changed and {**before, "needs": kept["needs"] or now["needs"]} == after


def read_question(question: str) -> dict[str, Any]:
    """Read a job's question, and what it lacks, as of :func:`completed`."""
    config = TrainConfig().flat() | FORMER
    usual = json.loads(
        json_text({"config": config, "asked": asdict(Asked()), "needs": {}, "sources": {}})
    )

    def whole(content: dict[str, Any]) -> dict[str, Any]:
        found = completed(content, usual)
        if isinstance(found["asked"], dict) and (former := found["asked"].pop("read_out", None)):
            found["asked"]["read_outs"] = [former]  # Older questions name a single one.
        found["needs"] = {option: whole(each) for option, each in found["needs"].items()}
        return found

    return whole(json.loads(question))


def run_job(folder: Path) -> int:
    """Carry out the job of a folder, which gets a log; return 0, or an exit code as above."""
    try:
        with locked(folder):
            return _logged(folder)
    except Held:
        return BUSY
    except ValueError as mistake:  # Nothing can be written there, not even a log.
        print(f"{ERROR}{mistake}", file=sys.stderr)
        return FAILED


def _logged(folder: Path) -> int:
    with (folder / LOG).open("a", buffering=1) as log:
        # The files of the process itself: libraries and data workers write there as well.
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log
        print(BEGINS)
        try:
            Job.read(folder).carry_out()
        except (ValueError, OSError) as mistake:
            print(f"{ERROR}{' '.join(str(mistake).split())}")
            return FAILED
        except Stopped as stop:
            print(stop)
            return STOPPED
        except Exception as mistake:
            if NOT_REQUEUED in str(mistake):
                print(mistake)
                return STOPPED
            traceback.print_exc()
            print(f"{ERROR}{type(mistake).__name__}: {' '.join(str(mistake).split())}")
            return FAILED
    return 0


def work(folder: Path) -> None:
    """Carry out a job as a process of its own, apart from the terminal's signals."""
    if hasattr(os, "setsid"):
        os.setsid()
    sys.exit(run_job(folder))

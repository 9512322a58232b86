"""Grids: the forms they come in, jobs that stop nothing else, and the rule by which cells go on."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_facts import FACTS

from experiments.benchmarks.timing import count_flops
from experiments.evaluation.equal_compute import flops_per_step, flops_to_begin
from experiments.evaluation.intervals import crossed_interval
from experiments.evaluation.knowing.measure import areas_of
from experiments.evaluation.knowing.rows import Difference
from experiments.run_folder import write_manifest
from experiments.runs import Run
from experiments.studies import runner
from experiments.studies.answers import (
    PICTURES,
    Answers,
    Facts,
    Values,
    keep_answers,
    read_answers,
    read_pictures,
)
from experiments.studies.asking import ask_fixations, ask_own, ask_probes, check_values
from experiments.studies.cluster import Submitted
from experiments.studies.compute import StepCosts, filled, step_costs
from experiments.studies.deciding import Choice, choose, stage_of
from experiments.studies.grid import Asked, Cell, Grid, Screening
from experiments.studies.job import BUSY, FAILED, STOPPED, Job, answered_by, run_job, same
from experiments.studies.job_log import BEGINS, last_words
from experiments.studies.loading import cell_of, load_grid
from experiments.studies.over_doubt import minus_uncertainty
from experiments.studies.result import GridResult
from experiments.studies.rows import CellRow, notes_on, rows_of
from experiments.studies.runner import Missing, Running, missing_of, run_jobs
from experiments.studies.shipped import GRIDS
from experiments.studies.stage import Stage
from experiments.studies.study import Carrying, run_study
from experiments.training.command_line import read_command_line
from experiments.training.config import TrainConfig
from experiments.training.lock import locked
from experiments.training.typed import typed, typed_text
from foveate.data import ImageSet
from foveate.tensors import digest

ROOT = Path(__file__).parents[2]
TINY: dict[str, Any] = {
    "data": "cue",
    "patch_size": 2,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
    "decoder_depth": 1,
    "periphery": 0,
    "budget": 2,
    "limit": 64,
    "warmup_batch_size": 8,
    "warmup_iterations": 2,
    "iterations": 0,
    "evaluate_every": None,
}


def tiny(**options: object) -> TrainConfig:
    return TrainConfig().replace(**{**TINY, **options})


# --- forms of a grid


FILE = '''
from experiments.studies.grid import Cell, Grid

def grid():
    """Does the order
    matter?

    More of it.
    """
    yield "random", "smoke --iterations 0"
    yield Cell("raster", "smoke --iterations 0 --order raster", "one fixed order", seeds=(7,))

def whole():
    return Grid(cells=(Cell("only", "smoke"),), question="Why?", seeds=(5,))

by_name = {"a": "smoke", "b": "demo"}
nothing = ()
'''


def test_a_file_yields_cells_by_name(tmp_path: Path) -> None:
    path = tmp_path / "orders.py"
    path.write_text(FILE)
    grid = load_grid(str(path))
    assert (grid.name, grid.question, grid.against) == (
        "orders",
        "Does the order matter?",
        "random",
    )
    assert [cell.name for cell in grid.cells] == ["random", "raster"]
    assert [grid.seeds_of(cell) for cell in grid.cells] == [(0, 1, 2), (7,)]
    assert grid.cells[1].config().parts.order == "raster"
    whole = load_grid(f"{path}:whole")
    assert (whole.name, whole.question, whole.seeds) == ("whole", "Why?", (5,))
    assert [cell.name for cell in load_grid(f"{path}:by_name").cells] == ["a", "b"]


def test_a_grid_may_come_from_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "grids_of_mine.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_grid("grids_of_mine:whole").cells[0].name == "only"


def test_the_grid_of_the_docs_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "study.md").read_text(), re.DOTALL
    )
    path = tmp_path / "my_grid.py"
    path.write_text(block)
    plain, screened = load_grid(str(path)), load_grid(f"{path}:screened")
    assert plain.question == screened.question
    assert [cell.config().parts.decoder_depth for cell in plain.cells] == [2, 4, 8]
    assert screened.cells == plain.cells
    assert screened.screening is not None


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("cues", "did you mean 'cue'"),
        ("nowhere.py", r"no grid file at nowhere\.py"),
        ("{file}:missing", "has no 'missing'"),
        ("{file}:nothing", "has no cells"),
    ],
)
def test_what_is_no_grid_is_refused(name: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    with pytest.raises(ValueError, match=complaint):
        load_grid(name.format(file=path))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Cell("a b", "smoke"), "a cell's name takes letters"),
        (lambda: Cell("a", "smok").config(), "cell 'a': unknown preset 'smok'; did you mean"),
        (lambda: Cell("a", "smoke --budgt 3").config(), "cell 'a': .*budgt"),
        (lambda: Cell("a", "smoke --out runs/a").config(), "cell 'a': the option out has no eff"),
        (lambda: Cell("a", ["smoke", "--seed=3"]).config(), "the option seed has no effect"),
        (lambda: Cell("a", "smoke --device cuda").config(), "the option device has no effect"),
        (lambda: Screening(options={"seed": 1}), "the option seed has no effect"),
        (lambda: run_study("smoke", options={"out": "x"}), "the option out has no effect"),
        (lambda: cell_of(("a", "smoke", 3)), "what it tries must be a text, got 3; seeds"),
        (lambda: cell_of(("a", 3)), "its training must be words of experiments.train or a Train"),
        (lambda: Grid(cells=(Cell("a", "smoke"),) * 2), "a is there twice"),
        (lambda: Grid(cells=(Cell("a", "smoke"),), baseline="b"), "unknown baseline 'b'"),
        (lambda: Grid(cells=(Cell("a", "smoke"),), seeds=(1, 1)), "seeds takes one or more"),
        (lambda: Grid(cells=(Cell("a", "smoke"),), least_seeds=2, seeds=(1,)), "2 or more seeds"),
        (lambda: Grid(cells=(Cell("a", "smoke", against="b"),)), "cell 'a': unknown against 'b'"),
        (lambda: Grid(cells=(Cell("a", "smoke", against="a"),)), "'a': .*name another cell"),
        (lambda: Grid(cells=(Cell("a", "smoke"),), teraflops=0.0), "teraflops must be above 0"),
        (lambda: Asked(probes=()), "nothing is asked"),
        (lambda: Asked(label_shares=(0.0,)), "label_shares must lie above 0"),
        (lambda: Asked(layer=0), "layer counts from 1"),
        (lambda: Screening(within=-1.0), "within must be at least 0"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(
    make: Callable[[], object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


def test_a_cell_takes_the_words_of_the_command_line() -> None:
    words = "smoke --iterations 0 --order raster --embed-dim 16"
    expected = read_command_line(words.split()).replace(report=False)
    assert Cell("a", words).config() == Cell("a", words.split()).config() == expected
    assert Cell("a", expected).config() == expected


def test_a_command_line_changes_all_cells_alike() -> None:
    cells = (Cell("plain", "smoke --iterations 0"), Cell("policy", "smoke", seeds=(9,)))
    grid = Grid(cells=cells, seeds=(0,), screening=Screening(seeds=(0, 1)))
    changed = grid.changed(seeds=(3, 4, 5), iterations=7, limit=11, teraflops=2.5)
    assert [cell.config().iterations for cell in changed.cells] == [0, 7]
    assert [changed.seeds_of(cell) for cell in changed.cells] == [(3, 4, 5)] * 2
    assert changed.screening is not None
    assert changed.screening.seeds == (3, 4)
    assert changed.asked.test_limit == 11
    own = replace(grid, screening=Screening(seeds=(0, 1), asked=Asked(test_limit=None)))
    own_rule = own.changed(limit=11).screening
    assert own_rule is not None
    assert own_rule.asked == Asked(test_limit=11, area_limit=11)
    assert changed.teraflops == 2.5
    assert changed.screening.teraflops is None
    with pytest.raises(ValueError, match="teraflops must be above 0"):
        grid.changed(teraflops=0)
    assert grid.changed() == grid
    smaller = grid.changed(screening_teraflops=0.5).screening
    assert smaller == Screening(seeds=(0, 1), teraflops=0.5)
    with pytest.raises(ValueError, match="no effect without a screening"):
        replace(grid, screening=None).changed(screening_teraflops=0.5)


def test_cells_that_differ_in_length_keep_their_proportions() -> None:
    grid = load_grid("doubt")
    shorter = {cell.name: cell.config() for cell in grid.changed(iterations=330).cells}
    assert {name: shorter[name].iterations for name in ("model", "policy", "longer")} == {
        "model": 220,
        "policy": 110,
        "longer": 330,
    }
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        grid.changed(iterations=0)
    tiny = grid.changed(iterations=1).cells
    assert {cell.config().iterations for cell in tiny} == {1}
    with pytest.raises(
        ValueError, match="cells policy and longer differ in their iterations alone"
    ):
        grid.changed(teraflops=2.0)
    grid.changed(teraflops=2.0, cells=("policy", "near"))


def test_some_cells_are_trained_without_a_screening_and_with_what_they_are_set_against() -> None:
    grid = load_grid("teaching")
    few = grid.changed(cells=("latent_policy_squares", "reducible_held_out"), seeds=(0, 1, 2, 3, 9))
    assert [cell.name for cell in few.cells] == [
        "random",
        "latent",
        "latent_squares",
        "latent_policy_squares",
        "held_out",
        "reducible_held_out",
    ]
    assert few.screening is None
    with pytest.raises(ValueError, match="unknown cell 'center'"):
        grid.changed(cells=("center",))


def test_one_cell_of_each_candidate_has_five_seeds_and_is_not_chosen() -> None:
    eight, grid = load_grid("teaching_eight"), load_grid("teaching")
    cells = {cell.name: cell for cell in grid.cells}
    assert eight.screening is None
    assert eight.seeds == (0, 1, 2, 3, 4)
    assert {"random", "latent", "decoder_4", "budget_4"} < {cell.name for cell in eight.cells}
    for cell in eight.cells:
        small = cells[cell.name].config({"embed_dim": 64, "depth": 4})
        assert cell.config() == small
        assert cell.against == cells[cell.name].against


@pytest.mark.parametrize("name", GRIDS)
def test_all_cells_of_the_grids_that_ship_can_be_trained(name: str, tmp_path: Path) -> None:
    grid = load_grid(name)
    carrying = Carrying(
        home=tmp_path,
        start=lambda folder: pytest.fail("nothing is started"),
        workers=1,
        stop_at=0.0,
        threads=1,
        device="cpu",
        options=typed({"warmup_batch_size": "16"}),
    )
    jobs = carrying.jobs(grid, "final", grid.cells)
    assert all((job.asked is None) == (job.cell in ("held_out", "model")) for job in jobs)
    if grid.screening is not None:
        small = carrying.jobs(grid, "screen", grid.cells)
        assert {job.split for job in small} == {"val"}
        assert not any(job.asked and (job.asked.fixations or job.asked.signs) for job in small)
        jobs += small
    assert len({job.folder for job in jobs}) == len({job.config.run.out for job in jobs})
    assert len({job.folder for job in jobs}) == len(jobs)
    for job in jobs:
        assert job.config.optimization.warmup_batch_size == 16
        assert not job.config.run.report
        job.write()
        assert Job.read(job.folder) == job


def test_a_policy_that_learned_nothing_is_level_with_the_rule_that_it_starts_as(run: Run) -> None:
    assert run.config.policy is not None
    assert run.config.policy.doubt > 0
    (name, apart), *no_cost = minus_uncertainty(run, "test", 6).items()
    assert name == "area, policy minus uncertainty"
    assert not no_cost, "saccades cost nothing"
    np.testing.assert_array_equal(apart, np.zeros(6))

    torch.manual_seed(0)
    for each in run.policy.parameters():
        each.data += 0.5 * torch.randn_like(each)
    priced = replace(run, config=run.config.replace(saccade_cost=0.5))
    areas, costs = areas_of(priced, ("policy", "uncertainty", "uncertainty_near"), "test", 6)
    moved = minus_uncertainty(priced, "test", 6)
    np.testing.assert_allclose(moved[name], areas["policy"] - areas["uncertainty"])
    paid = {order: areas[order] + cost for order, cost in costs.items()}
    assert np.abs(moved[name]).max() > 0
    np.testing.assert_allclose(
        moved["area and cost, policy minus uncertainty_near"],
        paid["policy"] - paid["uncertainty_near"],
    )


def test_candidates_of_teaching_differ_in_what_they_try_alone() -> None:
    grids = [load_grid(name) for name in ("teaching", "teaching_imagenette")]
    configs = [{cell.name: cell.config() for cell in grid.cells} for grid in grids]
    for name, config in configs[0].items():
        assert config.num_learned in (0, 128), name
        assert config.optimization.warmup_batch_size == 128
        other = configs[1][name].flat()
        changed = {option for option, value in config.flat().items() if other[option] != value}
        assert changed == {"data", "image_size", "patch_size", "augment"}
    assert configs[0]["latent_policy_squares"].scan.budget == 2
    # Nothing learned chooses in a control, or its share falls to nothing.
    learned = {
        name
        for name, config in configs[0].items()
        if (config.iterations and config.flat()["schedule"] != "frozen")
        or config.flat()["prefer"] != TrainConfig().flat()["prefer"]
    }
    controls = {cell.name for cell in grids[0].cells if cell.control}
    assert set(configs[0]) - controls == (learned | {"held_out"}) - {"ramp_back"}


# --- jobs


@dataclass
class Ended:
    """A process that ended when it was started."""

    exitcode: int | None

    def terminate(self) -> None:
        self.exitcode = -15

    kill = terminate


def jobs_of(tmp_path: Path, *names: str, **options: object) -> list[Job]:
    asked = Asked(probes=("knn",), train_limit=40, test_limit=20, signs=False, compute=False)
    return [
        Job(
            cell=name,
            config=tiny(out=tmp_path / f"{name}_0", **options),
            asked=asked,
            split="test",
            teraflops=None,
            folder=tmp_path / "jobs" / name,
        )
        for name in names
    ]


def carried_out(folder: Path) -> Running:
    """Carry a job out in this process; one that is called ``bad`` fails."""
    if folder.name == "bad":
        (folder / "log.txt").write_text("begins\nerror: it cannot be\n\n")
        return Ended(1)
    Job.read(folder).carry_out()
    return Ended(0)


def test_a_question_of_ones_own_is_asked_again_when_its_code_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_asking.py").write_text("def bright(run, split, limit): return {'b': [1]}")
    monkeypatch.syspath_prepend(tmp_path)
    (job,) = jobs_of(tmp_path, "good")
    assert json.loads(job.question)["sources"] == {}
    job = replace(job, asked=Asked(probes=(), own=("own_asking:bright",), signs=False))
    job.carry_out()
    assert job.is_done
    kept = json.loads(job.question)
    (tmp_path / "own_asking.py").write_text("def bright(run, split, limit): return {'b': [2]}")
    assert job.is_done, "what it began with is what it is done with"
    job = replace(job)
    assert not job.is_done
    # Answers from before this was kept count as unchanged.
    del kept["sources"]
    older, now = (answered_by(each) for each in (json.dumps(kept), job.question))
    assert same(older, now)
    (tmp_path / "own_asking.py").unlink()
    sys.modules.pop("own_asking")
    assert replace(job).is_done, "code that is gone says nothing"


def test_a_failed_job_stops_no_other_and_what_is_done_is_skipped(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, "bad", "good")
    (missing,) = run_jobs(jobs, carried_out)
    assert (missing.job.cell, missing.why) == ("bad", "it cannot be")
    good = jobs[1]
    found = read_answers(good.config.run.out)
    assert found is not None
    assert found.values["k-NN, full"].shape == (20,)
    started: list[Path] = []

    def start(folder: Path) -> Running:
        started.append(folder)
        return Ended(1)

    assert len(run_jobs(jobs, start)) == 1
    assert started == [jobs[0].folder]
    # Another question is asked of the same run, which is not trained again.
    other = replace(good, asked=replace(good.asked, test_limit=10))
    before = (good.config.run.out / "metrics.jsonl").read_bytes()
    assert not other.is_done
    assert run_jobs([other], carried_out) == []
    assert (good.config.run.out / "metrics.jsonl").read_bytes() == before
    # Where the images lie and how many threads there are make no other question.
    assert replace(other, config=other.config.replace(threads=3)).is_done
    assert not replace(other, config=other.config.replace(weight_decay=0.0)).is_done
    # Nor does an option that did not exist when it was answered, at its default.
    found = read_answers(good.config.run.out)
    assert found is not None
    older = json.loads(found.question)
    del older["config"]["weight_decay"], older["asked"]["fixations"]
    (older["asked"]["read_out"],) = older["asked"].pop("read_outs")
    keep_answers(good.config.run.out, json.dumps(older), found)
    assert other.is_done
    assert not replace(other, config=other.config.replace(weight_decay=0.3)).is_done
    older["asked"]["read_out"] = "last"
    keep_answers(good.config.run.out, json.dumps(older), found)
    assert not other.is_done


def test_a_cell_that_cannot_be_scanned_is_done_without_pictures(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, "good", recipe="mae", budget=12, prefix_share=0.0)
    assert job.asked is not None
    assert job.asked.pictures > 0
    assert run_jobs([job], carried_out) == []
    assert job.is_done
    assert not (job.config.run.out / PICTURES).exists()


def test_a_seed_that_becomes_the_first_is_drawn_and_not_asked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (later,) = jobs_of(tmp_path, "good")
    later = replace(later, asked=replace(later.asked, pictures=0))
    assert run_jobs([later], carried_out) == []
    before = read_answers(later.config.run.out)
    assert before is not None
    monkeypatch.setattr("experiments.studies.job.answers_of", None)
    first = replace(later, asked=replace(later.asked, pictures=2))
    assert not first.is_done
    assert run_jobs([first], carried_out) == []
    assert first.is_done
    assert len(read_pictures(later.config.run.out)) == 2
    (later.config.run.out / PICTURES).unlink()
    assert not first.is_done, "pictures that were deleted"
    assert run_jobs([first], carried_out) == []
    assert len(read_pictures(later.config.run.out)) == 2
    found = read_answers(later.config.run.out)
    assert found is not None
    assert {name: list(each) for name, each in found.values.items()} == {
        name: list(each) for name, each in before.values.items()
    }
    # And as a later one again.
    assert later.is_done


def test_a_job_that_another_call_carries_out_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that two calls that share a folder both come to the end."""
    monkeypatch.setattr(runner, "BUSY_POLL_S", 0.2)
    jobs, codes = jobs_of(tmp_path, "a", "b"), {"a": [BUSY, BUSY, 0], "b": [0]}
    assert run_jobs(jobs, lambda folder: Ended(codes[folder.name].pop(0)), workers=2) == []
    assert codes == {"a": [], "b": []}
    assert capsys.readouterr().out.count("a_0: waits, another process is at it") == 1


def test_a_folder_that_cannot_be_written_is_no_busy_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert run_job(tmp_path / "file" / "job") == FAILED


def test_the_reason_of_an_earlier_attempt_is_not_told_again(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(f"{BEGINS}\nerror: the first\n{BEGINS}\n")
    assert last_words(tmp_path).startswith("it said nothing")
    (tmp_path / "log.txt").write_text(f"{BEGINS}\nerror: the first\n{BEGINS}\nerror: another\n")
    assert last_words(tmp_path) == "another"


def test_values_that_are_not_finite_are_no_answer() -> None:
    check_values({"linear": np.ones(3)}, "a_0")
    with pytest.raises(ValueError, match="linear of a_0 is not finite in 1 of 3 values"):
        check_values({"linear": np.array([1.0, np.nan, 1.0])}, "a_0")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Asked(probes=("svm",)), "did you mean|probes"),
        (lambda: Asked(areas="random"), "areas takes several, as a tuple; got 'random'"),
        (lambda: Asked(fixations=(0,)), "fixations count from 1"),
        (lambda: Asked(pictures=-2), "pictures from 0.*pictures -2"),
        (lambda: Grid(cells=(Cell("a", "smoke"),), name="a/b"), "names a folder"),
        (lambda: Grid(cells=(Cell("a", "smoke"),), seeds=3), "seeds takes a tuple of int, got 3"),
        (lambda: Grid(cells=Cell("a", "smoke")), "cells takes a tuple of Cell"),
        (lambda: Grid(cells=(Cell("a", "smoke"),), asked=None), "asked takes what Asked"),
    ],
)
def test_a_grid_of_ones_own_is_checked_before_it_is_trained(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_time_that_is_up_stops_what_runs_and_starts_nothing_else(tmp_path: Path) -> None:
    first, second = jobs_of(tmp_path, "a", "b")
    running = Ended(None)
    missing = run_jobs([first, second], lambda _: running, stop_at=time.monotonic() + 0.2)
    assert [(each.job.cell, each.why) for each in missing] == [("b", None), ("a", None)]
    assert running.exitcode == -15
    assert run_jobs([first], lambda _: pytest.fail("started"), stop_at=0.0)[0].why is None


def test_a_job_that_was_killed_says_so_and_one_elsewhere_waits(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, "a")
    (missing,) = run_jobs([job], lambda _: Ended(-9))
    assert missing.why == "ended by SIGKILL, maybe for want of memory"
    with locked(job.folder):
        assert run_job(job.folder) == BUSY
    until = time.monotonic() + 0.5
    assert run_jobs([job], lambda _: Ended(BUSY), stop_at=until) == [Missing(job, None)]
    assert last_words(tmp_path / "nowhere").startswith("it said nothing")


@dataclass
class Unanswered:
    """A job of a cluster that gave no result."""

    state: str
    said: str = "no output"

    def done(self) -> bool:
        return True

    def result(self) -> int:
        raise RuntimeError(self.said)


@pytest.mark.parametrize(
    ("ended", "waits"),
    [
        (Unanswered("CANCELLED by 7"), True),
        (Unanswered("TIMEOUT"), True),
        (Unanswered("PREEMPTED"), True),
        (Unanswered("FAILED", "Job not requeued because: timed-out."), True),
        (Unanswered("OUT_OF_MEMORY"), False),
    ],
)
def test_a_job_that_its_cluster_ended_waits(ended: Unanswered, waits: bool, tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, "a")
    (missing,) = run_jobs([job], lambda folder: Submitted(ended, folder))
    assert missing.why == (None if waits else "the cluster says: no output")


def test_whatever_ends_while_all_stop_waits(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, "a")
    assert missing_of(job, 1, stopping=True).why is None
    assert missing_of(job, 1, stopping=False).why is not None


def test_answers_are_read_back_and_damaged_ones_are_none(tmp_path: Path) -> None:
    facts = replace(FACTS, loss_curve=((1.0, 0.5),), error_curves={"policy": (1.0, 0.25)})
    answers = Answers({"linear, full": np.array([1.0, 0.0])}, facts)
    assert read_answers(tmp_path) is None
    keep_answers(tmp_path, "what?", answers)
    found = read_answers(tmp_path)
    assert found is not None
    assert found.facts == facts
    assert found.values["linear, full"].tolist() == [1.0, 0.0]
    assert found.question == "what?"
    path = tmp_path / "answers.npz"
    path.write_bytes(path.read_bytes()[:100])
    assert read_answers(tmp_path) is None


def test_iterations_fill_the_operations_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flops(config: TrainConfig, *, joint: bool) -> float:
        return 5.0 if joint else 2.0

    def once(config: TrainConfig) -> float:
        return 0.0 if config.policy is None else 3.0

    monkeypatch.setattr("experiments.studies.compute.flops_per_step", flops)
    monkeypatch.setattr("experiments.studies.compute.flops_to_begin", once)
    config = tiny(out=tmp_path, warmup_iterations=10, iterations=4, batch_size=2, group=2)
    costs = step_costs(config)
    assert costs == StepCosts(warmup=2.0, joint=5.0, first_scan=3.0)
    assert [costs.until(config, at) for at in (3, 10, 14)] == [6.0, 20.0, 43.0]
    # What is paid once is paid once in a longer run as well.
    twice = filled(config, 83.0)
    assert (twice.optimization.warmup_iterations, twice.iterations) == (20, 8)
    alone = filled(config.replace(iterations=0), 31.0)
    assert (alone.optimization.warmup_iterations, alone.policy) == (16, None)
    with pytest.raises(ValueError, match="pay for no iteration of a kind"):
        filled(config, 4.0)
    with pytest.raises(ValueError, match="cannot be counted"):
        filled(config.replace(agent="maskable-ppo"), 80.0)


def test_another_question_leaves_the_iterations_that_were_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[float] = []

    def scaled(config: TrainConfig, operations: float) -> TrainConfig:
        counts.append(operations)
        assert config.run.seed == 0, "else seeds of a cell would differ in their iterations"
        return config.replace(warmup_iterations=len(counts))

    trained: list[int] = []

    def refused(config: TrainConfig) -> None:
        trained.append(config.optimization.warmup_iterations)
        raise ValueError("not now")

    monkeypatch.setattr("experiments.studies.job.filled", scaled)
    monkeypatch.setattr("experiments.studies.job.finished_run", refused)
    first = replace(jobs_of(tmp_path, "a", seed=3)[0], teraflops=1.0)
    first.write()
    asked = replace(first, asked=replace(first.asked, test_limit=10), split="val")
    for job in (first, asked, replace(asked, teraflops=2.0)):
        with pytest.raises(ValueError, match="not now"):
            job.carry_out()
    assert (counts, trained) == ([1e12, 2e12], [1, 1, 2])
    # Of a run that has begun the count is kept while others are refused.
    path = first.folder / "iterations.json"
    kept = path.read_text()
    first.config.run.out.mkdir()
    (first.config.run.out / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="not now"):
        replace(asked, teraflops=4.0).carry_out()
    assert path.read_text() == kept


def test_singular_values_are_counted() -> None:
    """Of 5 x 4 they take 4 * 5 * 16 - 4 * 64 / 3, in either direction."""
    for shape in ((3, 5, 4), (3, 4, 5)):
        assert count_flops(partial(torch.linalg.svdvals, torch.ones(shape))) == 3 * 235


def joint_flops(tmp_path: Path, **options: object) -> float:
    small = {"warmup_iterations": 0, "iterations": 4, "batch_size": 2, "group": 2, "budget": 2}
    small["prefix_share"] = 0
    return flops_per_step(tiny(out=tmp_path, **{**small, **options}), joint=True)


@pytest.mark.slow
def test_operations_are_counted_over_whole_periods(tmp_path: Path) -> None:
    both = [joint_flops(tmp_path, schedule=name) for name in ("policy_only", "frozen")]
    turns = joint_flops(tmp_path, schedule="alternating", alternate_every=4)
    assert turns == pytest.approx(sum(both) / 2, rel=0.05)
    assert turns != pytest.approx(both[0], rel=0.05)
    first, second, rare = (joint_flops(tmp_path, policy_every=every) for every in (1, 2, 12))
    assert rare == pytest.approx((first + 11 * (2 * second - first)) / 12, rel=0.05)
    assert rare != pytest.approx((first + 3 * (2 * second - first)) / 4, rel=0.05)


@pytest.mark.slow
def test_a_warm_up_is_counted_of_a_run_whose_policy_says_what_counts(tmp_path: Path) -> None:
    config = tiny(out=tmp_path, iterations=4, batch_size=2, group=2)
    plain = flops_per_step(config, joint=False)
    assert flops_per_step(config.replace(prefer="policy"), joint=False) == plain > 0


def test_what_a_reward_learns_beforehand_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for steps in (1, 40):
        monkeypatch.setattr("experiments.training.recognition.FIRST_STEPS", steps)
        small = {"iterations": 4, "batch_size": 2, "group": 2, "prefix_share": 0.0}
        config = tiny(out=tmp_path, reward="recognition", **small)
        found[steps] = flops_to_begin(config), flops_per_step(config, joint=True)
    assert found[40][0] == pytest.approx(40 * found[1][0])
    assert found[1][0] > 0
    assert found[40][1] == pytest.approx(found[1][1], rel=0.05)
    assert flops_to_begin(config.replace(reward="auc")) == 0


# --- what is asked


def planted(split: str, limit: int | None) -> dict[str, object]:
    return {"mine": np.arange(float(limit or 1))}


def good_question(run: Run, split: str, limit: int | None) -> dict[str, object]:
    return planted(split, limit)


def bad_question(run: Run, split: str, limit: int | None) -> dict[str, object]:
    return {"mine": np.ones((2, 2))}


def test_questions_of_ones_own_give_a_value_per_image(run: Run) -> None:
    values: Values = {}
    ask_own(run, f"{__name__}:good_question", "val", 3, values)
    assert values["mine"].tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(ValueError, match=r"bad_question.*one value per image, got shape \(2, 2\)"):
        ask_own(run, f"{__name__}:bad_question", "val", 3, values)
    with pytest.raises(ValueError, match=r"good_question.*two questions answer 'mine'; give"):
        ask_own(run, f"{__name__}:good_question", "val", 3, values)


def test_without_a_fixed_layer_the_accuracy_is_the_mean_over_layers(run: Run) -> None:
    from experiments.training.build import build

    torch.manual_seed(0)
    model, _ = build(run.config.replace(depth=2), (1, 8, 8))
    deep = replace(run, model=model.eval())
    found = {}
    for layer in (None, 1, 2):
        asked = Asked(layer=layer, train_limit=60, test_limit=30, label_shares=(1.0, 0.01))
        values: dict[str, Any] = {}
        notes: list[str] = []
        assert ask_probes(deep, asked, "val", values, notes) == 60
        found[layer] = values
        for rank in ("RankMe, full", "LiDAR, full"):
            assert values[rank].shape == (1,)
            assert 1 <= values[rank][0] <= run.config.model.embed_dim
        assert any("k-NN, full, 1% of the labels: there are less than 20" in n for n in notes)
    for name in ("linear, full", "k-NN, full"):
        assert found[None][name].tolist() == ((found[1][name] + found[2][name]) / 2).tolist()
    with pytest.raises(ValueError, match="layer"):
        ask_probes(deep, Asked(layer=3, train_limit=60, test_limit=30), "val", {}, [])


# --- from answers to verdicts


def answers(**values: list[float]) -> Answers:
    return Answers(
        {name.replace("_", ", "): np.array(each) for name, each in values.items()}, FACTS
    )


def test_rows_are_paired_over_seeds_and_images() -> None:
    rows = rows_of(
        {
            "base": {0: answers(linear_full=[1, 0, 1, 0]), 1: answers(linear_full=[1, 1, 1, 0])},
            "more": {
                0: answers(linear_full=[1, 1, 1, 0], area_policy=[0.5] * 4),
                1: answers(linear_full=[1, 1, 1, 1], area_policy=[0.7] * 4),
                2: answers(linear_full=[0, 0, 0, 0], area_policy=[0.6] * 4),
            },
        },
        "base",
    )
    by_name = {(row.cell, row.measure): row for row in rows}
    base, more = by_name["base", "linear, full"], by_name["more", "linear, full"]
    assert base.value.per_seed == (0.5, 0.75)
    assert base.minus_baseline is None
    # Seed 2 has no counterpart, and is in the mean alone.
    assert more.value.per_seed == (0.75, 1.0, 0.0)
    assert more.minus_baseline is not None
    assert more.minus_baseline.per_seed == (0.25, 0.25)
    area = by_name["more", "area, policy"]
    assert area.minus_baseline is None
    assert area.value.mean == pytest.approx(0.6)


def test_less_is_better_of_errors() -> None:
    low, high = answers(area_random=[0.1, 0.1, 0.2]), answers(area_random=[0.5, 0.6, 0.6])
    runs = {"base": {0: high, 1: high}, "low": {0: low, 1: low}}
    stage = staged(rows_of(runs, "base"))
    (row,) = [row for row in stage.rows if row.cell == "low"]
    (contrast,) = row.contrasts("base")
    assert contrast.better == pytest.approx(0.4333, abs=1e-3)
    assert contrast.word() == "better"
    assert [each.cell for each in stage.of("area, random")] == ["low", "base"]


def test_means_alone_are_paired_where_images_differ() -> None:
    runs = {
        "base": {0: answers(a=[0, 1]), 1: answers(a=[0, 0])},
        "other": {0: answers(a=[1, 1, 1]), 1: answers(a=[0, 1, 1])},
    }
    row = next(row for row in rows_of(runs, "base") if row.cell == "other")
    assert row.minus_baseline is not None
    assert row.minus_baseline.per_seed == pytest.approx((0.5, 2 / 3))
    assert row.minus_baseline.ci95 is None
    assert row.minus_baseline.ci95_seeds is not None


def test_areas_of_scans_that_differ_are_not_compared() -> None:
    seeds = (0, 1)
    runs = {
        name: {seed: answers(area_policy=[0.1, 0.2], linear_full=[1, 0]) for seed in seeds}
        for name in ("base", "same", "squares")
    }
    scans = {"base": (16, 1), "same": (16, 1), "squares": (4, 2)}
    rows = rows_of(runs, "base", scans=scans)
    apart = {(row.cell, row.measure) for row in rows if row.minus_baseline is None}
    assert apart == {
        ("base", "area, policy"),
        ("base", "linear, full"),
        ("squares", "area, policy"),
    }
    stage = staged(rows)
    assert "Not compared with base: squares." in notes_on(stage.of("area, policy"), "base")
    assert not notes_on(stage.of("linear, full"), "base")
    grid = Grid(cells=tuple(Cell(name, "smoke") for name in runs))
    choice = choose(grid, Screening(by="area, policy"), stage)
    assert choice.kept == ("base", "same")
    assert "cannot be compared" in choice.dropped["squares"]


def test_longer_runs_leave_the_screening_as_it_is_and_fewer_images_are_fewer_everywhere() -> None:
    cells = (Cell("a", "smoke"),)
    grid = Grid(cells=cells, screening=Screening(), teraflops=2.0)
    longer = grid.changed(teraflops=30.0)
    assert longer.screening is not None
    assert (longer.teraflops, longer.screening.teraflops) == (30.0, 2.0)
    few = load_grid("doubt").changed(limit=50).asked
    assert (few.test_limit, few.area_limit, few.most_images) == (50, 50, 50)


def test_a_run_is_not_asked_about_more_fixations_than_it_makes(run: Run) -> None:
    notes: list[str] = []
    asked = Asked(fixations=(1, 3, 8), orders=("random",), train_limit=60, test_limit=20)
    values = Values()
    ask_fixations(run, asked, values, notes)
    assert list(values) == ["known after 1 of random", "known after 3 of random"]
    assert "it makes 3 fixations, and was not asked about more" in notes


def test_as_many_other_images_are_not_paired() -> None:
    """Three images that agree one by one, and three others that agree in their mean alone."""

    def run(*values: float, images: str) -> Answers:
        return replace(answers(a=[*values]), facts=replace(FACTS, asked_images=images))

    def over(images: str) -> Difference:
        runs = {
            "base": {seed: run(0.2, 0.4, 0.6 + seed, images="one") for seed in (0, 1)},
            "other": {seed: run(0.3, 0.5, 0.7 + seed, images=images) for seed in (0, 1)},
        }
        found = next(row for row in rows_of(runs, "base") if row.cell == "other").minus_baseline
        assert found is not None
        return found

    assert over("one").ci95_images == pytest.approx((0.1, 0.1))
    assert over("two").per_seed == pytest.approx((0.1, 0.1))
    assert (over("two").ci95, over("two").ci95_images) == (None, None)
    assert over("two").interval == over("two").ci95_seeds


def test_a_value_has_an_interval_over_seeds_and_images_that_all_its_runs_share() -> None:
    """Of a measure that is a difference already it is what its sign is judged by."""
    values = np.array([[0.1, 0.4, 0.9, 0.6], [0.2, 0.5, 0.8, 0.7]])

    def rows(second: str, shift: float = 0.0) -> CellRow:
        of_seed = {
            seed: replace(
                answers(a=list(values[seed] + shift)), facts=replace(FACTS, asked_images=own)
            )
            for seed, own in enumerate(("one", second))
        }
        return rows_of({"base": of_seed}, "base")[0]

    crossed = crossed_interval(values)
    assert crossed is not None
    assert crossed[1] > 1
    assert rows("one").interval == pytest.approx((max(crossed[0], 0.0), 1.0))
    below = rows("one", -1.0)
    assert below.value_ci95 == below.interval == pytest.approx((crossed[0] - 1, crossed[1] - 1))
    signed = replace(answers(a=[-0.5, 0.75]), facts=replace(FACTS, asked_images="one"))
    other = replace(answers(a=[-0.25, 0.75]), facts=replace(FACTS, asked_images="two"))
    found = rows_of({"base": {0: signed, 1: other}}, "base")[0].interval
    assert found is not None
    assert found[0] < 0, "a share lies within 0..1, and these are none"
    apart = rows("two", -1.0)
    assert apart.value_ci95 is None
    assert apart.interval == apart.value.ci95


def test_images_are_the_same_in_the_same_order_alone() -> None:
    images = ImageSet(
        torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2), torch.arange(3), (), "i"
    )
    turned = images.take(torch.tensor([1, 0, 2]))
    renamed = replace(images, labels=torch.tensor([0, 2, 1]))

    def known_by(each: ImageSet) -> str:
        return digest((each.images, each.labels))

    assert known_by(images) == known_by(images.subset(3))
    assert len({known_by(each) for each in (images, turned, renamed, images.subset(2))}) == 4


def one_number_each(better: tuple[float, ...]) -> GridResult:
    """Seeds of two cells whose question returns one number per run."""
    runs = {
        "base": {seed: answers(a=[0.0]) for seed in range(len(better))},
        "other": {seed: answers(a=[value]) for seed, value in enumerate(better)},
    }
    return result_of(staged(rows_of(runs, "base")))


def test_one_number_per_run_is_judged_over_seeds() -> None:
    (line,) = one_number_each((0.5, 0.5, 0.51)).answer()
    assert line.startswith("a: better than base: other +0.503 [+0.489, +0.518]")
    (line,) = one_number_each((0.5, -0.5, 0.01)).answer()
    assert line.startswith("a: NOT better than base: other")
    assert len(one_number_each((0.5, -0.5, 0.01)).negatives()) == 1


def test_without_an_interval_nothing_is_said() -> None:
    result = one_number_each((0.5,))
    assert result.answer() == ("a: no interval against base: other +0.500 [-].",)
    assert result.negatives() == ()


def staged(rows: tuple[CellRow, ...], **changes: Any) -> Stage:
    facts = {row.cell: (FACTS,) for row in rows}
    return Stage(
        **{"title": "t", "rows": rows, "facts": facts, "failed": {}, "waiting": (), **changes}
    )


def test_few_seeds_and_screening_say_nothing() -> None:
    """Two seeds that are far apart of the baseline on every image; and three."""

    def runs(number: int) -> dict[str, dict[int, Answers]]:
        shares = {"base": [1.0, 1.0, 0.0], "worse": [0.0, 0.0, 0.0]}
        return {
            name: {seed: answers(linear_full=values) for seed in range(number)}
            for name, values in shares.items()
        }

    few, enough = (staged(rows_of(runs(number), "base")) for number in (2, 3))
    for result in (
        result_of(few, verdict_seeds=3),
        result_of(None, screened=enough, verdict_seeds=3),
    ):
        assert result.answer()[-1].startswith(
            "linear, full: too few seeds to say, against base: worse -0.667 ["
        )
        assert result.negatives() == ()
        (line,) = result.exclusions()
        assert "linear, full: closest to a gain: worse -0.667 [" in line
        assert line.startswith("In screening, ") == (result.final is None)
        assert line.endswith("over base; too few seeds to say what they exclude.")
    sure = result_of(enough, verdict_seeds=3)
    assert sure.answer()[0].startswith("linear, full: NOT better than base: worse -0.667")
    assert len(sure.negatives()) == 1


def test_it_is_said_what_the_data_exclude_and_who_is_closest() -> None:
    base = [1.0, 0.0] * 10
    flipped = [0.0, 1.0, 1.0, 0.0] * 5
    runs = {
        name: {seed: answers(linear_full=values, area_random=values) for seed in (0, 1, 2)}
        for name, values in {"base": base, "level": flipped, "low": [0.0] * 20}.items()
    }
    linear, area = result_of(staged(rows_of(runs, "base"))).exclusions()
    assert re.fullmatch(
        r"linear, full: closest to a gain: level \+0\.000 \[.*\] over base; "
        r"the data exclude gains above 0\.\d+ of level, 0\.000 of low\.",
        linear,
    )
    # Less is better of an area.
    assert area.startswith("area, random: largest gain: low -0.500 [")


def screened(**right: float) -> tuple[Grid, Screening, Stage]:
    """A screening with one seed and 100 images, of which each cell knows so many."""
    rule = Screening(seeds=(0,), within=0.01)
    grid = Grid(cells=tuple(Cell(name, "smoke") for name in right), screening=rule)
    runs = {
        name: {0: answers(linear_full=[float(i < share * 100) for i in range(100)])}
        for name, share in right.items()
    }
    return grid, rule, staged(rows_of(runs, "base"))


def test_a_cell_goes_on_within_a_point_of_the_baseline() -> None:
    grid, rule, stage = screened(base=0.5, better=0.6, level=0.49, worse=0.48)
    choice = choose(grid, rule, stage)
    assert choice.kept == ("base", "better", "level")
    assert choice.undecided is None
    assert re.match(
        r"linear, full -0\.020 .* against base, more than 0\.01 worse", choice.dropped["worse"]
    )


def test_the_furthest_ahead_go_on_where_only_some_may() -> None:
    grid, rule, stage = screened(base=0.5, good=0.6, best=0.7, worse=0.45)
    choice = choose(grid, replace(rule, most=1), stage)
    assert choice.kept == ("base", "best")
    assert choice.dropped["good"].endswith("against base, less far ahead than best")
    assert choice.dropped["worse"].endswith("more than 0.01 worse")
    assert "among the 1 furthest ahead" in replace(rule, most=1).rule
    assert "furthest" not in rule.rule


def test_a_control_is_not_chosen_but_goes_along() -> None:
    grid, rule, stage = with_own_baseline(base=0.5, parts=0.9, policy=0.95)
    cells = tuple(replace(cell, control=cell.name != "policy") for cell in grid.cells)
    choice = choose(replace(grid, cells=cells), replace(rule, most=1), stage)
    assert choice == Choice(("base", "parts", "policy"), {})
    grid, rule, stage = with_own_baseline(base=0.5, parts=0.9, policy=0.7)
    choice = choose(replace(grid, cells=cells), rule, stage)
    assert choice.kept == ("base",)
    assert "it is a control" in choice.dropped["parts"]


def test_a_cell_whose_own_baseline_failed_is_not_judged_by_another() -> None:
    grid, rule, stage = with_own_baseline(base=0.5, parts=0.9, policy=0.95)
    choice = choose(grid, rule, replace(stage, failed={"parts_0": "no memory"}))
    assert choice.kept == ("base",)
    assert choice.dropped["policy"] == "parts, which it is set against, failed in screening"


def test_what_failed_in_screening_does_not_go_on_and_what_waits_decides_nothing() -> None:
    grid, rule, stage = screened(base=0.5, lost=0.6)
    rows = tuple(row for row in stage.rows if row.cell != "lost")
    choice = choose(grid, rule, replace(stage, rows=rows, failed={"lost_0": "no memory"}))
    assert choice.kept == ("base",)
    assert choice.dropped == {"lost": "it failed in screening, lost_0: no memory"}
    choice = choose(grid, rule, replace(stage, waiting=("lost_0",)))
    assert (choice.kept, choice.undecided) == ((), "1 of the screening's runs are not done")
    choice = choose(grid, rule, replace(stage, failed={"base_0": "no memory"}))
    assert choice.undecided == "the baseline failed in screening, base_0: no memory"
    with pytest.raises(ValueError, match="goes by 'knn', which was not measured; measured: linear"):
        choose(grid, replace(rule, by="knn"), stage)


def with_own_baseline(**right: float) -> tuple[Grid, Screening, Stage]:
    """As ``screened``, where policy has parts of its own, and so has its baseline ``parts``."""
    grid, rule, _ = screened(**right)
    cells = tuple(
        replace(cell, against="parts") if cell.name == "policy" else cell for cell in grid.cells
    )
    runs = {
        name: {0: answers(linear_full=[float(i < share * 100) for i in range(100)])}
        for name, share in right.items()
    }
    grid = replace(grid, cells=cells)
    return grid, rule, staged(rows_of(runs, "base", grid.own_baselines))


def test_a_cell_is_set_against_the_cell_that_has_its_parts_as_well() -> None:
    _, _, stage = with_own_baseline(base=0.5, parts=0.7, policy=0.6)
    result = result_of(stage)
    own, plain = result.answer()
    assert re.fullmatch(
        r"linear, full: better than base: parts \+0\.200 .*, policy \+0\.100 .*", plain
    )
    assert own.startswith("linear, full, same parts: WORSE than parts: policy -0.100 [")
    table = result.tables_of(stage)[0]
    assert [row[3][-8:] for row in table.rows] == ["", " (parts)", ""]
    assert [each.split(" in ")[0] for each in result.negatives()] == ["policy is worse than parts"]


def test_a_cell_goes_on_by_its_own_baseline_and_takes_that_along() -> None:
    choice = choose(*with_own_baseline(base=0.5, parts=0.7, policy=0.6))
    assert choice.kept == ("base", "parts")
    assert "against parts, more than" in choice.dropped["policy"]
    choice = choose(*with_own_baseline(base=0.5, parts=0.3, policy=0.4))
    assert (choice.kept, choice.dropped) == (("base", "parts", "policy"), {})
    choice = choose(*with_own_baseline(base=0.5, parts=0.3, policy=0.2))
    assert list(choice.dropped) == ["parts", "policy"]


def result_of(stage: Stage | None, **changes: Any) -> GridResult:
    values = {
        "name": "mine",
        "question": "Which?",
        "baseline": "base",
        "ideas": {},
        "rule": None,
        "screened": None,
        "final": stage,
        "dropped": {},
        "threads": 1,
        "commit": "0123456789abc",
    }
    return GridResult(**{**values, **changes})


def test_the_answer_says_as_plainly_what_is_not_better() -> None:
    flip = [1.0, 0.0] * 20
    base, level, good = [0.0] * 20 + flip[:20], [0.0] * 20 + flip[1:21], [1.0] * 40
    runs = {
        name: {seed: answers(linear_full=values) for seed in (0, 1)}
        for name, values in {"base": base, "level": level, "good": good, "bad": [0.0] * 40}.items()
    }
    result = result_of(staged(rows_of(runs, "base")), dropped={"old": "too far behind"})
    (line, dropped) = result.answer()
    assert re.fullmatch(
        r"linear, full: better than base: good \+0\.750 .*; WORSE than base: bad -0\.250 .*; "
        r"NOT better than base: level .*\.",
        line,
    )
    assert dropped == "Did not go on: old."
    negatives = result.negatives()
    assert negatives[0] == "old did not go on: too far behind."
    excluded = [each for each in negatives if each.startswith("level is not better than base")]
    assert len(excluded) == 1
    assert float(excluded[0].rstrip(".").split()[-1]) > 0.1
    assert not any(each.startswith("good") for each in negatives)


def test_a_study_that_is_not_whole_says_so(tmp_path: Path) -> None:
    assert result_of(None, undecided="2 are missing").answer() == (
        "No answer yet: 2 are missing.",
        "No run is done.",
    )
    result = result_of(staged((), waiting=("a_0",), failed={"b_0": "why"}))
    assert result.answer()[0] == "Not whole yet: 1 run to go."
    result.write(tmp_path / "r.json")
    assert GridResult.read(tmp_path / "r.json") == result
    assert result.failures == {"b_0": "why"}


def test_a_stage_gathers_what_is_there(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, "base", "lost", "late")
    for job in jobs[:1]:
        job.config.run.out.mkdir()
        keep_answers(job.config.run.out, job.question, answers(linear_full=[1.0, 0.0]))
    missing = [Missing(jobs[1], "no memory"), Missing(jobs[2], None)]
    stage = stage_of("title", jobs, missing, "base")
    assert [row.cell for row in stage.rows] == ["base"]
    assert stage.failed == {"lost_0": "no memory"}
    assert stage.waiting == ("late_0",)


def test_runs_of_images_that_changed_in_between_are_not_set_against_each_other(
    tmp_path: Path,
) -> None:
    """Images of another name may differ, and of a run that has not begun nothing is known."""
    jobs = jobs_of(tmp_path, "base", "good", "late")
    for job, names in zip(jobs, ("aa", "bb"), strict=False):
        job.config.run.out.mkdir()
        splits = {"train": {"images": 9, "bytes": 900, "names": names}}
        write_manifest(job.config.run.out, splits=splits)
    with pytest.raises(ValueError, match=r"good_0 learned from other images than .*base_0"):
        stage_of("title", jobs, [], "base")
    elsewhere = replace(jobs[1], config=jobs[1].config.replace(data="CIFAR10"))
    assert stage_of("title", [jobs[0], elsewhere, jobs[2]], [], "base").rows == ()


def test_every_key_of_a_grid_is_in_the_glossary() -> None:
    explained = set(re.findall(r"`([a-z_0-9]+)`", (ROOT / "docs" / "metrics.md").read_text()))
    for each in (GridResult, Stage, CellRow, Facts):
        assert {field.name for field in fields(each)} <= explained, each


def test_a_cluster_without_submitit_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match=r"a cluster needs submitit: pip install 'foveate\[clus"):
        run_study("smoke", out=tmp_path, cluster="slurm")


@pytest.mark.slow
def test_jobs_run_by_way_of_submitit(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs the extra cluster")
    from experiments.studies.cluster import start_on

    (job,) = jobs_of(tmp_path, "a")
    bad = replace(job, config=job.config.replace(data="nowhere.parquet", out=tmp_path / "bad_0"))
    bad = replace(bad, folder=tmp_path / "jobs" / "bad")
    start = start_on("local", tmp_path / "cluster", job_minutes=5)
    (missing,) = run_jobs([job, bad], start, workers=None)
    assert job.is_done
    assert "nowhere.parquet" in (missing.why or "")
    assert json.loads((bad.folder / "job.json").read_text())["cell"] == "a"


def test_options_of_all_cells_are_read_as_on_the_command_line() -> None:
    given = {"split_column": "None", "image_size": "192x256", "limit": "None", "budget": "3"}
    found = typed_text(given)
    assert found == {"split_column": None, "image_size": (192, 256), "limit": None, "budget": 3}
    with pytest.raises(ValueError, match="image_size must be a side"):
        typed_text({"image_size": "0"})


def test_a_job_whose_time_is_up_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submitit raises so in the job itself, where a question is asked."""
    (job,) = jobs_of(tmp_path, "a")
    job.write()

    def late(self: Job) -> None:
        raise RuntimeError("Job not requeued because: timed-out and not checkpointable.")

    monkeypatch.setattr(Job, "carry_out", late)
    out, errors, here = os.dup(1), os.dup(2), (sys.stdout, sys.stderr)
    try:
        assert run_job(job.folder) == STOPPED
    finally:
        sys.stdout, sys.stderr = here
        os.dup2(out, 1)
        os.dup2(errors, 2)
    assert missing_of(job, STOPPED, stopping=False).why is None

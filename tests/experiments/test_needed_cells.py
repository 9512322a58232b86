"""Cells whose training needs the run of another: order, failures, choice, and what they cost."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_facts import FACTS

from experiments.run_folder import check_folder, read_config
from experiments.studies.answers import Answers, keep_answers, read_answers
from experiments.studies.deciding import choose
from experiments.studies.grid import Asked, Cell, Grid, Screening
from experiments.studies.job import BUSY, Job, read_question
from experiments.studies.rows import rows_of
from experiments.studies.runner import Running, run_jobs
from experiments.studies.shipped import GRIDS
from experiments.studies.stage import Stage
from experiments.studies.study import Carrying, carry_out
from experiments.training.config import TrainConfig
from experiments.training.loop import train

TINY = TrainConfig().replace(
    data="cue",
    patch_size=2,
    embed_dim=16,
    depth=1,
    num_heads=2,
    decoder_depth=1,
    periphery=0,
    budget=2,
    limit=64,
    warmup_batch_size=8,
    warmup_iterations=2,
    iterations=2,
    batch_size=2,
    group=2,
    prefix_share=0.0,
    evaluate_every=None,
)
RANDOM = Cell("random", TINY.replace(iterations=0))
HELD_OUT = Cell("held_out", TINY.replace(iterations=0, learn_split="val"), reference=True)
PAID = Cell(
    "paid", TINY.replace(reward="reducible"), needs={"reward_reference": "held_out"}, idea="RHO"
)
ASKED = Asked(probes=("knn",), train_limit=40, test_limit=20, signs=False, pictures=0)
GRID = Grid(
    name="mine",
    # What is needed comes last: it is trained first all the same.
    cells=(RANDOM, PAID, HELD_OUT),
    seeds=(0, 1),
    asked=ASKED,
    screening=Screening(seeds=(0,), by="k-NN, full", within=1.0),
)


@dataclass
class Starts:
    """Carries jobs out in this process, or ends them with a code of their own."""

    codes: dict[str, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def __call__(self, folder: Path) -> Running:
        self.names.append(folder.name)
        code = self.codes.get(folder.name, 0)
        if code == 0:
            Job.read(folder).carry_out()
        elif code != BUSY:
            (folder / "log.txt").write_text("error: no such images\n")
        return Ended(code)


@dataclass
class Ended:
    exitcode: int | None

    def terminate(self) -> None: ...

    kill = terminate


def carrying(home: Path, start: Starts, **changes: Any) -> Carrying:
    values: dict[str, Any] = {"workers": 1, "stop_at": float("inf"), "threads": 1, "options": {}}
    return Carrying(home=home, start=start, device="cpu", **{**values, **changes})


# --- what is refused


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: replace(PAID, needs={"data": "a"}), "cell 'paid': unknown option of needs 'data'"),
        (
            lambda: Cell(
                "a", "demo --reward-reference x", needs={"reward_reference": "held_out"}
            ).config(),
            "cell 'a': reward_reference stands in its words and in needs",
        ),
        (
            lambda: replace(
                PAID, training=TINY.replace(reward="reducible", reward_reference="x")
            ).config(),
            "cell 'paid': reward_reference stands in its words and in needs",
        ),
        (
            lambda: PAID.config({"reward_reference": "x"}),
            "cell 'paid': reward_reference stands in its words and in needs",
        ),
        (lambda: Grid(cells=(RANDOM, PAID)), "cell 'paid': unknown needs 'held_out'"),
        (
            lambda: Grid(cells=(replace(PAID, needs={"start_from": "paid"}),)),
            "cell 'paid': needs must name another cell",
        ),
        (
            lambda: Grid(
                cells=(
                    replace(RANDOM, needs={"start_from": "b"}),
                    replace(RANDOM, name="b", needs={"start_from": "random"}),
                )
            ),
            "cell 'random': it needs itself, by way of others",
        ),
        (lambda: Grid(cells=(RANDOM, HELD_OUT)), "cell 'held_out': no cell needs this reference"),
        (lambda: Grid(cells=(HELD_OUT, PAID)), "cell 'held_out': a reference is not asked"),
        (
            lambda: Grid(cells=(RANDOM, HELD_OUT, replace(PAID, against="held_out"))),
            "cell 'held_out': a reference is not asked",
        ),
        (
            lambda: Grid(cells=(RANDOM, HELD_OUT, replace(PAID, seeds=(2, 5)))),
            "cell 'paid': it needs held_out with seeds 5; give held_out those",
        ),
    ],
)
def test_what_cannot_be_needed_is_refused(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


def test_an_option_that_a_cell_cannot_have_is_found_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    plain = replace(PAID, training=TINY.replace(reward="gain"))
    grid = replace(GRID, cells=(RANDOM, plain, HELD_OUT))
    with pytest.raises(ValueError, match="cell 'paid': reward_reference needs --reward reducible"):
        carry_out(grid, carrying(tmp_path, Starts()))


def test_an_option_of_all_cells_does_not_overrule_what_a_cell_needs(tmp_path: Path) -> None:
    grid = replace(GRID, cells=(RANDOM, Cell("then", TINY, needs={"start_from": "random"})))
    with pytest.raises(ValueError, match="cell 'then': start_from stands in its words and in nee"):
        carry_out(grid, carrying(tmp_path, Starts(), options={"start_from": "cue"}))


# --- jobs


def test_the_same_seed_and_setting_is_needed_and_a_study_may_be_moved(tmp_path: Path) -> None:
    home = tmp_path / "here"
    for stage, folder in (("screen", home / "screen"), ("final", home)):
        jobs = carrying(home, Starts()).jobs(GRID, stage, GRID.cells)  # type: ignore[arg-type]
        for job in jobs:
            seed = job.config.run.seed
            if job.cell == "paid":
                assert job.config.policy is not None
                assert job.config.policy.reward_reference == str(folder / f"held_out_{seed}")
                assert job.needs == {"reward_reference": f"held_out_{seed}"}
            assert (job.asked is None) == (job.cell == "held_out")
            job.write()
            assert Job.read(job.folder) == job
        moved = carrying(tmp_path / "there", Starts()).jobs(GRID, stage, GRID.cells)  # type: ignore[arg-type]
        assert [job.question for job in moved] == [job.question for job in jobs]


def with_another_reference(grid: Grid) -> Grid:
    """The same, but that its reference learns at another rate."""
    held_out = replace(HELD_OUT, training=TINY.replace(iterations=0, model_lr=0.002))
    cells = tuple(held_out if cell.name == "held_out" else cell for cell in grid.cells)
    return replace(grid, cells=cells)


def test_what_a_needed_run_follows_from_is_part_of_the_question(tmp_path: Path) -> None:
    """Be it needed by way of others."""
    second = Cell("second", TINY.replace(iterations=0), needs={"start_from": "paid"})
    grid = replace(GRID, cells=(second, *GRID.cells), baseline="random")
    jobs, others = (
        carrying(tmp_path, Starts()).jobs(each, "final", each.cells)
        for each in (grid, with_another_reference(grid))
    )
    for job, other in zip(jobs, others, strict=True):
        question = json.loads(job.question)
        without_an_option, without_an_entry = copy.deepcopy(question), copy.deepcopy(question)
        for needed in without_an_option["needs"].values():
            del needed["config"]["model_lr"]
        del without_an_entry["needs"]
        job.config.run.out.mkdir()
        for each in (question, without_an_option, without_an_entry):
            keep_answers(job.config.run.out, json.dumps(each), Answers({}, FACTS))
            assert job.is_done
            # What was answered before there was such an entry counts as unchanged.
            unchanged = ("random",) if "needs" in each else ("random", "paid", "second")
            assert other.is_done == (job.cell in unchanged)


def test_an_option_that_a_question_lacks_had_the_value_that_does_what_was_done(
    tmp_path: Path,
) -> None:
    (job,) = carrying(tmp_path, Starts()).jobs(replace(GRID, seeds=(0,)), "final", GRID.cells)[1:2]
    question = json.loads(job.question)
    for name in ("doubt", "micro_batches", "entropy_weight"):
        del question["config"][name]
    config = read_question(json.dumps(question))["config"]
    usual = TrainConfig().flat()["entropy_weight"]
    assert (config["doubt"], config["micro_batches"]) == (0.0, 1)
    assert config["entropy_weight"] == usual


def test_a_run_goes_on_after_it_was_moved_with_the_run_that_it_needs(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    train(TINY.replace(out=here / "held_out", iterations=0))
    options = {"reward": "reducible", "reward_reference": f"{here}/held_out", "micro_batches": 1}
    paid = TINY.replace(out=here / "paid", **options)
    train(paid.replace(stop_after=3))
    here.rename(there)
    again = paid.replace(out=there / "paid", resume=True)
    for elsewhere in (there / "other", there / "paid" / "held_out", "average"):
        with pytest.raises(ValueError, match=r"cannot resume .*: reward_reference was"):
            check_folder(again.replace(reward_reference=str(elsewhere)))
    assert train(again.replace(reward_reference=f"{there}/held_out")).iteration == 4


@pytest.mark.slow
def test_a_study_that_was_moved_asks_a_run_with_what_it_needs(tmp_path: Path) -> None:
    """Its operations are counted by the config of the run, which names the former place."""
    grid = replace(GRID, cells=(HELD_OUT, PAID), baseline="paid", seeds=(1,), screening=None)
    for job in carrying(tmp_path / "here", Starts()).jobs(grid, "final", grid.cells):
        job.carry_out()
    (tmp_path / "here").rename(tmp_path / "there")
    grid = replace(grid, asked=replace(ASKED, test_limit=30))
    _, paid = carrying(tmp_path / "there", Starts()).jobs(grid, "final", grid.cells)
    assert not paid.is_done
    paid.carry_out()
    assert paid.is_done


@pytest.mark.slow
def test_a_run_does_not_go_on_with_what_it_needs_trained_anew(tmp_path: Path) -> None:
    grid = replace(GRID, cells=(HELD_OUT, PAID), baseline="paid", seeds=(1,), screening=None)
    for job in carrying(tmp_path, Starts()).jobs(grid, "final", grid.cells):
        job.carry_out()
    shutil.rmtree(tmp_path / "held_out_1")
    grid = with_another_reference(grid)
    held_out, paid = carrying(tmp_path, Starts()).jobs(grid, "final", grid.cells)
    held_out.carry_out()
    assert not paid.is_done
    for _ in range(2):
        with pytest.raises(ValueError, match=r"paid_1 began with another run than held_out_1 as"):
            paid.carry_out()
    shutil.rmtree(tmp_path / "paid_1")
    paid.carry_out()
    assert paid.is_done


def test_a_file_of_a_job_from_before_there_were_needs_is_read(tmp_path: Path) -> None:
    job = carrying(tmp_path, Starts()).jobs(GRID, "final", [RANDOM])[0]
    job.write()
    path = job.folder / "job.json"
    content = json.loads(path.read_text())
    del content["needs"], content["trainings"]
    path.write_text(json.dumps(content))
    assert Job.read(job.folder) == job


def test_a_failed_run_fails_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    """By two steps: the second needs the first, which needs what fails."""
    second = Cell("second", TINY.replace(iterations=0), needs={"start_from": "paid"})
    grid = replace(GRID, cells=(second, *GRID.cells), baseline="random")
    jobs = carrying(tmp_path, Starts()).jobs(grid, "screen", grid.cells)
    for workers in (1, None):
        start = Starts({"held_out_0": 1})
        missing = {each.job.name: each.why for each in run_jobs(jobs, start, workers=workers)}
        because = "not run, as it needs held_out_0, which failed: no such images"
        assert missing == {
            "held_out_0": "no such images",
            "paid_0": because,
            "second_0": f"not run, as it needs paid_0, which failed: {because}",
        }
        assert "paid_0" not in start.names
    until = time.monotonic() + 0.5
    waits = run_jobs(jobs, Starts({"held_out_0": BUSY}), stop_at=until)
    assert {each.job.name: each.why for each in waits} == dict.fromkeys(
        ("held_out_0", "paid_0", "second_0")
    )


# --- a whole study


@pytest.mark.slow
def test_a_study_trains_what_is_needed_first_and_says_what_it_cost(tmp_path: Path) -> None:
    start = Starts()
    # Operations of paid are counted with its reference; those of a reference always are.
    grid = replace(GRID, seeds=(1,), teraflops=4e-5, screening=None)
    grid = replace(grid, asked=replace(ASKED, compute=False))
    result = carry_out(grid, carrying(tmp_path, start)).result
    assert start.names == ["random_1", "held_out_1", "paid_1"]
    config = read_config(tmp_path / "paid_1")
    assert config.policy is not None
    assert config.policy.reward_reference == str(tmp_path / "held_out_1")
    assert read_config(tmp_path / "held_out_1").data.learn_split == "val"
    assert (result.needs, result.dropped) == ({"paid": ("held_out",)}, {})
    stage = result.final
    assert stage is not None
    assert {row.cell for row in stage.rows} == {"random", "paid"}
    assert set(stage.facts) == {"random", "paid", "held_out"}
    cost = stage.facts["held_out"][0].teraflops
    assert cost == pytest.approx(4e-5, rel=0.5)
    line = f"paid took more than its own operations: it needs held_out, {cost:.3g} TFLOP."
    assert line in result.answer()
    table = result.compute_table(stage)
    column = table.columns.index("and what it needs")
    assert {row[0]: row[column] for row in table.rows} == {
        "random": "",
        "paid": f"held_out, {cost:.3g} TFLOP",
        "held_out": "",
    }
    # What is done is not done again, be it that nothing was asked.
    again = Starts()
    assert carry_out(grid, carrying(tmp_path, again)).result.final == stage
    assert again.names == []
    found = read_answers(tmp_path / "held_out_1")
    assert found is not None
    assert found.values == {}


def test_a_study_whose_reference_fails_names_all_that_is_not_run(tmp_path: Path) -> None:
    result = carry_out(GRID, carrying(tmp_path, Starts({"held_out_0": 1}))).result
    because = "not run, as it needs held_out_0, which failed: no such images"
    assert result.failures == {"held_out_0": "no such images", "paid_0": because}
    assert result.dropped["paid"] == f"it failed in screening, paid_0: {because}"
    assert result.final is not None
    assert set(result.final.facts) == {"random"}


def test_without_time_what_is_needed_waits_as_all_does(tmp_path: Path) -> None:
    result = carry_out(GRID, carrying(tmp_path, Starts(), stop_at=0.0)).result
    assert result.undecided == "3 of the screening's runs are not done"


# --- the choice


def screened(**right: float) -> Stage:
    """One seed and 100 images, of which each cell knows so many."""
    runs = {
        name: {0: Answers({"k-NN, full": np.arange(100.0) < share * 100}, FACTS)}
        for name, share in right.items()
    }
    facts = dict.fromkeys(right, (FACTS,))
    return Stage(title="t", rows=rows_of(runs, "random"), facts=facts, failed={}, waiting=())


def test_a_reference_goes_on_with_those_that_need_it_alone() -> None:
    rule = Screening(seeds=(0,), by="k-NN, full", within=0.01)
    choice = choose(GRID, rule, screened(random=0.5, paid=0.5))
    assert (choice.kept, choice.dropped) == (("random", "paid", "held_out"), {})
    choice = choose(GRID, rule, screened(random=0.5, paid=0.4))
    assert (choice.kept, list(choice.dropped)) == (("random",), ["paid"])


def test_a_candidate_that_is_needed_is_taken_along() -> None:
    rule = Screening(seeds=(0,), by="k-NN, full", within=0.01)
    first = Cell("first", TINY.replace(iterations=0))
    then = Cell("then", TINY.replace(iterations=0), needs={"start_from": "first"})
    grid = replace(GRID, cells=(RANDOM, first, then))
    choice = choose(grid, rule, screened(random=0.5, first=0.3, then=0.6))
    assert (choice.kept, choice.dropped) == (("random", "first", "then"), {})


@pytest.mark.parametrize("name", ["teaching", "teaching_imagenette"])
def test_the_grids_of_teaching_have_a_reference_of_held_out_images(name: str) -> None:
    cells = {cell.name: cell for cell in GRIDS[name]().cells}
    assert cells["held_out"].config().data.learn_split == "val"
    assert [cell.name for cell in cells.values() if cell.reference] == ["held_out"]
    needing = {cell.name: cell.needs for cell in cells.values() if cell.needs}
    assert needing == {"reducible_held_out": {"reward_reference": "held_out"}}

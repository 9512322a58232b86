"""Seeing and teaching: three runs a seed are trained, and asked what they know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from experiments.evaluation.knowing.measure import measured
from experiments.evaluation.knowing.picture import draw_knowing
from experiments.evaluation.knowing.plan import POLICY, RANDOM, KnowingQuestions, SeedPlan
from experiments.evaluation.knowing.result import KnowingResult
from experiments.evaluation.knowing.rows import RunKnowledge, area_rows, known_rows, taught_rows
from experiments.evaluation.orders.evaluate import check_answerable
from experiments.evaluation.recognition.paths import check_orders, check_others, try_own
from experiments.evaluation.report import present
from experiments.evaluation.scanpaths import check_near
from experiments.finished_run import finished_run
from experiments.run_folder import git_commit, of_kind
from experiments.runs import Run
from experiments.tables import written_whole
from experiments.training.build import load_split, set_threads
from experiments.training.config import TrainConfig


def study_knowing(
    common: TrainConfig,
    asked: KnowingQuestions,
    *,
    seeds: Sequence[int],
    out: Path,
    teaching: bool = True,
) -> KnowingResult:
    """Train the three runs of every seed, or take those that are there, and ask what they know.

    Args:
        common: a joint training of model and policy.
        asked: of the policy's model; that of random scans is asked after ``policy`` and ``random``.
        seeds: of training.
        out: folder of the runs; finished ones are kept, others resumed.
        teaching: whether models of random scans are trained and asked as well.

    Raises:
        ValueError: the training is not joint, what is asked has no answer, the data has no labels,
            a run that is there has another config, or random_then_policy_SEED another model than
            random_SEED.
    """
    check_orders(asked.orders)
    check_near(asked.orders, 0.0 if common.policy is None else common.policy.saccade_cost)
    set_threads(common.run.threads)
    check_answerable(common, asked.train_limit, asked.test_limit)
    few = [load_split(common, each, 2) for each in ("train", "test")]
    check_others(asked.orders, *few)
    try_own(asked.orders, common, few[0])
    teaching_questions = replace(asked, orders=(POLICY, RANDOM), controls=False)
    runs: dict[str, list[RunKnowledge]] = {POLICY: []}
    if teaching:
        runs[RANDOM] = []
    for seed in seeds:
        plan = SeedPlan.of(common, seed, out, teaching=teaching)
        run = finished_run(plan.policy)
        runs[POLICY].append(measured(run, asked))
        if plan.teaching is None:
            continue
        random = finished_run(plan.teaching.random)
        crossed = finished_run(plan.teaching.random_then_policy)
        check_same_model(random, crossed)
        runs[RANDOM].append(measured(crossed, teaching_questions))
    return result_of(runs, run, asked, seeds)


def check_same_model(random: Run, crossed: Run) -> None:
    """Raise ValueError unless the second run holds the first one's model."""
    before, now = random.model.state_dict(), crossed.model.state_dict()
    if before.keys() != now.keys() or not all(torch.equal(before[key], now[key]) for key in before):
        raise ValueError(
            f"{crossed.directory} does not hold the model of {random.directory}, which was trained "
            "anew since; remove the former, and it is trained again"
        )


def result_of(
    runs: dict[str, list[RunKnowledge]], run: Run, asked: KnowingQuestions, seeds: Sequence[int]
) -> KnowingResult:
    """Return the result of all seeds' runs, ``run`` being one of them."""
    first = runs[POLICY][0]
    config = run.config
    return KnowingResult(
        known=known_rows(runs),
        taught=taught_rows(runs) if RANDOM in runs else (),
        areas=area_rows(runs),
        paid=area_rows(runs, lambda each: each.paid),
        saccade_cost=run.saccade_cost,
        data=run.data,
        num_patches=run.model.num_patches,
        budget=run.budget,
        fixation_patches=run.fixations.size,
        periphery=run.model.config.periphery,
        iterations=(config.optimization.warmup_iterations, config.iterations),
        seeds=tuple(seeds),
        train_images=first.train_images,
        test_images=len(next(iter(first.correct.values()))),
        area_images=len(next(iter(first.areas.values()))),
        threads=torch.get_num_threads(),
        commit=git_commit(),
        commits=tuple(
            sorted(
                {
                    commit
                    for of_model in runs.values()
                    for each in of_model
                    for commit in (each.commit, *each.tuned_commits)
                }
            )
        ),
        notes=tuple(
            dict.fromkeys(
                f"{name}: {note}"
                for of_model in runs.values()
                for each in of_model
                for name, note in each.notes.items()
            )
        ),
        options={
            **of_kind(config.flat()),
            **asdict(asked),
            "seeds": seeds,
            "teaching": RANDOM in runs,
            **run.data_options,
        },
    )


def present_knowing(result: KnowingResult, folder: Path) -> None:
    """Write and draw the study, and print its tables; one of other options is kept beside it."""
    path = folder / "knowing.json"
    picture = path.with_suffix(".png")
    present(result, path, pictures=[picture])
    with written_whole(picture) as partial:
        draw_knowing(result, partial)
    print(f"written: {picture}")

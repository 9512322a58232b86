"""What one run knows after k fixations, measured once and kept in its folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from experiments.evaluation.compare.findings import costs_of
from experiments.evaluation.kept import defaults_of, keep_arrays, read_arrays
from experiments.evaluation.knowing.plan import KnowingQuestions
from experiments.evaluation.knowing.question import question_of
from experiments.evaluation.knowing.rows import RunKnowledge
from experiments.evaluation.knowing.tuned import fine_tuned
from experiments.evaluation.recognition.asking import Answered
from experiments.evaluation.recognition.evaluate import recognize
from experiments.evaluation.recognition.paths import curves_of
from experiments.evaluation.recognition.result import of_the_labels, titled
from experiments.run_folder import git_commit
from experiments.runs import Run

ABOUT = ("train_images", "notes", "commit")
"""What is kept beside the arrays."""


def measured(run: Run, asked: KnowingQuestions) -> RunKnowledge:
    """Return what a run knows; what was kept of the same question is read instead of measured."""
    path = run.directory / "knowing.npz"
    question = question_of(run, asked)
    kept = read_kept(path, question)
    if kept is None:
        if path.is_file():
            print(f"{path} answers another question and is replaced", flush=True)
        kept = ask(run, asked)
        keep(path, question, kept)
    elif kept.commit != (now := git_commit()):
        print(f"{path} was measured at commit {kept.commit}, this is {now}; it is kept", flush=True)
    elif now.endswith("-dirty"):
        print(f"{path} is kept; it may be of other changes to commit {now}", flush=True)
    if asked.finetune_epochs:
        more, commits = fine_tuned(run, asked)
        kept = replace(kept, correct={**kept.correct, **more}, tuned_commits=commits)
    return kept


def ask(run: Run, asked: KnowingQuestions) -> RunKnowledge:
    """Probe what a run knows, and measure the errors of its scans.

    Raises:
        ValueError: the images cannot say what it knows.
    """
    print(f"asking {run.name} after fixations of {', '.join(asked.orders)}", flush=True)
    known = recognize(
        run,
        orders=asked.orders,
        after=asked.after,
        read_outs=asked.read_outs,
        probe=asked.fixations_probe,
        controls=asked.controls,
        label_shares=asked.label_shares,
        train_limit=asked.train_limit,
        test_limit=asked.test_limit,
    )
    if not known.correct:
        why = "; ".join(dict.fromkeys(known.notes.values()))
        raise ValueError(f"{run.name} cannot be asked what it knows: {why}")
    areas, costs = areas_of(run, asked.orders, "test", asked.area_limit)
    return RunKnowledge(
        correct={
            (each.order, each.after, read_out_of(each)): right
            for each, right in known.correct.items()
        },
        areas=areas,
        paid={order: areas[order] + cost for order, cost in costs.items()},
        train_images=known.train_images,
        notes={
            **known.notes,
            **{
                f"{share} of the labels": of_the_labels(number, known.train_images, float(share))
                for share, number in known.label_images.items()
            },
        },
        commit=git_commit(),
    )


def read_out_of(asked: Answered) -> str:
    """Name features and their probe, and the share of the labels that it had, unless all."""
    share = "" if asked.label_share == 1 else f", {asked.label_share} of the labels"
    return titled(asked.read_out, asked.probe) + share


def areas_of(
    run: Run, orders: tuple[str, ...], split: str, limit: int | None
) -> tuple[dict[str, Float[np.ndarray, " R"]], dict[str, Float[np.ndarray, " R"]]]:
    """Measure each order's area under the error curve on images of a split, and its saccades' cost.

    There is no cost where saccades cost nothing, or the policy has another reward than the area.
    """
    paths, curves = curves_of(run, orders, run.split(split, limit))
    areas = {order: curve[:, 1:].mean(1) for order, curve in curves.items()}
    if not run.is_paid_area_and_cost:
        return areas, {}
    return areas, costs_of(paths, run.model.grid, run.saccade_cost)


def keep(path: Path, question: str, found: RunKnowledge) -> None:
    """Write what a run knows as arrays, a row each, beside the question and the rows' names."""
    names = {
        "correct": list(found.correct),
        "areas": list(found.areas),
        "paid": list(found.paid),
    }
    about = {name: getattr(found, name) for name in ABOUT}
    keep_arrays(
        path,
        question,
        names=json.dumps(names),
        about=json.dumps(about),
        correct=np.stack(list(found.correct.values())),
        areas=np.stack(list(found.areas.values())),
        paid=np.array(list(found.paid.values())),
    )


def read_kept(path: Path, question: str) -> RunKnowledge | None:
    """Read what was kept; None = nothing, of another question, or damaged."""
    usual = defaults_of(KnowingQuestions)
    if "others" in (asked := json.loads(question)):
        usual["others"] = asked["others"]  # Older files do not say: they count as unchanged.
    arrays = read_arrays(path, question, usual)
    if arrays is None:
        return None
    try:
        names = json.loads(str(arrays["names"]))
        about = json.loads(str(arrays["about"]))
        correct = {
            (order, after, read_out): row
            for (order, after, read_out), row in zip(
                names["correct"], arrays["correct"], strict=True
            )
        }
        areas = dict(zip(names["areas"], arrays["areas"], strict=True))
        paid = dict(zip(names["paid"], arrays["paid"], strict=True)) if "paid" in arrays else {}
    except (ValueError, KeyError):
        return None
    return RunKnowledge(correct, areas, paid, **about)

"""What one run knows after k fixations, measured once and kept in its folder."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float

from experiments.evaluation.curves import error_curves_of
from experiments.evaluation.knowing_plan import Asked
from experiments.evaluation.knowing_rows import Measured
from experiments.evaluation.recognition import recognize
from experiments.evaluation.recognition_asking import Answered
from experiments.evaluation.recognition_paths import Scanners
from experiments.runs import Run
from experiments.tables import written_whole


def measured(run: Run, asked: Asked) -> Measured:
    """Return what a run knows; what was kept of the same question is read instead of measured."""
    path = run.directory / "knowing.npz"
    question = json.dumps({**asdict(asked), "iteration": run.iteration})
    kept = read_kept(path, question)
    if kept is None:
        kept = ask(run, asked)
        keep(path, question, kept)
    return kept


def ask(run: Run, asked: Asked) -> Measured:
    """Probe what a run knows, and measure the errors of its scans."""
    print(f"asking {run.name} after fixations of {', '.join(asked.orders)}", flush=True)
    answers = recognize(
        run,
        orders=asked.orders,
        after=asked.after,
        read_outs=asked.read_outs,
        controls=False,
        train_limit=asked.train_limit,
        test_limit=asked.test_limit,
    ).correct
    return Measured(
        correct={
            (each.order, each.after, read_out_of(each)): right for each, right in answers.items()
        },
        areas=areas_of(run, asked),
    )


def areas_of(run: Run, asked: Asked) -> dict[str, Float[np.ndarray, " R"]]:
    """Measure the area under the error curve of each order on test images."""
    scanners, test = Scanners.of(run, asked.orders), run.split("test", asked.area_limit)
    # Scans of training images are not needed here, but for those of two.
    few = run.split("train", 2)
    policy = scanners.policy(few, test)
    paths = {order: scanners.paths(order, few, test, policy).test for order in asked.orders}
    curves = error_curves_of(run.model, test.images, paths)
    return {order: curve[:, 1:].mean(1) for order, curve in curves.items()}


def read_out_of(answered: Answered) -> str:
    """Name features and probe; the attentive probe is its own read-out."""
    names = dict.fromkeys((answered.read_out, answered.probe))
    return ", ".join(names)


def keep(path: Path, question: str, found: Measured) -> None:
    """Write what a run knows as arrays, a row each, beside the question and the rows' names."""
    names = {"correct": list(found.correct), "areas": list(found.areas)}
    with written_whole(path) as partial:
        np.savez_compressed(
            partial,
            question=question,
            names=json.dumps(names),
            correct=np.stack(list(found.correct.values())),
            areas=np.stack(list(found.areas.values())),
        )


def read_kept(path: Path, question: str) -> Measured | None:
    """Read what was kept; None = nothing, of another question, or damaged."""
    if not path.is_file():
        return None
    try:
        # NumPy leaves a damaged file open.
        with np.load(BytesIO(path.read_bytes())) as arrays:
            if str(arrays["question"]) != question:
                return None
            names = json.loads(str(arrays["names"]))
            correct = {
                (order, after, read_out): row
                for (order, after, read_out), row in zip(
                    names["correct"], arrays["correct"], strict=True
                )
            }
            areas = dict(zip(names["areas"], arrays["areas"], strict=True))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return Measured(correct, areas)

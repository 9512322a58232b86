"""What a run answered: a value per image and measure, and facts, kept in its folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import TypeAdapter

from experiments.evaluation.kept import keep_arrays, read_arrays
from experiments.tables import json_text, read_json, written_whole

ANSWERS, PICTURES = "answers.npz", "pictures.json"
"""Files of a run folder."""
LOWER_IS_BETTER = ("area", "error", "loss")
"""How a measure's name starts of which less is better; of all others more is."""
Values = dict[str, Float[np.ndarray, " I"]]
"""A value for every image, by measure: of a probe the share of its layers that are right."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What else is known of a run."""

    commit: str
    """Of the code that asked."""
    parameters: int
    """Of the model."""
    num_patches: int
    iterations: tuple[int, int]
    """Without and with a policy."""
    images: int
    """Images that the model learned from, each as often as it was seen."""
    train_seconds: float
    teraflops: float | None
    """Operations of the training, 10^12; None = not counted."""
    probe_images: int
    """Training images of the probes; 0 = not probed."""
    loss_curve: tuple[tuple[float, float], ...] = ()
    """Operations so far, 10^12, and the loss on held-out images; iterations where operations were
    not counted."""
    error_curves: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Mean error before the first fixation and after each, by order."""
    signs: tuple[str, ...] = ()
    """What its policy's scans say of collapse, sentences."""
    notes: tuple[str, ...] = ()
    """What could not be asked, and why."""
    asked_images: str = ""
    """Digest of the images that were asked about, in their order; empty = not known."""


@dataclass(frozen=True)
class Answers:
    """All that is known of a run."""

    values: Values
    facts: Facts
    question: str = ""
    """That they answer; empty = not known."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The scan of one image."""

    label: str
    """Its class; empty = not known."""
    order: str
    """Who scanned it: the policy, or random order where none learned."""
    size: tuple[int, int]
    """Height and width, pixels."""
    patch_px: int
    """Side of a patch."""
    opened: list[list[int]]
    """Patches that each fixation opened, by their number in raster order."""
    errors: list[float]
    """Error before the first fixation and after each, over that before the first."""
    image: str
    """PNG, as a data URI."""
    predictions: str | None
    """The same of all predictions, side by side; None = the model predicts no pixels."""


def add(measure: str, each: Float[np.ndarray, " I"], values: Values) -> None:
    """Add the values of a measure.

    Raises:
        ValueError: another measure has its name.
    """
    if measure in values:
        raise ValueError(f"two questions answer {measure!r}; give one's own another name")
    values[measure] = each


def keep_pictures(folder: Path, pictures: Sequence[Picture]) -> None:
    """Write pictures into a run folder."""
    with written_whole(folder / PICTURES) as partial:
        partial.write_text(json_text([asdict(each) for each in pictures]))


def read_pictures(folder: Path) -> list[Picture]:
    """Read the pictures of a run folder; none if there are none, or they are damaged."""
    path = folder / PICTURES
    if not path.is_file():
        return []
    try:
        return TypeAdapter(list[Picture]).validate_python(read_json(path))
    except ValueError:
        print(
            f"note: {path} is damaged, and its scans are left out; remove it, and the same "
            "command draws them anew",
            file=sys.stderr,
            flush=True,
        )
        return []


def keep_answers(folder: Path, question: str, answers: Answers) -> None:
    """Write answers into a run folder, beside the question that they answer."""
    arrays: dict[str, Any] = {
        "measures": json.dumps(list(answers.values)),
        "facts": json.dumps(asdict(answers.facts)),
        **{str(place): each for place, each in enumerate(answers.values.values())},
    }
    keep_arrays(folder / ANSWERS, question, **arrays)


def read_answers(folder: Path) -> Answers | None:
    """Read what a run answered; None = nothing, or it is damaged."""
    arrays = read_arrays(folder / ANSWERS)
    if arrays is None:
        return None
    try:
        measures = json.loads(str(arrays["measures"]))
        values = {name: arrays[str(place)] for place, name in enumerate(measures)}
        facts = TypeAdapter(Facts).validate_python(json.loads(str(arrays["facts"])))
        question = str(arrays["question"])
    except (ValueError, KeyError):
        return None
    return Answers(values, facts, question)


def is_error(measure: str) -> bool:
    """Whether less is better of a measure."""
    return measure.startswith(LOWER_IS_BETTER)

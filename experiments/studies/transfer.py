"""What an encoder knows of the classes of images that it was not trained on."""

from __future__ import annotations

from dataclasses import replace

from experiments.runs import Run
from experiments.studies.answers import Values
from experiments.studies.asking import ask_probes
from experiments.studies.grid import Asked, Split
from foveate.files import expanded

IMAGENETTE = "imagenette96.parquet"
"""File of labeled photographs, which lies beside those of the training."""


def imagenette(run: Run, split: Split, limit: int | None) -> Values:
    """Probe the frozen encoder of a run on the ten classes of Imagenette, as ``ask_probes`` does.

    Raises:
        ValueError: the file is not there, too small, or its images are not of the run's size.
    """
    trained_on = expanded(run.moved_to or run.config.data.data)
    file = trained_on.resolve().parent / IMAGENETTE
    if not file.is_file():
        raise ValueError(f"no file {file}; put it beside the images of the training")
    config = run.config.replace(data=str(file), image_column=None, caption_column=None)
    other = replace(run, config=config, moved_to=None, data_changed_ok=True)
    values: Values = {}
    notes: list[str] = []
    ask_probes(other, Asked(test_limit=limit), split, values, notes)
    if not values:
        raise ValueError(f"{file} answers nothing: {'; '.join(notes)}")
    return {f"{title}, Imagenette": right for title, right in values.items()}

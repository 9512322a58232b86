"""An export for timm, and what it is worth beside the run: its features, and a linear probe."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from jaxtyping import Float
from timm.data.config import resolve_model_data_config
from torch import Tensor

from experiments.evaluation.probe_questions import Questions, nothing_answers
from experiments.runs import Run
from foveate.data import ImageSet
from foveate.export import export_timm, feature_error
from foveate.model import to_timm
from foveate.probes import linear_probe
from foveate.probes.features import extract_features

MEASURED = 256
"""Test images on which it is measured how features change without the image's own periphery."""
PROBED = {"train": 4000, "test": 2000}
"""The most images of a probe."""


def export_run(
    run: Run,
    folder: Path,
    *,
    image_size: tuple[int, int] | None = None,
    periphery_images: int = 1000,
    probe: bool = False,
    for_transformers: bool = False,
) -> list[str]:
    """Write a folder that timm loads, and return what its model card says of the run.

    Args:
        run: whose encoder is exported.
        folder: where to.
        image_size: as of :func:`foveate.export.export_timm`.
        periphery_images: training images whose mean periphery stands for that of every image; 0 = a
            gray image, for which no data are needed, and nothing is measured.
        probe: whether a linear probe of the export, loaded by timm alone, is compared with the
            run's.
        for_transformers: as of :func:`foveate.export.export_timm`.

    Raises:
        ValueError: as of :func:`foveate.export.export_timm`, or the data are gone or, for the
            probe, without labels.
    """
    about = [f"Trained by foveate on {run.data}, {run.iteration} iterations."]
    mean_of = None
    if run.model.config.periphery and periphery_images:
        mean_of = _all_of(run.split("train", periphery_images), run)
        images = _all_of(run.split("test", MEASURED), run)
        error = feature_error(run.model, to_timm(run.model, mean_of), images)
        about.append(
            f"Without the image's own periphery, patch features are {error:.1%} of their standard "
            f"deviation from those of the run ({len(images)} test images)."
        )
    elif run.model.config.periphery:
        about.append("The periphery of a gray image stands for that of every image.")
    write = partial(
        export_timm,
        run.model,
        folder,
        image_size=image_size,
        periphery_of=mean_of,
        for_transformers=for_transformers,
    )
    write(about=about)
    if probe:
        about.append(_probed(run, folder))
        write(about=about)
    return about


def _all_of(images: ImageSet, run: Run) -> Float[Tensor, "M C H W"]:
    return images.batch(torch.arange(len(images)), device=torch.device(run.device))


def _probed(run: Run, folder: Path) -> str:
    """Say what a linear probe reads from the run and from the export."""
    train, test = (run.split(split, limit) for split, limit in PROBED.items())
    asked = Questions.of(train, test, probes=["linear"], seed=0)
    if "linear" in asked.notes:
        raise nothing_answers(asked.notes)
    train, test = asked.train, asked.test
    last = run.model.config.depth - 1
    both = (
        [extract_features(run.model, images)[last] for images in (train, test)],
        [features_by_timm(folder, images) for images in (train, test)],
    )
    own, exported = (
        linear_probe(seen, train.labels.numpy(), unseen, test.labels.numpy(), seed=0).accuracy
        for seen, unseen in both
    )
    return (
        f"A linear probe of its mean patch tokens is right on {exported:.1%} of {len(test)} test "
        f"images, one of the run's own on {own:.1%} ({len(train)} training images)."
    )


@torch.no_grad()
def features_by_timm(folder: Path, images: ImageSet) -> Float[np.ndarray, "M D"]:
    """Return what an exported model says of images, by what timm finds in the folder alone."""
    vit = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    read_as = resolve_model_data_config(vit)
    mean, deviation = (torch.tensor(read_as[key]).view(-1, 1, 1) for key in ("mean", "std"))
    index = torch.arange(len(images))
    parts = [vit((images.batch(part) - mean) / deviation) for part in index.split(500)]
    pooled: Float[np.ndarray, "M D"] = torch.cat(parts).numpy()
    return pooled

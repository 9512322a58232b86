"""An export for timm, and what it is worth beside the run: its features, and a linear probe."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from jaxtyping import Bool, Float, Int
from timm.data.config import resolve_model_data_config
from torch import Tensor

from experiments.evaluation.intervals import mean_interval
from experiments.evaluation.questions import Questions, nothing_answers
from experiments.runs import Run
from experiments.tables import plural, signed
from foveate.data import ImageSet
from foveate.devices import device_of
from foveate.export import PatchTokens, export_timm, feature_error, gray_image
from foveate.model import AnyOrderTransformer, to_timm
from foveate.probes import linear_classes
from foveate.probes.features import IMAGES_AT_ONCE, extract_features

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
            run's encoder where both see the same, and with that of its own periphery.
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
        vit = to_timm(run.model, mean_of)
        each, mean = (feature_error(run.model, vit, images, pooled=how) for how in (False, True))
        about.append(
            f"Without the image's own periphery, patch features are {each:.1%} of their standard "
            f"deviation from those of the run, their mean over patches {mean:.1%} of that between "
            f"images ({plural(len(images), 'test image')})."
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
        about += probed_beside(run, folder, mean_of)
        write(about=about)
    return about


def _all_of(images: ImageSet, run: Run) -> Float[Tensor, "M C H W"]:
    return images.batch(torch.arange(len(images)), device=torch.device(run.device))


def probed_beside(
    run: Run, folder: Path, periphery_of: Float[Tensor, "M C H W"] | None
) -> list[str]:
    """Say what linear probes read from an export, and from the run.

    They are compared where both see the same: each image with the periphery that the export has.
    What each image's own periphery adds is said by itself. A probe chooses its C on a held-out
    tenth of the training images.

    Args:
        run: whose encoder was exported.
        folder: the export.
        periphery_of: as of the export; None = a gray image.

    Raises:
        ValueError: the images have too few labels for a probe.
    """
    train, test = (run.split(split, limit) for split, limit in PROBED.items())
    asked = Questions.of(train, test, probes=["linear"], seed=0)
    if "linear" in asked.notes:
        raise nothing_answers(asked.notes)
    train, test, model = asked.train, asked.test, run.model
    seen_by = {"export": partial(features_by_timm, folder), "run": partial(pooled, model)}
    if model.config.periphery:
        alike = PatchTokens(model, gray_image(model) if periphery_of is None else periphery_of)
        seen_by = {**seen_by, "alike": partial(pooled_tokens, alike)}
    right = {
        name: is_right(of(train), train.labels.numpy(), of(test), test.labels.numpy())
        for name, of in seen_by.items()
    }
    share = {name: f"{each.mean():.1%}" for name, each in right.items()}
    images = f"{plural(len(test), 'test image')} ({len(train)} training images)"
    line = f"A linear probe of its mean patch tokens is right on {share['export']} of {images}, "
    if not model.config.periphery:
        return [f"{line}one of the run's own on {share['run']}."]
    change, interval = mean_interval(right["alike"].astype(float) - right["run"])
    points = signed(100 * change, interval and (100 * interval[0], 100 * interval[1]), digits=1)
    return [
        f"{line}one of the run's encoder with the same periphery in place of the image's own on "
        f"{share['alike']}.",
        f"With each image's own periphery that is {share['run']}: without it, {points} percentage "
        "points.",
    ]


def is_right(
    seen: Float[np.ndarray, "M D"],
    labels: Int[np.ndarray, " M"],
    unseen: Float[np.ndarray, "K D"],
    answers: Int[np.ndarray, " K"],
) -> Bool[np.ndarray, " K"]:
    """Return which test images a linear probe classifies correctly.

    Raises:
        ValueError: a feature is not finite.
    """
    return linear_classes(seen, labels, unseen, seed=0) == answers


def pooled(model: AnyOrderTransformer, images: ImageSet) -> Float[np.ndarray, "M D"]:
    """Return the mean patch tokens of the last layer, as the run's probe reads them."""
    return extract_features(model, images)[model.config.depth - 1]


@torch.no_grad()
def pooled_tokens(tokens: PatchTokens, images: ImageSet) -> Float[np.ndarray, "M D"]:
    """Return the mean of patch tokens."""
    device = device_of(tokens)
    parts = [tokens(part).mean(1).cpu() for part in images.batches(IMAGES_AT_ONCE, device)]
    found: Float[np.ndarray, "M D"] = torch.cat(parts).numpy()
    return found


@torch.no_grad()
def features_by_timm(folder: Path, images: ImageSet) -> Float[np.ndarray, "M D"]:
    """Return what an exported model says of images, by what timm finds in the folder alone."""
    vit = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    read_as = resolve_model_data_config(vit)
    mean, deviation = (torch.tensor(read_as[key]).view(-1, 1, 1) for key in ("mean", "std"))
    parts = [vit((part - mean) / deviation) for part in images.batches(IMAGES_AT_ONCE)]
    pooled: Float[np.ndarray, "M D"] = torch.cat(parts).numpy()
    return pooled

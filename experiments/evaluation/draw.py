"""Draw scanpaths: a sheet, an animation, and heat maps of the fixations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from experiments.evaluation.options import check_image_numbers
from experiments.evaluation.recognition.paths import scan_of
from experiments.evaluation.run_result import RunResult
from experiments.run_folder import check_writable, git_commit
from experiments.runs import Run, not_finite, say_without_policy
from experiments.tables import written_whole
from foveate.data import ImageSet
from foveate.data.pictures import read_pictures
from foveate.drawing import fixation_heatmaps, scanpath_animation, scanpath_sheet
from foveate.files import check_may_be_folder


@dataclass(frozen=True, kw_only=True)
class Drawings(RunResult):
    """What pictures of scanpaths show; they lie beside the file of this result."""

    kind: ClassVar[str] = "scanpaths"

    dataset: str
    commit: str


DRAWN = (0, 1, 2, 3, 4, 5)
"""Test images that are drawn, unless others are asked for."""
DRAWN_OF_ONES_OWN = tuple(range(24))
"""The same of pictures of one's own."""


def draw(
    run: Run,
    *,
    index: tuple[int, ...] | None = None,
    order: str = "policy",
    heatmap_limit: int = 1000,
    image: Sequence[Path] = (),
    out: Path | None = None,
) -> list[Path]:
    """Draw; return the files: sheet, animation, heat maps, and what they show.

    Pictures of other options are kept under a number, as scanpaths.json tells.

    Args:
        run: its policy scans, and its model reconstructs.
        index: test images of the sheet and the animation; None = the first six, or all of fewer. Of
            one's own pictures the first 24.
        order: policy, or the name of any order or agent.
        heatmap_limit: test images of the heat maps, the first ones.
        image: files, or folders of them, that take the place of the test images; the run's data
            are not looked at, and drawings get the ending ``_own``.
        out: folder of the drawings, made if it is missing; None = the run's.

    Raises:
        ValueError: unknown order, an image that the test split does not hold, or a picture that
            cannot be read.
    """
    folder = run.directory if out is None else made(out)
    run.model.check_scannable()
    scan = scan_of(run, order)
    if order == "policy":
        say_without_policy([run])
    usual = DRAWN_OF_ONES_OWN if image else DRAWN
    shown, names = shown_images(run, image, max(heatmap_limit, *(index or usual)) + 1)
    index = usual[: len(shown)] if index is None else index
    check_index(index, len(shown), "there are pictures" if image else "the test split holds")
    every = torch.arange(min(heatmap_limit, len(shown)))
    images = shown.batch(torch.cat([torch.tensor(index), every]), device=torch.device(run.device))
    paths = scan(images)
    chosen = len(index)
    picked, path = images[:chosen], paths[:chosen]
    labels = None if names is None else [names[each] for each in index]
    # What predicts features alone has no pixels to show.
    canvas = run.model.reconstructions(picked, path) if run.model.config.predicts_pixels else None
    error = errors_of(run, picked, path)
    files = files_in(folder, order, is_own=bool(image))
    dataset = shown.name if image else run.dataset(shown)
    result = Drawings(dataset=dataset, commit=git_commit(), iteration=run.iteration)
    options = {"index": index, "order": order, "heatmap_limit": heatmap_limit, **run.data_options}
    # Drawings of another run may lie in a folder of one's own.
    options |= {} if out is None else {"scanned_by": str(run.directory.resolve())}
    options |= {"image": list(map(str, image))} if image else {}
    told = files[0].with_suffix(".json")
    result.keep(told, options, files)
    with written_whole(files[0]) as sheet, written_whole(files[1]) as animation:
        scanpath_sheet(picked, path, canvas, run.model.grid, sheet, errors=error, labels=labels)
        scanpath_animation(picked, path, canvas, run.model.grid, animation, labels=labels)
    with written_whole(files[2]) as maps:
        fixation_heatmaps(paths[chosen:], run.model.grid, maps)
    return [*files, told]


def errors_of(
    run: Run, images: Float[Tensor, "B C H W"], path: Int[Tensor, "B T *K"]
) -> Float[Tensor, "B L"]:
    """Return the error curves of scanpaths; raise ValueError unless they are finite."""
    errors = run.model.error_curve(images, path)
    if not errors.isfinite().all():
        raise not_finite(run)
    return errors


def made(folder: Path) -> Path:
    """Make a folder if it is missing, and check that it can be written into.

    Raises:
        ValueError: it cannot, or a file lies there.
        OSError: it cannot be made.
    """
    check_may_be_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder)
    return folder


def files_in(folder: Path, order: str, *, is_own: bool) -> list[Path]:
    """Return the files of sheet, animation and heat maps."""
    suffix = "_own" * is_own
    suffix += "" if order == "policy" else f"_{order.replace(':', '_')}"
    kinds = ("scanpaths", "png"), ("scanpaths", "gif"), ("fixations", "png")
    return [folder / f"{name}{suffix}.{kind}" for name, kind in kinds]


def shown_images(
    run: Run, pictures: Sequence[Path], limit: int
) -> tuple[ImageSet, list[str] | None]:
    """Return the first test images, or pictures instead, and what each is called.

    Raises:
        ValueError: there are none, or they cannot be read.
    """
    if not pictures:
        test = run.split("test", limit)
        return test, names_of(test)
    config = run.model.config
    return read_pictures(pictures, (config.in_chans, *config.image_size), limit)


def check_index(index: tuple[int, ...], number: int, there: str) -> None:
    """Raise ValueError unless there are images of these numbers; ``there`` says where."""
    check_image_numbers(index)
    if max(index) >= number:
        raise ValueError(f"image {max(index)} of --index does not exist: {there} 0..{number - 1}")


def names_of(images: ImageSet) -> list[str] | None:
    """Return the name of each image's class, empty where it is not known; None without classes."""
    if not images.class_names:
        return None
    return [images.class_names[label] if label >= 0 else "" for label in images.labels.tolist()]

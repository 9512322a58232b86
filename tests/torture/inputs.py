"""Bad and unusual data sets: read as their owner means them, or refused in one line."""

from __future__ import annotations

import functools
import importlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .faults import limit_memory
from .pictures import Pixels
from .plan import Plan, Trial
from .process import Lost, start

SLOW_S = 30.0
"""No small data set takes longer to read or to refuse."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Loaded:
    """The three splits of a data set, joined."""

    images: Pixels
    labels: list[int]
    classes: list[str]
    sizes: dict[str, int]
    """Images of each split."""

    @property
    def names(self) -> list[str | None]:
        """Class of each image by name; None without one."""
        known = self.classes
        return [known[k] if 0 <= k < len(known) else None for k in self.labels]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Case:
    """A data set of one kind, and what is right."""

    name: str
    make: Callable[[Path], Path | None]
    """Writes it into an empty folder; returns what to load; None = the folder."""
    reads: Callable[[Loaded], bool] | None = None
    """Whether what was read is what was meant; None: it must be refused."""
    refuses: tuple[str, ...] | None = None
    """Words of the line that refuses it; None: it must be read. Of both, either is right."""
    says: tuple[str, ...] = ()
    """Words that are shown even if it is read."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of ``load_data``, or of the stream."""
    streams: bool = False
    """Read it as a stream of shards."""
    splits: tuple[str, ...] = SPLITS


def number(total: int) -> Callable[[Loaded], bool]:
    """Return a question: were so many images read, each in its own color?"""
    return lambda loaded: len(loaded) == total and colors_fit(loaded)


def colors_fit(loaded: Loaded) -> bool:
    """Whether the classes, if there are three, tell the colors apart, and no image is upside down.

    Classes by name are in the order of the colors in every case that is made here.
    """
    pixels = loaded.images
    if pixels.shape[1] != 3:
        return True
    strongest = pixels[:, :, pixels.shape[2] // 2 :].mean((2, 3)).argmax(1)
    labeled = [k for k in loaded.labels if k >= 0]
    by_color = len(loaded.classes) != 3 or list(strongest) == loaded.labels or not labeled
    return by_color and is_upright(loaded)


def is_upright(loaded: Loaded) -> bool:
    """Whether the dark quarter of every image is at its upper left."""
    pixels = loaded.images
    height, width = pixels.shape[2] // 2, pixels.shape[3] // 2
    dark = pixels[:, :, : height - 1, : width - 1].mean((1, 2, 3))
    light = pixels[:, :, height + 1 :, width + 1 :].mean((1, 2, 3))
    return bool((dark + 20 < light).all())


def unlabeled(total: int) -> Callable[[Loaded], bool]:
    """Return a question: were so many images read, all of them without a label?"""
    return lambda loaded: len(loaded) == total and set(loaded.labels) == {-1}


def trials(plan: Plan) -> Iterator[Trial]:
    """List all cases; a few of each module in the short form."""
    for name in ("pixels", "folders", "tables", "parquet", "tars"):
        cases = importlib.import_module(f".inputs_{name}", __package__).cases(plan.rng)
        for case in cases[:: len(cases) // 2] if plan.short else cases:
            yield Trial("inputs", f"{name}, {case.name}", functools.partial(check, case))
    if not plan.short:
        for name, run in importlib.import_module(".arrays", __package__).CHECKS.items():
            yield Trial("inputs", f"arrays, {name}", run)


def check(case: Case, folder: Path) -> None:
    """Load a data set in a process of its own and check what comes of it."""
    place = folder / "data"
    place.mkdir()
    path = case.make(place) or place
    out = folder / "loaded.npz"
    target = functools.partial(load, str(path), case.options, case.streams, case.splits, out)
    environment = {"FOVEATE_CACHE": str(folder / "cache")}
    started = time.monotonic()
    done = start(target, folder, faults=[limit_memory(16)], environment=environment).wait()
    if time.monotonic() - started > SLOW_S:
        raise Lost(f"took {time.monotonic() - started:.0f} s")
    if done.code == 0 and case.reads is not None:
        done.well().says(*case.says)
        with np.load(out) as content:
            facts = json.loads(str(content["facts"]))
            loaded = Loaded(content["images"], **facts)
        if not case.reads(loaded):
            raise Lost(
                f"read as {loaded.images.shape}, {loaded.sizes}, classes {loaded.classes[:5]}, "
                f"labels {sorted(set(loaded.labels))[:5]}"
            )
    elif case.refuses is not None:
        done.refused(*case.refuses)
    else:
        done.well()


def load(
    path: str, options: dict[str, Any], streams: bool, splits: tuple[str, ...], out: Path
) -> None:
    """Load all splits and write what they hold."""
    from experiments.cli import run

    run(lambda _: _load(path, options, streams, splits, out), None)


def _load(
    path: str, options: dict[str, Any], streams: bool, splits: tuple[str, ...], out: Path
) -> None:
    from foveate.data import load_data
    from foveate.data.first_images import first_images

    sets = []
    for split in splits:
        if streams:
            sets.append(first_images(path, split, **{"image_size": 32, "limit": 1000, **options}))
        else:
            sets.append(load_data(path, split, **options))
    facts = {
        "labels": [int(label) for each in sets for label in each.labels.tolist()],
        "classes": list(sets[0].class_names),
        "sizes": {split: len(each) for split, each in zip(splits, sets, strict=True)},
    }
    if any(each.class_names != sets[0].class_names for each in sets):
        raise AssertionError("the splits do not agree on the classes")
    images = np.concatenate([each.images.numpy() for each in sets])
    np.savez(out, images=images, facts=json.dumps(facts))

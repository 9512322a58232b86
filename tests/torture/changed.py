"""Data that change, move, or are looked for from elsewhere between training and what follows."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from .inputs import load
from .pictures import cells, colored, encoded, folder_of, parquet_of, write
from .plan import Plan, Trial
from .process import Done, Lost, command, start
from .runs import outcome, write_shards

SMALL = (
    *("smoke", "--no-report", "--warmup-iterations", "2", "--iterations", "2", "--threads", "1"),
    *("--evaluate-every", "None", "--patch-size", "8"),
)
FEW = ("--limit", "4", "--oracle-limit", "2")
Change = Callable[[Path], object]


def trials(plan: Plan) -> Iterator[Trial]:
    """List the changes."""
    for name, (make, change) in CHANGES.items():
        run = functools.partial(check_change, make, change)
        yield Trial("changed", f"{name}, before a resume and a comparison", run)
        if plan.short:
            return
    for name, change in STREAM_CHANGES.items():
        run = functools.partial(check_stream_change, change)
        yield Trial("changed", f"{name}, before a resume of a stream", run)
    yield Trial("changed", "data that moved", moved)
    yield Trial("changed", "another folder of the same name", same_name)
    for name, changes in STABLE.items():
        yield Trial("changed", f"splits stay, {name}", functools.partial(stable, changes))
    for name, data in UNANSWERED.items():
        yield Trial("changed", f"a report on {name}", functools.partial(reported, data))


def train(data: Path | str, folder: Path, *more: str, cwd: Path | None = None) -> Done:
    """Train on some data into ``folder/run``."""
    arguments = (*SMALL, "--limit", "None", "--data", str(data), "--out", str(folder / "run"))
    environment = {"FOVEATE_CACHE": str(folder / "cache")}
    call = command("train", *arguments, *more)
    return start(call, folder, cwd=cwd, environment=environment).wait()


def compare(folder: Path, *more: str | Path, cwd: Path | None = None) -> Done:
    """Compare orders on the run."""
    environment = {"FOVEATE_CACHE": str(folder / "cache")}
    call = command("compare", "--run", folder / "run", *FEW, *more)
    return start(call, folder, cwd=cwd, environment=environment).wait()


# --- changes of what is there


def _folder(root: Path) -> None:
    folder_of(root, 30)


def _table(root: Path) -> None:
    parquet_of(root, 90)


def _half_table(root: Path) -> None:
    path = next(root.glob("*.parquet"))
    pq.write_table(pq.read_table(path).slice(0, 45), path)


def _other_pixels(root: Path) -> None:
    files = [encoded(colored(i + 500)) for i in range(90)]
    parquet_of(root, 90, image=cells(files))


def _renamed(root: Path) -> None:
    for path in sorted((root / "a").iterdir())[:20]:
        path.rename(path.with_name(f"new_{path.name}"))


def _exchanged(root: Path) -> None:
    for i in range(30):
        write(root / "a" / f"{i:03}.png", colored(3 * i + 900))


CHANGES: dict[str, tuple[Change, Change]] = {
    "an image more": (_folder, lambda root: write(root / "a" / "new.png", colored(0))),
    "images less": (
        _folder,
        lambda root: [path.unlink() for path in sorted((root / "b").iterdir())[:15]],
    ),
    "a class less": (_folder, lambda root: shutil.rmtree(root / "c")),
    "a class more": (_folder, lambda root: folder_of(root, 10, "d")),
    "images of other names": (_folder, _renamed),
    "images of other content": (_folder, _exchanged),
    "half of the rows": (_table, _half_table),
    "rows of other pixels": (_table, _other_pixels),
}
"""What makes a data set, and what changes it."""


def check_change(make: Change, change: Change, folder: Path) -> None:
    """Change data in the middle of a run: noticed, or, if asked for, said."""
    data = folder / "data"
    data.mkdir()
    make(data)
    train(data, folder, "--stop-after", "2").well()
    change(data)
    train(data, folder, "--resume").refused("changed|had|differ", "--data-changed-ok")
    compare(folder).refused("changed|had|differ", "--data-changed-ok")
    compare(folder, "--data-changed-ok").well().says("changed|had|differ")
    train(data, folder, "--resume", "--data-changed-ok").well().says("changed|had|differ")


def _half_shard(root: Path) -> None:
    path = sorted(root.glob("train*.parquet"))[0]
    table = pq.read_table(path)
    pq.write_table(table.slice(0, table.num_rows // 2), path, row_group_size=16)


def _other_tar(root: Path) -> None:
    path = sorted(root.glob("train*.tar"))[0]
    shutil.copyfile(sorted(root.glob("train*.tar"))[1], path)


STREAM_CHANGES: dict[str, Callable[[Path], object]] = {
    "half a shard": lambda root: _half_shard(root / "parquet"),
    "a shard less": lambda root: sorted((root / "parquet").glob("train*"))[0].unlink(),
    "another tar file": lambda root: _other_tar(root / "tar"),
    "a tar file less": lambda root: sorted((root / "tar").glob("train*"))[0].unlink(),
}


def check_stream_change(change: Callable[[Path], object], folder: Path) -> None:
    """Change shards in the middle of a streamed run."""
    write_shards(folder)
    which = (
        "tar" if "tar" in next(n for n, c in STREAM_CHANGES.items() if c is change) else "parquet"
    )
    options = ("--stream", "--image-size", "16", "--patch-size", "4")
    data = folder / which
    train(data, folder, *options, "--stop-after", "2").well()
    change(folder)
    train(data, folder, *options, "--resume").refused("shard|file|source|changed|had")


# --- places


def moved(folder: Path) -> None:
    """Move data after training: the comparison says that they are gone, and takes the new place."""
    folder_of(folder / "data", 30)
    train(folder / "data", folder).well()
    compare(folder).well()
    before = (folder / "run" / "compare.json").read_text()
    (folder / "data").rename(folder / "elsewhere")
    compare(folder).refused("data", "--data")
    compare(folder, "--data", folder / "elsewhere").well()
    check_equal_orders(before, (folder / "run" / "compare.json").read_text())


def check_equal_orders(before: str, now: str) -> None:
    """Check that two comparisons found the same."""
    if json.loads(before)["orders"] != json.loads(now)["orders"]:
        raise Lost("the comparison has other numbers")


def same_name(folder: Path) -> None:
    """Evaluate from a folder that has other data under the name that training was given."""
    first, second = folder / "first", folder / "second"
    folder_of(first / "data", 30)
    folder_of(second / "data", 30, make=lambda i: colored(i + 700))
    train("data", folder, cwd=first).well()
    compare(folder, cwd=first).well()
    before = (folder / "run" / "compare.json").read_text()
    compare(folder, cwd=second).well()
    check_equal_orders(before, (folder / "run" / "compare.json").read_text())


# --- splits that stay


def _add(root: Path) -> None:
    for i in range(0, 40, 3):
        write(root / "a" / f"0000_{i}.png", colored(3 * i + 1200))


def _remove(root: Path) -> None:
    for path in sorted((root / "b").iterdir())[::4]:
        path.unlink()


STABLE: dict[str, Callable[[Path], None]] = {
    "images added": _add,
    "images removed": _remove,
    "a class added": lambda root: (
        folder_of(root, 20, "0", make=lambda i: colored(i + 2000)) and None
    ),
    "both": lambda root: (_add(root), _remove(root)) and None,
}


def stable(change: Callable[[Path], None], folder: Path) -> None:
    """Draw splits before and after a change: no image is on another side."""
    root = folder / "data"
    folder_of(root, 60)
    before = split_of_each(root, folder, "before")
    change(root)
    after = split_of_each(root, folder, "after")
    common = set(before) & set(after)
    changed = sum(before[image] != after[image] for image in common)
    if changed or len(common) < 100:
        raise Lost(f"{changed} of {len(common)} images are in another split")


def split_of_each(root: Path, folder: Path, name: str) -> dict[bytes, str]:
    """Return the split of each image, by its pixels."""
    out = folder / f"{name}.npz"
    call = functools.partial(load, str(root), {}, False, ("train", "val", "test"), out)
    start(call, folder, environment={"FOVEATE_CACHE": str(folder / "cache")}).wait().well()
    with np.load(out) as content:
        sizes: dict[str, int] = json.loads(str(content["facts"]))["sizes"]
        names = [split for split, number in sizes.items() for _ in range(number)]
        return {
            image.tobytes(): split for image, split in zip(content["images"], names, strict=True)
        }


# --- questions without an answer


def _one_of_a_class(root: Path) -> None:
    folder_of(root, 20)
    write(root / "d" / "000.png", colored(5))


def _missing_class(root: Path) -> None:
    folder_of(root / "train", 15, "ab")
    folder_of(root / "val", 5, "ab")
    folder_of(root / "test", 5, "abc")


def _one_test_image(root: Path) -> None:
    folder_of(root / "train", 15)
    folder_of(root / "val", 4)
    write(root / "test" / "a" / "000.png", colored(0))


def _loose(root: Path) -> None:
    for i in range(40):
        write(root / f"{i:03}.png", colored(i))


UNANSWERED: dict[str, Callable[[Path], object]] = {
    "images without labels": _loose,
    "a class of one image": _one_of_a_class,
    "a class that training lacks": _missing_class,
    "one test image": _one_test_image,
    "one class": lambda root: folder_of(root, 40, "a"),
    "rectangles": lambda root: folder_of(root, 15, make=lambda i: colored(i, (64, 32))),
    "gray images": lambda root: folder_of(root, 15, make=lambda i: colored(i, mode="L")),
}


def reported(make: Callable[[Path], object], folder: Path) -> None:
    """Train with a report: what has no answer is said, all else is kept, exit 0."""
    make(folder / "data")
    train(folder / "data", folder, "--report").well()
    outcome(folder / "run", folder)
    for path in (folder / "run").glob("*.json"):
        content: Any = json.loads(path.read_text(), parse_constant=lambda token: None)
        if content is None:
            raise Lost(f"{path.name} is empty")

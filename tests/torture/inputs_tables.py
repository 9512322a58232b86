"""Parquet files of the kinds that people bring: their labels and their images."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from .inputs import Case, Loaded, number, unlabeled
from .inputs_pixels import hidden, one_color_outside, sixteen_bit, turned_file
from .pictures import KIND, cells, colored, encoded, parquet_of

WORDS = ("ant", "bee", "cat")
"""Classes by name, in the order of their colors."""


def cases(rng: random.Random) -> list[Case]:
    """List the tables."""
    return [*of_labels(), *of_columns()]


def table(**columns: Any) -> Callable[[Path], Path]:
    """Return a maker of a parquet folder of 60 images with these columns."""
    return lambda root: parquet_of(root, **columns)


def each(values: tuple[Any, ...], kind: pa.DataType | None = None) -> pa.Array:
    """Return a column of 60 that repeats three values."""
    return pa.array([values[i % len(values)] for i in range(60)], kind)


def named(*names: str) -> Callable[[Loaded], bool]:
    """Return a question: were 60 images read, with classes of these names?"""
    return lambda loaded: number(60)(loaded) and tuple(loaded.classes) == names


def with_labels(column: pa.Array, *refuses: str, reads: Any = None, name: str = "label") -> Case:
    """Return a case of a label column."""
    columns = {"label": None, name: column}
    return Case("", table(**columns), reads, refuses or None)


def few_classes(loaded: Loaded) -> bool:
    """Whether 60 images of three classes were read, whatever their labels have become."""
    return number(60)(loaded) and len(set(loaded.labels)) == 3 and len(loaded.classes) < 1000


def of_labels() -> list[Case]:
    """List label columns."""
    numbers = (0, 1, 2)
    labeled = {
        "strings": with_labels(each(WORDS), reads=named(*WORDS)),
        "large strings": with_labels(each(WORDS, pa.large_string()), reads=named(*WORDS)),
        "a dictionary": with_labels(each(WORDS).dictionary_encode(), reads=named(*WORDS)),
        "a dictionary, unsorted": with_labels(
            pa.DictionaryArray.from_arrays(
                pa.array([(2, 0, 1)[i % 3] for i in range(60)]), pa.array(["bee", "cat", "ant"])
            ),
            reads=named(*WORDS),
        ),
        "bools": with_labels(
            each((False, True)), reads=lambda x: len(x) == 60 and set(x.labels) == {0, 1}
        ),
        "whole floats": with_labels(each((0.0, 1.0, 2.0)), reads=few_classes),
        "floats": with_labels(each((0.5, 1.0, 2.0)), "label"),
        "NaN": with_labels(each((float("nan"), 1.0, 2.0)), "label", reads=lambda x: len(x) == 60),
        "numbers as text": with_labels(each(("0", "1", "2")), reads=few_classes),
        "huge": with_labels(each((5, 7, 1_000_000_000)), "label", reads=few_classes),
        "huge, all": with_labels(
            each((10**15, 10**15 + 1, 10**15 + 2)), "label", reads=few_classes
        ),
        "beyond int64": with_labels(
            each((0, 7, 2**63 + 5), pa.uint64()), "label", reads=few_classes
        ),
        "negative": with_labels(each((-5, 1, 2)), "label"),
        "missing": with_labels(each((None, None, None), pa.int64()), reads=unlabeled(60)),
        "some missing": with_labels(
            each((None, 1, 2)), reads=lambda x: len(x) == 60 and x.labels.count(-1) == 20
        ),
        "nested": with_labels(each(({"id": 1}, {"id": 2}, {"id": 3})), "label"),
        "lists": with_labels(each(([0], [1], [2])), "label"),
        "bytes": with_labels(each((b"a", b"b", b"c")), "label", reads=few_classes),
        "none": with_labels(None, reads=unlabeled(60)),
        "cls": with_labels(each(numbers), reads=few_classes, name="cls"),
    }
    kinds = (pa.int8(), pa.uint8(), pa.int16(), pa.uint32(), pa.int64(), pa.uint64())
    labeled |= {str(k): with_labels(each(numbers, k), reads=few_classes) for k in kinds}
    return [_renamed(f"labels, {name}", case) for name, case in labeled.items()]


def _renamed(name: str, case: Case) -> Case:
    return Case(name, case.make, case.reads, case.refuses, case.says, case.options)


def files(make: Callable[[int], bytes] | None = None) -> list[bytes]:
    """Return 60 image files."""
    return [make(i) if make else encoded(colored(i)) for i in range(60)]


def paths(root: Path, column: str, *, kind: str) -> Path:
    """Write a table that names files beside it."""
    for i, file in enumerate(files()):
        (root / f"{i}.png").write_bytes(file)
    folder = str(root) if kind == "absolute" else "."
    listed = [str(Path(folder) / f"{i}.png") for i in range(60)]
    whole = pa.array(listed)
    if kind == "struct":
        whole = pa.array([{"bytes": None, "path": path} for path in listed], KIND)
    return parquet_of(root, **({"image": None} | {column: whole}))


def with_cell(row: int, cell: dict[str, Any]) -> Callable[[Path], Path]:
    """Return a maker of a table with one other cell."""
    content = cells(files()).to_pylist()
    content[row] = cell
    return table(image=pa.array(content, KIND))


def of_columns() -> list[Case]:
    """List image columns, and columns beside them."""
    lists = pa.array([[{"bytes": file, "path": None}] for file in files()])
    masks = cells([encoded(colored(0, mode="L"))] * 60)
    choose = {"image_column": "photo"}
    raw = pa.binary(), pa.large_binary(), pa.binary_view()
    jpgs = cells(turned_file(i) for i in range(60))
    deep = cells(encoded(sixteen_bit(i)) for i in range(60))
    images = cells(files())
    empty = pa.array([[], *lists.to_pylist()[1:]], lists.type)
    return [
        *(
            Case(f"images as {kind}", table(image=pa.array(files(), kind)), number(60))
            for kind in raw
        ),
        Case("lists of images", table(image=None, images=lists), number(60)),
        Case("an empty list", table(image=None, images=empty), None, ("row 0|row 1",)),
        Case("paths", lambda root: paths(root, "image", kind="absolute"), number(60)),
        Case("paths beside the file", lambda root: paths(root, "image", kind="."), number(60)),
        Case("paths in a struct", lambda root: paths(root, "image", kind="struct"), number(60)),
        Case(
            "no bytes", with_cell(17, {"bytes": None, "path": "no.png"}), None, ("row 17|no.png",)
        ),
        Case("no image", with_cell(17, {"bytes": b"text", "path": "x"}), None, ("17|x",)),
        Case("a null", with_cell(17, None), None, ("17",)),
        Case("image beside mask", table(mask=masks), number(60)),
        Case("two columns", table(image=None, photo=images, mask=masks), None, ("photo", "mask")),
        Case(
            "two columns, one chosen",
            table(image=None, photo=images, mask=masks),
            number(60),
            options=choose,
        ),
        Case("a column that is not there", table(), None, ("photo", "image"), options=choose),
        Case("another name", table(image=None, photo=images), number(60)),
        Case("no images", table(image=None, text=each(WORDS)), None, ("image",)),
        Case("oriented", table(image=jpgs), number(60)),
        Case("16 bits", table(image=deep), lambda x: 30 < x.images.mean() < 160, ("row|png",)),
        Case(
            "noise under alpha",
            table(image=cells(encoded(hidden(i)) for i in range(60))),
            one_color_outside,
        ),
        Case(
            "columns that nothing reads",
            table(wnid=each(WORDS), fixations=each(([1], [2], [3]))),
            number(60),
            None,
            ("wnid", "fixations"),
        ),
        Case("no rows", lambda root: parquet_of(root, 0), None, ("train",)),
    ]

"""Parquet files as wholes: metadata, splits, and damage."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .inputs import Case, Loaded, colors_fit, number
from .inputs_tables import WORDS, each, named
from .pictures import cells, colored, encoded, parquet_of


def cases(rng: random.Random) -> list[Case]:
    """List the files."""
    return [*of_metadata(), *of_splits(), *damaged(rng)]


# --- metadata


def of_metadata() -> list[Case]:
    """List metadata of other forms than ours: said, or without harm."""
    features = {"label": {"names": list(WORDS), "_type": "ClassLabel"}}
    good = {"huggingface": json.dumps({"info": {"features": features}})}
    deep = "[" * 100_000 + "]" * 100_000
    texts = ("no json", "{}", "[1, 2, 3]", "7", "null", '"text"', '{"a": 1}', deep, "[[]]", '["a"]')
    keys = ("class_names", "huggingface")
    found = [
        Case(
            f"metadata, {key} {text[:12]}",
            lambda root, key=key, text=text: parquet_of(root, metadata={key: text}),
            lambda loaded: len(loaded) == 60 and colors_fit(loaded),
            ("parquet",),
        )
        for key in keys
        for text in texts
    ]
    nested = json.dumps({"info": {"features": {"label": {"names": {"a": 1}}}}})
    return [
        *found,
        Case(
            "metadata, names nested",
            lambda root: parquet_of(root, metadata={"huggingface": nested}),
            lambda loaded: len(loaded) == 60,
            ("parquet",),
        ),
        Case(
            "metadata, names of classes",
            lambda root: parquet_of(root, metadata=good),
            named(*WORDS),
        ),
    ]


# --- splits


def split_column(*names: str, column: str = "split") -> Callable[[Path], Path]:
    """Return a maker of a table with a column of splits: the last stands for the rest."""

    def make(root: Path) -> Path:
        listed = [names[min(i // 15, len(names) - 1)] for i in range(60)]
        return parquet_of(root, name="all.parquet", **{column: pa.array(listed)})

    return make


def sized(train: int, val: int, test: int) -> Callable[[Loaded], bool]:
    """Return a question: were the splits of these sizes?"""
    wanted = {"train": train, "val": val, "test": test}
    return lambda loaded: colors_fit(loaded) and loaded.sizes == wanted


def shards_of_other_classes(root: Path) -> None:
    """Write splits of which each knows other classes by name."""
    parquet_of(root, label=each(WORDS))
    for split, words in (("val", ("bee", "bee", "bee")), ("test", ("cat", "ant", "cat"))):
        name = f"{split}-00000-of-00001.parquet"
        kind = {"ant": 0, "bee": 1, "cat": 2}
        pictures = [encoded(colored(kind[words[i % 3]] + 300)) for i in range(60)]
        parquet_of(root, name=name, label=each(words), image=cells(pictures))


def of_splits() -> list[Case]:
    """List splits by name."""
    own = {"split_column": "fold"}
    none = {"split_column": None}
    return [
        Case("splits", split_column("train", "val", "test"), sized(15, 15, 30)),
        Case("dev", split_column("train", "dev", "test"), sized(15, 15, 30)),
        Case("validation", split_column("training", "validation", "testing"), sized(15, 15, 30)),
        Case(
            "rows of other splits",
            split_column("train", "val", "test", "unassigned"),
            sized(15, 15, 15),
            None,
            ("left out", "unassigned", "15"),
        ),
        Case("one unknown split", split_column("all"), None, ("all", "split")),
        Case("one unknown split, ignored", split_column("all"), number(60), options=none),
        Case(
            "a column of choice",
            split_column("train", "val", "test", column="fold"),
            sized(15, 15, 30),
            options=own,
        ),
        Case("a column that is not there", split_column("train"), None, ("fold",), options=own),
        Case(
            "classes that differ by split",
            shards_of_other_classes,
            lambda x: colors_fit(x) and len(x) == 180 and tuple(x.classes) == WORDS,
        ),
    ]


# --- damage


def damaged(rng: random.Random) -> list[Case]:
    """List damaged files."""

    def cut(root: Path, share: float) -> None:
        path = parquet_of(root) / "train-00000-of-00001.parquet"
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    def text(root: Path) -> None:
        (root / "train.parquet").write_text("no parquet")

    def flipped(root: Path, seed: int) -> None:
        path = parquet_of(root) / "train-00000-of-00001.parquet"
        content = bytearray(path.read_bytes())
        content[-random.Random(seed).randrange(8, 700)] ^= 0x55
        path.write_bytes(content)

    def other_columns(root: Path) -> None:
        parquet_of(root, name="train-00000-of-00002.parquet")
        pq.write_table(pa.table({"a": [1]}), root / "train-00001-of-00002.parquet")

    shares = [rng.uniform(0, 0.99) for _ in range(4)]
    seeds = [rng.randrange(2**32) for _ in range(6)]
    return [
        *(
            Case(f"cut at {s:.2f}", lambda root, s=s: cut(root, s), None, ("parquet",))
            for s in shares
        ),
        *(
            Case(
                f"a flipped byte of its footer {i}",
                lambda root, seed=seed: flipped(root, seed),
                lambda loaded: len(loaded) == 60,
                ("",),
            )
            for i, seed in enumerate(seeds)
        ),
        Case("text as parquet", text, None, ("train.parquet",)),
        Case("shards of other columns", other_columns, None, ("train-00001",)),
    ]

"""Rows of a batch as stable-baselines3 has them: each with infos and options of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def infos_of(info: dict[str, Any], row: int) -> dict[str, Any]:
    """Return what is told of one row, as arrays."""
    own = (name for name in info if not name.startswith(("_", "final_")))
    return {name: info[name][row, ...] for name in own}


def merged_options(each: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the options of a batch that give every row its own, as set_options took them.

    Raises:
        ValueError: ``reset_mask``, ``in_turn`` that is not the same for all rows, or several
            images for one row.
    """
    if not any(each):
        return None
    merged = dict(each[0])
    if any("reset_mask" in options for options in each):
        raise ValueError("a VecEnv resets all rows: set_options takes no 'reset_mask'")
    shared = [{name: options[name] for name in options if name != "index"} for options in each]
    if any(options != shared[0] for options in shared):
        raise ValueError(
            "rows share one environment: in set_options every row must have the same options but "
            "for 'index'"
        )
    merged.pop("index", None)
    if any("index" in options for options in each):
        if any(isinstance(options.get("index"), Sequence) for options in each):
            raise ValueError(
                "set_options takes the image number of one row; give a list of dicts, one a row: "
                '[{"index": 4}, {"index": 7}]'
            )
        merged["index"] = [options.get("index") for options in each]
    return merged

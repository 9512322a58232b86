"""Options from JSON, whose values get the types that the groups declare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from experiments.training.config import GROUPS
from experiments.training.image_sizes import read_image_size


def typed_text(options: Mapping[str, str]) -> dict[str, Any]:
    """Return options from text, as a command line has it, in the types that they are declared with.

    None is none, and an image size may be ROWSxCOLUMNS.

    Raises:
        ValueError: a value of another type.
    """
    found: dict[str, Any] = {
        name: None if value == "None" else value for name, value in options.items()
    }
    if "image_size" in found:
        found["image_size"] = read_image_size(found["image_size"])
    return typed(found)


def typed(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a JSON file in the types that they are declared with.

    Raises:
        ValueError: a value of another type.
    """
    types: dict[str, Any] = {}
    for group in GROUPS.values():
        types |= get_type_hints(group)
    values = dict(options)
    for name in options.keys() & types.keys():
        try:
            values[name] = TypeAdapter(types[name]).validate_python(options[name])
        except ValidationError as reason:
            raise ValueError(f"{name}: {reason.errors()[0]['msg']}") from reason
    return values

"""Options from JSON, whose values get the types that the groups declare."""

from __future__ import annotations

from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from experiments.training.config import GROUPS


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

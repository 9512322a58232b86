"""Copies of models without the teacher."""

from __future__ import annotations

import copy
from typing import TypeVar

from foveate.model.encoder import PatchEncoder
from foveate.targets import Features

AnyModel = TypeVar("AnyModel", bound=PatchEncoder)


def copy_untaught(model: AnyModel) -> AnyModel:
    """Return a deep copy of a model without its teacher, which may be many times as large."""
    target = model.target
    shared = {} if not isinstance(target, Features) else {id(target.teacher): target.teacher}
    copied = copy.deepcopy(model, shared)
    if isinstance(copied.target, Features):
        copied.target.teacher = None
    return copied

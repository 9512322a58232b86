"""Arguments that an environment does not have: one line says what there is, or who takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from foveate.choices import suggestion

S = TypeVar("S")
P = ParamSpec("P")
BATCH = "gymnasium.make_vec(id, num_envs=N, autoreset='next_step')"
OF_OTHERS = {
    "autoreset": f"a single environment waits for reset(); a batch takes autoreset: {BATCH}",
    "autoreset_mode": f"autoreset says it, of a batch: {BATCH}; batches of gymnasium's own take "
    "vectorization_mode='sync' and vector_kwargs={'autoreset_mode': ...}",
    "output": f"a single environment gives NumPy; a batch takes output: {BATCH}",
    "num_envs": f"a single environment is one; for more: {BATCH}",
    "vectorization_mode": "gymnasium.make_vec takes it, gymnasium.make does not",
    "vector_kwargs": "gymnasium.make_vec takes it, with vectorization_mode 'sync' or 'async'",
}
"""Arguments of batches or of gymnasium, and who takes them."""


class UnknownArgument(ValueError, TypeError):
    """An argument that the environment does not have; a TypeError too, as in Python.

    Its message begins in Python's words, by which TorchRL finds that an environment skips no
    frames. It takes one message: gymnasium makes it anew to add the id.
    """


def with_known_options(
    init: Callable[Concatenate[S, P], None],
) -> Callable[Concatenate[S, P], None]:
    """Let a constructor say in one line which of its arguments an unknown one may have meant.

    Args:
        init: the ``__init__`` of a class whose arguments are keywords; those of classes that
            derive from it are known as well.
    """

    @wraps(init)
    def checked(self: S, /, *args: P.args, **options: P.kwargs) -> None:
        known = options_of(type(self))
        for name in options:
            if name not in known:
                answer = suggestion("argument", name, known)
                if name in OF_OTHERS:
                    answer = f"{type(self).__name__} has no argument {name!r}: {OF_OTHERS[name]}"
                words = f"__init__() got an unexpected keyword argument {name!r}"
                raise UnknownArgument(f"{words}: {answer}")
        init(self, *args, **options)

    return checked


def options_of(kind: type[Any]) -> list[str]:
    """Return the names of the arguments that a class takes, its own and those of its bases."""
    inits = [vars(each)["__init__"] for each in kind.__mro__[:-1] if "__init__" in vars(each)]
    parts = [part for init in inits for part in inspect.signature(init).parameters.values()]
    named = [part for part in parts if part.kind in (part.POSITIONAL_OR_KEYWORD, part.KEYWORD_ONLY)]
    return [name for name in dict.fromkeys(part.name for part in named) if name != "self"]

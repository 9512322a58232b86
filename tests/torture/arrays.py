"""Arrays that are given to ImageSet: converted as they are meant, or one clear ValueError."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .process import Lost, start

GIVEN: dict[str, tuple[str, bool]] = {
    "floats in [0, 1]": ("whole.float() / 255, labels", True),
    "doubles in [0, 1]": ("whole.double() / 255, labels", True),
    "floats in 0..255": ("whole.float(), labels", False),
    "int64 pixels": ("whole.long(), labels", False),
    "no images": ("whole[:0], labels[:0]", False),
    "NaN pixels": ("whole.float() / 255 * float('nan'), labels", False),
    "one image": ("whole[0], labels[:1]", False),
    "channels last": ("whole.permute(0, 2, 3, 1), labels", False),
    "fewer labels": ("whole, labels[:-1]", False),
    "float labels": ("whole, labels.float()", False),
    "int32 labels": ("whole, labels.int()", True),
    "a label too many": ("whole, labels + 1", False),
    "numpy": ("whole.numpy(), labels.numpy()", True),
    "lists": ("whole.tolist(), labels.tolist()", False),
}
"""What is given, and whether it can be converted; a clear ValueError is right of every one."""


def construct(expression: str, converts: bool) -> None:
    """Make an image set of what the expression gives, which never is another image."""
    import torch

    from experiments.cli import run
    from foveate.data import ImageSet

    whole = torch.randint(0, 256, (8, 3, 6, 6), dtype=torch.uint8)
    labels = torch.arange(8) % 3

    def make(_: None) -> None:
        images, given = eval(expression, {"whole": whole, "labels": labels})
        made = ImageSet(images, given, ("a", "b", "c"), "given")
        if not converts:
            raise AssertionError("was accepted")
        if not torch.equal(made.images, whole) or made.labels.tolist() != labels.tolist():
            raise AssertionError("became other images or labels")
        batch = made.batch(torch.arange(8), "cpu")
        if not torch.allclose(batch, whole.float() / 255):
            raise AssertionError("a batch holds other pixels")

    run(make, None)


def check(expression: str, converts: bool, folder: Path) -> None:
    """Give it in a process of its own."""
    done = start(functools.partial(construct, expression, converts), folder).wait()
    if "AssertionError" in done.err:
        raise Lost(done.err.strip().splitlines()[-1])
    done.refused() if done.code else done.well()


CHECKS: dict[str, Callable[[Path], Any]] = {
    name: functools.partial(check, *given) for name, given in GIVEN.items()
}

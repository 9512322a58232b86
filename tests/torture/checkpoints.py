"""Damaged checkpoints: one line, or the checkpoint before; never other weights, never code run."""

from __future__ import annotations

import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .plan import Plan, Trial
from .process import Done, Lost, command, start
from .runs import KINDS, begin, check_same, half_run

NATIVE = KINDS["native"]
FLIPS, CUTS = 70, 30
Damage = Callable[[Path, random.Random], None]


def trials(plan: Plan) -> Iterator[Trial]:
    """List the damages."""
    flips, cuts = (1, 1) if plan.short else (FLIPS, CUTS)
    damages: list[tuple[str, Damage]] = [
        *((f"flip {i}", flip_header if i % 4 == 3 else flip) for i in range(flips)),
        *((f"cut {i}", cut) for i in range(cuts)),
        ("empty", lambda path, _: path.write_bytes(b"")),
        ("random bytes", lambda path, rng: path.write_bytes(rng.randbytes(5000))),
        ("zeros", zeros),
        ("more at its end", lambda path, _: path.write_bytes(path.read_bytes() + b"more")),
        ("a folder", folder_instead),
        ("a pickle that runs code", lambda path, _: path.write_bytes(malicious(path.parent))),
    ]
    for every in (False, True):
        few = damages[::5] if every or plan.short else damages
        for name, damage in few[:1] if every and plan.short else few:
            seed = plan.rng.randrange(2**32)
            which = "all checkpoints" if every else "the newest"
            run = partial(resume_damaged, plan.shared, damage, seed, every)
            yield Trial("checkpoints", f"{name}, {which}", run)
    changes = {} if plan.short else CHANGES
    for name, change in changes.items():
        yield Trial("checkpoints", f"old form, {name}", partial(old_form, plan.shared, change))
    yield Trial("checkpoints", "old form, as it was", partial(old_form, plan.shared, None))
    for name in ("carrier",) if plan.short else ("carrier", "torch archive"):
        run = partial(old_malicious, plan.shared, name)
        yield Trial("checkpoints", f"old form, a {name} that runs code", run)


# --- damages of a file


def flip(path: Path, rng: random.Random, within: int | None = None) -> None:
    """Flip one bit anywhere."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(within or len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def flip_header(path: Path, rng: random.Random) -> None:
    """Flip one bit of the first bytes."""
    flip(path, rng, within=400)


def cut(path: Path, rng: random.Random) -> None:
    """Cut the end off."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def zeros(path: Path, rng: random.Random) -> None:
    """Fill a page with zeros, as after a power cut."""
    content = bytearray(path.read_bytes())
    start_at = rng.randrange(max(1, len(content) - 4096))
    content[start_at : start_at + 4096] = bytes(min(4096, len(content) - start_at))
    path.write_bytes(content)


def folder_instead(path: Path, _: random.Random) -> None:
    """Put a folder in its place."""
    path.unlink()
    path.mkdir()


class Carrier:
    """What runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


def malicious(folder: Path) -> bytes:
    """Return a pickle that leaves a file named executed if it is read carelessly."""
    return pickle.dumps({"model": Carrier(folder / "executed"), "iteration": 6})


# --- trials


def newest(out: Path) -> Path:
    """Return the checkpoint that a run goes on from."""
    from foveate.checkpoint import CHECKPOINT

    return out / CHECKPOINT


def resume_damaged(shared: Path, damage: Damage, seed: int, every: bool, folder: Path) -> None:
    """Resume from a damaged checkpoint, or from those that are left."""
    out, rng = half_run(NATIVE, shared, folder), random.Random(seed)
    for path in out.glob("checkpoint*") if every else [newest(out)]:
        damage(path, rng)
    check_outcome(shared, folder)


def check_outcome(shared: Path, folder: Path, *, well: bool | None = None) -> Done:
    """Resume: it is refused in one line, or ends as an undamaged run."""
    (running,) = begin(NATIVE, shared, folder, "--resume")
    done = running.wait()
    if (folder / "run" / "executed").exists():
        raise Lost("code in the checkpoint was run")
    if done.code == 0 and well is not False:
        done.well()
        check_same(NATIVE, shared, folder)
    elif well:
        done.well()
    else:
        done.refused("checkpoint")
        options = ("--limit", "8", "--oracle-limit", "2")
        compare = command("compare", "--run", folder / "run", *options)
        compared = start(compare, folder).wait()
        # What only a resume needs may be damaged.
        compared.refused() if compared.code else compared.well()
    return done


# --- checkpoints as torch.save wrote them before


def rewrite(out: Path, change: str | None) -> None:
    """Write the newest checkpoint in the old form, changed; remove all others."""
    import torch

    from foveate.checkpoint import read_checkpoint

    state: Any = read_checkpoint(newest(out))
    for path in out.glob("checkpoint*"):
        path.unlink()
    if change is not None:
        state = CHANGES[change](state)
    torch.save(state, out / "checkpoint.pt")


def _without(part: str, state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != part}


def _wrong_shape(part: str, state: dict[str, Any]) -> dict[str, Any]:
    name, weight = next((n, w) for n, w in state[part].items() if w.ndim > 1)
    return {**state, part: {**state[part], name: weight[:-1]}}


def _not_finite(part: str, state: dict[str, Any]) -> dict[str, Any]:
    name, weight = next((n, w) for n, w in state[part].items() if w.ndim > 1)
    return {**state, part: {**state[part], name: weight * float("nan")}}


PARTS = (
    *("iteration", "image_shape", "model_config", "model", "policy", "model_optimizers"),
    *("generator", "policy_optimizer"),
)
CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda state: [state],
    "a number": lambda state: 7,
    "nothing in it": lambda state: {},
    **{f"without {part}": partial(_without, part) for part in PARTS},
    **{f"{part} is text": lambda state, part=part: {**state, part: "text"} for part in PARTS},
    **{f"{part} of another shape": partial(_wrong_shape, part) for part in ("model", "policy")},
    **{f"{part} not finite": partial(_not_finite, part) for part in ("model", "policy")},
    "an optimizer less": lambda state: {
        **state,
        "model_optimizers": state["model_optimizers"][:1],
    },
    "iteration before the start": lambda state: {**state, "iteration": -3},
    "generator cut": lambda state: {**state, "generator": state["generator"][:16]},
}
"""What is wrong with a state that can be read."""


def old_form(shared: Path, change: Any, folder: Path) -> None:
    """Resume from an old checkpoint: as from a new one, or, if it is damaged, refused."""
    out = half_run(NATIVE, shared, folder)
    name = next((name for name, each in CHANGES.items() if each is change), None)
    start(partial(rewrite, out, name), folder).wait().well()
    if name is None:
        (running,) = begin(NATIVE, shared, folder, "--resume")
        running.wait().well()
        for path in out.glob("checkpoint.pt"):
            if path != newest(out):
                path.unlink()
        check_same(NATIVE, shared, folder)
    else:
        check_outcome(shared, folder, well=False)


def old_malicious(shared: Path, form: str, folder: Path) -> None:
    """Resume from an old checkpoint that would run code."""
    out = half_run(NATIVE, shared, folder)
    for path in out.glob("checkpoint*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    if form == "carrier":
        (out / "checkpoint.pt").write_bytes(malicious(out))
    else:
        start(partial(write_archive, out), folder).wait().well()
    check_outcome(shared, folder, well=False)


def write_archive(out: Path) -> None:
    """Write a checkpoint by torch.save that would run code."""
    import torch

    torch.save({"model": Carrier(out / "executed")}, out / "checkpoint.pt")

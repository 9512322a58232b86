"""Does the host wait for the device: in a training step, a scan, or a step of an environment?

On CUDA torch itself refuses to wait, by its debug mode. Elsewhere the steps are tried on torch's
``meta`` device, whose tensors have no values: who looks at one fails. Copies to it that would wait
on CUDA, and operations on tensors of both places, are refused as well.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import envs
from agents.group_relative import policy_step
from agents.policies import PointerPolicy, PolicyConfig
from experiments.benchmarks.agreement import TINY, small_model, tiny_trainer
from experiments.benchmarks.checking import Check, Compared, NotPossible
from experiments.training.build import build_optimizers
from experiments.training.distributed import Processes
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer
from foveate.orders import ordering

BUDGET = 4
ALLOWED_WAITS = {"random orders": 2, "random orders and scans": 4}
"""How often an iteration may wait: for the loss and the length of the gradient; of the policy for
its own gradient and what its scans measured."""


class RefuseWaiting(TorchDispatchMode):
    """Refuse what would make the host wait for a GPU, or fail there, of tensors on ``meta``."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation, unless it waits, or takes tensors of two places.

        Raises:
            RuntimeError: it would.
        """
        given = dict(kwargs or {})
        aten = torch.ops.aten
        tensors = [each for each in tree_leaves((args, given)) if isinstance(each, Tensor)]
        there = any(not each.is_cpu for each in tensors)
        waits = False
        if func is aten._to_copy.default:
            goes = given.get("device") not in (None, torch.device("cpu"))
            waits = args[0].is_cpu and goes and not given.get("non_blocking", False)
        elif func is aten.copy_.default:
            asked = args[2] if len(args) > 2 else given.get("non_blocking", False)
            waits = args[1].is_cpu and not args[0].is_cpu and not asked
        elif there and any(each.is_cpu and each.ndim for each in tensors):
            # An index on the CPU would be copied, which waits; most operations refuse on CUDA.
            raise RuntimeError(f"{func} takes tensors of two places")
        elif func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            indices = [each for each in args[1] if each is not None]
            waits = there and any(each.dtype in (torch.bool, torch.uint8) for each in indices)
        if waits:
            raise RuntimeError(f"{func} makes the host wait for the device")
        return func(*args, **given)


class RefuseNumbers(TorchFunctionMode):
    """Refuse to make tensors of numbers on a device, which :class:`RefuseWaiting` does not see."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function, unless it copies numbers of Python to a device, which waits.

        Raises:
            RuntimeError: it does.
        """
        made = func(*args, **(kwargs or {}))
        makers = (torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor)
        copies = func in (*makers, Tensor.new_tensor)
        given = next(iter(args[func is Tensor.new_tensor :]), None)
        if copies and not made.is_cpu and not isinstance(given, Tensor):
            raise RuntimeError(f"{func.__name__} makes the host wait for the device")
        return made


@contextlib.contextmanager
def sync_debug_mode(mode: str) -> Iterator[None]:
    """Set torch's debug mode of waiting for CUDA; torch says once that it does not see all."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode")
        torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextlib.contextmanager
def refusing_to_wait(device: str) -> Iterator[None]:
    """Raise RuntimeError where the host would wait for CUDA, or on ``meta`` for a device."""
    with contextlib.ExitStack() as watches:
        if device == "meta":
            watches.enter_context(RefuseNumbers())
            watches.enter_context(RefuseWaiting())  # type: ignore[no-untyped-call]  # torch's own
        else:
            watches.enter_context(sync_debug_mode("error"))
        yield


def waiting_checks(device: str, folder: Path) -> dict[str, Check]:
    """Return the checks of who waits, by name."""
    place = device if device.startswith("cuda") else "meta"
    steps: dict[str, Callable[[str], Callable[[], object]]] = {
        "a training step": training_step,
        "a scan": scan,
        "a step of the environment": environment_step,
    }
    return {
        **{
            f"{name} never waits": partial(never_waits, step, place) for name, step in steps.items()
        },
        **{
            f"waits of an iteration on {what}": partial(count_waits, what, device, folder)
            for what in ALLOWED_WAITS
        },
    }


def never_waits(step: Callable[[str], Callable[[], object]], device: str) -> Mapping[str, Compared]:
    """Take a step twice, the second time without waiting; raise RuntimeError if it waits."""
    run = step(device)
    run()  # Kernels are chosen, memory is pinned, optimizers make their state.
    with refusing_to_wait(device):
        run()
    return {"": Compared(0, 0)}


def training_step(device: str) -> Callable[[], None]:
    """Return a step on random orders: loss, gradient, clipping and update, without the look."""
    model = small_model().to(device)
    optimizers = build_optimizers(PRESETS["demo"][1], model)
    images, generator = torch.rand(8, 1, 32, 32).to(device), torch.Generator().manual_seed(0)
    order = ordering("random", model.grid)

    def run() -> None:
        rank = order(images, generator=generator).clamp(max=BUDGET)
        stated = {"ties": False, "last_rank": BUDGET, "num_steps": BUDGET + 1}
        model(images, rank, **stated, generator=generator).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()

    return run


def scan(device: str) -> Callable[[], Tensor]:
    """Return a policy's scan of a batch, and the gradient of its loss."""
    model = small_model().to(device)
    policy = PointerPolicy(model.config.embed_dim, PolicyConfig()).to(device)
    images, generator = torch.rand(4, 1, 32, 32).to(device), torch.Generator().manual_seed(0)

    def run() -> Tensor:
        step = policy_step(
            model,
            policy,
            images,
            budget=BUDGET,
            reward="auc",
            group=2,
            discount=1.0,
            entropy_weight=0.01,
            generator=generator,
        )
        step.loss.backward()
        return step.means

    return run


def environment_step(device: str) -> Callable[[], None]:
    """Return the steps of an episode and the first of the next, of tensors."""
    model = small_model()
    env: envs.ImageScanVectorEnv = envs.ImageScanVectorEnv(
        8, model=model, limit=64, budget=BUDGET, output="torch"
    )
    # Only then: what is checked of the world beforehand has values.
    model.to(device)
    env.world = env.world.beside_model()
    env.reset(seed=0)
    actions = torch.arange(8, device=device)

    def run() -> None:
        for number in range(BUDGET + 1):
            env.step(actions + number)

    return run


def waiting_trainer(what: str, device: str, folder: Path) -> Trainer:
    """Build a tiny trainer for an iteration of ALLOWED_WAITS, and take the first."""
    if what == "random orders":
        trainer = tiny_trainer("foveate", device, folder)
    else:
        scans_each_time = {"iterations": 4, "warmup_iterations": 0, "policy_every": 1}
        config = PRESETS["smoke"][1].replace(
            **{**TINY, **scans_each_time}, device=device, out=folder / "none"
        )
        trainer = Trainer(config, Processes.started(device))
    trainer.step()
    return trainer


def count_waits(what: str, device: str, folder: Path) -> Mapping[str, Compared]:
    """Count how often an iteration of the trainer makes the host wait.

    Raises:
        NotPossible: torch counts on CUDA alone.
    """
    if not device.startswith("cuda"):
        raise NotPossible("torch counts on CUDA alone")
    trainer = waiting_trainer(what, device, folder)
    with sync_debug_mode("warn"), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer.step()
    number = sum("called a synchronizing" in str(each.message) for each in told)
    return {"": Compared(number, ALLOWED_WAITS[what])}

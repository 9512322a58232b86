"""Several seeds on one device: as one batched model, as processes at once, or one by one.

A batched model holds the weights of all seeds, stacked; ``vmap`` computes their gradients together.
All learn from the same images here. Optimizers are left out: Muon takes matrices, not stacks.

Reference: model ensembling of torch.func (``stack_module_state``).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from queue import Empty
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiments.benchmarks.agreement import ALLOWED, whole_float32
from experiments.benchmarks.checking import distance
from experiments.benchmarks.timing import BenchResult, alternate, awaited
from experiments.run_folder import git_commit
from experiments.training.presets import PRESETS
from foveate.checkpoint import check_device
from foveate.devices import name_of_device
from foveate.model import AnyOrderTransformer

IMAGES = 32
"""Images of a step."""
PATIENCE_S = 1800.0
"""How long one process waits for the others to be ready."""
POLL_S = 1.0


def bench_seeds(*, device: str = "cuda", seeds: int = 4, repeats: int = 5) -> BenchResult:
    """Measure the gradients of several models of the demo's size, in three ways.

    Args:
        device: torch device.
        seeds: models.
        repeats: times that every way is measured.

    Raises:
        ValueError: torch cannot use the device.
    """
    check_device(device)
    models = [model_of(seed, device) for seed in range(seeds)]
    batched = batched_gradients(models, device)
    one_by_one = [gradient_of(model, device) for model in models]

    def each() -> list[Tensor]:
        return [run() for run in one_by_one]

    with whole_float32():
        apart = distance(batched(), torch.stack(each()))
    seconds = alternate(
        {"one batched model": awaited(batched, device), "one by one": awaited(each, device)},
        repeats,
    )
    seconds["processes at once"] = seconds_of_processes(seeds, device, repeats)
    base = seconds["one by one"]
    return BenchResult(
        what="seeds",
        caption=f"Gradients of {seeds} models of the demo's size on {name_of_device(device)}, "
        f"{IMAGES} images each",
        columns=("seeds", "s for all", "over one by one"),
        rows=tuple((name, taken, taken / base) for name, taken in seconds.items()),
        numbers={
            "batched_over_one_by_one": seconds["one batched model"] / base,
            "processes_over_one_by_one": seconds["processes at once"] / base,
            "batched_gradient_apart": apart,
        },
        failed=() if apart <= ALLOWED["fp32"]["gradient"] else ("gradients of the batched model",),
        threads=torch.get_num_threads(),
        repeats=repeats,
        commit=git_commit(),
    )


def model_of(seed: int, device: str) -> AnyOrderTransformer:
    """Return the demo's model as it starts from a seed."""
    torch.manual_seed(seed)
    options = PRESETS["demo"][1].model
    sizes = {"embed_dim": options.embed_dim, "depth": options.depth, "periphery": 2}
    parts = PRESETS["demo"][1].parts
    return AnyOrderTransformer(
        parts.model_config(image_size=(32, 32), num_heads=options.num_heads, **sizes)
    ).to(device)


def given(device: str) -> tuple[Tensor, Tensor, dict[str, object]]:
    """Return images, ranks, and what is stated of these; the same for all models."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(IMAGES, 1, 32, 32, generator=generator)
    rank = torch.rand(IMAGES, 64, generator=generator).argsort(1).clamp(max=12)
    return images.to(device), rank.to(device), {"ties": False, "last_rank": 12}


def gradient_of(model: AnyOrderTransformer, device: str) -> Callable[[], Tensor]:
    """Return a call that computes the gradient of one model, in one row."""
    images, rank, stated = given(device)

    def run() -> Tensor:
        model.zero_grad()
        torch.manual_seed(0)  # As the draws of the batched models.
        model(images, rank, **stated).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    return run


def batched_gradients(models: Sequence[AnyOrderTransformer], device: str) -> Callable[[], Tensor]:
    """Return a call that computes the gradients of all models at once, a row for each."""
    images, rank, stated = given(device)
    parameters, buffers = stack_module_state(list(models))

    def loss(weights: dict[str, Tensor], constants: dict[str, Tensor]) -> Tensor:
        out: Tensor = functional_call(models[0], (weights, constants), (images, rank), stated)
        return out

    gradients = vmap(grad(loss), randomness="same")

    def run() -> Tensor:
        torch.manual_seed(0)
        # Fused kernels know no batch of models backward, and would take them one by one.
        with sdpa_kernel(SDPBackend.MATH):
            found: dict[str, Tensor] = gradients(parameters, buffers)
        learned = {name for name, each in models[0].named_parameters() if each.requires_grad}
        return torch.cat([found[name].flatten(1) for name in found if name in learned], dim=1)

    return run


def seconds_of_processes(number: int, device: str, repeats: int) -> float:
    """Seconds that so many processes take for a gradient each, all at once; median of repeats.

    Raises:
        ValueError: one of them failed.
    """
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(number), context.Queue()
    arguments = (device, repeats, torch.get_num_threads(), barrier, queue)
    processes = [
        context.Process(target=_take_gradients, args=(seed, *arguments)) for seed in range(number)
    ]
    for each in processes:
        each.start()
    taken: list[list[float]] = []
    try:
        while len(taken) < number:
            with contextlib.suppress(Empty):
                taken.append(queue.get(timeout=POLL_S))
            if any(each.exitcode for each in processes):
                raise ValueError(f"one of {number} processes at once failed, see above")
    finally:
        # Where one has failed the others wait for it.
        for each in processes:
            if len(taken) < number:
                each.terminate()
            each.join()
    # The slowest decides how long all took.
    return statistics.median(map(max, zip(*taken, strict=True)))


def _take_gradients(
    seed: int, device: str, repeats: int, threads: int, barrier: Any, queue: Any
) -> None:
    torch.set_num_threads(threads)
    run = awaited(gradient_of(model_of(seed, device), device), device)
    run()
    taken = []
    for _ in range(repeats):
        barrier.wait(PATIENCE_S)
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    queue.put(taken)

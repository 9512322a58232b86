"""Data-parallel training: the processes that torchrun started, or one by itself.

A batch is a number of micro-batches, each with its own randomness; a process works on its share of
them. Gradient, scale of the advantages and measurements are of the whole batch, so that a run is
the same whatever the number of processes. By hand, since DistributedDataParallel expects one call
of a module before each backward; here the policy is called at every fixation and the model on
several batches. One flat gradient per update, summed, is exact and small. A model too large for
each process is sharded instead.

Reference: fully sharded data parallelism (Zhao et al. 2023, arXiv 2304.11277), as torch's FSDP2.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from envs.rewards import REWARDS_OF_BATCHES, REWARDS_OF_CLASSES, REWARDS_OF_WORDS
from experiments.run_folder import read_config
from experiments.training.config import TrainConfig
from experiments.training.stopping import end_with_launcher
from foveate.model import AnyOrderTransformer
from foveate.model.teachers import OWN_DECAY
from foveate.orders.semantic import SEMANTIC

Item = TypeVar("Item")

# The others wait as long as the first decodes a large data set.
PATIENCE = timedelta(hours=2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those that train together."""

    index: int
    """Number of this process, from 0; the first one writes."""
    local_index: int
    """Number of this process among those of its machine, from 0."""
    count: int
    """How many processes there are."""
    device: str
    """Where this process computes."""
    are_connected: bool
    """Whether they speak with one another: all that torchrun started do, also one alone."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    @classmethod
    def started(cls, device: str) -> Processes:
        """Read what torchrun left in the environment; without it there is one process.

        Args:
            device: of several processes on ``cuda`` each takes its own GPU.

        Raises:
            ValueError: several processes on one device that they cannot share, or variables that
                name no process.
        """
        usual = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        said = {name: os.environ.get(name, each) for name, each in usual.items()}
        index, local_index, count = (
            int(each) if each.isdecimal() else -1 for each in said.values()
        )
        if not (0 <= index < count and local_index >= 0):
            told = ", ".join(f"{name} {each!r}" for name, each in said.items())
            raise ValueError(
                f"the environment says {told}, which is no process of as many; unset them, or "
                "start with torchrun"
            )
        if count > 1 and device not in ("cpu", "cuda"):
            raise ValueError(
                f"{count} processes need --device cpu or cuda (a GPU for each), got {device!r}"
            )
        are_connected = count > 1 or dist.is_torchelastic_launched()
        if are_connected and device == "cuda":
            device = f"cuda:{local_index}"
        return cls(
            index=index,
            local_index=local_index,
            count=count,
            device=device,
            are_connected=are_connected,
        )

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Connect the processes; each must enter, and leaves when all have come to the end."""
        if not self.are_connected:
            yield
            return
        gpu = None if self.device == "cpu" else torch.device(self.device)
        if gpu is not None:
            torch.cuda.set_device(gpu)
        if "TORCHELASTIC_RUN_ID" in os.environ:
            end_with_launcher()
        dist.init_process_group("gloo" if gpu is None else "nccl", timeout=PATIENCE, device_id=gpu)
        try:
            yield
            dist.barrier()
        finally:
            dist.destroy_process_group()

    @contextlib.contextmanager
    def one_before_the_others(self) -> Iterator[None]:
        """Let one process of each machine go first, say to fill a cache; the others follow."""
        if self.are_connected and self.local_index > 0:
            dist.barrier()
        try:
            yield
        finally:
            if self.are_connected and self.local_index == 0:
                dist.barrier()

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's items, as many successive ones as every other's."""
        size = len(items) // self.count
        return items[self.index * size : (self.index + 1) * size]

    def sum(self, values: list[float]) -> list[float]:
        """Sum each value over processes."""
        if not self.are_connected:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return summed.tolist()

    def largest(self, value: int) -> int:
        """Return the largest of the processes' values."""
        if not self.are_connected:
            return value
        values = torch.tensor(value, device=self.device)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return int(values)

    def gather(self, rows: Float[Tensor, "B T"]) -> Float[Tensor, "A T"]:
        """Join the rows of all processes, of which each has equally many."""
        if not self.are_connected:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    def gather_objects(self, item: Item) -> list[Item]:
        """Join the items of all processes."""
        if not self.are_connected:
            return [item]
        items: list[Any] = [None] * self.count
        dist.all_gather_object(items, item)
        return items

    def sum_gradients(self, module: nn.Module) -> None:
        """Replace a module's gradients by their sums over processes; sharded ones are already."""
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        if not self.are_connected or any(isinstance(gradient, DTensor) for gradient in gradients):
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, summed in zip(gradients, flat.split(sizes), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def shard(self, model: AnyOrderTransformer) -> None:
        """Leave to each process its part of every parameter, and of its gradient.

        An encoder block is put together when it is used; the rest of the model all at once.
        """
        mesh = init_device_mesh(torch.device(self.device).type, (self.count,))
        for module in (*model.encoder_blocks(), model):
            sharded = fully_shard(module, mesh=mesh)
            # Sums instead of means over processes, also where gloo knows no scaled ones.
            sharded.set_force_sum_reduction_for_comms(True)
            sharded.set_gradient_divide_factor(1.0)


@contextlib.contextmanager
def parameters_together(model: nn.Module) -> Iterator[None]:
    """Keep a sharded model's parameters whole, for who uses its parts without calling it."""
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()


def whole(state: Any) -> Any:
    """Put the sharded tensors of a state dict together for the first process; all must call it."""
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    if not isinstance(state, DTensor):
        return state
    full = state.full_tensor()
    return full.cpu() if dist.get_rank() == 0 else state


def sharded_like(state: dict[str, Any], targets: dict[str, Tensor]) -> dict[str, Any]:
    """Shard the tensors of a state dict as the parameters are that they belong to."""
    sharded = dict(state)
    for name, target in targets.items():
        value = state.get(name)
        if isinstance(target, DTensor) and value is not None and value.shape == target.shape:
            sharded[name] = distribute_tensor(value, target.device_mesh, target.placements)
    return sharded


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's state, sharded as its parameters are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {
        at: sharded_like(each, dict.fromkeys(each, parameters[at]))
        for at, each in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": moments})


def check_shardable(config: TrainConfig, processes: Processes) -> None:
    """Raise ValueError unless the model can be sharded: by several, and called as a whole only."""
    if processes.count == 1:
        raise ValueError("--shard needs several processes; start them with torchrun")
    if config.parts.order in SEMANTIC:
        raise ValueError(
            f"--shard needs another --order than {config.parts.order}, which looks into the model"
        )
    if config.parts.takes_features and config.model.teacher in OWN_DECAY:
        raise ValueError(
            f"--shard needs a timm model as --teacher; {config.model.teacher} copies the model"
        )
    policy = config.policy
    runs_parts = (*REWARDS_OF_CLASSES, *REWARDS_OF_WORDS)
    if policy is not None and policy.reward in runs_parts:
        raise ValueError(
            f"--shard cannot pay --reward {policy.reward}, which runs parts of the model within a "
            "scan; choose another reward, or --iterations 0"
        )
    compares = policy is not None and policy.reward in ("reducible", "progress")
    if policy is not None and compares and policy.reward_reference == "average":
        raise ValueError(
            f"--shard with --reward {policy.reward} needs a run or checkpoint as "
            "--reward-reference; average copies the model"
        )


def share_batches(config: TrainConfig, processes: Processes) -> TrainConfig:
    """Settle the number of micro-batches.

    Raises:
        ValueError: the processes cannot share them equally, or not train this config together; or
            a micro-batch has too few images for the reward.
    """
    agent = None if config.policy is None else config.policy.agent
    if agent == "maskable-ppo" and processes.count > 1:
        raise ValueError(
            f"--agent maskable-ppo trains in a single process, got {processes.count}; "
            "choose --agent group-relative, or start without torchrun"
        )
    if config.run.shard:
        check_shardable(config, processes)
    num = config.optimization.micro_batches
    if num is None:
        num = processes.count
        if config.run.resume:
            num = read_config(config.run.out).optimization.micro_batches or 1
    if num % processes.count:
        way = "choose another --nproc-per-node or --micro-batches"
        if config.run.resume:
            way = "a run goes on with as many as it began with; choose another --nproc-per-node"
        raise ValueError(
            f"{processes.count} processes cannot share {num} micro-batches equally; {way}"
        )
    config = config.replace(micro_batches=num)
    policy = config.policy
    if policy is not None and policy.reward in REWARDS_OF_BATCHES:
        if config.per_micro_batch(policy.batch_size) < 2:
            raise ValueError(
                f"reward {policy.reward} needs two images or more in every micro-batch, got "
                f"batch_size {policy.batch_size} and micro_batches {num}"
            )
    return config

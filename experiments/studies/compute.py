"""Floating-point operations of a training: counted, and iterations that fill a number of them."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.evaluation.equal_compute import flops_per_step, flops_to_begin
from experiments.training.config import TrainConfig


@dataclass(frozen=True)
class StepCosts:
    """Operations of one iteration, and those that a run takes once."""

    warmup: float
    joint: float
    """With the policy, mean over its turns; 0 without one."""
    first_scan: float = 0.0
    """Once, before the first scan: the reward's probe learns."""

    def until(self, config: TrainConfig, iteration: int) -> float:
        """Return the operations of the first so many iterations of a run."""
        warmup = min(iteration, config.optimization.warmup_iterations)
        joint = iteration - warmup
        return warmup * self.warmup + (self.first_scan + joint * self.joint if joint else 0.0)


def step_costs(config: TrainConfig) -> StepCosts | None:
    """Count the operations of the iterations of a run, on its device; None = they cannot be.

    Of a stream the images are not at hand, and MaskablePPO's updates are not the trainer's.
    """
    policy = config.policy
    if config.data.stream or (policy is not None and policy.agent == "maskable-ppo"):
        return None
    warms = config.optimization.warmup_iterations > 0
    return StepCosts(
        warmup=flops_per_step(config, joint=False) if warms else 0.0,
        joint=0.0 if policy is None else flops_per_step(config, joint=True),
        first_scan=flops_to_begin(config),
    )


def filled(config: TrainConfig, operations: float) -> TrainConfig:
    """Scale the iterations of a run to so many operations, warm-up and others alike.

    Raises:
        ValueError: the operations cannot be counted, or pay for less than one iteration of a kind.
    """
    costs = step_costs(config)
    if costs is None:
        raise ValueError(
            "teraflops cannot be counted of a stream, nor of maskable-ppo; leave it out"
        )
    once = costs.first_scan
    factor = (operations - once) / (costs.until(config, config.total_iterations) - once)
    warmup = round(config.optimization.warmup_iterations * factor)
    joint = round(config.iterations * factor)
    if (config.optimization.warmup_iterations and warmup < 1) or (config.policy and joint < 1):
        raise ValueError(
            f"{operations / 1e12:.2g} teraflops pay for no iteration of a kind; raise teraflops"
        )
    scaled = config.replace(warmup_iterations=warmup)
    return scaled if config.policy is None else scaled.replace(iterations=joint)

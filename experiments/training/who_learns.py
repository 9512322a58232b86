"""Which iterations of a training the model learns in, and from how many images. No torch here."""

from __future__ import annotations

from experiments.training.config import TrainConfig
from experiments.training.groups import PolicyTraining


def who_learns(options: PolicyTraining, since_warmup: int) -> tuple[bool, bool]:
    """Say whether model and policy learn in an iteration that scans."""
    if options.schedule == "alternating":
        policy_learns = since_warmup // options.alternate_every % 2 == 0
        return not policy_learns, policy_learns
    return options.schedule in ("joint", "frozen"), options.schedule in ("joint", "policy_only")


def images_learned(config: TrainConfig, first: int = 0, last: int | None = None) -> int:
    """Return the images that the model learns from, each as often as it is seen.

    Args:
        config: of the training.
        first: iteration after which they are counted.
        last: iteration up to which; None = the end.
    """
    options = config.optimization
    if options.model_lr == 0:
        return 0
    warmup, last = options.warmup_iterations, config.total_iterations if last is None else last
    found = options.warmup_batch_size * max(0, min(last, warmup) - first)
    if config.policy is None:
        return found
    scanning = range(max(first - warmup, 0), max(last - warmup, 0))
    learning = sum(who_learns(config.policy, at)[0] for at in scanning)
    return found + learning * config.num_learned * (options.micro_batches or 1)

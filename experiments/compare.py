"""Compare orders: error versus fixations, for the policy, its controls, and every other order.

    python -m experiments.compare --run runs/demo

The error is that of the reconstruction. Writes compare.json and compare.png into the run folder.
All orders are evaluated on the same test images by the same model (the run's own, or that of
``--judge``, say one trained on random orders alone) with the same budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.cli import main_with_options
from experiments.evaluation.options import EvaluationOptions


@dataclass(frozen=True, kw_only=True)
class CompareConfig(EvaluationOptions):
    """Options of the comparison."""

    judge: Path | None = None
    """Run whose model measures errors; None = this run's, which always chooses the scanpaths."""
    orders: tuple[str, ...] = ()
    """Orders of your own to compare beside all others, ``MODULE:NAME``."""
    agents: tuple[str, ...] = ()
    """Agents of your own, ``MODULE:NAME`` of a class or function that makes one without
    arguments."""
    limit: int = 2000
    """Test images."""
    oracle_limit: int = 500
    """Test images of the greedy oracles, the costliest orders, and of the gap."""

    def __post_init__(self) -> None:
        if min(self.limit, self.oracle_limit) < 2:
            raise ValueError(
                "limit and oracle_limit must be at least 2 images, to have an interval"
            )


def main(config: CompareConfig) -> None:
    """Compare as configured."""
    from experiments.evaluation.compare import compare
    from experiments.evaluation.report import present_comparison
    from experiments.runs import load_run

    comparison = compare(
        config.load(),
        judge=None if config.judge is None else load_run(config.judge, config.device),
        orders=config.orders,
        agents=config.agents,
        limit=config.limit,
        oracle_limit=config.oracle_limit,
    )
    present_comparison(comparison, config.run, config.threads)


if __name__ == "__main__":
    main_with_options(main, CompareConfig)

"""Compare orders: error versus fixations, for the policy, its controls, and other orders.

    python -m experiments.compare --run runs/demo
    python -m experiments.compare --run runs/demo --orders raster oracle

The error is that of the reconstruction. Writes compare.json and compare.png into the run folder.
All orders are evaluated on the same test images by the same model (the run's own, or that of
``--judge``, say one trained on random orders alone) with the same budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.cli import main_with_options
from experiments.evaluation.options import EvaluationOptions, check_memory


@dataclass(frozen=True, kw_only=True)
class CompareConfig(EvaluationOptions):
    """Options of the comparison."""

    judge: Path | None = None
    """Run whose model measures errors; None = this run's, which always chooses the scanpaths."""
    orders: tuple[str, ...] = ()
    """Orders and oracles to compare; none = those that records show, ``all`` = every order, and
    ``MODULE:NAME`` of your own come on top. Policy, random order, best fixed order, another image's
    path, saliency and uncertainty are always there. On more than 64 patches ``oracle``, which tries
    all of them, runs only if it is named."""
    without: tuple[str, ...] = ()
    """Orders, oracles and agents to leave out."""
    agents: tuple[str, ...] = ()
    """Agents of your own, ``MODULE:NAME`` of a class or function that makes one without
    arguments."""
    limit: int = 2000
    """Test images."""
    oracle_limit: int = 500
    """Test images of the greedy oracles, the costliest orders, and of the gap."""
    memory: float = 1.0
    """Bound on what is computed at once, GB (10^9 bytes), at least 0.064; the images themselves and
    the program come on top. One scan of one image is the least."""

    def __post_init__(self) -> None:
        if min(self.limit, self.oracle_limit) < 2:
            raise ValueError("limit and oracle_limit must be at least 2 images, for an interval")
        check_memory(self.memory)


def main(config: CompareConfig) -> None:
    """Compare as configured."""
    from experiments.evaluation.compare.evaluate import compare
    from experiments.evaluation.report import present_comparison
    from experiments.runs import load_run

    comparison = compare(
        config.load(),
        judge=None if config.judge is None else load_run(config.judge, config.device),
        orders=config.orders,
        without=config.without,
        agents=config.agents,
        limit=config.limit,
        oracle_limit=config.oracle_limit,
        memory=config.memory,
    )
    present_comparison(comparison, config.run, config.threads)


if __name__ == "__main__":
    main_with_options(main, CompareConfig)

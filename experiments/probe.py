"""Probe the frozen encoder, every layer, beside raw pixels and untrained weights.

    python -m experiments.probe --run runs/demo

The probes are linear and k-NN. Features are mean-pooled patch tokens with all patches visible.
Writes probe.json into the run folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.cli import main_with_options


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Options of the probe."""

    run: Path
    """Run folder made by experiments.train."""
    train_limit: int = 10000
    """Training images of the probe."""
    test_limit: int | None = None
    """Test images; None = all."""
    seed: int = 0
    """Seed of the held-out part that selects the regularization, and of the untrained weights."""
    device: str = "cpu"
    """Torch device."""
    threads: int | None = None
    """CPU threads; None = torch's choice."""


def main(config: ProbeConfig) -> None:
    """Probe as configured."""
    from experiments.probing import probe

    probe(config)


if __name__ == "__main__":
    main_with_options(main, ProbeConfig)

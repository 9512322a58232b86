"""Everything that is said of a finished run: comparison, probe, and pictures."""

from __future__ import annotations

from pathlib import Path

from experiments.compare import CompareConfig
from experiments.evaluation.compare import compare
from experiments.evaluation.draw import draw
from experiments.evaluation.probe import probe
from experiments.probe import ProbeConfig
from experiments.runs import load_run
from experiments.scanpaths import ScanpathConfig


def report(run: Path) -> None:
    """Compare orders, probe, and draw: about a minute on 2 cores.

    The comparison takes 400 test images, the probe 4,000 training and 2,000 test images. A model
    that cannot scan is only probed.
    """
    loaded = load_run(run)
    if loaded.model.config.scannable:
        compare(CompareConfig(run=run, limit=400, oracle_limit=100))
        draw(ScanpathConfig(run=run))
    if loaded.split("test", 1).class_names:
        probe(ProbeConfig(run=run, train_limit=4000, test_limit=2000))
    else:
        print("no labels, no probe")

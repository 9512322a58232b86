"""Probe a trained model, every layer, beside raw pixels and untrained weights.

    python -m experiments.probe --run runs/demo
    python -m experiments.probe --run runs/demo --probes linear knn attentive finetune
    python -m experiments.probe --run runs/demo --fixations 1 2 4 8 12

By default linear and k-NN on mean-pooled patch tokens of the encoder, all patches visible, with
full and with causal attention. Whatever is chosen (regularization, learning rate, layer) is chosen
on a held-out tenth of the training images; the test images are classified once per number. Writes
probe.json into the run folder; if that would lack what records show of it, a file named for the
probes. With --fixations also what is known after so many fixations of the policy and of other
orders, and a picture of it, probe_fixations.png.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from experiments.cli import main_with_options
from experiments.evaluation.options import EvaluationOptions
from experiments.evaluation.probe.options import ProbeOptions


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(ProbeOptions, EvaluationOptions):
    """Options of the probe."""

    @property
    def output(self) -> Path:
        """File of the results."""
        return self.run / self.file_name


def main(config: ProbeConfig) -> None:
    """Probe as configured."""
    from experiments.evaluation.probe.evaluate import probe
    from experiments.evaluation.recognition.paths import check_orders
    from experiments.evaluation.report import present_probe

    # A run can take long to load, as its images are looked at.
    check_orders(config.orders or ())
    options = {each.name: getattr(config, each.name) for each in fields(ProbeOptions)}
    present_probe(probe(config.load(), **options), config.output, config.threads)


if __name__ == "__main__":
    main_with_options(main, ProbeConfig)

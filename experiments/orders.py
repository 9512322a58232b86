"""Which order makes the best representation at equal compute? Protocol 2: a model for each order.

    python -m experiments.orders --data CIFAR10
    python -m experiments.orders --data CIFAR10 --recipes igpt_patch randsac saim mae

Encoder, decoder, target and floating-point operations (forward and backward, rollouts and the
passes that orders need, by torch.utils.flop_counter) are the same; the order that the model learns
from is not. ``policy`` spends half of them on random orders and then learns jointly with its model;
its learning rate falls in the second half, where that of the others falls all along. Optimizers'
operations count as well. ``untrained`` is the model as it starts: what a probe owes to the encoder
alone.
With ``--recipes`` the rows are recipes in orders, decoders and targets of their own, on the same
encoder; those that a policy can scan learn as ``policy`` does.
Every model is probed (linear, k-NN), with all patches visible to one another, and with the causal
mask of raster order; with 95% intervals over seeds (Student's t). On CIFAR-10 the default takes 8
minutes a run on one core. Finished runs are kept, others resumed: processes with
different ``--seeds`` may share a folder; the last call, with all of them, writes the table, in
which rows of an earlier call with the same settings stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from experiments.cli import main_with_options
from foveate.config import Memory, TargetKind
from foveate.recipes import Recipe, recipe

POLICY = "policy"
UNTRAINED = "untrained"
"""Rows that are no order."""


@dataclass(frozen=True, kw_only=True)
class OrdersConfig:
    """Options of the comparison."""

    data: str = "scenes"
    """Labeled images, as of experiments.train."""
    data_root: Path = Path("data")
    """Where torchvision keeps its files."""
    image_size: int | None = None
    """Resize and center-crop to this side, pixels; None = as they are."""
    limit: int | None = None
    """Use only the first so many training images; None = all."""
    augment: bool = False
    """Random flips and shifts of the training images (kornia)."""
    orders: tuple[str, ...] = (
        "raster",
        "random",
        "random_squares",
        "random_blobs",
        "outward_from_most_similar",
        "policy",
        "untrained",
    )
    """Orders to compare; ``policy`` is learned, ``untrained`` is none."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the training passes."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training, two or more for a table."""
    teraflops: float = 20.0
    """Floating-point operations of each run, 10^12."""
    recipes: tuple[str, ...] = ()
    """Compare recipes instead of orders; those of pixels see images of 16 x 16. ``untrained`` is
    the model of ``recipe`` as it starts."""
    recipe: str = "saim"
    """Row of foveate.recipes that gives stream, memory, and lateral attention."""
    target: TargetKind = "pixels"
    """What all models predict; ``policy`` needs pixels."""
    memory: Memory | None = None
    """What their decoders read of the encoder (foveate/config.py); None = the recipe's."""
    patch_size: int = 4
    """Side of a patch, pixels."""
    embed_dim: int = 128
    """Model width."""
    depth: int = 6
    """Encoder blocks."""
    decoder_depth: int = 2
    """Decoder blocks; recipes have their own."""
    batch_size: int = 64
    """Images per update."""
    budget: int = 16
    """Fixations per scan of the policy."""
    probe_train: int = 10_000
    """Training images of the probes."""
    probe_test: int = 5_000
    """Test images of the probes."""
    out: Path = Path("runs/orders")
    """Folder of the runs and of orders.json or recipes.json."""
    threads: int | None = None
    """CPU threads; None = torch's choice."""

    def __post_init__(self) -> None:
        if not self.rows or len(set(self.rows)) < len(self.rows):
            raise ValueError("orders and recipes take one or more different names")
        for name in self.recipes:
            if name != UNTRAINED:
                recipe(name)
        if self.recipes:
            own = ("orders", "target", "memory", "decoder_depth")
            changed = [each for each in own if getattr(self, each) != getattr(type(self), each)]
            if changed:
                raise ValueError(f"recipes have {changed[0]} of their own; leave it out")
        elif POLICY in self.orders and not self.parts.scannable:
            raise ValueError(
                "the policy's order needs a causal stream and a decoder of pixels without lateral "
                "attention (--recipe saim --target pixels); or leave it out of --orders"
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds takes one or more different numbers")
        if self.teraflops <= 0:
            raise ValueError(f"teraflops must be above 0, got {self.teraflops}")
        if min(self.probe_train, self.probe_test, self.batch_size) < 1:
            raise ValueError("probe_train, probe_test and batch_size must be at least 1")

    @property
    def parts(self) -> Recipe:
        """What the models of all orders are made of."""
        row = recipe(self.recipe)
        return replace(
            row,
            target=self.target,
            memory=self.memory or row.memory,
            decoder_depth=self.decoder_depth,
        )

    @property
    def rows(self) -> tuple[str, ...]:
        """What is compared."""
        return self.recipes or self.orders


def main(config: OrdersConfig) -> None:
    """Compare as configured."""
    from experiments.evaluation.orders import compare_orders

    compare_orders(config)


if __name__ == "__main__":
    main_with_options(main, OrdersConfig)

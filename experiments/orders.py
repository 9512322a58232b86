"""Which order makes the best representation at equal compute? Protocol 2: a model for each order.

    python -m experiments.orders --data CIFAR10
    python -m experiments.orders --data CIFAR10 --recipes igpt_patch randsac saim mae

Encoder, decoder, target and floating-point operations are the same; the order that the model learns
from is not. Operations are those of forward and backward passes, of rollouts, of the passes that
orders need, and of optimizers (torch.utils.flop_counter).

``policy`` spends half of its operations on random orders and then learns jointly with its model.
Its learning rate falls in the second half; that of the others falls all along. ``untrained`` is the
model as it starts: what a probe owes to the encoder alone. With ``--recipes`` the rows are recipes
with their own orders, decoders and targets, on the same encoder. Those that a policy can scan learn
as ``policy`` does.

Every model is probed (linear, k-NN) with all patches visible to one another, and with the causal
mask of raster order. Intervals are 95% over seeds (Student's t). On CIFAR-10 the default takes 8
minutes a run on one core.

Finished runs are kept, others resumed, so processes with different ``--seeds`` may share a folder.
The last call, with all seeds, writes the table. Rows of an earlier call with the same settings stay
in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.cli import main_with_options
from experiments.evaluation.options import check_seeds
from experiments.evaluation.orders.plan import POLICY, UNTRAINED
from experiments.training.config import TrainConfig
from experiments.training.image_sizes import ImageSizeOption
from foveate.config import Init, Memory, TargetKind
from foveate.recipes import recipe
from foveate.sizes import check_at_least


@dataclass(frozen=True, kw_only=True)
class OrdersConfig:
    """Options of the comparison."""

    data: str = "scenes"
    """Labeled images, as of experiments.train."""
    data_root: Path = Path("data")
    """Where torchvision keeps its files."""
    data_changed_ok: bool = False
    """Go on although the images differ from those of runs that are there, and say what changed."""
    image_size: ImageSizeOption = None
    """Resize and center-crop to this side, or to height x width such as 32x64, pixels; None = as
    they are."""
    image_column: str | None = None
    """Parquet column of the images, as of experiments.train."""
    split_column: str | None = "split"
    """Parquet column of the splits, as of experiments.train."""
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
    """Compare recipes instead of orders. Recipes of single pixels see images of 16 x 16.
    ``untrained`` stands for a model of the option ``recipe`` that was never trained."""
    recipe: str = "saim"
    """Row of foveate.recipes that gives stream, memory, and lateral attention."""
    target: TargetKind = "pixels"
    """What all models predict; ``policy`` needs pixels."""
    memory: Memory | None = None
    """What their decoders read of the encoder (foveate/config.py); None = the recipe's."""
    init: Init | None = None
    """How weights start; None = as each recipe says."""
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
        elif POLICY in self.orders and not self.common.parts.scannable:
            raise ValueError(
                "the policy's order needs a causal stream and a decoder of pixels without lateral "
                "attention (--recipe saim --target pixels); or leave it out of --orders"
            )
        check_seeds(self.seeds)
        if not 0 < self.teraflops < math.inf:
            raise ValueError(f"teraflops must be above 0 and finite, got {self.teraflops}")
        check_at_least(self, 1, "probe_train", "probe_test", "batch_size")

    @property
    def common(self) -> TrainConfig:
        """What the runs of all rows share; a run on random orders."""
        return TrainConfig().replace(
            precision=self.precision,
            threads=self.threads,
            data=self.data,
            data_root=self.data_root,
            data_changed_ok=self.data_changed_ok,
            image_size=self.image_size,
            image_column=self.image_column,
            split_column=self.split_column,
            limit=self.limit,
            augment=self.augment,
            recipe=self.recipe,
            order="random",
            target=self.target,
            memory=self.memory,
            init=self.init,
            patch_size=self.patch_size,
            embed_dim=self.embed_dim,
            depth=self.depth,
            decoder_depth=self.decoder_depth,
            periphery=0,
            prefix_share=0.0,
            warmup_batch_size=self.batch_size,
            warmup_iterations=1,
            iterations=0,
        )

    @property
    def rows(self) -> tuple[str, ...]:
        """What is compared."""
        return self.recipes or self.orders


def main(config: OrdersConfig) -> None:
    """Compare as configured; write and print."""
    from experiments.evaluation.orders.evaluate import compare_orders

    path = config.out / ("recipes.json" if config.recipes else "orders.json")
    result = compare_orders(
        config.common,
        config.rows,
        of_recipes=bool(config.recipes),
        out=config.out,
        seeds=config.seeds,
        teraflops=config.teraflops,
        budget=config.budget,
        probe_train=config.probe_train,
        probe_test=config.probe_test,
    ).with_earlier(path)
    result.write(path)
    print(result.to_text())
    print(f"written: {path}")


if __name__ == "__main__":
    main_with_options(main, OrdersConfig)

"""Benchmark of decoding: in few passes against one patch per pass, and scans with a cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from experiments.benchmarks.env import predict_anew
from experiments.benchmarks.timing import BenchResult, alternate
from experiments.run_folder import git_commit
from foveate.config import ModelConfig
from foveate.model import AnyOrderTransformer
from foveate.model.parallel_decoding import DecodingSchedule, decode_in_order, decode_in_parallel
from foveate.model.scanning import Scan
from foveate.orders import ordering, rank_to_order
from foveate.recipes import RECIPES

DECODED_IMAGES = 2
SCANNED_IMAGES = 64
NUM_COLORS = 64
PASSES = (4, 8, 16)
FIXATIONS = 12


def bench_decode(*, repeats: int = 5) -> BenchResult:
    """Measure decoding in few passes against one patch per pass, and scans with a cache."""
    torch.manual_seed(0)
    masked, causal = palette_model("autonat"), palette_model("igpt")
    canvas = torch.rand(DECODED_IMAGES, 1, 16, 16)
    hidden = torch.ones(DECODED_IMAGES, masked.num_patches, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    scanner = AnyOrderTransformer(ModelConfig(embed_dim=64)).eval()
    one_by_one = f"one by one, {masked.num_patches} passes"
    autoregressive = f"autoregressive model, {causal.num_patches} passes"
    cached, re_encoded = scans(scanner)
    contenders: dict[str, Callable[[], object]] = {
        f"parallel, {passes} passes": partial(
            decode_in_parallel,
            masked,
            canvas,
            hidden,
            DecodingSchedule.cosine(passes),
            generator=generator,
        )
        for passes in PASSES
    }
    contenders |= {
        one_by_one: partial(
            decode_in_order, masked, canvas, order_of("random", masked), generator=generator
        ),
        autoregressive: partial(
            decode_in_order, causal, canvas, order_of("raster", causal), generator=generator
        ),
        f"scan, {FIXATIONS} fixations, cached": cached,
        f"scan, {FIXATIONS} fixations, re-encoded": re_encoded,
    }
    seconds = alternate(contenders, repeats)
    eight = seconds["parallel, 8 passes"]
    return BenchResult(
        what="decode",
        caption=f"Decoding {DECODED_IMAGES} images of {masked.num_patches} pixels, and scanning "
        f"{SCANNED_IMAGES} of {scanner.num_patches} patches, width 64",
        columns=("decoding", "s"),
        rows=tuple(seconds.items()),
        numbers={
            "one_by_one_over_8_passes": seconds[one_by_one] / eight,
            "autoregressive_over_8_passes": seconds[autoregressive] / eight,
            "re_encoded_over_cached": seconds[f"scan, {FIXATIONS} fixations, re-encoded"]
            / seconds[f"scan, {FIXATIONS} fixations, cached"],
        },
        threads=torch.get_num_threads(),
        repeats=repeats,
        commit=git_commit(),
    )


def palette_model(recipe: str) -> AnyOrderTransformer:
    """Return a small untrained model of a recipe over a palette, whose patches are pixels."""
    config = RECIPES[recipe].model_config(
        depth=4, image_size=(16, 16), patch_size=1, embed_dim=64, num_colors=NUM_COLORS
    )
    model = AnyOrderTransformer(config).eval()
    model.palette.copy_(torch.linspace(0, 1, NUM_COLORS).unsqueeze(1))
    return model


def order_of(name: str, model: AnyOrderTransformer) -> torch.Tensor:
    """Return an order of the patches for every decoded image."""
    rank = ordering(name, model.grid)(torch.empty(DECODED_IMAGES, 1, 1, 1))
    return rank_to_order(rank)


def scans(model: AnyOrderTransformer) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return a scan with a cache, and one that encodes all that it has seen at every fixation."""
    images = torch.rand(SCANNED_IMAGES, 1, 32, 32)
    path = rank_to_order(ordering("random", model.grid)(images))[:, :FIXATIONS]

    def cached() -> None:
        scan = Scan.start(model, images, path.shape[1])
        for patch in path.unbind(1):
            scan.reveal(patch.unsqueeze(1))
            scan.predict()

    def re_encoded() -> None:
        with torch.no_grad():
            for step in range(1, path.shape[1] + 1):
                predict_anew(model, images, path[:, :step])

    return cached, re_encoded

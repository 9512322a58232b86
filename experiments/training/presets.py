"""Presets: a training run by name.

No torch here, so that ``--help`` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.training.config import TrainConfig
from foveate.choices import blaming, lookup, told
from foveate.recipes import RECIPES

RARE_SCANS: dict[str, float] = {"policy_every": 4, "batch_size": 8, "random_share": 0.75}
"""Of 128 images that the model learns from, 32 are scans, made anew in every fourth iteration: the
policy then adds a third to the cost of a step (``experiments.bench rollout``)."""


DEMO = TrainConfig().replace(
    report=True, embed_dim=64, warmup_iterations=700, iterations=840, **RARE_SCANS
)


PRESETS: dict[str, tuple[str, TrainConfig]] = {
    "demo": ("Scenes, periphery: the two-command demo; trains 6 to 13 minutes on a CPU.", DEMO),
    "smoke": (
        "A few iterations of everything, for tests.",
        DEMO.replace(
            out=Path("runs/smoke"),
            limit=256,
            embed_dim=32,
            depth=2,
            decoder_depth=1,
            budget=4,
            warmup_iterations=4,
            iterations=4,
            warmup_batch_size=8,
            batch_size=4,
            policy_every=1,
            random_share=0.5,
            log_every=1,
            save_every=2,
            evaluate_every=4,
        ),
    ),
    "cue": (
        "A toy world in which looking is the only way to win; 20 seconds.",
        TrainConfig().replace(
            out=Path("runs/cue"),
            data="cue",
            patch_size=2,
            embed_dim=32,
            depth=2,
            num_heads=2,
            decoder_depth=1,
            periphery=0,
            budget=4,
            discount=0.9,
            warmup_iterations=500,
            warmup_batch_size=64,
            iterations=300,
        ),
    ),
    "fashion_mnist": (
        "Fashion-MNIST, blind, 10 of 49 patches; 45 minutes on one core.",
        TrainConfig().replace(
            out=Path("runs/fashion_mnist"),
            data="FashionMNIST",
            periphery=0,
            budget=10,
            warmup_iterations=2500,
            iterations=8500,
            **RARE_SCANS,
        ),
    ),
    "cifar10": (
        "CIFAR-10, periphery, 16 of 64 patches; 45 minutes on one core.",
        TrainConfig().replace(
            out=Path("runs/cifar10"),
            data="CIFAR10",
            depth=6,
            budget=16,
            warmup_iterations=1500,
            iterations=3800,
            **RARE_SCANS,
        ),
    ),
}


PHOTOGRAPHS: dict[str, Any] = {
    "data": "STL10",
    "image_size": 96,
    "depth": 6,
    "num_candidates": 32,
    "warmup_batch_size": 64,
    "warmup_iterations": 1500,
    "iterations": 4000,
    **RARE_SCANS,
    "batch_size": 4,
}
"""Photographs of 96 pixels: half the batches of the other presets, since they take the memory, and
scans that predict 32 patches after each fixation instead of all."""


PRESETS |= {
    f"photos_{num_patches}": (
        f"Photographs of 96 pixels (STL-10; --data others), periphery, {budget} of {num_patches} "
        f"patches; {minutes} minutes on one core.",
        TrainConfig().replace(
            **PHOTOGRAPHS,
            out=Path(f"runs/photos_{num_patches}"),
            patch_size=patch_size,
            budget=budget,
        ),
    )
    for num_patches, patch_size, budget, minutes in ((144, 8, 36, 65), (256, 6, 48, 100))
}


SMALL_WORLD: dict[str, str | int | bool] = {
    "report": False,
    "embed_dim": 48,
    "depth": 3,
    "decoder_depth": 1,
    "iterations": 0,
    "warmup_iterations": 1000,
    "save_every": 1000,
}
"""Small models of scenes that ship, the worlds of environments: trained on random orders alone, so
that no policy has an edge in them."""
PICTURES: dict[str, dict[str, str | int]] = {
    "scenes": {},
    "scenes_rgb": {"data": "scenes_rgb"},
    "scenes_rgb_96": {
        "data": "scenes_rgb",
        "image_size": 96,
        "patch_size": 8,
        "warmup_batch_size": 64,
        "warmup_iterations": 1200,
    },
}
"""What the scenes of such a world look like."""


PRESETS |= {
    name + suffix: (
        f"A small model of {name.replace('_', ' ')}, {sight}, for environments; 6 minutes on one "
        "core.",
        TrainConfig().replace(
            **{
                **SMALL_WORLD,
                **pictures,
                "periphery": periphery,
                "out": Path("runs") / (name + suffix),
            }
        ),
    )
    for name, pictures in PICTURES.items()
    for suffix, sight, periphery in (("", "peripheral", 2), ("_blind", "blind", 0))
    if name + suffix != "scenes"
}


PRESETS["photos_192"] = (
    "Photographs of 192x256 pixels with human fixations (--data PATH of OSIE), which it does not "
    "read; periphery, 16 of 12x16 patches; 25 minutes on one core.",
    TrainConfig().replace(
        **{
            **PHOTOGRAPHS,
            "out": Path("runs/photos_192"),
            "data": "osie_fixations.parquet",
            "image_size": (192, 256),
            "augment": True,
            "patch_size": 16,
            "depth": 4,
            "budget": 16,
            "warmup_iterations": 900,
            "iterations": 1500,
        }
    ),
)


PRESETS["flickr8k"] = (
    "Captions of photographs (Flickr8k of 96 pixels; --data others), a thumbnail of one patch, 16 "
    "of 64 patches; two hours and more on one core.",
    TrainConfig().replace(
        **{
            **PHOTOGRAPHS,
            "recipe": "caption",
            "data": "flickr8k96.parquet",
            "out": Path("runs/flickr8k"),
            "augment": True,
            "patch_size": 12,
            "periphery": 1,
            "embed_dim": 192,
            # The words are what is asked: of the image a few patches are, by a light decoder.
            "decoder_depth": 1,
            "num_targets": 2,
            "num_captions": 5,
            "word_dropout": 0.2,
            "crop_scale": 0.5,
            "weight_decay": 0.1,
            "budget": 16,
            "num_candidates": 16,
            "reward": "caption",
            "policy_every": 2,
            "warmup_batch_size": 64,
            "warmup_iterations": 1200,
            "iterations": 600,
        }
    ),
)


PRESETS["foveate"] = (
    "As demo: the recipe of this project.",
    DEMO.replace(out=Path("runs/foveate")),
)


PIXEL_TOKENS: dict[str, float] = {"image_size": 16, "patch_size": 1}
"""Sizes of the recipes whose tokens are pixels: 256 of them."""


SCANNED: dict[str, float] = {
    "periphery": 2,
    "warmup_iterations": 700,
    "iterations": 840,
    **RARE_SCANS,
}


RECIPE_SIZES: dict[str, dict[str, float]] = {
    "igpt": PIXEL_TOKENS,
    "igpt_bert": PIXEL_TOKENS,
    "autonat": PIXEL_TOKENS,
    "git": SCANNED,
    "caption": SCANNED,
}


PRESETS |= {
    name: (
        f"{row.reference.split('(', 1)[0].split(',')[0].strip()} on scenes; 1 to 6 minutes.",
        TrainConfig().replace(
            **{
                "out": Path("runs") / name,
                "recipe": name,
                "report": True,
                "embed_dim": 64,
                "periphery": 0,
                "prefix_share": 0.0,
                "warmup_iterations": 600,
                "warmup_batch_size": 64,
                "iterations": 0,
                **RECIPE_SIZES.get(name, {}),
            }
        ),
    )
    for name, row in RECIPES.items()
    if name != "foveate"
}


def own_preset(name: str) -> TrainConfig:
    """Return a preset of one's own, ``MODULE:NAME``: a TrainConfig, or a function that makes one.

    Raises:
        ValueError: there is none of this name, or it is something else.
    """
    found: object = lookup("preset", name, {}, object)
    with blaming("preset", name, ", called without arguments"):
        config = found() if callable(found) else found
    if not isinstance(config, TrainConfig):
        raise ValueError(f"preset {name!r} must be a TrainConfig or return one, got {told(config)}")
    return config

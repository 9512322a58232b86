"""Make the small models that ship with the package, in foveate/assets.

    python -m experiments.train demo
    python -m experiments.assets --demo runs/demo

``scenes.pt`` is the demo's model; ``cue.pt`` is trained here on random orders in the cue world of
``envs.toy``, in ten seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.cli import main_with_options

if TYPE_CHECKING:
    from foveate.model import AnyOrderTransformer


@dataclass(frozen=True, kw_only=True)
class AssetConfig:
    """Options."""

    demo: Path = Path("runs/demo")
    """Run folder of the demo preset."""
    seed: int = 0
    """Seed of the cue model."""


def train_cue_model(seed: int, num_updates: int = 400) -> AnyOrderTransformer:
    """Train a model of the cue world on random orders."""
    import torch

    from envs.toy import cue_set
    from foveate.config import ModelConfig
    from foveate.model import AnyOrderTransformer
    from foveate.orders import ordering

    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = AnyOrderTransformer(
        ModelConfig(
            image_size=(8, 8), patch_size=2, embed_dim=32, depth=2, num_heads=2, decoder_depth=1
        )
    )
    images, random = cue_set("train"), ordering("random", model.grid)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(num_updates):
        batch = images.batch(torch.randint(len(images), (64,), generator=generator))
        rank = random(batch, generator=generator).clamp(max=8)
        optimizer.zero_grad()
        model(batch, rank, generator=generator).backward()
        optimizer.step()
    return model.eval()


def main(config: AssetConfig) -> None:
    """Write both models."""
    from foveate.checkpoint import PRETRAINED, load_model, save_model

    save_model(load_model(config.demo), PRETRAINED["scenes"])
    save_model(train_cue_model(config.seed), PRETRAINED["cue"])
    for path in PRETRAINED.values():
        print(f"written: {path.name}, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main_with_options(main, AssetConfig)

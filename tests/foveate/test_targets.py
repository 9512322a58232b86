"""Targets and memories: one of one's own touches one file, and old checkpoints load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from envs.episode import Episode
from foveate import ModelConfig, load_model
from foveate.config import MEMORY_NAMES, TARGET_NAMES
from foveate.leaks import assert_no_leak
from foveate.model import AnyOrderTransformer
from foveate.model.memory import MEMORIES
from foveate.palette import fit_palette
from foveate.recipes import RECIPES
from foveate.targets import TARGETS

OWN_PARTS = '''
import torch
from torch import nn

from foveate.model.memory import EncoderMemory
from foveate.targets import Target


class Edges(Target):
    """How much brighter each pixel is than its neighbors below and to the right."""

    @property
    def dim(self):
        return 2 * self.config.patch_dim

    def of(self, images):
        down = images.diff(dim=2, append=images[:, :, -1:])
        right = images.diff(dim=3, append=images[..., -1:])
        return torch.cat([self.patchify(down), self.patchify(right)], dim=-1)

    def loss(self, values, targets):
        return (values - targets).abs().mean(-1)


class Mean(EncoderMemory):
    """Every block reads the mean of all layers."""

    def __init__(self, config):
        super().__init__(config)
        self.norm = nn.LayerNorm(config.embed_dim)

    def forward(self, layers):
        return [self.norm(torch.stack(layers).mean(0))] * self.num_blocks


class Unlearned(EncoderMemory):
    def __init__(self, config):
        pass

    def forward(self, layers):
        return []


class Single(EncoderMemory):
    def forward(self, layers):
        return layers[-1]


class Thin(Edges):
    def of(self, images):
        return super().of(images)[..., :3]


class PerPixel(Target):
    def of(self, images):
        return self.patchify(images)

    def loss(self, values, targets):
        return (values - targets).abs()


class Flat(Target):
    def of(self, images):
        return images.flatten(1)


class Nothing(Target):
    dim = 0

    def of(self, images):
        return images
'''


@pytest.fixture
def own_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_parts.py").write_text(OWN_PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def config(**changes: object) -> ModelConfig:
    sizes = {"image_size": (8, 8), "embed_dim": 16, "depth": 2, "num_heads": 2}
    return ModelConfig(**{**sizes, **changes})  # type: ignore[arg-type]


def test_names_in_the_config_are_those_of_the_registries() -> None:
    assert tuple(TARGETS) == TARGET_NAMES
    assert tuple(MEMORIES) == MEMORY_NAMES


@pytest.mark.usefixtures("own_parts")
def test_a_target_of_ones_own_is_learned() -> None:
    torch.manual_seed(0)
    model = AnyOrderTransformer(config(target="own_parts:Edges", num_targets=4))
    images = torch.linspace(0, 1, 8).square().repeat(16, 1, 8, 1)
    assert model.targets(images).shape == (16, 4, 32)
    torch.testing.assert_close(
        model.targets(images)[:, 0, 16], images[:, 0, 0, 1] - images[:, 0, 0, 0]
    )
    assert model.decoder.error_head is None
    with pytest.raises(ValueError, match="only a causal stream"):
        model.predict_scan(images, torch.zeros(16, 4, dtype=torch.long), 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    rank = torch.rand(16, 4).argsort(1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(images, rank, generator=torch.Generator().manual_seed(0))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # All images are the same, so that their edges can be learned by heart.
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.usefixtures("own_parts")
@pytest.mark.parametrize("target", ["pixels", "own_parts:Edges"])
def test_a_memory_of_ones_own_leaks_nothing(target: str) -> None:
    model = AnyOrderTransformer(
        config(memory="own_parts:Mean", target=target, patch_size=2, queries="own")
    )
    assert_no_leak(model.eval(), torch.rand(2, 1, 8, 8), torch.rand(2, 16).argsort(1))


@pytest.mark.slow
def test_a_target_of_ones_own_trains_from_the_command_line(own_parts: Path) -> None:
    """As CONTRIBUTING says: in the folder in which the module lies."""
    sizes = "--embed-dim 16 --depth 2 --num-heads 2 --limit 64 --warmup-batch-size 4"
    options = f"saim --target own_parts:Edges --warmup-iterations 2 {sizes} --no-report --threads 1"
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", *options.split(), "--out", "run"],
        cwd=own_parts,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert load_model(own_parts / "run").config.target == "own_parts:Edges"


@pytest.mark.usefixtures("own_parts")
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"target": "pixel"}, "unknown target 'pixel'; did you mean 'pixels'"),
        ({"memory": "lats"}, "unknown memory 'lats'; did you mean"),
        ({"target": "own_parts:Edgse"}, "module own_parts has no 'Edgse'"),
        ({"target": "own_parts:torch"}, "must be something that is a subclass of foveate.targets"),
        ({"target": "no_such:Edges"}, "importing no_such"),
        ({"target": "own_parts:Nothing"}, "must have a dim of at least 1 value, got 0"),
        ({"memory": "own_parts:Edges"}, "is a subclass of foveate.model.memory.EncoderMemory"),
        ({"target": "own_parts:Flat"}, r"must return \(2, 4, values\) of these images"),
        (
            {"target": "own_parts:Thin"},
            "'own_parts:Thin', its loss: RuntimeError: The size of",
        ),
        ({"target": "own_parts:PerPixel"}, r"must be one number for each patch, \(2, 48\), got"),
        ({"memory": "own_parts:Unlearned"}, r"must call super\(\).__init__"),
        ({"memory": "own_parts:Single"}, "memory Single must return 2 tensors of shape"),
    ],
)
def test_mistakes_are_told_in_one_line(changes: dict[str, str], complaint: str) -> None:
    images, rank = torch.rand(2, 1, 8, 8), torch.arange(4).expand(2, -1)
    with pytest.raises(ValueError, match=complaint) as caught:
        AnyOrderTransformer(config(**changes))(images, rank)
    assert "\n" not in str(caught.value)


def test_only_colors_have_a_palette() -> None:
    model = AnyOrderTransformer(config())
    with pytest.raises(ValueError, match="target='pixels' has no palette"):
        _ = model.palette
    with pytest.raises(ValueError, match="target='pixels' takes no features"):
        model.targets(torch.rand(1, 1, 8, 8), torch.rand(1, 4, 3))


def test_few_colors_fill_a_palette_about_equally_often() -> None:
    pixels = torch.tensor([[0, 0], [51, 255]], dtype=torch.uint8).view(1, 1, 2, 2)
    palette = fit_palette(pixels, 8, seed=0)
    colors, counts = palette.unique(return_counts=True)
    torch.testing.assert_close(colors, torch.tensor([0.0, 0.2, 1.0]))
    assert counts.tolist() == [3, 3, 2]


def test_a_checkpoint_from_before_targets_were_modules_loads() -> None:
    made = RECIPES["igpt"].model_config(
        depth=2, image_size=(8, 8), embed_dim=16, num_heads=2, num_colors=4
    )
    model = AnyOrderTransformer(made)
    pixels = torch.randint(256, (8, 1, 8, 8), dtype=torch.uint8)
    model.palette.copy_(fit_palette(pixels, 4, seed=0))
    old = model.state_dict()
    old["palette"] = old.pop("target.palette")
    loaded = AnyOrderTransformer(made)
    loaded.load_state_dict(old)
    torch.testing.assert_close(loaded.palette, model.palette)
    assert not loaded.palette.isnan().any()


def test_a_palette_that_is_overwritten_is_looked_at_anew() -> None:
    model = AnyOrderTransformer(config(target="colors", queries="own", num_colors=4))
    images = torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match="no palette yet"):
        model.color_ids(images)
    model.palette.copy_(torch.linspace(0, 1, 4).unsqueeze(1))
    model.color_ids(images)
    model.palette.fill_(torch.nan)
    with pytest.raises(ValueError, match="no palette yet"):
        model.color_ids(images)


@pytest.mark.parametrize("name", ["patch_norm", "blurred"])
def test_flat_patches_are_no_noise_and_normalized_ones_no_reward(name: str) -> None:
    """Of flat patches a deviation of 0 would be all that is left to predict."""
    config = ModelConfig(
        image_size=(32, 32), patch_size=8, embed_dim=16, depth=1, num_heads=2, target=name
    )
    model = AnyOrderTransformer(config)
    targets = model.targets(torch.full((2, 1, 32, 32), 0.3))
    inner = targets.view(2, 4, 4, -1)[:, 1:3, 1:3]  # A blur mixes what is outside into the rest.
    assert torch.isfinite(targets).all()
    assert float(inner.abs().max()) < 0.1
    assert not config.expects_error
    with pytest.raises(ValueError, match="can scan"):
        Episode(model, torch.rand(2, 1, 32, 32), budget=2)

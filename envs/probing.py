"""Fit the probe behind the reward ``recognition`` to a model that brings none.

Fitting takes seconds to a minute. For the worlds of ``foveate.ids`` the fitted ones ship.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from envs.episode import Episode
from envs.images import Size, load
from envs.length import DEFAULT_BUDGET
from envs.recognition import RecognitionProbe, probe_of
from foveate.checkpoint import (
    ASSETS,
    PRETRAINED,
    checkpoints_in,
    load_model,
    read_checkpoint,
    read_newest,
)
from foveate.data import ImageSet
from foveate.devices import device_of
from foveate.files import expanded
from foveate.ids import WORLDS
from foveate.model import AnyOrderTransformer
from foveate.orders.segments import Fixations
from foveate.tensors import read_state, write_state

SHIPPED = ASSETS / "probes.safetensors"
"""Probes that ship, by the name of their world, each with the digest of its model's file."""
FITTED_TO = 1024
"""Training images of which the probe sees one scan each."""
DECAY = 1e-3
"""Weight of the squared weights beside the mean cross-entropy, nats."""


def name_of_world(model: str, data: str, fixation_size: int, budget: int) -> str:
    """Name all that the probe of a model that ships follows from; its images have one size."""
    return f"{model}, {data}, {budget} fixations of {fixation_size}x{fixation_size} patches"


def digest_of(model: str) -> str:
    """Return the SHA-256 of the file of a model that ships."""
    return hashlib.sha256(PRETRAINED[model].read_bytes()).hexdigest()


def shipped_probes() -> dict[str, RecognitionProbe]:
    """Return the probes that ship, by the name of their world."""
    return {world: probe_of(each["probe"]) for world, each in read_state(SHIPPED).items()}


def fit_shipped(models: Collection[str]) -> None:
    """Fit and write the probes of the worlds of ``foveate.ids`` whose models are named."""
    kept = read_state(SHIPPED)
    plain = {"model": "scenes", "data": "scenes", "image_size": None, "budget": DEFAULT_BUDGET}
    for look in WORLDS.values():
        of: dict[str, Any] = {**plain, **look}
        if of["model"] in models:
            probe = fit_to_training(**of, fixation_size=1)
            del of["image_size"]
            kept[name_of_world(**of, fixation_size=1)] = {
                "model_sha256": digest_of(of["model"]),
                "probe": dict(probe.state_dict()),
            }
    write_state(SHIPPED, kept)


def fitted_probe(
    model: AnyOrderTransformer, images: ImageSet, fixations: Fixations, budget: int
) -> RecognitionProbe:
    """Fit a probe to what is known after 0 to ``budget`` fixations.

    Whoever fits it to the same images gets the same probe; no global random state is used.

    Args:
        model: whose features it reads.
        images: training images with labels; the first FITTED_TO with one count.
        fixations: what there is to look at.
        budget: fixations per scan.
    """
    index = (images.labels >= 0).nonzero().squeeze(1)[:FITTED_TO]
    device = device_of(model)
    features = known_in_scans(model, images.batch(index, device=device), fixations, budget)
    labels = images.labels[index].to(device).unsqueeze(1).expand(features.shape[:2]).contiguous()
    probe = RecognitionProbe(features.shape[-1], int(images.labels.max()) + 1).to(device)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        value = probe.cross_entropy(features, labels).mean()
        value = value + DECAY * probe.linear.weight.square().sum()
        value.backward()
        return float(value.detach())

    with torch.enable_grad():
        optimizer.step(loss)
    return probe.requires_grad_(False)


def known_in_scans(
    model: AnyOrderTransformer,
    images: Float[Tensor, "B C H W"],
    fixations: Fixations,
    budget: int,
) -> Float[Tensor, "B T D"]:
    """Return the features after 0 to ``budget`` fixations, T = budget + 1.

    A random half of the scans is random, the other fixates where the model expects its largest
    error: a probe that knew random scans alone would be at a loss after fixations that were chosen.
    """
    generator = torch.Generator().manual_seed(0)
    episode = Episode(model, images, budget=budget, fixations=fixations)
    is_random = (torch.rand(len(images), 1, generator=generator) < 0.5).to(images.device)
    known = [episode.scan.mean_content]
    for _ in range(budget):
        seen = episode.observe()
        noise = torch.rand(seen.selectable.shape, generator=generator).to(images.device)
        value = torch.where(is_random, noise, seen.log_error)
        choice: Int[Tensor, "B"] = value.masked_fill(~seen.selectable, -torch.inf).argmax(1)
        episode.step(episode.opens(choice))
        known.append(episode.scan.mean_content)
    return torch.stack(known, dim=1)


def folder_of(model: str | Path) -> Path:
    """Return the run folder that a model is given by, or that one of its checkpoints lies in."""
    place = expanded(model)
    return place if place.is_dir() else place.parent


def trained_probe(model: str | Path | AnyOrderTransformer, device: str) -> RecognitionProbe | None:
    """Return the probe of a run, or of one of its checkpoints, that was trained with one."""
    if isinstance(model, AnyOrderTransformer) or str(model) in PRETRAINED:
        return None
    place = expanded(model)
    if not checkpoints_in(folder_of(model)):
        return None
    whole = read_newest(place).state if place.is_dir() else read_checkpoint(place, {})
    state = whole.get("recognition")
    return None if state is None else probe_of(state["probe"]).to(device)


@lru_cache(maxsize=16)
def shipped_probe(
    model: str,
    data: str,
    image_size: Size,
    fixation_size: int,
    budget: int,
    device: str,
) -> RecognitionProbe:
    """Return the probe of a model that ships, or fit it: once in a process, for all of it."""
    world = name_of_world(model, data, fixation_size, budget)
    if (probe := shipped_probes().get(world)) is not None:
        return probe.to(device)
    print(
        f"fitting the classifier of reward 'recognition' to {FITTED_TO} scans ({world}): seconds "
        "to a minute, once in this process",
        file=sys.stderr,
    )
    return fit_to_training(model, data, image_size, fixation_size, budget, device)


def fit_to_training(
    model: str,
    data: str,
    image_size: Size,
    fixation_size: int,
    budget: int,
    device: str = "cpu",
) -> RecognitionProbe:
    """Fit the probe of a model that ships to training images."""
    loaded = load_model(model, device)
    train = load(data, "train", image_size, None)
    return fitted_probe(loaded, train, Fixations.squares(loaded.grid, fixation_size), budget)

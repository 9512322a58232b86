"""Fit the probe behind the reward ``recognition`` to a model that brings none."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from envs.episode import Episode
from envs.recognition import RecognitionProbe
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.orders.segments import Fixations

FITTED_TO = 1024
"""Training images of which the probe sees one scan each."""
DECAY = 1e-3
"""Weight of the squared weights beside the mean cross-entropy, nats."""


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
    device = next(model.parameters()).device
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

"""Decoding with few forward passes: all hidden patches at once, the least confident hidden again.

For masked streams over palettes. The order is the model's own confidence; what can be chosen is how
many patches to keep after each pass, and how random the choice is. Both are searched for.

Reference: MaskGIT (Chang et al. 2022, arXiv 2202.04200); AutoNAT (Ni et al. 2024),
LeapLabTHU/ImprovedNAT libs/nat_misc.py (generate) and train.py (search).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import approx_fprime
from torch import Tensor

from foveate.model.cache import CachePlace, empty_caches
from foveate.model.stepping import Encoding
from foveate.model.transformer import AnyOrderTransformer
from foveate.palette import nearest_color
from foveate.sampling import gumbel, sample

MOMENTUM = 0.5
"""Share of an update of a searched schedule that goes on in the next one."""


@dataclass(frozen=True)
class DecodingSchedule:
    """How T passes decode an image."""

    hidden: tuple[float, ...]
    """Share of the patches still hidden after each pass but the last, T - 1."""
    choice_temperature: tuple[float, ...]
    """Noise on the confidences by which patches are kept, T - 1."""
    sampling_temperature: tuple[float, ...]
    """Of the colors, T."""

    def __post_init__(self) -> None:
        lengths = len(self.hidden), len(self.choice_temperature)
        if lengths != (self.num_passes - 1,) * 2 or self.num_passes < 1:
            raise ValueError(
                "a schedule of T passes has T - 1 shares, T - 1 choice temperatures and T sampling "
                f"temperatures; got {lengths[0]}, {lengths[1]} and {self.num_passes}"
            )
        for temperature in self.sampling_temperature:
            check_temperature(temperature)

    @property
    def num_passes(self) -> int:
        """Forward passes, T."""
        return len(self.sampling_temperature)

    @classmethod
    def cosine(cls, num_passes: int) -> DecodingSchedule:
        """Return MaskGIT's: shares fall as a cosine, choices from random to greedy."""
        steps = [(step + 1) / num_passes for step in range(num_passes - 1)]
        return cls(
            tuple(math.cos(math.pi / 2 * step) for step in steps),
            tuple(4.5 * (1 - step) for step in steps),
            (1.0,) * num_passes,
        )

    def to_array(self) -> Float[np.ndarray, " K"]:
        """Return all 3T - 2 numbers, for a search."""
        return np.array([*self.hidden, *self.choice_temperature, *self.sampling_temperature])

    @classmethod
    def from_array(cls, values: Float[np.ndarray, " K"]) -> DecodingSchedule:
        """Return the schedule of some numbers, clipped to what is allowed."""
        cuts = (len(values) + 2) // 3 - 1
        hidden, choice, sampling = np.split(values, [cuts, 2 * cuts])
        return cls(
            tuple(hidden.clip(0, 1).tolist()),
            tuple(choice.clip(1e-4).tolist()),
            tuple(sampling.clip(1e-4).tolist()),
        )


def check_temperature(temperature: float) -> None:
    """Raise ValueError unless colors can be sampled at it."""
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"a sampling temperature must be above 0 and finite, got {temperature}; the most "
            "probable color is nearly always drawn at 1e-4"
        )


def predict_colors(
    model: AnyOrderTransformer,
    canvas: Float[Tensor, "B C H W"],
    hidden: Bool[Tensor, "B N"],
    temperature: float,
    generator: torch.Generator | None,
) -> tuple[Float[Tensor, "B N P"], Float[Tensor, "B N"]]:
    """Sample all hidden patches in one pass.

    Returns:
        Their pixels in [0, 1], and the log-probability of each patch's sample.
    """
    turn = model.predict_in_turn(canvas, hidden.long())
    logits = turn.prediction.values.unflatten(-1, (-1, model.config.num_colors))
    ids = sample(logits / temperature, generator)
    chosen = logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    return model.palette[ids].flatten(2), chosen.sum(-1)


@torch.no_grad()
def decode_in_parallel(
    model: AnyOrderTransformer,
    canvas: Float[Tensor, "B C H W"],
    hidden: Bool[Tensor, "B N"],
    schedule: DecodingSchedule,
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B C H W"]:
    """Fill in the hidden patches in T passes.

    Args:
        model: masked stream, target="colors".
        canvas: images in [0, 1]; what is hidden may be anything.
        hidden: True = to be decoded; all of them for generation. At least one in each image.
        schedule: of T passes.
        generator: randomness, on the CPU.

    Raises:
        ValueError: a model of another stream or target, or an image without a hidden patch.
    """
    if model.config.stream != "masked" or model.config.target != "colors":
        raise ValueError("parallel decoding needs a model with stream='masked', target='colors'")
    to_decode = hidden.sum(1)
    if bool((to_decode == 0).any()):
        raise ValueError("every image needs a hidden patch to decode")
    for step, temperature in enumerate(schedule.sampling_temperature):
        pixels, confidence = predict_colors(model, canvas, hidden, temperature, generator)
        patches = torch.where(hidden.unsqueeze(-1), pixels, model.patchify(canvas))
        canvas = model.unpatchify(patches)
        if step + 1 == schedule.num_passes:
            break
        noisy = confidence + schedule.choice_temperature[step] * gumbel(confidence, generator)
        # Something is left for the next pass: of a single hidden patch the last pass decides.
        left = (to_decode * schedule.hidden[step]).floor()
        left = torch.minimum(left, hidden.sum(1) - 1).clamp_min(1)
        place = noisy.masked_fill(~hidden, torch.inf).argsort(1).argsort(1)
        hidden = place < left.unsqueeze(1)
    return canvas


@torch.no_grad()
def decode_in_order(
    model: AnyOrderTransformer,
    canvas: Float[Tensor, "B C H W"],
    order: Int[Tensor, "B T"],
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B C H W"]:
    """Sample patch after patch, one pass each: autoregressive decoding.

    A causal stream without a decoder reads one token per pass and keeps its keys and values; all
    others are encoded anew in every pass.

    Args:
        model: target="colors"; a masked stream, or a causal one with an order of all patches.
        canvas: images in [0, 1]; what is to be decoded may be anything.
        order: the patches to decode.
        temperature: of the colors, above 0.
        generator: randomness, on the CPU.

    Raises:
        ValueError: a model of another target, a causal one with an order of some patches only, or
            no such temperature.
    """
    check_temperature(temperature)
    if model.config.target != "colors":
        raise ValueError(f"colors are sampled from target='colors', not {model.config.target!r}")
    if model.config.stream == "causal" and order.shape[1] != model.num_patches:
        raise ValueError(
            f"a causal model decodes all {model.num_patches} patches in order, got "
            f"{order.shape[1]} of them"
        )
    rows = torch.arange(len(order), device=order.device)
    hidden = torch.zeros(len(order), model.num_patches, dtype=torch.bool, device=order.device)
    hidden[rows.unsqueeze(1), order] = True
    is_causal = model.config.stream == "causal"
    cached = CachedStream(model, canvas) if is_causal and model.config.decoder_depth == 0 else None
    patches = model.patchify(canvas).clone()
    # Of equal entries training reads the first.
    first_equal = nearest_color(model.palette, model.palette)
    for patch in order.unbind(1):
        if cached is None:
            rank = order.argsort(1) if is_causal else hidden.long()
            canvas = model.unpatchify(patches)
            logits = model.predict_in_turn(canvas, rank).prediction.values[rows, patch]
        else:
            logits = cached.predict(patch)
        scores = logits.unflatten(-1, (-1, model.config.num_colors))
        ids = sample(scores / temperature, generator)
        patches[rows, patch] = model.palette[ids].flatten(1)
        hidden[rows, patch] = False
        if cached is not None:
            cached.read(patch, first_equal[ids])
    return model.unpatchify(patches)


class CachedStream:
    """A causal stream of a palette, without a decoder, that reads one patch after another."""

    def __init__(self, model: AnyOrderTransformer, images: Float[Tensor, "B C H W"]) -> None:
        self.model, self.length = model, 0
        self.newest, _ = model.embed(images)
        capacity = model.num_always + model.num_patches
        self.caches = empty_caches(model.encoder, self.newest, capacity)
        self.encoding = Encoding.of(model.encoder)

    def predict(self, following: Int[Tensor, "B"]) -> Float[Tensor, "B T"]:
        """Predict a patch from what has been read so far."""
        token = self.newest + self.model.next_position[following].unsqueeze(1)
        self.length += 1
        layers = self.encoding.append(token, self.caches, CachePlace(self.length))
        return self.model.decoder.read_out(layers[-1]).values[:, 0]

    def read(self, patch: Int[Tensor, "B"], ids: Int[Tensor, "B S"]) -> None:
        """Let the next prediction see the palette entries of a patch."""
        position = self.model.start_and_position()[1][0, 1:]
        self.newest = self.model.embed_colors(ids.unsqueeze(1)) + position[patch].unsqueeze(1)


def frechet_distance(first: Float[np.ndarray, "M D"], second: Float[np.ndarray, "K D"]) -> float:
    """Distance of the Gaussians fitted to two sets of features.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``, the trace of the root by eigenvalues.

    Reference: FID (Heusel et al. 2017, arXiv 1706.08500), Eq. 6. Differs: any features.

    Raises:
        ValueError: fewer than two of either, which have no covariance.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"a distance needs two or more of each, got {len(first)}, {len(second)}")
    mean = np.square(first.mean(0) - second.mean(0)).sum()
    one, two = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(np.atleast_2d(one @ two)).real.clip(0))
    return float(mean + np.trace(np.atleast_2d(one + two)) - 2 * roots.sum())


def search_schedule(
    start: DecodingSchedule,
    distance: Callable[[DecodingSchedule], float],
    *,
    num_updates: int,
) -> tuple[DecodingSchedule, list[float]]:
    """Descend a distance by finite differences; the best schedule met, and the path's distances.

    ``distance`` should use the same noise at every call, or the differences are of the noise.

    Reference: AutoNAT's train.py: steps of 0.01 (shares) and 0.1 (temperatures), momentum 0.5.
    Differs: noise is the same at every call (AutoNAT draws it anew), and the gradient is scaled,
    since distances have no common unit: without momentum an update moves a number by one such step
    on average. AutoNAT starts its choice temperatures at 1, and not, as MaskGIT and the
    default here, at 4.5.
    """
    values = start.to_array()
    num_shares = len(start.hidden)
    scale = np.where(np.arange(len(values)) < num_shares, 0.01, 0.1)

    def measure(scaled: Float[np.ndarray, " K"]) -> float:
        return distance(DecodingSchedule.from_array(scaled * scale))

    def allowed(values: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
        """Stay where a step of a difference changes something."""
        clipped = DecodingSchedule.from_array(values).to_array()
        clipped[:num_shares] = clipped[:num_shares].clip(max=0.99)
        return clipped

    scaled, velocity = allowed(values) / scale, np.zeros_like(values)
    best, distances = start, [distance(start)]
    for _ in range(num_updates):
        gradient = approx_fprime(scaled, measure, 1.0)
        gradient /= max(float(np.linalg.norm(gradient)), 1e-12)
        velocity = MOMENTUM * velocity + gradient
        moved = scaled - np.sqrt(len(values)) * velocity
        scaled = allowed(moved * scale) / scale
        distances.append(measure(scaled))
        if distances[-1] == min(distances):
            best = DecodingSchedule.from_array(scaled * scale)
    return best, distances

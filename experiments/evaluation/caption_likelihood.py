"""How surprising captions are to a model, of their own images and of all others."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Num
from torch import Tensor

from experiments.evaluation.scanpaths import pixels_of
from foveate.data.texts import ImageTexts
from foveate.model import AnyOrderTransformer

TOKENS = 2**14
"""Tokens that run through the model at once."""
CAPTIONS_AT_ONCE = 16
"""Captions that share one image: beyond, attention costs more than the image that is saved."""


@torch.no_grad()
def nats_of_own(
    model: AnyOrderTransformer,
    images: Num[Tensor, "M C H W"],
    texts: ImageTexts,
    rank: Int[Tensor, "M N"],
    steps: int,
) -> Float[Tensor, " S"]:
    """Return the cross-entropy of every caption, nats, summed over its subwords.

    Args:
        model: it writes captions.
        images: pixels in [0, 1], or bytes; image m is what the captions of image m are read from.
        texts: the captions.
        rank: decoding step of every patch.
        steps: the patches of rank < steps are visible; -1 = nothing is.
    """
    most = int(texts.count.max())
    length = int((texts.tokens >= 0).sum(1).max())
    tokens = model.num_always + model.num_patches + most * length
    found = []
    for index in torch.arange(len(images)).split(max(1, TOKENS // tokens)):
        place = texts.first[index].unsqueeze(1) + torch.arange(most)
        there = torch.arange(most) < texts.count[index].unsqueeze(1)
        words = texts.tokens[place.clamp_max(len(texts.tokens) - 1), :length]
        words = words.masked_fill(~there.unsqueeze(2), -1)
        nats = _summed(model, images[index], words, rank[index], steps)
        found.append(nats.cpu()[there])
    return torch.cat(found)


@torch.no_grad()
def nats_of_all(
    model: AnyOrderTransformer,
    images: Num[Tensor, "M C H W"],
    texts: ImageTexts,
    rank: Int[Tensor, "M N"],
    steps: int,
) -> Float[Tensor, "M S"]:
    """Return the cross-entropy of every caption given every image, nats; as :func:`nats_of_own`."""
    length = (texts.tokens >= 0).sum(1)
    by_length = length.argsort()
    found = torch.empty(len(images), len(length))
    for chosen in by_length.split(CAPTIONS_AT_ONCE):
        longest = int(length[chosen].max())
        words = texts.tokens[chosen, :longest]
        tokens = model.num_always + model.num_patches + len(chosen) * longest
        for index in torch.arange(len(images)).split(max(1, TOKENS // tokens)):
            same = words.expand(len(index), -1, -1)
            nats = _summed(model, images[index], same, rank[index], steps)
            found[index.unsqueeze(1), chosen] = nats.cpu()
    return found


def _summed(
    model: AnyOrderTransformer,
    images: Num[Tensor, "B C H W"],
    words: Int[Tensor, "B K L"],
    rank: Int[Tensor, "B N"],
    steps: int,
) -> Float[Tensor, "B K"]:
    device = model.decoder.position.device
    rank, words = rank.to(device), words.to(device)
    visible = torch.full_like(rank[:, 0], steps)
    pixels = pixels_of(images, device)
    nats: Tensor = model.reader.cross_entropy(model, pixels, None, words, rank, visible)
    return nats.sum(2)


def bits_per_word(nats: Float[Tensor, " S"], texts: ImageTexts) -> Float64[np.ndarray, " M"]:
    """Return bits per word of each image: those of its captions over the number of their words."""
    owner = texts.owner.numpy()
    bits = np.bincount(owner, nats.double().numpy() / math.log(2), len(texts))
    words: Float64[np.ndarray, " M"] = np.bincount(owner, texts.num_words.double().numpy())
    return bits / words


def ranks_of_right(
    score: Float[Tensor, "M S"], owner: Int[Tensor, " S"]
) -> tuple[Int[Tensor, " M"], Int[Tensor, " S"]]:
    """Return how many wrong answers come before the right one, ties counted as before it.

    Args:
        score: of each caption for each image; larger = fits better.
        owner: the image of each caption; every image has one or more.

    Returns:
        Of each image, before the best of its own captions; of each caption, before its image.
    """
    own = owner == torch.arange(len(score)).unsqueeze(1)
    best = score.masked_fill(~own, -math.inf).amax(1, keepdim=True)
    of_image = ((score >= best) & ~own).sum(1)
    right = score.gather(0, owner.unsqueeze(0))
    of_caption = ((score >= right) & ~own).sum(0)
    return of_image, of_caption

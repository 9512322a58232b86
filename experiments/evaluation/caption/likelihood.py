"""How surprising captions are to a model, of their own images and of all others."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Num
from torch import Tensor

from experiments.evaluation.scanpaths import pixels_of
from foveate.data.texts import ImageTexts
from foveate.devices import device_of
from foveate.model import AnyOrderTransformer

TOKENS = 2**13
"""Tokens that run through the model at once."""


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
        there = torch.arange(most) < texts.count[index].unsqueeze(1)
        words = texts.of_images(index)[:, :, :length]
        nats = _summed(model, images[index], words, rank[index], steps)
        found.append(nats.cpu()[there])
    return torch.cat(found)


@torch.no_grad()
def nats_of_pairs(
    model: AnyOrderTransformer,
    images: Num[Tensor, "M C H W"],
    texts: ImageTexts,
    rank: Int[Tensor, "M N"],
    steps: int,
    wanted: Bool[Tensor, "M S"],
) -> Float[Tensor, "M S"]:
    """Return the cross-entropy of captions given images, nats; as :func:`nats_of_own`.

    Captions of about one length run together, behind one reading of the image.

    Args:
        model: it writes captions.
        images: pixels in [0, 1], or bytes.
        texts: the captions.
        rank: decoding step of every patch.
        steps: the patches of rank < steps are visible; -1 = nothing is.
        wanted: which pairs are asked about (True = asked); of others it is 0.
    """
    length = (texts.tokens >= 0).sum(1)
    by_length = length.argsort()
    found = torch.zeros(len(images), len(length))
    for image in range(len(images)):
        chosen = by_length[wanted[image, by_length]]
        _, sizes = (length[chosen].cumsum(0) // TOKENS).unique_consecutive(return_counts=True)
        for captions in chosen.split(sizes.tolist()):
            words = texts.tokens[captions, : int(length[captions].max())].unsqueeze(0)
            part = slice(image, image + 1)
            nats = _summed(model, images[part], words, rank[part], steps)
            found[image, captions] = nats[0].cpu()
    return found


def _summed(
    model: AnyOrderTransformer,
    images: Num[Tensor, "B C H W"],
    words: Int[Tensor, "B K L"],
    rank: Int[Tensor, "B N"],
    steps: int,
) -> Float[Tensor, "B K"]:
    device = device_of(model)
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

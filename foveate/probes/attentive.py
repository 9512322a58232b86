"""The attentive probe: a learned query attends to frozen tokens, and a linear layer follows."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from foveate.data import ImageSet
from foveate.devices import device_of
from foveate.model import AnyOrderTransformer
from foveate.probes.features import IMAGES_AT_ONCE, Attention, States, frozen, half, patch_features
from foveate.probes.heads import HeadAccuracy, HeadProbe, Read

ATTENTIVE_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
"""Peak learning rates that the attentive probe chooses from."""
MAX_TOKEN_BYTES = 2**31
"""Up to so many, the patch tokens of one layer and split are kept in memory."""


def token_bytes(model: AnyOrderTransformer, num_images: int) -> int:
    """Memory that the patch tokens of one layer take in float16: 2 M N D bytes."""
    return 2 * num_images * model.num_patches * model.config.embed_dim


def frozen_tokens(
    model: AnyOrderTransformer,
    image_set: ImageSet,
    layer: int,
    *,
    attention: Attention = "full",
    states: States = "content",
    max_bytes: int = MAX_TOKEN_BYTES,
) -> Read:
    """Return what reads the patch tokens (B, N, D) of one layer, in float16.

    They are extracted now if :func:`token_bytes` is at most ``max_bytes``, else whenever read.
    """
    device = device_of(model)

    def compute(index: Tensor) -> Tensor:
        with frozen(model):
            images = image_set.batch(index, device=device)
            tokens = patch_features(model, images, attention, states)[layer]
        return half(tokens)

    if token_bytes(model, len(image_set)) > max_bytes:
        return compute
    parts = [compute(index).cpu() for index in torch.arange(len(image_set)).split(IMAGES_AT_ONCE)]
    return torch.cat(parts).__getitem__


class AttentiveHead(nn.Module):
    """Batch-normalized tokens, one learned query that attends to them, and a linear layer.

    As keys and values serve one query alone, their projections are applied to the query and to the
    attended mean: the same function at a fraction of the cost.

    Reference: the attentive probe of AIM (El-Nouby et al. 2024, arXiv 2401.08541), apple/ml-aim.
    Differs: no average over layers, and the linear layer has a bias.
    """

    def __init__(self, embed_dim: int, num_classes: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"token width {embed_dim} is no multiple of num_heads {num_heads}")
        self.norm = nn.BatchNorm1d(embed_dim, affine=False, eps=1e-6)
        self.query = nn.Parameter(0.02 * torch.randn(num_heads, embed_dim // num_heads))
        self.key = nn.Linear(embed_dim, embed_dim, bias=False)
        self.value = nn.Linear(embed_dim, embed_dim, bias=False)
        self.linear = nn.Linear(embed_dim, num_classes)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B C"]:
        """Logits of every class; tokens that are all zeros are padding."""
        present = tokens.any(2)
        if present.all():
            tokens = self.norm(tokens.transpose(1, 2))
        else:
            # Padding may not move the batch's mean and deviation.
            real = self.norm(tokens[present])
            tokens = torch.zeros_like(tokens).masked_scatter(present.unsqueeze(2), real)
            tokens = tokens.transpose(1, 2)
        split = (len(self.query), -1)
        query = torch.einsum("hk,hkd->hd", self.query, self.key.weight.unflatten(0, split))
        attention = query @ tokens * self.query.shape[1] ** -0.5
        attention = attention.masked_fill(~present.unsqueeze(1), -torch.inf).softmax(2)
        attended = attention @ tokens.transpose(1, 2)
        value = self.value.weight.unflatten(0, split)
        return self.linear(torch.einsum("bhd,hkd->bhk", attended, value).flatten(1))


def attentive_probe(
    train_x: Read,
    train_y: Int[np.ndarray, " M"],
    test_x: Read,
    test_y: Int[np.ndarray, " K"],
    *,
    num_heads: int,
    seed: int,
    device: str = "cpu",
    epochs: int = 30,
) -> HeadAccuracy:
    """:class:`AttentiveHead` on frozen tokens, trained by AdamW with weight decay 0.05.

    Reference: AIMv2 (Fini et al. 2024, arXiv 2411.14402), Table A2. Differs: 30 epochs for 100 with
    learning rates to match, no augmentation and no gradient clipping.

    ``train_x`` and ``test_x`` come from :func:`frozen_tokens`, or are anything else that maps
    indices (B,) to tokens (B, N, D), such as a tensor's ``__getitem__``.

    Raises:
        ValueError: no tenth can be held out, see :func:`foveate.probes.hold_out`.
    """
    width, num_classes = train_x(torch.arange(1)).shape[-1], int(train_y.max()) + 1
    probe = attentive(
        width,
        num_classes,
        num_heads=num_heads,
        seed=seed,
        device=device,
        epochs=epochs,
    )
    return probe.measure(train_x, train_y, test_x, test_y)


def attentive(
    embed_dim: int,
    num_classes: int,
    *,
    num_heads: int,
    seed: int,
    device: str = "cpu",
    epochs: int = 30,
) -> HeadProbe:
    """Return :class:`AttentiveHead` and how :func:`attentive_probe` trains it."""
    return HeadProbe(
        build=lambda: AttentiveHead(embed_dim, num_classes, num_heads),
        optimize=lambda parameters, rate: torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05),
        rates=ATTENTIVE_RATES,
        seed=seed,
        device=device,
        epochs=epochs,
    )

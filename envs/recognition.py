"""The probe behind the reward ``recognition``: what class do the features seen so far tell of?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from foveate.devices import send


class RecognitionProbe(nn.Module):
    """A linear classifier of layer-normalized features.

    Its weights start at 0, which gives all classes the same probability.

    Reference: linear classifier probes (Alain and Bengio 2016, arXiv 1610.01644), whose gradient
    does not reach the features either.
    """

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        # Without a draw: whoever seeds torch's generator finds it as it was.
        self.linear = nn.utils.skip_init(nn.Linear, embed_dim, num_classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @property
    def num_classes(self) -> int:
        """How many classes it knows."""
        return self.linear.out_features

    def forward(self, features: Float[Tensor, "*B D"]) -> Float[Tensor, "*B K"]:
        """Logits of every class; no gradient reaches the features."""
        logits: Tensor = self.linear(F.layer_norm(features.detach(), features.shape[-1:]))
        return logits

    def cross_entropy(
        self, features: Float[Tensor, "*B D"], labels: Int[Tensor, "*B"]
    ) -> Float[Tensor, "*B"]:
        """Minus the log-probability of each label, nats; 0 where there is none (-1)."""
        logits = self(features).flatten(0, -2)
        loss = F.cross_entropy(logits, labels.flatten(), ignore_index=-1, reduction="none")
        return loss.view(labels.shape)


def labels_of(
    images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"] | None
) -> Int[Tensor, "B"]:
    """Return the labels on the device of the images; of none -1 for each."""
    unknown = torch.full((len(images),), -1, device=images.device)
    return unknown if labels is None else send(labels.to(unknown.dtype), images.device)


def probe_of(state: dict[str, Tensor]) -> RecognitionProbe:
    """Build the probe whose weights these are."""
    num_classes, embed_dim = state["linear.weight"].shape
    probe = RecognitionProbe(embed_dim, num_classes)
    probe.load_state_dict(state)
    return probe.requires_grad_(False)

"""What a scan has seen so far, as one vector: all steps of a scanpath from one causal pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from foveate.model import AnyOrderTransformer
from foveate.model.encoder import take
from foveate.orders import order_to_rank, rank_to_order


def seen_means(
    model: AnyOrderTransformer, images: Float[Tensor, "B C H W"], order: Int[Tensor, "B T *S"]
) -> Float[Tensor, "B U D"]:
    """Mean encoder state of what has been seen after 0..T fixations, U = T + 1.

    Last layer; of periphery and patches seen, and where there is neither of the start token. The
    parallel twin of ``Scan.mean_content``, and it carries gradients.

    Args:
        model: one that can scan.
        images: pixels in [0, 1].
        order: the scanpaths, of patches or of segments padded with -1.

    Raises:
        ValueError: the model cannot scan, or the order holds no distinct patches 0..N-1.
    """
    model.check_scannable()
    rank = order_to_rank(order, model.num_patches)
    in_order = rank_to_order(rank)
    sorted_rank = rank.gather(1, in_order)
    steps = torch.arange(order.shape[1] + 1, device=order.device).expand(len(order), -1)
    counts = torch.searchsorted(sorted_rank, steps.contiguous())
    length = int(counts.max())
    first = sorted_rank[:, :length].contiguous()
    visible = torch.searchsorted(sorted_rank, first, right=True).clamp(max=length)
    states = model.encode(images, in_order, visible)[-1]
    # Without the start token, which shows nothing; entry m sums up m tokens.
    sums = F.pad(states[:, 1:].cumsum(1), (0, 0, 1, 0))
    places = counts + model.num_always - 1
    number = places.unsqueeze(-1)
    return torch.where(number > 0, take(sums, places) / number.clamp_min(1), states[:, :1])

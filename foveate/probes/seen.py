"""What a scan has seen so far, as one vector after every fixation, with gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from foveate.model import AnyOrderTransformer
from foveate.model.encoder import take
from foveate.orders import order_to_rank


def encode_after(
    model: AnyOrderTransformer,
    images: Float[Tensor, "B C H W"],
    order: Int[Tensor, "B T *S"],
    after: Sequence[int],
) -> tuple[tuple[Float[Tensor, "B S D"], ...], Int[Tensor, "B N"], Int[Tensor, "B K"]]:
    """Encode the always-visible tokens and what a scan sees, in one causal pass.

    Returns:
        The tokens after every block; the patches by rank; and how many of these are visible after
        each number of fixations in ``after``.

    Raises:
        ValueError: a number of fixations does not lie in 0..T, the order holds no distinct patches
            0..N-1, or the model has no causal stream.
    """
    if not after or not 0 <= min(after) <= max(after) <= order.shape[1]:
        raise ValueError(
            f"numbers of fixations must lie in 0..{order.shape[1]}, the length of the scanpaths, "
            f"got {' '.join(map(str, after)) or 'none'}"
        )
    if model.config.stream != "causal":
        raise ValueError("features after k fixations need a causal stream; this one is masked")
    rank = order_to_rank(order, model.num_patches)
    return model.encode_after(images, rank, after)


def mean_of_seen(
    states: Float[Tensor, "B S D"], number: Int[Tensor, "B K"]
) -> Float[Tensor, "B K D"]:
    """Average the first tokens behind the start token; of none of them, the start token itself."""
    sums = F.pad(states[:, 1:].cumsum(1), (0, 0, 1, 0))
    mean = take(sums, number) / number.clamp_min(1).unsqueeze(2)
    return torch.where(number.unsqueeze(2) > 0, mean, states[:, :1])


def seen_means(
    model: AnyOrderTransformer, images: Float[Tensor, "B C H W"], order: Int[Tensor, "B T *S"]
) -> Float[Tensor, "B U D"]:
    """Mean encoder state of what has been seen after 0..T fixations, U = T + 1.

    Last layer; of periphery and patches seen, and where there is neither of the start token. The
    parallel twin of ``Scan.mean_content``.

    Args:
        model: with a causal stream.
        images: pixels in [0, 1].
        order: the scanpaths, of patches or of segments padded with -1.

    Raises:
        ValueError: the stream is masked, or the order holds no distinct patches 0..N-1.
    """
    layers, _, counts = encode_after(model, images, order, range(order.shape[1] + 1))
    return mean_of_seen(layers[-1], counts + model.num_always - 1)

"""What is asked of captions by default, and which options are wrong. Free of torch."""

from __future__ import annotations

FIXATIONS = (0, 1, 2, 4, 8, 16)
"""Numbers of fixations after which captions are asked for."""
ORDERS = ("random", "center_out", "saliency", "other_image")
"""Whose fixations, beside the policy's."""

CANDIDATES = 32
"""Captions of an image, and images of a caption, that are asked about in full."""


def check_caption_options(
    fixations: tuple[int, ...], limit: int, retrieval_limit: int, candidates: int, examples: int
) -> None:
    """Raise ValueError unless the options of a measurement of captions make sense."""
    if not fixations or min(fixations) < 0:
        raise ValueError(f"fixations must be one or more numbers from 0, got {fixations}")
    if limit < 2:
        raise ValueError(f"limit must be at least 2 images (one needs another's path), got {limit}")
    numbers = {"retrieval_limit": retrieval_limit, "examples": examples}
    for name, number in numbers.items():
        if number < 0:
            raise ValueError(f"{name} must be 0 or more images, got {number}")
    if retrieval_limit == 0 and candidates != CANDIDATES:
        raise ValueError("candidates has no effect with retrieval_limit 0; leave it out")
    if 0 < candidates < 10 or candidates < 0:
        raise ValueError(
            f"candidates must be 0, which asks about every pair, or at least 10, got {candidates}"
        )
    if retrieval_limit == 1:
        raise ValueError("retrieval_limit must be 0, or 2 images and more to choose from, got 1")

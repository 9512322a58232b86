"""Stepwise scanning with caches equals the masked parallel pass, for every kind of order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foveate.model import AnyOrderTransformer
from foveate.orders import ORDERINGS, ordering, rank_to_order
from foveate.scanning import Scan


@pytest.mark.parametrize("kind", sorted(ORDERINGS))
def test_cached_equals_parallel(kind: str, model: AnyOrderTransformer, images: Tensor) -> None:
    rank = ordering(kind, model.grid)(images, generator=torch.Generator().manual_seed(0))
    order = rank_to_order(rank)[:, :7]
    parallel = model.predict_scan(images, order)
    scan = Scan.start(model, images, budget=7)
    for t in range(8):
        torch.testing.assert_close(scan.predict().pixels, parallel[:, t], atol=1e-5, rtol=1e-5)
        if t < 7:
            scan.reveal(order[:, t])


def test_repeated_scans_are_independent(model: AnyOrderTransformer, images: Tensor) -> None:
    scan = Scan.start(model, images, budget=3)
    scan.reveal(torch.tensor([0, 1, 2, 3, 4]))
    before = scan.predict().pixels
    twice = scan.repeat(2)
    twice.reveal(torch.arange(10))
    torch.testing.assert_close(scan.predict().pixels, before)
    alone = Scan.start(model, images, budget=3)
    alone.reveal(torch.tensor([0, 1, 2, 3, 4]))
    alone.reveal(torch.tensor([1, 3, 5, 7, 9]))
    torch.testing.assert_close(
        twice.predict().pixels[1::2], alone.predict().pixels, atol=1e-5, rtol=1e-5
    )


def test_a_scan_carries_no_gradients(model: AnyOrderTransformer, images: Tensor) -> None:
    scan = Scan.start(model, images.requires_grad_(), budget=2)
    scan.reveal(torch.zeros(5, dtype=torch.long))
    prediction = scan.predict()
    assert not any(t.requires_grad for t in (prediction.pixels, prediction.states, scan.content))


@pytest.mark.parametrize("budget", [0, 13])
def test_budgets_out_of_range_are_refused(
    budget: int, model: AnyOrderTransformer, images: Tensor
) -> None:
    with pytest.raises(ValueError, match="budget must lie in"):
        Scan.start(model, images, budget=budget)

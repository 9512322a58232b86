"""Stepwise scanning with caches equals the masked parallel pass, for every kind of order."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foveate.model import AnyOrderTransformer
from foveate.model.scanning import Scan
from foveate.orders import ORDERINGS, ordering


@pytest.mark.parametrize("kind", sorted(ORDERINGS))
def test_cached_equals_parallel(kind: str, model: AnyOrderTransformer, images: Tensor) -> None:
    """Patches of equal rank are revealed at once; rows that reveal fewer than others are padded."""
    rank = ordering(kind, model.grid)(images, generator=torch.Generator().manual_seed(0))
    num_steps = int(rank.max()) + 1
    parallel = model.predict_scan(images, rank, num_steps)
    scan = Scan.start(model, images, budget=12)
    for step in range(num_steps):
        torch.testing.assert_close(scan.predict().values, parallel[:, step], atol=1e-5, rtol=1e-5)
        tied = rank == step
        segment = tied.int().argsort(dim=1, descending=True, stable=True)[
            :, : int(tied.sum(1).max())
        ]
        present = tied.gather(1, segment)
        scan.reveal(segment, None if bool(present.all()) else present)
    torch.testing.assert_close(scan.predict().values, parallel[:, -1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("of", ["encoder.blocks.0", "decoder.blocks.0.query"])
def test_hooks_which_do_not_run_where_a_model_scans_are_warned_of(
    of: str, model: AnyOrderTransformer, images: Tensor
) -> None:
    ran: list[str] = []
    model.get_submodule(of).register_forward_hook(lambda *_: ran.append(of))
    with pytest.warns(UserWarning, match="hooks of .* do not run where a model scans"):
        Scan.start(model, images, budget=2).predict()
    assert not ran


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: setattr(m.encoder.blocks[0].mlp, "act", nn.ReLU()), "ReLU is not known"),
        (lambda m: setattr(m.encoder.blocks[0], "ls1", nn.Tanh()), "Tanh is not known"),
        (lambda m: setattr(m.decoder, "head", nn.Sequential(m.decoder.head)), "Sequential is not"),
    ],
)
def test_what_weights_do_not_say_is_refused_where_a_model_scans(
    change: Callable[[Any], object], said: str, model: AnyOrderTransformer, images: Tensor
) -> None:
    changed = copy.deepcopy(model)
    change(changed)
    with pytest.raises(ValueError, match=said):
        Scan.start(changed, images, budget=2)
    nn.utils.parametrizations.weight_norm(model.decoder.blocks[0].query)
    scanned = Scan.start(model, images, budget=2)
    whole = model.predict_scan(images, torch.arange(model.num_patches).repeat(len(images), 1), 1)
    torch.testing.assert_close(scanned.predict().values, whole[:, 0], atol=1e-5, rtol=1e-5)


def test_a_scan_summarizes_the_patch_seen_last(model: AnyOrderTransformer, images: Tensor) -> None:
    """Padding leaves the summary as it was."""
    scan = Scan.start(model, images, budget=2)
    nothing_yet = scan.content
    scan.reveal(torch.arange(5).unsqueeze(1), torch.arange(5).unsqueeze(1) > 0)
    alone = Scan.start(model, images[1:], budget=2)
    alone.reveal(torch.arange(1, 5).unsqueeze(1))
    torch.testing.assert_close(scan.content[0], nothing_yet[0])
    torch.testing.assert_close(scan.content[1:], alone.content, atol=1e-5, rtol=1e-5)


def test_a_row_restarts_while_the_others_go_on(model: AnyOrderTransformer, images: Tensor) -> None:
    scan = Scan.start(model, images, budget=4)
    scan.reveal(torch.arange(5).unsqueeze(1))
    again = torch.tensor([False, True, False, False, True])
    scan.restart(again, images[:2])
    alone = Scan.start(model, images[:2], budget=4)
    for patch in (7, 3):
        torch.testing.assert_close(
            scan.predict().values[again], alone.predict().values, atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(scan.content[again], alone.content, atol=1e-5, rtol=1e-5)
        scan.reveal(torch.full((5, 1), patch + 1))
        alone.reveal(torch.full((2, 1), patch + 1))
    others = Scan.start(model, images[~again], budget=4)
    for order in ([[0], [2], [3]], [[8]] * 3, [[4]] * 3):
        others.reveal(torch.tensor(order))
    torch.testing.assert_close(
        scan.predict().values[~again], others.predict().values, atol=1e-5, rtol=1e-5
    )


def test_a_scan_that_restarts_knows_what_the_model_has_learned_since(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    scan = Scan.start(model, images, budget=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    scan.restart(torch.ones(5, dtype=torch.bool), images)
    fresh = Scan.start(model, images, budget=2)
    torch.testing.assert_close(scan.predict().values, fresh.predict().values, atol=1e-5, rtol=1e-5)


def test_revealing_more_than_there_is_room_for_is_refused(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    scan = Scan.start(model, images, budget=1)
    scan.reveal(torch.zeros(5, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="room for 1 patches"):
        scan.reveal(torch.ones(5, 1, dtype=torch.long))


def test_repeated_scans_are_independent(model: AnyOrderTransformer, images: Tensor) -> None:
    scan = Scan.start(model, images, budget=3)
    scan.reveal(torch.tensor([[0], [1], [2], [3], [4]]))
    before = scan.predict().values
    twice = scan.repeat(2)
    twice.reveal(torch.arange(10).unsqueeze(1))
    torch.testing.assert_close(scan.predict().values, before)
    alone = Scan.start(model, images, budget=3)
    alone.reveal(torch.tensor([[0], [1], [2], [3], [4]]))
    alone.reveal(torch.tensor([[1], [3], [5], [7], [9]]))
    torch.testing.assert_close(
        twice.predict().values[1::2], alone.predict().values, atol=1e-5, rtol=1e-5
    )


def test_a_scan_carries_no_gradients(model: AnyOrderTransformer, images: Tensor) -> None:
    scan = Scan.start(model, images.requires_grad_(), budget=2)
    scan.reveal(torch.zeros(5, 1, dtype=torch.long))
    prediction = scan.predict()
    assert not any(t.requires_grad for t in (prediction.values, prediction.states, scan.content))


@pytest.mark.parametrize("budget", [0, 13])
def test_budgets_out_of_range_are_refused(
    budget: int, model: AnyOrderTransformer, images: Tensor
) -> None:
    with pytest.raises(ValueError, match="budget must lie in"):
        Scan.start(model, images, budget=budget)

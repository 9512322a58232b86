"""What is stated of ties saves looks at the device, and changes no number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from agents.group_relative import policy_step
from agents.policies import PointerPolicy, PolicyConfig
from foveate.model import AnyOrderTransformer
from foveate.orders import ORDERINGS, SUBSETS, may_tie, order_to_rank, ordering
from foveate.orders.segments import Fixations
from foveate.orders.semantic import SEMANTIC, model_ordering
from foveate.recipes import RECIPES

UNTIED = [name for name, row in RECIPES.items() if row.ranks != "two"]


LOOKS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.nonzero.default,
}
"""Operations whose result, or its shape, the host waits for."""


class CountLooks(TorchDispatchMode):
    """Counts the times that the host waits for values of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = {}
    ) -> Any:
        self.looks += func in LOOKS
        return func(*args, **kwargs)


@contextmanager
def looks() -> Iterator[CountLooks]:
    with CountLooks() as counted:
        yield counted


def build(name: str) -> tuple[AnyOrderTransformer, dict[str, Any]]:
    torch.manual_seed(0)
    row = RECIPES[name]
    model = AnyOrderTransformer(
        row.model_config(
            depth=4,
            image_size=(8, 8),
            patch_size=2,
            embed_dim=16,
            num_heads=2,
            num_colors=5,
            feature_dim=6 if row.takes_features else None,
        )
    )
    if row.reads_colors:
        model.palette.copy_(torch.linspace(0, 1, 5).unsqueeze(1))
    features = torch.randn(3, 16, 6) if row.takes_features else None
    return model, {"features": features}


@pytest.mark.parametrize("name", UNTIED)
def test_without_ties_training_never_waits_for_the_device(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # kornia looks at the deviation of its blur, which lies on the CPU.
    monkeypatch.setattr("foveate.targets.blur", lambda images: images)
    model, given = build(name)
    images, rank = torch.rand(3, 1, 8, 8), torch.rand(3, 16).argsort(1)

    def loss(**stated: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return model(images, rank, generator=generator, **given, **stated)

    expected = loss()
    with looks() as counted:
        stated = loss(ties=False, last_rank=15)
    assert counted.looks == 0
    assert torch.equal(stated, expected)
    with looks() as counted:
        loss()
    assert counted.looks > 0


@pytest.mark.parametrize("name", ["foveate", "saim", "digpt"])
@pytest.mark.parametrize("num_steps", [None, 3])
def test_what_is_stated_of_a_scan_changes_no_number(name: str, num_steps: int | None) -> None:
    model, given = build(name)
    images = torch.rand(3, 1, 8, 8)
    rank = order_to_rank(torch.rand(3, 16).argsort(1)[:, :5], 16)

    def loss(**stated: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return model(images, rank, num_steps=num_steps, generator=generator, **given, **stated)

    expected = loss()
    for stated in (
        {"ties": False, "last_rank": 5},
        {"ties": False},
        {"ties": True},
        {"last_rank": 5},
    ):
        torch.testing.assert_close(loss(**stated), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "order"), [("mae", "random_subset"), ("autonat", "beta_subset"), ("randsac", None)]
)
def test_ties_that_are_stated_are_looked_at_once_at_most(name: str, order: str | None) -> None:
    model, given = build(name)
    images = torch.rand(3, 1, 8, 8)
    rank = model_ordering(order or RECIPES[name].order, model)(images)
    expected = model(images, rank, **given)
    with looks() as counted:
        stated = model(images, rank, ties=True, **given)
    assert counted.looks <= 1
    torch.testing.assert_close(stated, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("side", "num_candidates"), [(1, None), (1, 4), (2, None), (2, 2)])
def test_a_policys_rollout_never_waits_for_the_device(
    side: int, num_candidates: int | None
) -> None:
    """Of fixations that share no patch and are equally large: single patches, or squares."""
    model, _ = build("foveate")
    policy = PointerPolicy(16, PolicyConfig(hidden_dim=8))
    fixations = Fixations.squares(model.grid, side)
    assert fixations.is_partition
    assert fixations.is_single == (side == 1)
    with looks() as counted:
        scans = policy_step(
            model,
            policy,
            torch.rand(3, 1, 8, 8),
            budget=2,
            reward="auc",
            group=2,
            discount=0.7,
            entropy_weight=0.01,
            fixations=fixations,
            num_candidates=num_candidates,
            generator=torch.Generator().manual_seed(0),
        )
        scans.loss.backward()
    assert counted.looks == 0
    assert scans.auc > 0


def test_orders_say_whether_patches_may_tie() -> None:
    model, _ = build("foveate")
    for name in [*ORDERINGS, *SUBSETS, *SEMANTIC]:
        order = model_ordering(name, model)
        rank = order(torch.rand(4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
        has_ties = bool((rank.sort(1).values.diff(dim=1) == 0).any())
        assert may_tie(order) is not None
        assert may_tie(order) or not has_ties, name
    assert may_tie(ordering("raster", (4, 4))) is False
    assert may_tie(ordering("random_squares", (4, 4))) is True
    assert may_tie(lambda images, generator=None: torch.zeros(1, 16)) is None


def test_a_user_who_states_nothing_is_told_of_mistakes() -> None:
    model, _ = build("foveate")
    with pytest.raises(ValueError, match="row 1 is"):
        model(torch.rand(2, 1, 8, 8), torch.tensor([[0] * 16, [-1] * 16]))
    with pytest.raises(ValueError, match="rank must have shape"):
        model(torch.rand(2, 1, 8, 8), torch.zeros(2, 15, dtype=torch.long), ties=False)
    joint, _ = build("mae")
    uneven = torch.ones(2, 16, dtype=torch.long)
    uneven[0, :4], uneven[1, :5] = 0, 0
    for ties in (None, True):
        with pytest.raises(ValueError, match="one size in all images"):
            joint(torch.rand(2, 1, 8, 8), uneven, ties=ties)

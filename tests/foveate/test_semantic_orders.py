"""Orders from a model's features: windows and distances by hand, choices by definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveate.config import ModelConfig
from foveate.model import AnyOrderTransformer
from foveate.orders.semantic import center_distances, model_ordering, rings


@pytest.mark.parametrize(
    ("center", "windows"),
    [
        # SemAIM's own table for 14 x 14 patches, first and one past the last.
        (0, [(0, 2), (0, 6), (0, 10)]),
        (1, [(0, 2), (0, 6), (0, 10)]),
        (3, [(2, 4), (0, 6), (0, 10)]),
        (4, [(3, 5), (1, 7), (0, 10)]),
        (5, [(4, 6), (2, 8), (0, 10)]),
        (6, [(5, 7), (3, 9), (1, 11)]),
        (7, [(6, 8), (4, 10), (2, 12)]),
        (8, [(7, 9), (5, 11), (3, 13)]),
        # Where its last row would be left out, ours are shifted.
        (13, [(12, 14), (8, 14), (4, 14)]),
    ],
)
def test_rings_are_the_windows_of_semaim(center: int, windows: list[tuple[int, int]]) -> None:
    outside = rings((14, 14), torch.tensor([[center], [6]]))[0].reshape(14, 14)
    expected = torch.zeros(14, 14, dtype=torch.long)
    for (first, end), (left, right) in zip(windows, [(5, 7), (3, 9), (1, 11)], strict=True):
        inside = torch.zeros(14, 14, dtype=torch.bool)
        inside[first:end, left:right] = True
        expected += ~inside
    assert torch.equal(outside, expected)


@given(rows=st.integers(1, 20), cols=st.integers(1, 20), data=st.data())
def test_rings_start_at_their_center_and_grow_by_the_laws_of_windows(
    rows: int, cols: int, data: st.DataObject
) -> None:
    row, col = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    outside = rings((rows, cols), torch.tensor([[row], [col]]))[0]
    assert outside[row * cols + col] == 0
    for ring in range(int(outside.max()) + 1):
        width = 4 * ring + 2
        assert int((outside <= ring).sum()) == (
            min(width, rows) * min(width, cols) if width < max(rows, cols) else rows * cols
        )


def test_distances_by_hand() -> None:
    away = center_distances((2, 3), torch.tensor([[0], [2]]))[0]
    torch.testing.assert_close(away, torch.tensor([2.0, 1.0, 0.0, 5**0.5, 2**0.5, 1.0]))


def test_semaims_default_order_grows_outward_from_the_patch_most_like_the_mean() -> None:
    torch.manual_seed(0)
    model = AnyOrderTransformer(ModelConfig(image_size=(16, 24), embed_dim=16, depth=2)).eval()
    images = torch.rand(8, 1, 16, 24, generator=torch.Generator().manual_seed(1))
    tokens = model.features(images)[-1].detach()
    cosine = torch.nn.functional.cosine_similarity(tokens, tokens.mean(1, keepdim=True), dim=2)
    most = cosine.argmax(1)
    assert len(most.unique()) > 1
    for name in ("outward_from_most_similar", "most_similar_first", "rings_around_most_similar"):
        rank = model_ordering(name, model)(images)
        if name != "rings_around_most_similar":
            assert (rank.gather(1, most.unsqueeze(1)) == 0).all(), name
        center = torch.stack([most // 6, most % 6])
        key = {
            "outward_from_most_similar": center_distances((4, 6), center),
            "most_similar_first": -cosine,
            "rings_around_most_similar": rings((4, 6), center).float(),
        }[name]
        assert (key.gather(1, rank.argsort(1)).diff(dim=1) >= 0).all(), name

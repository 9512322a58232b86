"""Laws of orders, for every registered one on grids of any shape."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Optional

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from unchecked import unchecked

from foveate.orders import (
    ORDERINGS,
    SUBSETS,
    check_order,
    check_rank,
    counts,
    mean_rank_order,
    order_to_rank,
    ordering,
    rank_to_order,
    ranked,
    tie_prefix,
)
from foveate.orders.paths import PATHS
from foveate.orders.random import RANDOM
from foveate.orders.ranks import check_steps
from foveate.recipes import recipe

GRIDS = st.tuples(st.integers(1, 9), st.integers(1, 9))
ANY = settings(max_examples=30, deadline=None)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(size: int = 3) -> torch.Tensor:
    return torch.zeros(size, 1, 2, 2)


def path(name: str, grid: tuple[int, int]) -> list[tuple[int, int]]:
    order = rank_to_order(ordering(name, grid)(images(1)))[0]
    return [(int(patch) // grid[1], int(patch) % grid[1]) for patch in order]


@pytest.mark.parametrize("name", SUBSETS)
@given(rows=st.integers(1, 9), cols=st.integers(2, 9), seed=st.integers(0, 1000))
@ANY
def test_subsets_hide_at_least_one_patch(name: str, rows: int, cols: int, seed: int) -> None:
    rank = ordering(name, (rows, cols))(images(), generator=generator(seed))
    check_rank(rank, rows * cols)
    assert int(rank.max()) == 1
    assert bool(rank.any(1).all())
    if name == "random_subset":
        expected = max(rows * cols // 4, 1)
        assert (rank == 0).sum(1).tolist() == [expected] * 3


@pytest.mark.parametrize(
    ("name", "options", "share"),
    [
        ("beta_subset", {}, 0.8),
        ("beta_subset", {"a": 1.0, "b": 3.0}, 0.25),
        ("bernoulli_subset", {}, 0.15),
    ],
)
def test_subsets_hide_the_share_they_say(
    name: str, options: dict[str, float], share: float
) -> None:
    """4,000 images: a standard error below 0.005; seven of them are allowed."""
    rank = ordering(name, (8, 8), **options)(images(4000), generator=generator())
    assert abs(float(rank.float().mean()) - share) < 0.03


@pytest.mark.parametrize("name", sorted(ORDERINGS))
@given(grid=GRIDS, seed=st.integers(0, 1000))
@ANY
def test_ranks_are_consecutive_from_zero(name: str, grid: tuple[int, int], seed: int) -> None:
    rank = ordering(name, grid)(images(), generator=generator(seed))
    check_rank(rank, grid[0] * grid[1])
    for row in rank.tolist():
        assert sorted(set(row)) == list(range(max(row) + 1))
        if name in PATHS or name == "random":
            assert len(set(row)) == len(row)


@given(grid=GRIDS, steps=st.integers(0, 81), seed=st.integers(0, 1000))
@ANY
def test_order_and_rank_are_inverse(grid: tuple[int, int], steps: int, seed: int) -> None:
    num_patches = grid[0] * grid[1]
    order = rank_to_order(ordering("random", grid)(images(), generator=generator(seed)))
    assert torch.equal(rank_to_order(order_to_rank(order, num_patches)), order)
    scanpath = order[:, :steps]
    rank = order_to_rank(scanpath, num_patches)
    assert torch.equal(rank_to_order(rank)[:, :steps], scanpath)
    assert int((rank == scanpath.shape[1]).sum()) == 3 * (num_patches - scanpath.shape[1])


@given(size=st.integers(0, 12), seed=st.integers(0, 1000))
@ANY
def test_a_tied_prefix_keeps_the_order(size: int, seed: int) -> None:
    rank = ordering("random", (3, 4))(images(), generator=generator(seed))
    tied = tie_prefix(rank, size)
    assert torch.equal((tied == 0).sum(1), torch.full((3,), max(size, 1)))
    first = rank_to_order(rank)[:, :size]
    assert (tied.gather(1, first) == 0).all()
    rest = rank_to_order(rank)[:, size:]
    if size:
        assert torch.equal(tied.gather(1, rest), torch.arange(1, 13 - size).expand(3, -1))


@given(size=st.integers(0, 12), seed=st.integers(0, 1000))
@ANY
def test_a_tied_prefix_keeps_segments_whole(size: int, seed: int) -> None:
    rank = ordering("random_squares", (3, 4), side=2)(images(), generator=generator(seed))
    tied = tie_prefix(rank, size)
    same = rank.unsqueeze(1) == rank.unsqueeze(2)
    assert (tied.unsqueeze(1) == tied.unsqueeze(2))[same].all()
    first = tied == 0
    assert (first.sum(1) >= size).all()
    # The rest follow as they did, only earlier.
    assert all(len(set((rank - tied)[i][~first[i]].tolist())) <= 1 for i in range(3))
    assert all((tied[i][~first[i]] > 0).all() for i in range(3))


@pytest.mark.parametrize("name", ["snake", "spiral_in", "spiral_out"])
@given(grid=GRIDS)
@ANY
def test_curves_move_to_a_neighbor(name: str, grid: tuple[int, int]) -> None:
    cells = path(name, grid)
    assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in pairwise(cells))


@pytest.mark.parametrize("side", [2, 4, 8, 16])
def test_hilbert_moves_to_a_neighbor_on_powers_of_two(side: int) -> None:
    cells = path("hilbert", (side, side))
    assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in pairwise(cells))
    assert cells[0] == (0, 0)
    # Each quadrant is finished before the next begins.
    quarter = [(row * 2 // side, col * 2 // side) for row, col in cells]
    assert sum(a != b for a, b in pairwise(quarter)) == 3


@given(grid=GRIDS)
@ANY
def test_center_out_never_comes_nearer(grid: tuple[int, int]) -> None:
    middle = (grid[0] - 1) / 2, (grid[1] - 1) / 2
    distance = [
        (row - middle[0]) ** 2 + (col - middle[1]) ** 2 for row, col in path("center_out", grid)
    ]
    assert all(a <= b + 1e-9 for a, b in pairwise(distance))


@given(grid=GRIDS)
@ANY
def test_farthest_point_always_takes_a_farthest_patch(grid: tuple[int, int]) -> None:
    cells = torch.tensor(path("farthest_point", grid), dtype=torch.float64)
    for step in range(1, len(cells)):
        nearest = torch.cdist(cells[step:], cells[:step]).amin(1)
        assert float(nearest[0]) == pytest.approx(float(nearest.max()))


def test_curves_by_hand() -> None:
    assert path("column", (2, 2)) == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert path("z_curve", (2, 4)) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (0, 2),
        (0, 3),
        (1, 2),
        (1, 3),
    ]
    assert path("checkerboard", (2, 3)) == [(0, 0), (0, 2), (1, 1), (0, 1), (1, 0), (1, 2)]
    assert path("spiral_in", (2, 3)) == [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)]


@pytest.mark.parametrize("side", [1, 2, 3])
def test_squares_tie_within_and_differ_between(side: int) -> None:
    rank = ordering("random_squares", (5, 7), side=side)(images(), generator=generator())
    for row in range(5):
        for col in range(7):
            for other_row in range(5):
                for other_col in range(7):
                    same = (row // side, col // side) == (other_row // side, other_col // side)
                    tied = rank[:, row * 7 + col] == rank[:, other_row * 7 + other_col]
                    assert bool(tied.all()) if same else not bool(tied.any())


def test_near_blobs_follow_one_another() -> None:
    """Steps between blobs are shorter than where all blobs come in any order."""

    def saccade(name: str, **options: int) -> float:
        rank = ordering(name, (16, 16), **options)(images(200), generator=generator())
        cells = torch.cartesian_prod(torch.arange(16.0), torch.arange(16.0))
        lengths = []
        for row in rank:
            means = torch.stack([cells[row == step].mean(0) for step in range(int(row.max()) + 1)])
            lengths.append(means.diff(dim=0).norm(dim=1).mean())
        return float(torch.stack(lengths).mean())

    assert saccade("hierarchical_blobs", blobs=12, partitions=4) < 0.9 * saccade(
        "random_blobs", blobs=12
    )


def test_hierarchy_finishes_a_partition_before_the_next() -> None:
    """16 squares in 4 partitions on an 8 x 8 grid: RandSAC's 16 -> 4."""
    rank = ordering("hierarchical", (8, 8))(images(20), generator=generator()).view(20, 8, 8)
    assert int(rank.max()) == 15
    for quadrant in (rank[:, :4, :4], rank[:, :4, 4:], rank[:, 4:, :4], rank[:, 4:, 4:]):
        low, high = quadrant.flatten(1).amin(1), quadrant.flatten(1).amax(1)
        assert torch.equal(high - low, torch.full((20,), 3))


@pytest.mark.parametrize("grid", [(5, 5), (7, 7), (14, 14), (6, 9)])
def test_squares_by_their_number_are_as_many_on_every_grid(grid: tuple[int, int]) -> None:
    for name, number in (("hierarchical", 16), ("random_quadrants", 4)):
        rank = ordering(name, grid)(images(10), generator=generator())
        assert torch.equal(rank.amax(1), torch.full((10,), number - 1))
        sizes = [len(row.unique(return_counts=True)[1]) for row in rank]
        assert sizes == [number] * 10
    quarters = ordering("random_quadrants", (14, 14))(images(1), generator=generator())
    assert quarters.unique(return_counts=True)[1].tolist() == [49] * 4


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_random_orders_follow_the_generator(name: str) -> None:
    build = ordering(name, (8, 8))
    first, again = build(images(), generator=generator(1)), build(images(), generator=generator(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, build(images(), generator=generator(2)))
    assert not torch.equal(first[0], first[1])


def test_whole_numbers_may_come_as_floats() -> None:
    for blobs in (4, 4.0):
        rank = ordering("random_blobs", (8, 8), blobs=blobs)(images(), generator=generator())
        assert int(rank.max()) == 3


def test_the_first_patches_are_any_of_those_that_tie() -> None:
    """Chance that one of 32 tied patches never comes first: below 1e-6."""
    rank = tie_prefix(torch.arange(64).repeat(600, 1), 32)
    first = rank_to_order(ranked(rank, generator()))[:, :33]
    assert torch.equal(first[:, 32], torch.full((600,), 32))
    assert torch.equal(first[:, 0].unique(), torch.arange(32))


def test_random_orders_are_uniform() -> None:
    """Chance that a correct sampler fails: below 1e-6 (six standard deviations at 64 cells)."""
    rank = ordering("random", (2, 4))(images(8000), generator=generator())
    hits = torch.nn.functional.one_hot(rank, 8).sum(0).float()
    assert float((hits - 1000).abs().max()) < 6 * (8000 / 8 * 7 / 8) ** 0.5


def test_best_fixed_order_is_by_mean_rank() -> None:
    rank = torch.tensor([[0, 1, 2], [2, 0, 1], [2, 1, 0]])
    assert mean_rank_order(rank).tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ordering("spiral", (4, 4)), "did you mean 'spiral_"),
        (lambda: ordering("raster", (4, 4), side=2), "argument 'side'; the options are none"),
        (
            lambda: ordering("hierarchical", (4, 4), side=2),
            "argument 'side'; the options are per_side, partitions",
        ),
        (lambda: ordering("random_squares", (4, 4), side=1.5), "side .* whole number, got 1.5"),
        (lambda: ordering("no_such_module:mine", (4, 4)), "No module named 'no_such_module'"),
        (lambda: ordering("random_blobs", (4, 4), blobs=math.inf), "whole number, got inf"),
        (lambda: ordering("math:mine", (4, 4)), "module math has no 'mine'"),
        (lambda: ordering("math:pi", (4, 4)), "must be something that can be called, got 3.14"),
        (lambda: ordering(".math:pi", (4, 4)), "must be MODULE:NAME"),
        (
            lambda: ordering("os:getcwd", (4, 4)),
            "takes no grid; an agent, which is made without arguments, is named where agents are",
        ),
        (lambda: ordering("builtins:sorted", (4, 4)), r"must return a function of images, got \[4"),
        (lambda: recipe("math:pi"), "must be something that is a Recipe, got 3.14"),
        (lambda: ordering("random_squares", (4, 4), side=9), "side must lie in 1..4"),
        (lambda: ordering("random_blobs", (2, 2), blobs=9), "blobs must lie in 1..4"),
        (lambda: ordering("hierarchical", (4, 4), per_side=3), "multiple of partitions"),
        (
            lambda: ordering("hierarchical_blobs", (4, 4), blobs=5, partitions=6),
            r"partitions must lie in 1\.\.5 blobs",
        ),
        (lambda: check_order(torch.tensor([[0, 1], [1, 1]]), 4), "row 1 repeats 1"),
        (lambda: check_order(torch.tensor([[0, 4]]), 4), "row 0 does not"),
        (lambda: check_rank(torch.zeros(2, 3), 3), "int64"),
        (lambda: check_rank(torch.zeros(2, 3, dtype=torch.long), 4), r"shape \(B, 4\)"),
        (lambda: check_rank(torch.tensor([[0, -1]]), 2), "negative"),
        (lambda: tie_prefix(torch.zeros(1, 4, dtype=torch.long), 5), "0..4 patches"),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("annotation", "is_whole"),
    [
        (int, True),
        ("int", True),
        (int | None, True),
        (Optional[int], True),  # noqa: UP045
        ("int | None", True),
        (float, False),
        (int | float, False),
        ("float", False),
        (inspect.Parameter.empty, False),
    ],
)
def test_options_that_count_are_whole_however_a_builder_says_so(
    annotation: object, is_whole: bool
) -> None:
    assert counts(annotation) == is_whole


@pytest.mark.parametrize("grid", [8, (0, 3), (4,), (2, 2.0), "44"])
def test_what_is_no_grid_is_refused(grid: Any) -> None:
    wrong = pytest.raises(ValueError, match="rows and columns of patches, 1 or more")
    with unchecked(), wrong:
        ordering("raster", grid)


@pytest.mark.parametrize(
    ("row", "fits"),
    [
        ([0, 2, 1, 1], True),
        ([1, 1, 1, 2], True),
        ([0, 2, 3, 1], True),
        ([0, 2, 2, 3], False),
        ([2, 3, 4, 5], False),
        ([0, 10**12, 1, 2], False),
    ],
)
def test_a_rank_leaves_no_step_out(row: list[int], fits: bool) -> None:
    """Else each step of a gap would weigh, and cost, as much as others."""
    rank = torch.tensor([[0, 1, 2, 3], row])
    if fits:
        check_steps(rank)
        return
    with pytest.raises(ValueError, match="leave none out, row 1 does not"):
        check_steps(rank)
    made = torch.unique(torch.tensor(row), return_inverse=True)[1]
    check_steps(made.expand(2, -1))

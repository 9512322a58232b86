"""Metrics of human scanpaths by hand, and what is fitted to viewers."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from scipy import optimize

from foveate.human import multi_match as multi_match_module
from foveate.human.cells import CellPaths, Steps, middles_of
from foveate.human.densities import (
    CenterBias,
    Returns,
    Softmax,
    center_of_others,
    fixation_density,
    normalized,
    smoothed,
    uniform,
)
from foveate.human.metrics import auc_judd, information_gain_bits, next_auc_judd, nss
from foveate.human.multi_match import multi_match
from foveate.human.nearness import NUM_LENGTHS, SaccadeLengths, length_bins, scaled
from foveate.human.saccades import center_distance, direction_shares, revisit_share, saccades
from foveate.human.scan_match import scan_match
from foveate.human.viewers import Viewers, gaze_mass, left_out, of_other_images


def paths(*cells: list[int], images: list[int] | None = None, **options: object) -> CellPaths:
    """Scanpaths on a 2 x 2 grid, whose gazes lie in the middles of their cells."""
    longest = max(map(len, cells))
    cell = np.array([each + [-1] * (longest - len(each)) for each in cells])
    image = np.array([0] * len(cells) if images is None else images)
    return CellPaths((2, 2), cell, middles_of(cell, (2, 2)), image, **options)  # type: ignore[arg-type]


def one_step(viewed: list[bool], cell: int, may_return: bool = False) -> Steps:
    zero = np.array([0])
    return Steps(zero, zero + sum(viewed), np.array([cell]), zero, np.array([viewed]), may_return)


# --- densities against fixations


def test_bits_are_the_logarithm_over_the_baseline() -> None:
    steps = one_step([False] * 4, 1)
    density = np.array([[0.125, 0.5, 0.25, 0.125]])
    assert information_gain_bits(density, uniform(steps), steps) == [1.0]
    # Where a cell was viewed before and cannot be again, uniform is a third.
    steps = one_step([True, False, False, False], 1)
    assert information_gain_bits(density, uniform(steps), steps) == pytest.approx(math.log2(1.5))
    surprised = information_gain_bits(np.array([[1.0, 0, 0, 0]]), uniform(steps), steps)
    assert -40 < surprised[0] < -38


def test_nss_is_standardized_over_available_cells() -> None:
    density = np.array([[0.5, 0.25, 0.25, 0.0]])
    # Mean 1/4, variance (1/16 + 1/16) / 4.
    assert nss(density, one_step([False] * 4, 0)) == pytest.approx(math.sqrt(2))
    # Without the first cell: mean 1/6, variance (2/144 + 4/144) / 3.
    steps = one_step([True, False, False, False], 3)
    assert nss(density, steps) == pytest.approx(-math.sqrt(2))
    assert nss(np.full((1, 4), 0.1), steps) == [0.0]


def test_auc_counts_pairs_of_fixated_and_other_cells() -> None:
    density = np.array([[0.4, 0.3, 0.2, 0.1]])
    every = np.ones((1, 4), bool)
    # Pairs: .4 beats two, .1 none, of two others each: 2 of 4.
    assert auc_judd(density, np.array([[True, False, False, True]]), every) == [0.5]
    assert auc_judd(density, np.array([[False, True, False, False]]), every) == pytest.approx(2 / 3)
    assert auc_judd(np.full((1, 4), 0.25), np.array([[True, False, False, False]]), every) == [0.5]
    # The best cell was viewed before: among the rest the second is first.
    assert next_auc_judd(density, one_step([True, False, False, False], 1)) == [1.0]
    assert next_auc_judd(density, one_step([False] * 4, 1)) == pytest.approx(2 / 3)
    assert np.isnan(auc_judd(density, every, every))


# --- what densities are fitted to


def test_the_center_bias_counts_by_number_and_leans_on_all() -> None:
    # First fixations fall on cells 0, 0 and 3, second ones on 1 and 2.
    found = smoothed(np.array([[2.0, 0, 0, 1], [0, 1, 1, 0]]), 1.0, 0.5)
    anywhere = np.array([3, 2, 2, 2]) / 9
    np.testing.assert_allclose(found[0], (np.array([2, 0, 0, 1]) + 2 * anywhere) / 5)
    np.testing.assert_allclose(found[1], (np.array([0, 1, 1, 0]) + 2 * anywhere) / 4)


def test_the_center_bias_believes_what_other_images_confirm() -> None:
    alike = CenterBias.fit(paths(*[[0, 1]] * 40, images=list(range(40)), may_return=False))
    assert alike.of_number[0, 0] > 0.95
    assert alike.of_number[1, 1] > 0.95
    np.testing.assert_array_equal(alike.at(np.array([9])), alike.of_number[1:])
    # Every image has a habit of its own: nothing carries over, and nothing is believed.
    generator = np.random.default_rng(0)
    cells = [[int(generator.integers(4))] * 2 for _ in range(8)]
    strange = CenterBias.fit(paths(*(cells * 20), images=list(range(8)) * 20))
    assert np.abs(strange.of_number - 0.25).max() < 0.05
    single = CenterBias.fit(paths([0, 0, 0]))
    np.testing.assert_allclose(single.of_number, 0.25, atol=1e-3)
    steps = paths([0, 1], may_return=False).steps
    np.testing.assert_allclose(alike.density(steps)[1, 0], 0)
    np.testing.assert_allclose(alike.density(steps).sum(1), 1)


def test_the_center_bias_of_an_image_is_fitted_without_it() -> None:
    # Whoever looks at the first image looks at the first cell, all others at the last.
    cells, images = [[0]] * 9 + [[3]] * 9, [0] * 9 + list(range(1, 10))
    steps = paths(*cells, images=images)
    found = center_of_others(steps)
    assert found.shape == (18, 4)
    assert found[0, 0] < found[0, 3]
    assert CenterBias.fit(steps).of_number[0, 0] > found[0, 0]
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_allclose(center_of_others(paths([0, 1])), 0.25)


def test_a_gaze_leaves_a_mass_in_every_cell() -> None:
    narrow = gaze_mass(np.array([[0.25, 0.75]]), (2, 2), 0.001, 0.75)
    np.testing.assert_allclose(narrow, [[0, 1, 0, 0]], atol=1e-12)
    # On the middle line half lies on either side; far out it is made up to 1.
    np.testing.assert_allclose(gaze_mass(np.array([[0.5, 0.5]]), (2, 2), 5.0, 1.0), [[0.25] * 4])


def test_a_viewer_is_left_out_of_the_density_that_judges_it() -> None:
    three = paths([0, 1], [2, 3], [2, 2], [1, 0], images=[0, 0, 0, 1])
    others = left_out(three, 0.001, 1.0)
    np.testing.assert_allclose(others[0], [0, 0, 0.75, 0.25], atol=1e-9)
    np.testing.assert_allclose(others[1], [0.25, 0.25, 0.5, 0], atol=1e-9)
    np.testing.assert_array_equal(others[3], 0)
    strange = of_other_images(three, np.array([1, 0]), 0.001, 1.0)
    np.testing.assert_allclose(strange[0], [0.5, 0.5, 0, 0], atol=1e-9)


def test_other_viewers_are_trusted_as_far_as_they_agree() -> None:
    agree = [[0, 3] for _ in range(6)]
    cells, images = [*agree, *([1, 2] for _ in range(6))], [0] * 6 + [1] * 6
    alike = paths(*cells, images=images, may_return=False)
    fitted = Viewers.fit(alike, CenterBias.fit(alike), 1.0)
    assert (fitted.center_share, fitted.spread) == (0.01, 0.01)
    density = fitted.density(alike.steps, left_out(alike, fitted.spread, 1.0))
    np.testing.assert_allclose(density.sum(1), 1)
    assert density[1, 3] > 0.98


def test_a_softmax_finds_the_factor_of_what_was_chosen() -> None:
    # Of two cells the one that scores 1 more was chosen in 3 of 4: odds of 3.
    cells = np.array([1, 1, 1, 0])
    steps = Steps(*(np.zeros(4, int),) * 2, cells, np.zeros(4, int), np.zeros((4, 2), bool), False)
    scores, flat = np.tile([5.0, 6.0], (4, 1)), np.ones((4, 2))
    fitted = Softmax.fit(scores, flat, steps)
    assert fitted.factor / fitted.scale == pytest.approx(math.log(3), abs=1e-3)
    np.testing.assert_allclose(fitted.density(scores, flat, steps)[0], [0.25, 0.75], atol=1e-3)
    # A prior that knows the odds leaves nothing to say; scores of the wrong sign are not believed.
    assert Softmax.fit(scores, np.tile([1.0, 3.0], (4, 1)), steps).factor == pytest.approx(
        0, abs=1e-3
    )
    assert Softmax.fit(-scores, flat, steps).factor == 0
    assert Softmax.fit(np.zeros((4, 2)), flat, steps) == Softmax(0.0)
    assert Softmax.fit(scores[:0], flat[:0], steps.take(slice(0))) == Softmax(0.0)


def test_a_softmax_says_nothing_of_viewed_cells() -> None:
    steps = one_step([True, False, False, False], 2)
    density = Softmax(1.0).density(np.array([[9.0, 0, 0, -np.inf]]), np.ones((1, 4)), steps)
    np.testing.assert_allclose(density, [[0, 0.5, 0.5, 0]])


def test_lengths_are_measured_from_the_fixation_before() -> None:
    """On a square image of 2 x 2 cells: half a side, and half the diagonal."""
    seen = paths([0, 3, 1], [0])
    side, diagonal = NUM_LENGTHS * 0.5 / math.sqrt(2), NUM_LENGTHS * 0.5
    expected = [
        [NUM_LENGTHS] * 4,
        [0, int(side), int(side), int(diagonal)],
        [int(diagonal), int(side), int(side), 0],
        [NUM_LENGTHS] * 4,
    ]
    np.testing.assert_array_equal(length_bins(seen, 1.0), expected)


def saccades_from_a_corner(*far: int, num_images: int = 10) -> CellPaths:
    """Of each image's 20 saccades from the upper left cell so many go along the diagonal."""
    cells = [
        path
        for image in range(num_images)
        for number in (far[image % len(far)],)
        for path in [[0, 3]] * number + [[0, 1 + each % 2] for each in range(20 - number)]
    ]
    images = [image for image in range(num_images) for _ in range(20)]
    return paths(*cells, images=images, num_given=1, may_return=False)


def test_saccade_lengths_are_as_frequent_as_those_of_viewers() -> None:
    many, bias = saccades_from_a_corner(2), np.full((200, 4), 0.25)
    fitted = SaccadeLengths.fit(many, bias, 1.0)
    found = fitted.density(bias, many)
    # All images agree, so that only one more saccade is drawn from the bias, a third of it far.
    assert found[0, 3] == pytest.approx((20 + 1 / 3) / 201, abs=1e-6)
    assert found[0, 0] == 0
    np.testing.assert_allclose(found.sum(1), 1)
    # Nobody knows where the gaze is before the first fixation.
    first = paths([1, 2], num_given=0)
    bias = np.array([[0.1, 0.2, 0.3, 0.4]] * 2)
    np.testing.assert_allclose(fitted.density(bias, first)[0], bias[0])


def test_saccade_lengths_that_other_images_do_not_share_are_not_believed() -> None:
    """As many are drawn from the bias as can be, and of a single image too."""
    two, bias = saccades_from_a_corner(0, 20, num_images=2), np.full((40, 4), 0.25)
    found = SaccadeLengths.fit(two, bias, 1.0).density(bias, two)
    assert found[0, 3] == pytest.approx((20 + 1000 / 3) / 1040, abs=1e-6)
    single, bias = saccades_from_a_corner(20, num_images=1), np.full((20, 4), 0.25)
    alone = SaccadeLengths.fit(single, bias, 1.0)
    assert alone.density(bias, single)[0, 3] == pytest.approx((20 + 1000 / 3) / 1020, abs=1e-6)
    np.testing.assert_allclose(alone.in_training(bias, single)[0], [0, *[1 / 3] * 3])


def test_saccade_lengths_of_an_image_are_fitted_without_it() -> None:
    far = saccades_from_a_corner(20, *[2] * 9)
    bias = np.full((200, 4), 0.25)
    fitted = SaccadeLengths.fit(far, bias, 1.0)
    # The first image has 20 far ones of its own, and all others 2.
    own, others = (each(bias, far)[0, 3] for each in (fitted.density, fitted.in_training))
    assert own == pytest.approx((38 + 100 / 3) / 300, abs=1e-6)
    assert others == pytest.approx((18 + 100 / 3) / 280, abs=1e-6)


def test_scaled_lengths_are_the_maximum_of_the_likelihood() -> None:
    """By a search along all factors, of fixations that see different lengths."""
    generator = np.random.default_rng(0)
    mass = np.zeros((60, NUM_LENGTHS + 1))
    mass[:, :4] = generator.dirichlet(np.ones(4), 60)
    chosen = generator.choice(4, 60, p=[0.6, 0.2, 0.15, 0.05])
    weight = np.eye(4)[chosen] + mass[:, :4] * (10 / 60)

    def loss(logs: np.ndarray) -> float:
        density = mass[:, :4] * np.exp(logs)
        return -float((weight * np.log(density / density.sum(1, keepdims=True))).sum())

    best = optimize.minimize(loss, np.zeros(4), tol=1e-12).x
    found = np.log(scaled(mass, chosen, 10.0)[:4])
    np.testing.assert_allclose(found - found[0], best - best[0], atol=1e-4)


def test_returns_take_their_share_and_give_it_to_viewed_cells() -> None:
    seen = paths([0, 0, 1], [2, 2], [1, 0, 1], may_return=True)
    returns = Returns.fit(seen)
    # First fixations never return; 2 of 3 second ones, 1 of 2 third ones; plus one of each kind.
    np.testing.assert_allclose(returns.share, [1 / 5, 3 / 5, 2 / 4])
    steps = one_step([True, False, False, True], 0, may_return=True)
    mixed = returns.mixed(np.array([[0, 0.25, 0.75, 0]]), steps)
    np.testing.assert_allclose(mixed, [[0.25, 0.125, 0.375, 0.25]])
    first = one_step([False] * 4, 0, may_return=True)
    np.testing.assert_allclose(returns.mixed(np.full((1, 4), 0.25), first), [[0.25] * 4])


def test_weights_that_vanish_become_uniform() -> None:
    available = np.array([[True, False, True, False], [False] * 4])
    density = normalized(np.zeros((2, 4)), available)
    np.testing.assert_array_equal(density, [[0.5, 0, 0.5, 0], [0] * 4])


def test_fixations_are_counted_by_cell_and_image() -> None:
    cell = np.array([[0, 1, -1], [0, 0, 3]])
    found = fixation_density(cell, np.array([1, 1]), 4, 2)
    np.testing.assert_allclose(found, [[0] * 4, [0.6, 0.2, 0, 0.2]])


# --- two scanpaths


def at(*bins: tuple[int, int]) -> np.ndarray:
    """The middles of bins of 12 x 16."""
    return (np.array(bins) + 0.5) / (12, 16)


def test_scan_match_by_hand() -> None:
    two = at((0, 0), (5, 5))
    assert scan_match(two[None], two[None]) == [1.0]
    # One bin apart scores 2.5 of 3.5; a scanpath half as long can score half at the most.
    assert scan_match(at((0, 0))[None], at((0, 1))[None]) == pytest.approx(2.5 / 3.5)
    assert scan_match(two[None], at((5, 5))[None]) == [0.5]
    # Bins beyond the threshold are rather left out than matched; the other order matches one.
    assert scan_match(at((0, 0))[None], at((0, 9))[None]) == [0.0]
    assert scan_match(two[None], two[None, ::-1]) == [0.5]


def test_scan_match_is_the_best_of_all_alignments() -> None:
    generator = np.random.default_rng(0)
    bins = generator.integers(0, 5, (2, 6, 4, 2))
    lengths = generator.integers(1, 5, (2, 6))
    one, other = (at(*each.reshape(-1, 2)).reshape(6, 4, 2) for each in bins)
    for each, length in zip((one, other), lengths, strict=True):
        each[np.arange(4) >= length[:, None]] = np.nan
    found = scan_match(one, other)
    for row in range(6):
        a, b = bins[0, row, : lengths[0, row]], bins[1, row, : lengths[1, row]]

        @functools.cache
        def best(
            i: int, j: int, a: tuple = tuple(map(tuple, a)), b: tuple = tuple(map(tuple, b))
        ) -> float:  # type: ignore[type-arg]
            if i == len(a) or j == len(b):
                return 0.0
            matched = 3.5 - math.dist(a[i], b[j]) + best(i + 1, j + 1)
            return max(matched, best(i + 1, j), best(i, j + 1))

        assert found[row] == pytest.approx(best(0, 0) / 3.5 / max(len(a), len(b)))
    with pytest.raises(ValueError, match="no fixations"):
        scan_match(one, np.full_like(other, np.nan))


def test_multi_match_of_a_scanpath_with_itself_is_one() -> None:
    pytest.importorskip("multimatch_gaze")
    path = np.array([[0.1, 0.1], [0.5, 0.9], [0.9, 0.2], [0.2, 0.3]])
    np.testing.assert_allclose(multi_match(path, path, (192, 256)), 1.0)
    # Everything shifted by a tenth of the width: only the position differs, by .1 w of a diagonal.
    shifted = multi_match(path, path + np.array([0, 0.1]), (192, 256))
    np.testing.assert_allclose(shifted, [1, 1, 1, 1 - 25.6 / 320], atol=1e-9)
    assert np.isnan(multi_match(path[:2], path, (192, 256))).all()


def test_multi_match_says_when_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi_match_module, "is_installed", lambda: False)
    with pytest.raises(ValueError, match=r"install \.\[human\]"):
        multi_match(np.zeros((3, 2)), np.zeros((3, 2)), (4, 4))


def test_saccades_have_a_length_and_a_direction() -> None:
    # On an image of 3 x 4: right by the whole width, up by the whole height, and nowhere.
    place = np.array([[[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [np.nan, np.nan]]])
    amplitude, direction = saccades(place, 0.75)
    np.testing.assert_allclose(amplitude, [[0.8, 0.6, 0, np.nan]])
    np.testing.assert_allclose(direction, [[0, 90, np.nan, np.nan]])
    shares = direction_shares(np.array([0.0, 350, 20, 90, np.nan]))
    np.testing.assert_allclose(shares, [0.75, 0, 0.25, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(revisit_share(np.array([[1, 2, 1, 1], [3, 0, -1, -1]])), [0.5, 0])
    # Corner, middle of an edge, and center of an image of 3 x 4.
    away = center_distance(np.array([[0, 0], [0.5, 1], [0.5, 0.5], [np.nan, np.nan]]), 0.75)
    np.testing.assert_allclose(away, [0.5, 0.4, 0, np.nan])

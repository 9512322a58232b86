"""Several runs beside human viewers: means over seeds and images, and what is said of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.evaluation.human import rows as human_rows
from experiments.evaluation.human.evaluate import compare_with_viewers
from experiments.evaluation.human.findings import findings
from experiments.evaluation.human.means import ContenderFinding, HumanRow, by_image, row_of, rows_of
from experiments.evaluation.human.result import HumanComparison
from experiments.evaluation.intervals import crossed_interval, mean_interval
from experiments.evaluation.seeds import check_one_kind
from experiments.runs import Run
from tests.experiments.test_human import looked_at


def found(
    bits: list[float], minus_center: list[float] | None = None, **whole: object
) -> ContenderFinding:
    fields = {"nss": [0.0] * len(bits), "auc_judd": [0.5] * len(bits)}
    fields |= {"bits": bits, "minus_center": minus_center or bits}
    return ContenderFinding({name: np.array(each) for name, each in fields.items()}, whole)


def test_the_mean_of_an_image_counts_what_is_known_of_it() -> None:
    values, image = np.array([1.0, 3.0, np.nan, 5.0, np.nan]), np.array([0, 0, 0, 2, 3])
    np.testing.assert_array_equal(by_image(values, image, 4), [2, np.nan, 5, np.nan])


def test_a_row_of_several_runs_is_over_seeds_and_images() -> None:
    runs = [
        found([1, 2, 4], factor=1.0, multi_match={"shape": 0.5}, directions=(0.25, 0.75)),
        found([2, 2, 6], factor=3.0, multi_match={"shape": 0.7}, directions=(0.75, 0.25)),
    ]
    row = row_of(runs)
    values = np.array([[1, 2, 4], [2, 2, 6]], float)
    assert row.bits == pytest.approx(17 / 6)
    assert row.bits_ci95 == pytest.approx(crossed_interval(values))
    assert row.per_seed["bits"] == pytest.approx((7 / 3, 10 / 3))
    assert row.per_seed["factor"] == (1, 3)
    assert (row.factor, row.directions) == (2, (0.5, 0.5))
    assert row.multi_match == {"shape": pytest.approx(0.6)}
    single = row_of(runs[:1])
    assert (single.bits, single.bits_ci95) == mean_interval(values[0])
    assert single.per_seed == {}


def test_differences_are_of_the_same_run_and_of_the_images_that_both_have() -> None:
    rows = rows_of(
        {
            "viewers": [found([4, 4, 4, 4], [2, 2, 2, 2])],
            "policy": [found([1, 2, 3, 4]), found([2, 3, 4, 5])],
            # It was asked on three images, and is better by a half and by a quarter.
            "oracle": [found([1.5, 2.5, 3.5, np.nan]), found([2.25, 3.25, 4.25, np.nan])],
        }
    )
    oracle = rows["oracle"]
    assert oracle.minus_policy == pytest.approx(3 / 8)
    assert oracle.per_seed["minus_policy"] == pytest.approx((0.5, 0.25))
    assert oracle.images == 3
    assert rows["viewers"].minus_policy is None
    assert rows["policy"].gap_covered == pytest.approx(3 / 2)
    assert list(rows) == ["policy", "oracle", "viewers"]


def test_the_gap_is_of_images_that_have_a_ceiling() -> None:
    rows = rows_of(
        {
            "viewers": [found([4, 4, np.nan], [2, 4, np.nan])],
            "policy": [found([1, 2, 9], [1, 1, 7])],
        }
    )
    assert rows["policy"].gap_covered == pytest.approx(1 / 3)


# --- what is said


def row(**fields: object) -> HumanRow:
    given = {"bits": 0.0, "minus_center": 0.0, "nss": 0.0, "auc_judd": 0.5, "images": 9}
    ends = {f"{name}_ci95": None for name in ("bits", "minus_center", "nss", "auc_judd")}
    return HumanRow(**{**given, **ends, **fields})  # type: ignore[arg-type]


def test_the_answer_names_everyone_to_whom_the_policy_is_not_closer() -> None:
    rows = {
        "viewers": row(contrast=0.7, center_distance=0.2),
        "policy": row(
            minus_center=-0.1,
            minus_center_ci95=(-0.2, -0.05),
            contrast=0.6,
            contrast_minus_viewers=-0.1,
            contrast_minus_viewers_ci95=(-0.2, -0.05),
            center_distance=0.3,
            center_distance_minus_viewers=0.1,
            center_distance_minus_viewers_ci95=(-0.1, 0.3),
        ),
        "raster": row(minus_policy_ci95=(-0.2, -0.1)),
        "other_image": row(minus_policy_ci95=(-0.2, -0.1)),
    }
    lines = findings(rows, "center_bias")
    assert lines[0].startswith("The policy is below the center bias: -0.100 [-0.200, -0.050] bits")
    assert "It looks at lower contrast than viewers: 0.600 against 0.700, -0.100" in lines[1]
    assert "as far from the center as viewers: 0.300 against 0.200 of the diagonal" in lines[2]
    assert "closer to viewers than what is made of it without the image: " in lines[3]
    expected = "It is closer to viewers than every order that does not learn: closer than raster."
    assert lines[4] == expected
    rows |= {
        "saliency": row(minus_policy_ci95=(0.1, 0.2)),
        "uncertainty": row(minus_policy_ci95=(-0.1, 0.2)),
        "oracle": row(minus_policy_ci95=None),
    }
    assert findings(rows, "center_bias")[4] == (
        "It is NOT closer to viewers than every order that does not learn: closer than raster; "
        "farther than saliency; level with uncertainty; not judged against oracle."
    )
    above = {**rows, "policy": row(minus_center_ci95=(0.1, 0.2), with_center=0.1)}
    assert findings(above, "center_bias")[0].startswith("The policy is above the center bias")
    assert findings({"viewers": row()}, "center_bias") == ()


# --- runs


def seeds(run: Run, number: int) -> list[Run]:
    """Runs of one kind, whose policies differ."""
    found = []
    for seed in range(number):
        policy = copy.deepcopy(run.policy)
        torch.nn.init.normal_(policy.score.weight, generator=torch.Generator().manual_seed(seed))
        config = run.config.replace(seed=seed, out=run.directory.with_name(f"run_{seed}"))
        found.append(replace(run, directory=config.run.out, config=config, policy=policy))
    return found


def test_several_runs_are_compared_as_each_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(human_rows, "is_installed", lambda: False)
    data, runs = looked_at(tmp_path / "viewers.parquet"), seeds(run, 2)
    options = {"orders": ("raster",), "oracle_limit": 1}
    both = compare_with_viewers(runs, data, **options).comparison  # type: ignore[arg-type]
    alone = compare_with_viewers(runs[0], data, **options).comparison.orders  # type: ignore[arg-type]
    for name in ("policy", "uncertainty", "raster"):
        for field in ("bits", "minus_center", "scan_match", "with_center", "contrast"):
            value = both.orders[name].per_seed[field][0]
            assert value == pytest.approx(getattr(alone[name], field)), (name, field)
    policy = both.orders["policy"]
    assert policy.bits == pytest.approx(np.mean(policy.per_seed["bits"]))
    assert len(set(policy.per_seed["scan_match"])) == 2
    assert both.orders["viewers"].per_seed == {}
    assert (both.seeds, both.seed, both.options["seeds"]) == ((0, 1), None, [0, 1])
    assert "runs of seeds 0, 1" in both.to_text()
    assert both.tables()[2].columns == ("minus center bias, by seed", "0", "1")
    path = tmp_path / "human.json"
    both.write(path)
    assert HumanComparison.read(path).orders == both.orders


def test_runs_must_be_of_one_kind_and_differ_in_their_seeds(run: Run) -> None:
    one, two = seeds(run, 2)
    check_one_kind([one, two])
    with pytest.raises(ValueError, match="have budget 3 and 2; compare each kind by itself"):
        check_one_kind([one, replace(two, config=two.config.replace(budget=2))])
    with pytest.raises(ValueError, match=f"have iteration {one.iteration} and 5"):
        check_one_kind([one, replace(two, iteration=5)])
    with pytest.raises(ValueError, match=r"seeds of their own, got \[0, 0\]"):
        check_one_kind([one, one])


def test_results_of_before_there_were_seeds_are_read(tmp_path: Path) -> None:
    known = {"bits": 1.0, "bits_ci95": None, "minus_center": 0.5, "minus_center_ci95": None}
    known |= {"nss": 1.0, "nss_ci95": None, "auc_judd": 0.6, "auc_judd_ci95": None}
    known |= {"gap_covered": None, "scan_match": None, "scan_match_ci95": None, "amplitude": None}
    known |= {"directions": None, "revisit_share": None, "contrast": None, "images": 2}
    whole = {
        **{"kind": "human", "orders": {"policy": known, "viewers": known}, "grid": [12, 16]},
        **{"baseline": "center_bias", "dataset": "old", "test_images": 2, "train_images": 2},
        **{"num_scanpaths": 4, "num_fixations": 9, "first_fixation": False, "revisits": False},
        **{"spread": 0.1, "center_share": 0.1, "left_out": [], "multi_match_installed": False},
        **{"commit": "abc", "seed": 3, "budget": 16},
    }
    result = HumanComparison.from_content(whole, tmp_path / "human.json")
    assert (result.seed, result.seeds, result.orders["policy"].per_seed) == (3, (), {})
    assert "too few images" in result.to_text()

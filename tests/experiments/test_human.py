"""A run beside human viewers: scores given their history, rows, pictures, and the command."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

import experiments.human as script
from agents.baselines import GreedyOracleAgent, SaliencyAgent, UncertaintyAgent
from agents.policies import Agent, PolicyAgent
from envs.episode import Episode
from experiments.evaluation import scanpaths
from experiments.evaluation.compare.contenders import Scanners
from experiments.evaluation.human import rows as human_rows
from experiments.evaluation.human.contenders import Contest
from experiments.evaluation.human.evaluate import HumanMeasurement, compare_with_viewers
from experiments.evaluation.human.means import HUMAN, RETURNING
from experiments.evaluation.human.picture import present_human
from experiments.evaluation.human.reading import on_cells
from experiments.evaluation.human.result import HumanComparison
from experiments.evaluation.human.rows import (
    as_long,
    contrast_ranks,
    drawn_pairs,
    other_image_pairs,
    own_pairs,
    sampled_paths,
    viewer_pairs,
)
from experiments.evaluation.human.scores import (
    ScoringOracle,
    Viewed,
    cell_grid,
    cells_opened,
    forced_scores_of,
    image_scores,
    order_scores,
)
from experiments.evaluation.scanpaths import make_agent
from experiments.runs import Run
from foveate.human.cells import CellPaths, Steps, middles_of
from foveate.human.densities import uniform
from foveate.human.reading import read_scanpaths
from foveate.orders.segments import Fixations
from tests.image_files import write_parquet

CELLS = 16
"""Of the run's 4 x 4 grid on 8 x 8 pixels."""
SEEN = [[1, 6, 11], [5, 5, 2, 7], [9, 3]]
"""Scanpaths on two images: of two viewers, and of one."""


def forced_scores(agent: Agent, run: Run, asked: Viewed) -> np.ndarray:
    (found,) = forced_scores_of((agent,), run, asked)
    return found


def cells(given: list[list[int]], images: list[int], **options: object) -> CellPaths:
    longest = max(map(len, given))
    cell = np.array([each + [-1] * (longest - len(each)) for each in given])
    place = middles_of(cell, (4, 4))
    return CellPaths((4, 4), cell, place, np.array(images), **options)  # type: ignore[arg-type]


def viewed(given: list[list[int]] = SEEN, **options: object) -> Viewed:
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    return Viewed(images, cells(given, [0, 0, 1][: len(given)], **options))


def looked_at(path: Path, num_images: int = 8) -> Path:
    """Photographs with one bright, striped patch, at which all three viewers look second.

    They begin at the center and end where they like.
    """
    generator = np.random.default_rng(0)
    images, rows = [], []
    for _ in range(num_images):
        target = int(generator.choice([cell for cell in range(CELLS) if cell != 10]))
        pixels = np.full((8, 8), 100, np.uint8)
        top, left = 2 * (target // 4), 2 * (target % 4)
        pixels[top : top + 2, left : left + 2] = [[255, 0], [0, 255]]
        images.append(Image.fromarray(pixels))
        others = [cell for cell in range(CELLS) if cell not in (10, target)]
        rows.append([(v, c) for v in range(3) for c in (10, target, generator.choice(others))])
    columns: dict[str, object] = {
        "fix_subject": [[viewer for viewer, _ in row] for row in rows],
        "fix_x": [[2.0 * (cell % 4) + 1 for _, cell in row] for row in rows],
        "fix_y": [[2.0 * (cell // 4) + 1 for _, cell in row] for row in rows],
        "split": ["train", "test"] * (num_images // 2),
    }
    write_parquet(path, images, **columns)
    return path


# --- scores given the viewer's history


@pytest.mark.parametrize("kind", [PolicyAgent, UncertaintyAgent, SaliencyAgent, ScoringOracle])
def test_scores_are_those_of_an_episode_through_the_viewers_cells(run: Run, kind: type) -> None:
    """Whoever is in the batch beside it, and however long the others look."""
    run = replace(run, config=run.config.replace(budget=4))
    agent = kind(run.policy) if kind is PolicyAgent else kind()
    asked = viewed()
    found = forced_scores(agent, run, asked)
    steps = asked.paths.steps
    for row, path in enumerate(SEEN):
        image = asked.images[asked.paths.image[row]].unsqueeze(0)
        episode = Episode(run.model, image, budget=4)
        for number, cell in enumerate(path):
            at = (steps.trial == row) & (steps.number == number)
            new = ~steps.viewed[at][0]
            np.testing.assert_allclose(
                found[at][0][new], agent.scores(episode)[0].detach().numpy()[new], atol=1e-5
            )
            assert (found[at][0][~new] == 0).all()
            episode.step(torch.tensor([cell]))


def test_a_score_does_not_know_what_the_viewer_does_next(run: Run) -> None:
    asked = viewed(num_given=1)
    other = viewed([[1, 6, 3], [5, 5, 2, 8], [9, 14]], num_given=1)
    run = replace(run, config=run.config.replace(budget=4))
    one, two = (forced_scores(run.agent, run, each) for each in (asked, other))
    # Scored are numbers 1 and 2, then 1, 2 and 3, then 1; the last of each comes before the change.
    assert len(one) == 6
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_an_agent_without_scores_says_where_it_would_look(run: Run) -> None:
    class Corner:
        def __call__(self, episode: Episode, generator: object = None) -> Tensor:
            return torch.full((len(episode.unseen),), 15)

    found = forced_scores(Corner(), run, viewed([[1, 6, 11], [15, 5], [9, 3]]))
    steps = viewed([[1, 6, 11], [15, 5], [9, 3]]).paths.steps
    assert np.array_equal(found[:, 15], ~steps.viewed[:, 15])
    assert found[:, :15].sum() == 0


def test_an_agent_of_the_users_own_is_asked_for_its_scores(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_eyes.py").write_text(
        "import torch\n"
        "class Chooser:\n"
        "    def __call__(self, episode, generator=None):\n"
        "        return torch.full((len(episode.unseen),), 15)\n"
        "class Last(Chooser):\n"
        "    def scores(self, episode): return torch.arange(16).expand(len(episode.unseen), 16)\n"
        "class Narrow(Chooser):\n"
        "    def scores(self, episode): return torch.zeros(len(episode.unseen), 3)\n"
        "class Lost(Chooser):\n"
        "    def scores(self, episode): return torch.full((len(episode.unseen), 16), torch.nan)\n"
        "class Broken(Chooser):\n"
        "    def scores(self, episode): return episode.nothing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    asked = viewed([[1, 6, 11]])
    found = forced_scores(make_agent("my_eyes:Last"), run, asked)
    np.testing.assert_array_equal(found, np.where(asked.paths.steps.viewed, 0, np.arange(16)))
    assert forced_scores(make_agent("my_eyes:Chooser"), run, asked).sum() == 3
    for name, message in (
        ("Narrow", r"scores of shape \(1, 16\), one for each fixation, got Tensor"),
        ("Lost", "not finite"),
        ("Broken", "asked for scores: .*nothing"),
    ):
        with pytest.raises(ValueError, match=f"'my_eyes:{name}'.*{message}"):
            forced_scores(make_agent(f"my_eyes:{name}"), run, asked)


def test_what_sees_the_image_alone_is_asked_once(run: Run) -> None:
    run, agent = replace(run, config=run.config.replace(budget=4)), SaliencyAgent()
    np.testing.assert_allclose(
        image_scores(agent, run, viewed()), forced_scores(agent, run, viewed()), atol=1e-6
    )


def test_agents_that_look_at_the_same_episodes_score_as_each_alone(run: Run) -> None:
    agents = (run.agent, UncertaintyAgent(), GreedyOracleAgent(2))
    run = replace(run, config=run.config.replace(budget=4))
    for agent, found in zip(agents, forced_scores_of(agents, run, viewed()), strict=True):
        np.testing.assert_array_equal(found, forced_scores(agent, run, viewed()))


def test_what_an_oracle_draws_does_not_depend_on_the_memory(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanpaths, "LEAST_MEMORY", 1e-5)
    agents = (GreedyOracleAgent(2),)
    asked = Viewed(viewed().images, cells(SEEN * 20, [0, 0, 1] * 20))
    found = [forced_scores_of(agents, run, asked, memory=memory)[0] for memory in (10**4, 10**9)]
    np.testing.assert_array_equal(*found)


def test_scores_that_are_not_finite_are_refused(run: Run) -> None:
    torch.nn.init.constant_(run.policy.score.bias, math.nan)
    with pytest.raises(ValueError, match="not finite, in 3 of 3 fixations"):
        forced_scores(run.agent, run, viewed([[1, 6, 11]]))


def test_an_order_scores_by_the_new_cells_that_it_comes_to_before() -> None:
    seen = np.array([[False] * 4, [False, True, False, False]])
    zero = np.zeros(2, int)
    steps = Steps(zero, np.array([0, 1]), np.array([1, 2]), zero, seen, False)
    # In the order 2, 1, 3, 0.
    scores = order_scores(np.array([[3.0, 1.0, 0.0, 2.0]]), steps)
    assert scores[0].tolist() == [-3, -1, 0, -2]
    assert scores[1, [0, 2, 3]].tolist() == [-2, 0, -1]


def test_squares_are_cells_where_they_divide_the_grid(run: Run) -> None:
    by_squares = replace(run, config=run.config.replace(fixation_size=2))
    assert cell_grid(by_squares) == (2, 2)
    cell = np.array([[0, 3], [2, 1]])
    paths = CellPaths((2, 2), cell, middles_of(cell, (2, 2)), np.array([0, 1]))
    images = viewed().images
    contest = Contest(by_squares, Viewed(images, paths), Viewed(images, paths))
    names = {name for name, gaze in contest.gazes(Scanners.of(run.model, ("raster",), ()), 1)}
    assert {"policy", "raster", "best_fixed", "other_image", "saliency"} <= names
    gaze = contest.of_order(Scanners.of(run.model, ("raster",), ()).orders["raster"])
    assert gaze.path.tolist() == [[0, 1, 2]] * 2
    with pytest.raises(ValueError, match="do not divide"):
        cell_grid(replace(run, config=run.config.replace(fixation_size=3)))


def test_the_policy_stands_beside_what_it_began_as(run: Run) -> None:
    """Where nothing was learned its most probable fixation is that of the model's doubt."""
    torch.nn.init.normal_(run.policy.score.weight)
    run = replace(run, config=run.config.replace(budget=4))
    asked = viewed(num_given=1)
    contest = Contest(run, asked, asked)
    gazes = dict(contest.gazes(Scanners.of(run.model, ("raster",), ()), 1))
    np.testing.assert_array_equal(gazes["policy_untrained"].path, gazes["uncertainty"].path)
    assert (gazes["policy"].test != gazes["policy_untrained"].test).any()
    frozen = replace(run, config=run.config.replace(schedule="frozen"))
    names = dict(Contest(frozen, asked, asked).gazes(Scanners.of(run.model, ("raster",), ()), 1))
    assert "policy_untrained" not in names


def test_scanpaths_begin_where_viewers_were_told_to(run: Run) -> None:
    free, told = (viewed(num_given=given) for given in (0, 1))
    raster = Scanners.of(run.model, ("raster",), ()).orders["raster"]
    for start, asked in ((0, free), (10, told)):
        contest = Contest(run, asked, asked)
        assert contest.of_order(raster).path[:, 0].tolist() == [start] * 2
    gaze = contest.of_order(raster)
    assert gaze.path[0].tolist() == [10, 0, 1]
    # Scores follow the viewer's history, on both sides alike, wherever that began.
    np.testing.assert_array_equal(gaze.train, gaze.test)
    assert (contest.of_agents({"policy": run.agent})["policy"].path[:, 0] == 10).all()


def test_a_temperature_is_fitted_on_the_first_training_images(run: Run) -> None:
    contest = Contest(run, viewed(num_given=1), viewed(num_given=1), fit_limit=1)
    gaze = contest.of_agents({"policy": run.agent})["policy"]
    # The first image has two viewers of 2 and 3 scored fixations, the second one of 1.
    assert (len(gaze.train), len(gaze.test)) == (5, 6)


def test_images_on_which_nobody_leaves_a_cell_are_left_out(tmp_path: Path) -> None:
    """So that the first images, however few, have something to score."""
    images = [Image.new("L", (8, 8), number) for number in range(3)]
    columns: dict[str, object] = {
        "fix_subject": [[1, 1, 2, 2], [1, 1], [1, 1]],
        "fix_x": [[1, 2, 5, 6], [1, 2], [1, 6]],
        "fix_y": [[1, 1, 1, 6], [1, 1], [6, 1]],
        "split": ["test"] * 3,
    }
    write_parquet(tmp_path / "f.parquet", images, **columns)
    given = {"first_fixation": False, "revisits": False}
    human = read_scanpaths(tmp_path / "f.parquet", "test")
    found, left = on_cells(human, (2, 2), None, given)
    assert left[0] == "left out: 2 scanpaths of a single cell"
    assert left[1].startswith("left out: 1 images")
    assert found.images[:, 0, 0, 0].tolist() == [0, 2]
    assert found.paths.image.tolist() == [0, 1]
    assert found.first(1).paths.cell.tolist() == [[1, 3]]


# --- pairs of scanpaths


def test_pairs_are_of_viewers_on_the_same_image_and_on_another() -> None:
    paths = cells([[1, 2], [3, 4], [5, 6], [7, 8]], [0, 0, 0, 1])
    same = viewer_pairs(paths)
    assert same.one[:, 0].tolist() == [1, 1, 3]
    assert same.viewer[:, 0].tolist() == [3, 5, 5]
    strange = other_image_pairs(paths, np.array([1, 0]))
    assert strange.one[:, 0].tolist() == [7, 7, 7, 1]
    assert strange.viewer[:, 0].tolist() == [1, 3, 5, 7]
    own = own_pairs(np.array([[9, 10, 11], [12, 13, 14]]), paths)
    assert own.one.tolist() == [[9, 10], [9, 10], [9, 10], [12, 13]]
    assert own.image.tolist() == [0, 0, 0, 1]


def test_scanpaths_are_cut_to_the_viewers_length() -> None:
    long, short = np.array([[1, 2, 3]]), np.array([[4, -1]])
    assert as_long(long, short).tolist() == [[1, -1]]
    assert as_long(short, long).tolist() == [[4, -1, -1]]
    # A step that opens nothing leaves no hole.
    paths = cells([[1, 2, 3]], [0])
    assert drawn_pairs(np.array([[5, -1, 6]]), paths).one.tolist() == [[5, 6, -1]]


def test_drawn_scanpaths_follow_the_density_and_return_only_where_viewers_may() -> None:
    paths = cells([[0, 1, 2]] * 500, [0] * 500, num_given=1, may_return=False)
    of_number = np.full((2, CELLS), 1e-9)
    of_number[:, [0, 4]] = 0.25, 0.75
    drawn = sampled_paths(of_number, paths, 0)
    assert (drawn[:, 0] == 0).all()
    assert (drawn[:, 1] == 4).all()
    assert all(len({*row}) == 3 for row in drawn.tolist())
    free = sampled_paths(of_number, replace(paths, may_return=True, num_given=0), 0)
    assert (free == 4).mean() == pytest.approx(0.75, abs=0.05)


def test_contrast_is_ranked_within_an_image() -> None:
    image = torch.zeros(1, 3, 4, 4)
    image[..., :2, 2:] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    image[..., 2:, :2] = torch.tensor([[0.0, 0.2], [0.2, 0.0]])
    ranks = contrast_ranks(image, (2, 2))[0]
    assert ranks[1] == 1.0
    assert ranks[2] == pytest.approx(2 / 3)
    assert (contrast_ranks(torch.full((1, 3, 40, 40), 128).byte(), (4, 4)) == 0.5).all()
    bright = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)
    bright[..., 2:4, 2:4] = torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8)
    ranks = contrast_ranks(bright, (4, 4))[0]
    assert ranks[5] == 1
    assert np.delete(ranks, 5) == pytest.approx(7 / 15), "equal contrast, equal rank"


# --- the comparison


@pytest.fixture
def measured(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HumanMeasurement:
    monkeypatch.setattr(human_rows, "is_installed", lambda: False)
    return compare_with_viewers(run, looked_at(tmp_path / "viewers.parquet", 24))


def test_who_looks_where_viewers_look_gains_bits_over_the_center_bias(
    measured: HumanMeasurement,
) -> None:
    rows = measured.comparison.orders
    assert set(rows) >= {"policy", "saliency", "other_image", "best_fixed", "raster", *HUMAN[:2]}
    assert "random" not in rows
    # Half of the fixations are at the striped patch, log2(15) bits better than at random.
    assert rows["viewers"].bits > 0.8
    assert rows["saliency"].minus_center > 0.8
    assert rows["saliency"].minus_center_ci95[0] > 0  # type: ignore[index]
    assert rows["saliency"].with_center >= rows["raster"].with_center  # type: ignore[operator]
    assert rows["saliency"].minus_policy_ci95[0] > 0  # type: ignore[index]
    # What the image tells, whoever knows the gaze does not know.
    assert rows["saliency"].with_near_ci95[0] > 0  # type: ignore[index]
    assert rows["center_bias_near"].minus_policy is not None
    assert rows["saliency"].contrast > 0.6  # type: ignore[operator]
    assert rows["saliency"].scan_match > rows["other_image_viewers"].scan_match  # type: ignore[operator]
    assert rows["center_bias"].minus_center == 0
    assert rows["uniform"].bits == 0
    assert rows["uniform"].auc_judd == pytest.approx(0.5)
    assert rows["viewers"].gap_covered == 1
    assert rows["other_image_viewers"].bits < 0
    assert {row.revisit_share for row in rows.values()} == {0, None}
    assert "saliency" in measured.comparison.findings()[-1]


def test_a_comparison_is_read_back_and_says_what_is_missing(
    measured: HumanMeasurement, tmp_path: Path
) -> None:
    present_human(measured, tmp_path / "human.json")
    assert HumanComparison.read(tmp_path / "human.json").orders == measured.comparison.orders
    for name in ("human.png", "human_densities.png", "human_where.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 100
    missing = replace(measured.comparison, multi_match_installed=False).to_text()
    assert "not installed" in missing
    assert "install .[human]" in missing
    assert "12 test images, 4x4 cells, first fixations given, revisits dropped" in missing


def test_who_was_viewed_by_one_alone_lowers_no_ceiling(tmp_path: Path) -> None:
    """Nor is an image another image where there is a single one."""
    both = looked_at(tmp_path / "viewers.parquet", 24)
    table = pq.read_table(both)
    alone = [number % 4 == 1 for number in range(len(table))]  # Half of the test images.
    for name in ("fix_subject", "fix_x", "fix_y"):
        kept = [
            each[:3] if single else each
            for each, single in zip(table[name].to_pylist(), alone, strict=True)
        ]
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array(kept))
    few = tmp_path / "few.parquet"
    pq.write_table(table, few)
    found = compare_with_viewers(None, few, grid="4x4").comparison
    whole = compare_with_viewers(None, both, grid="4x4").comparison
    most = whole.orders["viewers"].minus_center
    assert found.orders["viewers"].minus_center > 0.7 * most
    assert "test: 6 images with a single viewer, not in viewers" in found.left_out
    assert not any("single viewer" in line for line in whole.left_out)
    lone = tmp_path / "lone.parquet"
    for name in ("fix_subject", "fix_x", "fix_y"):
        at = table.column_names.index(name)
        firsts = pa.array([each[:3] for each in table[name].to_pylist()])
        table = table.set_column(at, name, firsts)
    pq.write_table(table, lone)
    with pytest.raises(ValueError, match="no test image has two viewers"):
        compare_with_viewers(None, lone, grid="4x4")
    one = compare_with_viewers(None, both, grid="4x4", limit=1).comparison
    assert "other_image_viewers" not in one.orders


def test_a_result_of_other_viewers_is_kept_beside(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        looked_at(tmp_path / name)
        found = compare_with_viewers(None, tmp_path / name, grid="4x4")
        present_human(found, tmp_path / "human.json")
    assert HumanComparison.read(tmp_path / "human_1.json").options["viewers"] == "a.parquet"


def test_revisits_have_a_baseline_that_returns_as_orders_do(run: Run, tmp_path: Path) -> None:
    viewers = looked_at(tmp_path / "viewers.parquet")
    options = {"without": ("saliency",), "orders": ("raster", "oracle"), "oracle_limit": 2}
    kept = compare_with_viewers(run, viewers, revisits=True, first_fixation=True, **options)  # type: ignore[arg-type]
    result = kept.comparison
    assert result.baseline == "center_bias_returns"
    assert result.orders["center_bias_returns"].minus_center == 0
    assert result.orders["center_bias_returns"].scan_match is None
    assert result.num_fixations == 4 * 3 * 3
    assert result.orders["oracle"].images == 2
    assert "saliency" not in result.orders


def test_the_command_works_without_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    viewers = looked_at(tmp_path / "viewers.parquet")
    script.main(script.HumanConfig(data=viewers, out=tmp_path / "out", grid="4x4"))
    assert "8x8" not in capsys.readouterr().out
    result = HumanComparison.read(tmp_path / "out" / "human.json")
    assert set(result.orders) == set(HUMAN) - {RETURNING}
    assert result.budget is None
    assert len(result.tables()[0].columns) == 6
    for wrong, message in (
        ({"orders": ("raster",)}, "have no effect without --run"),
        ({"grid": "4"}, "3 cells or more"),
        ({"grid": "1x2"}, "3 cells or more, got '1x2'"),
        ({"grid": "99x99"}, "cells of less than a pixel on images of 8x8 pixels"),
        ({"limit": 0}, "at least 1 image"),
    ):
        with pytest.raises(ValueError, match=message):
            compare_with_viewers(None, viewers, **({"grid": "4x4"} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("idle", ["fit_limit", "oracle_limit", "memory"])
def test_options_of_a_run_have_no_effect_without_one(idle: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{idle} has no effect without --run"):
        script.HumanConfig(data=tmp_path, **{idle: 2})


def test_test_images_are_cropped_as_the_first_of_train(tmp_path: Path) -> None:
    wide, high = Image.new("L", (16, 8)), Image.new("L", (8, 16))
    columns: dict[str, object] = {
        "fix_subject": [[1, 1, 2, 2]] * 12,
        "fix_x": [[5, 10, 5, 10]] * 6 + [[1, 6, 1, 6]] * 6,
        "fix_y": [[1, 6, 6, 1]] * 6 + [[7, 9, 9, 7]] * 6,
        "split": ["train"] * 6 + ["test"] * 6,
    }
    write_parquet(tmp_path / "f.parquet", [wide] * 6 + [high] * 6, **columns)
    found = compare_with_viewers(None, tmp_path / "f.parquet", grid="2x2")
    assert found.test.images.shape[2:] == (8, 16)


def test_a_run_is_asked_of_its_own_test_images(run: Run, tmp_path: Path) -> None:
    viewers = looked_at(tmp_path / "viewers.parquet")
    own = replace(run, config=run.config.replace(data=str(viewers), split_column=None))
    for learned in (own, replace(own, config=own.config.replace(data=str(tmp_path)))):
        with pytest.raises(ValueError, match="learned from this file by --split-column None"):
            compare_with_viewers(learned, viewers)
    learned = replace(run, config=run.config.replace(data=str(tmp_path / "parts")))
    (tmp_path / "parts").mkdir()
    for split in ("test", "train"):
        part = tmp_path / "parts" / f"viewers_{split}.parquet"
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(viewers).drop_columns("split"), part)
    with pytest.raises(ValueError, match=r"viewers_train.parquet is one of the splits of"):
        compare_with_viewers(learned, part)
    wandering = replace(run, config=run.config.replace(wander=1.5))
    with pytest.raises(ValueError, match="take a run without --wander"):
        compare_with_viewers(wandering, viewers)


def test_a_device_that_is_none_is_refused_without_a_run_too(tmp_path: Path) -> None:
    config = script.HumanConfig(data=tmp_path / "none", out=tmp_path, device="none")
    with pytest.raises(ValueError, match="device 'none' cannot be used here"):
        script.main(config)


def test_a_run_has_a_grid_of_its_own(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="grid has no effect with --run"):
        compare_with_viewers(run, looked_at(tmp_path / "viewers.parquet"), grid="4x4")
    whole = replace(run, config=run.config.replace(fixation_size=4))
    with pytest.raises(ValueError, match="policy_untrained stands beside every policy"):
        compare_with_viewers(run, tmp_path / "viewers.parquet", without=("policy_untrained",))
    with pytest.raises(ValueError, match="looks at 1x1 cells, 3 are needed"):
        compare_with_viewers(whole, looked_at(tmp_path / "viewers.parquet"))


def test_the_command_has_the_defaults_of_the_function() -> None:
    parameters = dict(signature(compare_with_viewers).parameters)
    asked = {name: each.default for name, each in parameters.items() if name not in ("run", "data")}
    places = ("data", "run", "out", "device", "threads")
    options = {each.name: each.default for each in fields(script.HumanConfig)}
    assert asked == {name: each for name, each in options.items() if name not in places}


def test_the_uniform_density_knows_what_was_viewed() -> None:
    steps = cells([[1, 6, 11]], [0], may_return=False).steps
    np.testing.assert_allclose(uniform(steps).max(1), [1 / 16, 1 / 15, 1 / 14])


def test_a_fixation_whose_first_patch_was_seen_opens_its_cell() -> None:
    """What has been seen of a square is padding, wherever it lies in it."""
    squares = Fixations.squares((4, 4), 2)
    opened = torch.tensor([[0, 1, 4, 5], [-1, -1, 6, -1], [-1, -1, -1, -1], [-1, 11, -1, 15]])
    assert cells_opened(opened, squares).tolist() == [0, 1, -1, 3]
    assert cells_opened(torch.tensor([7, -1]), Fixations.squares((4, 4), 1)).tolist() == [7, -1]

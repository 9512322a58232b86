"""The study of knowing: intervals over seeds and images, planted leads, and its runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.evaluation.intervals import crossed_interval, seed_interval
from experiments.evaluation.knowing import measure as knowing_measure
from experiments.evaluation.knowing.evaluate import check_same_model
from experiments.evaluation.knowing.measure import areas_of, keep, read_kept
from experiments.evaluation.knowing.plan import SeedPlan, usual_fixations
from experiments.evaluation.knowing.question import question_of
from experiments.evaluation.knowing.result import KnowingResult
from experiments.evaluation.knowing.rows import (
    Difference,
    MeanOverSeeds,
    RunKnowledge,
    area_rows,
    known_rows,
    taught_rows,
)
from experiments.evaluation.knowing.tuned import FINE_TUNED
from experiments.evaluation.recognition.asking import REFERENCES, Answered
from experiments.evaluation.recognition.evaluate import recognize
from experiments.evaluation.recognition.paths import PathMakers, scan_of
from experiments.knowing import KnowingConfig, main, read_arguments
from experiments.runs import Run, load_run
from experiments.training.config import TrainConfig
from experiments.training.presets import PRESETS
from foveate.choices import sources_of
from foveate.probes.finetuning import FineTuneConfig
from foveate.probes.recognizer import fine_tune_by_fixations

NUM_SEEDS, NUM_IMAGES = 3, 2000
ASKED = '{"asked": 1}'


# --- intervals


def test_the_interval_over_seeds_and_images_is_that_of_the_analysis_of_variance() -> None:
    # All three mean squares are 1/4: one degree of freedom, a standard error of 1/4.
    low, high = crossed_interval(np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert (low, high) == pytest.approx((0.25 - 12.7062 / 4, 0.25 + 12.7062 / 4), abs=1e-4)
    # Images alone differ, and there are two: a standard error of 1.
    low, high = crossed_interval(np.array([[0.0, 2.0], [0.0, 2.0]]))
    assert (low, high) == pytest.approx((1 - 12.7062, 1 + 12.7062), abs=1e-4)
    # The means of seeds agree by chance: no narrower than over the images' means 0, 1, 0, 0.
    chance = np.array([[0.0, 1.0, 0.0, 0.0], [-1.0, 1.0, 1.0, 0.0], [1.0, 1.0, -1.0, 0.0]])
    assert crossed_interval(chance) == pytest.approx(seed_interval([0.0, 1.0, 0.0, 0.0]))
    # Seeds alone differ: the interval over seeds.
    values = np.array([0.1, 0.4, 0.2])[:, None].repeat(5, axis=1)
    assert crossed_interval(values) == pytest.approx(seed_interval([0.1, 0.4, 0.2]))
    assert crossed_interval(np.ones((3, 4))) == (1.0, 1.0)
    assert crossed_interval(np.ones((1, 4))) is None


@pytest.mark.parametrize("seed_deviation", [0.0, 0.01])
def test_the_interval_over_seeds_and_images_covers_the_truth(seed_deviation: float) -> None:
    """Measured .96 to .98 with three seeds; of .95 a false alarm here is one in 10,000."""
    generator = np.random.default_rng(0)
    trials, covered = 400, 0
    for _ in range(trials):
        of_seeds = generator.normal(0, seed_deviation, (NUM_SEEDS, 1))
        of_images = generator.normal(0, 0.15, (1, 400))
        values = of_seeds + of_images + generator.normal(0, 0.2, (NUM_SEEDS, 400))
        low, high = crossed_interval(values)
        covered += low <= 0 <= high
    assert covered / trials > 0.91


# --- planted leads


def planted(lead: float, taught: float = 0.0) -> dict[str, list[RunKnowledge]]:
    """Runs whose policy classifies so many more images right than random, after 4 fixations."""
    generator = np.random.default_rng(0)
    runs: dict[str, list[RunKnowledge]] = {"policy": [], "random": []}
    for _ in range(NUM_SEEDS):
        for model, each in runs.items():
            known = 0.4 + taught * (model == "policy")
            shares = {("random", 4): known, ("policy", 4): known + lead}
            correct = {
                (order, after, "seen, linear"): generator.random(NUM_IMAGES) < share
                for (order, after), share in shares.items()
            }
            correct["all_patches", 64, "seen, linear"] = np.ones(NUM_IMAGES, dtype=bool)
            areas = {
                order: generator.normal(mean, 0.1, NUM_IMAGES)
                for order, mean in (("policy", 0.5 - lead), ("random", 0.5))
            }
            each.append(RunKnowledge(correct, areas))
    return runs


def result_of(runs: dict[str, list[RunKnowledge]]) -> KnowingResult:
    return KnowingResult(
        known=known_rows(runs),
        taught=taught_rows(runs),
        areas=area_rows(runs),
        data="scenes",
        num_patches=64,
        budget=4,
        periphery=0,
        iterations=(7, 8),
        seeds=tuple(range(NUM_SEEDS)),
        train_images=100,
        test_images=NUM_IMAGES,
        area_images=NUM_IMAGES,
        paid=area_rows(runs, lambda run: run.paid),
        saccade_cost=0.02,
        threads=1,
        commit="0123456789abcdef",
    )


def test_a_planted_lead_is_found_and_a_planted_null_is_not() -> None:
    found, not_found = result_of(planted(0.1)), result_of(planted(0.0))
    first, last = found.verdicts()
    assert "after the policy's fixations the image is known better than after random's" in first
    assert "NOT better than the random one at random fixations, at policy fixations" in first
    assert last == "Reconstruction: the policy's area is lower than random's."
    first, last = not_found.verdicts()
    assert "the image is known NOT better than after random's" in first
    assert last == "Reconstruction: the policy's area is NOT lower than random's."
    behind, _ = result_of(planted(-0.1)).verdicts()
    assert "the image is known WORSE than after random's" in behind
    taught, _ = result_of(planted(0.0, taught=0.1)).verdicts()
    assert "knows it better than the random one at random fixations, at policy" in taught


def test_a_study_of_seeing_alone_says_nothing_of_teaching() -> None:
    result = replace(result_of(planted(0.1)), taught=())
    assert not any("policy's model" in line for line in result.verdicts())
    assert len(result.tables()) == 4
    command = read_arguments(["smoke", "--no-teaching", "--augment"])
    assert not command.study.teaching
    assert command.training.data.augment


def test_differences_are_paired_and_their_seeds_are_kept() -> None:
    runs = planted(0.1)
    for row in known_rows(runs):
        values = [
            np.mean(run.correct[row.order, row.after, row.read_out]) for run in runs[row.model]
        ]
        assert row.accuracy.per_seed == pytest.approx(values)
        assert row.accuracy.ci95 == pytest.approx(seed_interval(values))
        if row.order == "all_patches":
            assert row.policy_minus is not None
            policy = np.mean([run.correct["policy", 4, row.read_out] for run in runs[row.model]])
            assert row.policy_minus.mean == pytest.approx(policy - 1.0)
            continue
        if row.policy_minus is None:
            assert row.order == "policy"
            continue
        policy = [np.mean(run.correct["policy", 4, row.read_out]) for run in runs[row.model]]
        assert row.policy_minus.per_seed == pytest.approx(np.subtract(policy, values))
        assert row.policy_minus.ci95_seeds == pytest.approx(
            seed_interval(list(np.subtract(policy, values)))
        )


def test_the_interval_of_an_accuracy_stays_one() -> None:
    seeds = np.array([[1.0, 1.0], [1.0, 0.0]])
    assert MeanOverSeeds.of_correct(seeds).ci95 == (0.0, 1.0)
    assert MeanOverSeeds.of(seeds).ci95 != (0.0, 1.0), "areas and differences are not cut"


def test_a_single_seed_is_judged_over_images_alone() -> None:
    one = Difference.of(np.r_[np.ones(60), np.zeros(40)][None])
    assert one.ci95 is None
    assert one.ci95_seeds is None
    assert one.sign == 1


def test_tables_show_what_was_measured() -> None:
    result = result_of(planted(0.1))
    summary, accuracies, differences, crossed, areas = result.tables()
    (policy,) = [row for row in result.known if row.model == row.order == "policy"]
    assert summary.rows[0][1].startswith(f"{policy.accuracy.mean:.3f} [")
    assert [row[0] for row in summary.rows] == ["**policy**", "minus random", "minus all_patches"]
    assert [row[0] for row in accuracies.rows] == ["policy", "random"], "best first"
    assert [row[0] for row in differences.rows] == ["random"]
    assert len(crossed.rows[0]) == 9
    assert [row[0] for row in areas.rows][:2] == ["policy, policy", "policy, random"]
    assert "seeds 0, 1, 2" in summary.caption
    assert "blind" in summary.caption


def test_what_was_kept_answers_the_same_question_only(tmp_path: Path) -> None:
    found, path = planted(0.1)["policy"][0], tmp_path / "knowing.npz"
    assert read_kept(path, ASKED) is None
    keep(path, ASKED, found)
    again = read_kept(path, ASKED)
    assert again is not None
    assert (again.train_images, again.notes, again.commit) == (0, {}, "unknown")
    assert again.paid == {}, "saccades cost nothing"
    for kept, now in ((found.correct, again.correct), (found.areas, again.areas)):
        assert list(kept) == list(now)
        for key, values in kept.items():
            np.testing.assert_array_equal(values, now[key])
    keep(path, ASKED, replace(found, paid={"policy": np.ones(2)}))
    assert read_kept(path, ASKED).paid["policy"].tolist() == [1, 1]
    assert read_kept(path, '{"asked": 2}') is None
    path.write_bytes(path.read_bytes()[:100])
    assert read_kept(path, ASKED) is None, "damaged: measured anew"


def test_what_is_new_among_the_questions_throws_no_answer_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True)
    class Questions:
        limit: int
        new: int | None = None

    monkeypatch.setattr(knowing_measure, "KnowingQuestions", Questions)
    path = tmp_path / "knowing.npz"
    keep(path, json.dumps({"limit": 3}), planted(0.1)["policy"][0])
    assert read_kept(path, json.dumps(asdict(Questions(3)))) is not None
    assert read_kept(path, json.dumps(asdict(Questions(3, new=1)))) is None
    assert read_kept(path, json.dumps(asdict(Questions(4)))) is None


# --- saccades that cost something


def test_errors_are_judged_with_what_saccades_cost_too() -> None:
    runs = planted(0.1)
    for each in runs.values():
        # A short way and a small error may be worse than no way and a larger one.
        each[:] = [
            replace(run, paid={"policy": run.areas["policy"] + 0.2, "random": run.areas["random"]})
            for run in each
        ]
    result = result_of(runs)
    *_, area, paid = result.verdicts()
    assert area == "Reconstruction: the policy's area is lower than random's."
    assert paid == "Reconstruction: the policy's area + cost of saccades is HIGHER than random's."
    assert "area + 0.02 x path length / fixations" in result.to_text()


def test_a_saccade_costs_its_distance(run: Run) -> None:
    asked = KnowingConfig(orders=("policy", "random", "raster"), area_limit=4).asked(3)
    assert areas_of(run, asked.orders, "test", asked.area_limit)[1] == {}
    priced = replace(run, config=run.config.replace(saccade_cost=0.5))
    _, costs = areas_of(priced, asked.orders, "test", asked.area_limit)
    # Three patches side by side: two saccades of length 1, over three fixations.
    np.testing.assert_allclose(costs["raster"], 0.5 * 2 / 3)
    near = scan_of(priced, "uncertainty_near")(run.split("test", 4).images)
    assert near.shape == (4, 3)
    with pytest.raises(ValueError, match="this run has no saccade cost"):
        scan_of(run, "uncertainty_near")


# --- runs of a seed


def test_the_runs_of_a_seed_differ_in_their_orders_alone() -> None:
    common = PRESETS["demo"][1]
    plan = SeedPlan.of(common, 2, Path("study"))
    assert plan.policy == common.replace(seed=2, report=False, out=Path("study/policy_2"))
    assert plan.teaching is not None
    random = plan.policy.replace(schedule="frozen", out=Path("study/random_2"))
    assert plan.teaching.random == random
    last = plan.teaching.random_then_policy
    assert last.total_iterations == 210, "as many updates of the policy: every fourth of 840"
    changed = {name for name, value in last.flat().items() if value != plan.policy.flat()[name]}
    assert changed == {
        "out",
        "schedule",
        "start_from",
        "warmup_iterations",
        "policy_every",
        "iterations",
    }
    assert last.model.start_from == "study/random_2"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"schedule": "frozen"}, "schedule must be joint, got frozen"),
        ({"agent": "maskable-ppo"}, "agent must be group-relative, got maskable-ppo"),
        ({"iterations": 0}, "add --iterations 1000"),
        (
            {"recipe": "mae", "iterations": 0, "prefix_share": 0.0},
            "can be scanned, which mae is not.*choose --recipe foveate",
        ),
    ],
)
def test_a_training_without_a_joint_policy_is_refused(
    options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        SeedPlan.of(TrainConfig().replace(**options), 0, Path("study"))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"prefer": "policy"}, "prefer policy needs --no-teaching"),
        ({"reward": "progress"}, "reward progress needs --no-teaching or --reward-reference"),
    ],
)
def test_what_no_model_of_random_scans_can_have_is_asked_of_seeing_alone(
    options: dict[str, object], complaint: str
) -> None:
    common = PRESETS["demo"][1].replace(**options)
    with pytest.raises(ValueError, match=complaint):
        SeedPlan.of(common, 0, Path("study"))
    assert SeedPlan.of(common, 0, Path("study"), teaching=False).teaching is None


def test_how_the_first_model_learns_from_scans_is_not_the_second_ones() -> None:
    common = PRESETS["demo"][1].replace(scan_direction="reversed", random_share_end=0.2)
    plan = SeedPlan.of(common, 0, Path("study"))
    assert plan.teaching is not None
    assert plan.policy.policy is not None
    assert plan.policy.policy.scan_direction == "reversed"
    last = plan.teaching.random_then_policy.policy
    assert last is not None
    assert (last.scan_direction, last.random_share_end) == ("forward", None)


def test_options_of_the_study_stand_among_those_of_the_training() -> None:
    line = "smoke --seeds 3 4 --data cue --periphery=0 --orders policy random --augment --out x"
    command = read_arguments(line.split())
    assert command.study.seeds == (3, 4)
    assert command.study.orders == ("policy", "random")
    assert command.study.out == Path("x")
    assert command.training.data.augment
    assert command.training.model.periphery == 0
    assert command.training.run.out == PRESETS["smoke"][1].run.out
    assert command.asked.after == (1, 2, 4), "powers of two up to the budget"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--seed 3", "use --seeds"),
        ("--no-report", "report has no effect, as the study is the report"),
        ("--resume", "resume has no effect"),
        ("--stop-after=3", "stop_after has no effect"),
        ("--orders policy raster", "orders must contain policy and random; add random"),
        ("--orders policy random policy", "orders takes one or more different values"),
        ("--fixations 1 5", r"fixations must lie in 1\.\.4, the budget of the scans, got 1 5"),
        ("--area-limit 1", "must be at least 2 images"),
        ("--test-limit 0", "must be at least 2 images"),
        ("--fixations", "after takes one or more different values"),
    ],
)
def test_questions_without_an_answer_are_refused(line: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_arguments(["smoke", *line.split()])
    with pytest.raises(ValueError, match="one or more different numbers, at least 0"):
        KnowingConfig(seeds=(3, 3))


@pytest.mark.parametrize(
    ("order", "complaint"),
    [("blah", "unknown order 'blah'"), ("uncertainty_near", "this run has no saccade cost")],
)
def test_orders_without_a_meaning_are_refused_before_training(
    order: str, complaint: str, tmp_path: Path
) -> None:
    line = f"smoke --seeds 0 --out {tmp_path} --orders policy random {order}"
    with pytest.raises(ValueError, match=complaint):
        main(read_arguments(line.split()))
    assert not any(tmp_path.iterdir())


def test_an_order_of_ones_own_is_tried_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ranking.py").write_text(
        "import torch\n"
        "def halved(grid):\n"
        "    half = grid[0] * grid[1] // 2\n"
        "    return lambda images, generator=None: torch.arange(half).repeat(len(images), 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "runs"
    line = f"smoke --seeds 0 --out {out} --orders policy random ranking:halved"
    with pytest.raises(ValueError, match=r"ranking:halved.* must return ranks of shape"):
        main(read_arguments(line.split()))
    assert not out.exists()


def test_usual_fixations_are_powers_of_two_and_the_budget() -> None:
    assert usual_fixations(12) == (1, 2, 4, 8, 12)
    assert usual_fixations(16) == (1, 2, 4, 8, 16)
    assert usual_fixations(1) == (1,)


@pytest.mark.slow
def test_a_study_trains_what_is_missing_and_asks_each_run_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = "--orders policy random uncertainty_near --fixations 1 4 --read-outs seen last"
    limits = "--train-limit 100 --test-limit 50 --area-limit 20"
    small = "--embed-dim 16 --depth 1 --warmup-iterations 1 --iterations 2 --evaluate-every None"
    line = f"smoke {small} --saccade-cost 0.01 --seeds 3 --out {tmp_path} {options} {limits}"
    main(read_arguments(line.split()))
    kinds = ("policy", "random", "random_then_policy")
    runs = [f"{kind}_3" for kind in kinds]
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        [*runs, "knowing.json", "knowing.png"]
    )
    frozen, learned = (load_run(tmp_path / f"{k}_3").model.state_dict() for k in kinds[1:])
    assert all(torch.equal(frozen[name], learned[name]) for name in frozen)
    result = KnowingResult.read(tmp_path / "knowing.json")
    orders = {(row.model, row.order) for row in result.known if row.order not in REFERENCES}
    assert orders == {
        *(("policy", order) for order in ("policy", "random", "uncertainty_near")),
        *(("random", order) for order in ("policy", "random")),
    }
    assert result.read_outs == ("seen, linear", "seen, knn", "last, linear", "last, knn")
    assert result.fixations == (1, 4)
    assert (result.test_images, result.area_images) == (50, 20)
    assert {row.order for row in result.taught} == {"policy", "random"}
    assert "asking" in capsys.readouterr().out
    assert result.train_images == 100
    assert "says nothing of other seeds" in result.summary().caption
    assert "says nothing of other seeds" in result.verdicts()[-1]
    (run,) = [load_run(tmp_path / "random_3")]
    asked = read_arguments(line.split()).asked
    before = question_of(run, asked)
    next(run.model.parameters()).data.add_(1)
    assert question_of(run, asked) != before, "other weights"
    own = tmp_path / "own_orders.py"
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for text in ("def spiral(grid): ...", "def spiral(grid): pass"):
        own.write_text(text)
        digests.append(sources_of(("policy", "own_orders:spiral")))
    assert [*digests[0]] == ["own_orders:spiral"]
    assert digests[0] != digests[1], "an order of one's own that changed"
    with pytest.raises(ValueError, match=r"policy_3 does not hold the model of .*random_3"):
        check_same_model(run, load_run(tmp_path / "random_then_policy_3"))
    monkeypatch.delattr("experiments.evaluation.knowing.measure.recognize")
    main(read_arguments(line.split()))
    assert "asking" not in capsys.readouterr().out
    assert KnowingResult.read(tmp_path / "knowing.json") == result
    alone = ["--no-teaching"]
    main(read_arguments([*line.split(), *alone]))
    seeing = KnowingResult.read(tmp_path / "knowing.json")
    assert {row.model for row in seeing.known} == {"policy"}
    assert seeing.taught == ()
    with pytest.raises(NameError, match="recognize"):
        main(read_arguments(f"{line} --test-limit 40 {alone[0]}".split()))
    assert "answers another question and is replaced" in capsys.readouterr().out


def seeing_alone(out: Path) -> str:
    """Return the command line of a small study without teaching."""
    return (
        "smoke --embed-dim 16 --depth 1 --warmup-iterations 1 --iterations 2 --evaluate-every None "
        f"--seeds 3 --no-teaching --out {out} --fixations 1 4 --read-outs seen "
        "--train-limit 100 --test-limit 50 --area-limit 20 --orders policy random"
    )


def test_controls_and_fewer_labels_stand_in_tables_of_their_own(tmp_path: Path) -> None:
    own = "--controls --label-shares 0.5 --train-limit 200"
    main(read_arguments(f"{seeing_alone(tmp_path)} {own}".split()))
    result = KnowingResult.read(tmp_path / "knowing.json")
    whole = ("seen, linear", "seen, knn")
    assert {*result.read_outs} == {*whole, *(f"{name}, 0.5 of the labels" for name in whole)}
    assert {*result.rows("policy", whole[0])} == {"policy", "random"}
    known = {(row.order, row.read_out): row for row in result.known if row.after == 4}
    assert known["untrained_encoder", whole[0]].policy_minus is not None
    assert known["path_only", "path, linear"].policy_minus is None
    table = result.controls()
    names = {row[0]: row[1:] for row in table.rows}
    assert {"path_only, path, linear", "untrained_encoder, seen, knn"} <= {*names}
    assert names["distinct_pixels, pixels, linear"][-1] == ""
    assert names["untrained_encoder, seen, linear"][-1] == str(
        known["untrained_encoder", whole[0]].policy_minus
    )
    assert table in result.tables()
    (run,) = [load_run(tmp_path / "policy_3")]
    asked = read_arguments(seeing_alone(tmp_path).split()).asked
    usual = recognize(
        run,
        **{name: getattr(asked, name) for name in ("orders", "after", "read_outs")},
        controls=False,
        **{"train_limit": 200, "test_limit": 50},
    )
    right = usual.correct[Answered("policy", 4, "seen", "linear")]
    assert known["policy", whole[0]].accuracy.per_seed == (right.mean(),), "with all labels as ever"
    with pytest.raises(ValueError, match="label_shares must lie above 0"):
        read_arguments(f"{seeing_alone(tmp_path)} --label-shares 0".split())


def test_one_probe_of_random_fixations_can_judge_all_orders(tmp_path: Path) -> None:
    main(read_arguments(f"{seeing_alone(tmp_path)} --fixations-probe shared".split()))
    result = KnowingResult.read(tmp_path / "knowing.json")
    assert "probes of 100 training and 50 test images, trained once on random fixations" in (
        result.summary().caption
    )
    found = recognize(
        load_run(tmp_path / "policy_3"),
        orders=("policy", "random"),
        after=(1, 4),
        read_outs=("seen",),
        probe="shared",
        controls=False,
        train_limit=100,
        test_limit=50,
    )
    for probe in ("linear", "knn"):
        for order, row in result.rows("policy", f"seen, {probe}").items():
            for k, each in row.items():
                assert each.accuracy.mean == getattr(found.fixations[order][k], probe)


@pytest.mark.slow
def test_fine_tuning_stands_beside_frozen_features_and_each_order_is_tuned_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = seeing_alone(tmp_path)
    main(read_arguments(line.split()))
    frozen = KnowingResult.read(tmp_path / "knowing.json")
    assert "asking" in capsys.readouterr().out
    tuned_line = f"{line} --finetune-epochs 1"
    main(read_arguments(tuned_line.split()))
    assert "asking" not in capsys.readouterr().out, "frozen ones were kept"
    result = KnowingResult.read(tmp_path / "knowing.json")
    assert result.read_outs == (*frozen.read_outs, FINE_TUNED)
    assert [row for row in result.known if row.read_out != FINE_TUNED] == list(frozen.known)
    assert "1 epoch of fine-tuning" in result.summary().caption
    assert result.summary().rows[-1][-1] == "", "there is no fine-tuning of all patches"
    # Each number is that of the recognizer itself, on the same scans.
    run = load_run(tmp_path / "policy_3")
    train, test = run.split("train", 100), run.split("test", 50)
    makers = PathMakers.of(run, ("policy",))
    paths = makers.policy(train, test)
    how = FineTuneConfig(epochs=1)
    reached = fine_tune_by_fixations(
        run.model, train, test, paths.train, paths.test, (1, 4), how, 0
    )
    rows = result.rows("policy", FINE_TUNED)["policy"]
    assert {k: row.accuracy.mean for k, row in rows.items()} == pytest.approx(
        {k: each.accuracy for k, each in reached.items()}
    )
    monkeypatch.delattr("experiments.evaluation.knowing.tuned.tuned_recognizer")
    main(read_arguments(tuned_line.split()))
    assert KnowingResult.read(tmp_path / "knowing.json") == result
    assert "2 of 2 answers were kept" in capsys.readouterr().out
    with pytest.raises(NameError, match="tuned_recognizer"):
        main(read_arguments(f"{line} --finetune-epochs 2".split()))
    with pytest.raises(NameError, match="tuned_recognizer"):
        main(read_arguments(f"{tuned_line} --test-limit 40".split()))
    assert "is of another checkpoint" not in capsys.readouterr().out, "only the images are others"
    with pytest.raises(ValueError, match="finetune_epochs must be at least 0, got -1"):
        read_arguments(f"{line} --finetune-epochs -1".split())

"""Results of studies and benchmarks: files give back what was written, and tables what it says."""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest

from experiments.bench import USED_BY, BenchConfig
from experiments.benchmarks.decoding import bench_decode
from experiments.benchmarks.device import bench_device
from experiments.benchmarks.env import BenchEnvResult, bench_env
from experiments.benchmarks.growth import bench_scale
from experiments.benchmarks.rollout import bench_rollout
from experiments.benchmarks.seeds import bench_seeds
from experiments.benchmarks.streaming import bench_data
from experiments.benchmarks.timing import BenchResult
from experiments.benchmarks.training import bench_train
from experiments.evaluation.caption.means import Bits, Retrieval
from experiments.evaluation.caption.result import CaptionResult, Written
from experiments.evaluation.clients import ClientRow, ClientsResult
from experiments.evaluation.decode import DecodeResult, DecodingScore, Searched
from experiments.evaluation.human.means import HumanRow
from experiments.evaluation.human.result import HumanComparison
from experiments.evaluation.ids.evaluate import score_ids
from experiments.evaluation.ids.result import AGENTS, IdRow, IdScore, IdsResult, MeanOverImages
from experiments.evaluation.knowing.result import KnowingResult
from experiments.evaluation.knowing.rows import Difference, KnownRow, MeanOverSeeds
from experiments.evaluation.orders.evaluate import compare_orders
from experiments.evaluation.orders.result import OrderRow, OrderRun, OrdersResult
from experiments.evaluation.read import Reading, ReadResult
from experiments.evaluation.torture_result import TortureResult, TortureRow
from experiments.ids import IdsConfig
from experiments.orders import OrdersConfig
from experiments.pages import RECORDS, RESULTS, read_result
from experiments.record import RecordConfig, keep_result, keep_run, write_story
from experiments.studies.answers import Facts, Picture
from experiments.studies.learners import StudyResult, StudyRow
from experiments.studies.result import GridResult
from experiments.studies.rows import CellRow
from experiments.studies.stage import Stage
from experiments.studies.study import run_study
from experiments.studies.summary import summary_of
from experiments.study import StudyConfig
from experiments.tables import Result, Table
from foveate.model.parallel_decoding import DecodingSchedule

COMMIT = "0123456789abcdef"


def order_run(linear: float, **changes: Any) -> OrderRun:
    values = {
        "linear": linear,
        "knn": 0.5,
        "layer": 2,
        "linear_per_layer": (0.1, linear),
        "linear_causal": linear - 0.1,
        "knn_causal": 0.25,
        "layer_causal": 1,
        "linear_per_layer_causal": (linear - 0.1, 0.1),
        "parameters": 1_234_000,
        "patches": 64,
        "target": "pixels",
        "train_seconds": 2.0,
        "images": 640,
        "images_per_s": 320.0,
        "saved_mb": 12.4,
        "iterations": (10, 0),
        "commit": COMMIT,
        "teraflops": 2.04,
        "probe_train": 100,
        "probe_test": 50,
    }
    return OrderRun(**{**values, **changes})


def orders_result(**changes: Any) -> OrdersResult:
    values: dict[str, Any] = {
        "orders": {
            "raster": OrderRow.of_runs([order_run(0.4), order_run(0.5)]),
            "random": OrderRow.of_runs([order_run(0.6), order_run(0.7)]),
        },
        "data": "CIFAR10",
        "recipe": "saim",
        "target": "pixels",
        "memory": "layers",
        "teraflops": 2.0,
        "precision": "fp32",
        "seeds": (0, 1),
        "probe_train": 100,
        "probe_test": 50,
        "threads": 1,
        "commit": COMMIT,
    }
    return OrdersResult(**{**values, **changes})


READ = ReadResult(
    points={
        "policy": Reading(
            sentences=0.75,
            sentences_ci95=(0.7, 0.8),
            images=0.5,
            images_ci95=(0.4, 0.6),
            examples=("image 0: coat (coat)",),
        )
    },
    tracks=8,
    test_images=30,
    train_seconds=90.0,
    data="scenes",
    seed=3,
    commit=COMMIT,
)
DECODE = DecodeResult(
    decodings={
        "parallel, 2 passes": DecodingScore(
            passes=2, seconds_per_image=0.01234, distance=1.5, distance_ci95=(1.25, 1.75)
        )
    },
    searched=Searched(schedule=DecodingSchedule.cosine(2), distances=(2.0, 1.5)),
    data="scenes",
    train_seconds=None,
    against_train_seconds=61.0,
    num_patches=64,
    num_images=16,
    repeats=2,
    threads=2,
    seed=0,
    commit=COMMIT,
    options={"passes": [2], "against": "igpt"},
    iteration=8,
)
STUDY = StudyResult(
    preset="cue",
    agents={
        "maskable-ppo": StudyRow(
            auc=0.25,
            auc_per_run=(0.2, 0.3),
            auc_ci95=(0.1, 0.4),
            seconds_to_target=(12.4, math.inf),
        ),
        "random": StudyRow(auc=0.5, auc_per_run=(0.5, 0.5), auc_ci95=(0.5, 0.5)),
    },
    target_train_auc=0.31,
    seeds=(0, 1),
    test_images=400,
    threads=2,
    commit=COMMIT,
)
BENCH = BenchResult(
    what="train",
    caption="A step",
    columns=("step", "images/s"),
    rows=(("fp32", 1234.5678), ("bf16", 2.0)),
    numbers={"share_of_peak": 0.12345, "bf16_over_fp32": None},
    curves={"fp32": (1.0, 0.5)},
    threads=1,
    repeats=5,
    commit=COMMIT,
)
BENCH_ENV = BenchEnvResult(
    steps_per_s={"2": {"vector": 100.4, "dummy_vec_env": 50.0, "uncached": 10.0}},
    vector_over_dummy_env_steps={"2": 2.008},
    vector_over_uncached={"2": 10.04},
    budget=4,
    num_patches=64,
    threads=1,
    repeats=3,
    commit=COMMIT,
)
TORTURE = TortureResult(
    seed=0,
    commit="0" * 40,
    seconds=60.0,
    rows=(
        TortureRow(trials="kills", tried=3, right=2, lost=1, tracebacks=0, skipped=0, seconds=2.5),
    ),
)
KNOWING = KnowingResult(
    known=(
        KnownRow(
            model="policy",
            order="random",
            after=4,
            read_out="seen, linear",
            accuracy=MeanOverSeeds(mean=0.5, ci95=(0.4, 0.6), per_seed=(0.4, 0.6)),
            policy_minus=Difference(
                mean=0.125,
                ci95=(0.1, 0.15),
                ci95_seeds=None,
                ci95_images=(0.0, 0.25),
                per_seed=(0.1, 0.15),
            ),
        ),
    ),
    taught=(),
    areas=(),
    data="scenes",
    num_patches=64,
    budget=4,
    periphery=2,
    iterations=(4, 4),
    seeds=(0, 1),
    train_images=100,
    test_images=50,
    area_images=40,
    threads=1,
    commit=COMMIT,
    options={"seeds": [0, 1]},
)
SCORE = IdScore(
    episode_return=MeanOverImages(mean=1.25, ci95=(1.0, 1.5)),
    auc=MeanOverImages(mean=0.5, ci95=None),
    right=0.75,
)
IDS = IdsResult(
    ids={
        "CueGuess": IdRow(budget=4, num_patches=16, agents=dict.fromkeys(AGENTS, SCORE)),
        "CueScan": IdRow(
            budget=4, num_patches=16, agents=dict.fromkeys(AGENTS, replace(SCORE, right=None))
        ),
    },
    steps=100,
    test_images=2,
    seed=0,
    seconds=30.0,
    threads=1,
    commit=COMMIT,
)
FACTS = Facts(
    commit=COMMIT,
    parameters=10,
    num_patches=4,
    iterations=(1, 0),
    images=8,
    train_seconds=60.0,
    teraflops=None,
    probe_images=5,
    loss_curve=((1.0, 0.5),),
    error_curves={"random": (1.0, 0.5)},
)
GRID = GridResult(
    name="mine",
    question="Which?",
    baseline="random",
    ideas={"random": "the baseline"},
    rule=None,
    screened=None,
    final=Stage(
        title="Test images, seeds 0",
        rows=(
            CellRow(
                cell="random",
                measure="linear, full",
                value=MeanOverSeeds(mean=0.5, ci95=None, per_seed=(0.5,)),
                minus_baseline=None,
                seeds=(0,),
            ),
        ),
        facts={"random": (FACTS,)},
        failed={"random_1": "no memory"},
        waiting=(),
    ),
    dropped={},
    scans={
        "random": [
            Picture(
                label="cat",
                order="random",
                size=(2, 2),
                patch_px=1,
                opened=[[3]],
                errors=[1.0, 0.5],
                image="data:image/png;base64,",
                predictions=None,
            )
        ]
    },
    threads=1,
    commit=COMMIT,
)
CLIENTS = ClientsResult(
    python="3.11.0",
    libraries={"numpy": "2.0"},
    commit=COMMIT,
    rows=(
        ClientRow(
            client="numpy",
            versions={"numpy": "2.0", "none": None},
            tried="sums",
            outcome="works",
            error="",
            seconds=1.0,
        ),
    ),
)
BITS = Bits(
    bits_per_word=5.0,
    bits_per_word_ci95=(4.9, 5.1),
    minus_policy=0.25,
    minus_policy_ci95=(0.2, 0.3),
)
FOUND = Retrieval(
    recall={1: 0.1, 5: 0.3, 10: 0.4},
    recall_ci95={1: (0.0, 0.2), 5: (0.2, 0.4), 10: None},
    chance={1: 0.01, 5: 0.05, 10: 0.1},
)
CAPTION = CaptionResult(
    orders={"policy": {0: replace(BITS, minus_policy=None), 4: BITS}, "random": {0: BITS, 4: BITS}},
    whole=replace(BITS, minus_policy=None),
    alone=BITS,
    shuffled=BITS,
    image_nats_per_word=0.17,
    image_nats_per_word_ci95=(0.1, 0.2),
    image_to_text=FOUND,
    text_to_image=FOUND,
    retrieval_images=100,
    retrieval_captions=500,
    written=(Written(image=0, captions=("a dog",), after={0: "a", 4: "a cat"}, whole="a dog"),),
    captions=500,
    without_captions=2,
    cut=3,
    test_images=100,
    train_seconds=90.0,
    data="flickr8k96",
    seed=0,
    budget=16,
    num_patches=144,
    commit=COMMIT,
)
VIEWER = HumanRow(
    bits=1.5,
    bits_ci95=(1.25, 1.75),
    minus_center=0.75,
    minus_center_ci95=None,
    nss=2.0,
    nss_ci95=(1.0, 3.0),
    auc_judd=0.75,
    auc_judd_ci95=None,
    multi_match={"shape": 0.5},
    images=9,
)
HUMAN = HumanComparison(
    orders={"viewers": VIEWER, "policy": replace(VIEWER, minus_policy=0.0, per_seed={"nss": (2,)})},
    baseline="center_bias",
    dataset="osie",
    grid=(12, 16),
    test_images=9,
    train_images=8,
    num_scanpaths=30,
    num_fixations=200,
    first_fixation=False,
    revisits=False,
    spread=0.02,
    center_share=0.1,
    left_out=("test: left out: 1 image without viewers",),
    multi_match_installed=True,
    seeds=(0, 1),
    commit=COMMIT,
)
ALL: list[Result] = [
    *(READ, DECODE, STUDY, BENCH, BENCH_ENV, orders_result(), TORTURE, KNOWING, IDS),
    *(GRID, CLIENTS, CAPTION, HUMAN),
]


def test_captions_are_compared_with_the_policy_and_with_chance() -> None:
    after, references, retrieved = CAPTION.tables()
    assert after.rows[0] == ("**policy**", "5.000", "5.000 (+0.2500 [+0.2000, +0.3000])")
    assert "2 test images have no caption, and are left out." in after.notes
    assert references.rows[2][0] == "no image, text alone"
    assert references.notes == ("The image tells 0.170 [0.100, 0.200] nats of a word.",)
    assert retrieved.rows[1] == ("image to text, chance", "0.010", "0.050", "0.100")
    assert len(replace(CAPTION, image_to_text=None, text_to_image=None).tables()) == 2


def test_environments_are_named_as_gymnasium_names_them_or_shorter() -> None:
    assert IdsConfig(ids=("foveate/CueScanTest-v0", "CueScan", "CueGuess-v0")).ids == (
        "CueScan",
        "CueGuess",
    )


def test_every_kind_of_result_is_tried() -> None:
    assert {result.kind for result in ALL} == set(RESULTS)


@pytest.mark.parametrize("result", ALL, ids=lambda result: result.kind)
def test_a_file_gives_back_what_was_written(result: Result, tmp_path: Path) -> None:
    result.write(tmp_path / "result.json")
    assert read_result(tmp_path / "result.json") == result
    assert type(result).read(tmp_path / "result.json") == result


@pytest.mark.parametrize(
    "path", sorted(RECORDS.glob("*/result.json")), ids=lambda path: path.parent.name
)
def test_every_record_is_read_and_keeps_its_values(path: Path) -> None:
    """Older records lack newer keys; what they have is what is written again."""

    def kept(before: Any, after: Any) -> bool:
        if isinstance(before, dict):
            return all(kept(value, after[key]) for key, value in before.items())
        if isinstance(before, list):
            return len(before) == len(after) and all(map(kept, before, after))
        return bool(before == after)

    content = json.loads(json.dumps(read_result(path).content()))
    assert kept(json.loads(path.read_text()), content)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"kind": "compare"}, "its kind must be one of study, .* got compare"),
        ([1], "no result of a study"),
        ({"kind": "read", "points": {}}, "no read result of this version: tracks: Field required"),
    ],
)
def test_other_files_are_refused(content: object, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    with pytest.raises(ValueError, match="no result file at"):
        read_result(path)
    path.write_text("no JSON")
    with pytest.raises(ValueError, match="holds no JSON"):
        read_result(path)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=complaint):
        read_result(path)


def test_keys_of_a_benchmark_stand_at_the_top_of_its_file() -> None:
    content = BENCH.content()
    assert content["share_of_peak"] == 0.12345
    assert content["keys"] == ["bf16_over_fp32", "share_of_peak"]
    assert "numbers" not in content


def test_tables_say_what_was_measured() -> None:
    (table,) = READ.tables()
    assert table.rows == (("policy", "0.750 [0.700, 0.800]", "0.500 [0.400, 0.600]"),)
    assert "trained for 2 minutes" in table.caption
    assert READ.examples_text() == "policy:\n    image 0: coat (coat)"
    (table,) = DECODE.tables()
    assert table.rows == (("parallel, 2 passes", "2", "0.0123", "1.500 [1.250, 1.750]"),)
    assert "for an unknown time (the autoregressive one for 1 minute)" in table.caption
    (table,) = STUDY.tables()
    assert table.columns[2] == "seconds until its training scans reach 0.310, by seed"
    assert table.rows == (
        ("maskable-ppo", "0.2500 [0.1000, 0.4000]", "12, inf"),
        ("random", "0.5000 [0.5000, 0.5000]", ""),
    )
    (table,) = BENCH.tables()
    assert table.rows == (("fp32", "1235"), ("bf16", "2"))
    assert table.notes == ("`bf16_over_fp32` cannot be measured, `share_of_peak` 0.1235.",)
    (table,) = BENCH_ENV.tables()
    assert table.rows == (
        ("vector", "100"),
        ("dummy_vec_env", "50"),
        ("uncached", "10"),
        ("**vector over dummy env steps**", "2.0x"),
        ("**vector over uncached**", "10.0x"),
    )


def test_orders_are_ranked_and_set_against_the_first() -> None:
    (table,) = orders_result().tables()
    # Student's t of two seeds, 0.1 apart: half a width of 12.706 * 0.05, cut to 0..1.
    assert table.rows[0] == (
        "random",
        "0.650 [0.015, 1.000]",
        "0.550 [0.000, 1.000]",
        "0.500 [0.500, 0.500]",
        "0.250 [0.250, 0.250]",
        "2.0",
        "640",
        "320",
        "12",
        "0.600, 0.700",
    )
    assert [row[0] for row in table.rows] == ["random", "raster"]
    assert table.caption.startswith("CIFAR10, 64 patches, recipe `saim` with target pixels, memory")
    assert "1.23 M parameters, 2 TFLOP a run" in table.caption
    (note,) = table.notes
    assert note.startswith("Minus raster, paired over seeds: random linear +0.200 [")


def test_distillations_have_a_table_of_their_own_and_recipes_name_their_parts() -> None:
    rows = {
        "semaim": OrderRow.of_runs([order_run(0.9, target="features")]),
        "mae": OrderRow.of_runs([order_run(0.5)]),
    }
    shared = {"recipe": None, "target": None, "memory": None, "seeds": (0,)}
    first, second = orders_result(orders=rows, **shared).tables()
    assert first.rows[0][:2] == ("mae (64 patches, target pixels)", "0.500")
    assert second.rows[0][0] == "semaim (64 patches, target features)"
    assert second.caption == "Distillations, which see features beside pixels:"
    assert not first.notes + second.notes
    (table,) = orders_result(orders={"semaim": rows["semaim"]}, **shared).tables()
    assert table.caption.endswith(second.caption)


def test_rows_of_an_earlier_call_stay_only_beside_rows_of_the_same_settings(
    tmp_path: Path,
) -> None:
    path = tmp_path / "orders.json"
    earlier, rows = orders_result(), orders_result().orders
    now = replace(earlier, orders={"mine": rows["raster"]}, commit="later", threads=2)
    assert now.with_earlier(path) == now
    earlier.write(path)
    both = now.with_earlier(path)
    assert list(both.orders) == ["raster", "random", "mine"]
    assert both.commit == "later"
    older = OrderRow.of_runs([order_run(0.4, linear_causal=None, knn_causal=None)] * 2)
    for other in (
        replace(earlier, seeds=(0, 2)),
        replace(earlier, options={"depth": 2}),
        replace(earlier, orders={"raster": older}),
    ):
        other.write(path)
        assert now.with_earlier(path) == now
        assert not path.exists(), "kept under a number"


def test_a_result_of_a_run_is_kept_beside_one_of_other_options(tmp_path: Path) -> None:
    path = tmp_path / "read.json"
    READ.keep(path, {"run": tmp_path, "device": "cpu", "limit": 30})
    kept = ReadResult.read(path)
    assert kept == replace(READ, options={"limit": 30})
    READ.keep(path, {"run": tmp_path / "moved", "device": "cuda", "limit": 30})
    assert [file.name for file in tmp_path.iterdir()] == ["read.json"]
    READ.keep(path, {"run": tmp_path, "limit": 31})
    replace(READ, iteration=9).keep(path, {"run": tmp_path, "limit": 31})
    assert ReadResult.read(tmp_path / "read_1.json") == kept
    assert ReadResult.read(tmp_path / "read_2.json").options == {"limit": 31}
    assert ReadResult.read(path).iteration == 9


def test_the_record_of_a_run_has_no_paths_of_the_machine(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(ValueError, match=r"no compare\.json"):
        keep_run(run, tmp_path, "mine")
    for name, content in {
        "manifest.json": {
            "date": "2026-01-02",
            "data_changes": ["the data moved from /home/a/b.parquet to /mnt/c.parquet"],
            "data": "/home/Jo Doe/c.parquet",
        },
        "config.json": {"out": "/tmp/run", "budget": 4},
        "compare.json": {"gap_closed": 0.5, "options": {"judge": "/tmp/judge"}},
    }.items():
        (run / name).write_text(json.dumps(content))
    (run / "metrics.jsonl").write_text("{}\n")
    folder = keep_run(run, tmp_path, "mine")
    assert folder == tmp_path / "2026-01-02_mine"
    assert json.loads((folder / "config.json").read_text()) == {"out": "run", "budget": 4}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data_changes"] == ["the data moved from b.parquet to c.parquet"]
    assert manifest["data"] == "c.parquet"
    assert json.loads((folder / "compare.json").read_text())["options"] == {"judge": "judge"}
    assert (folder / "metrics.jsonl").read_text() == "{}\n"
    with pytest.raises(ValueError, match="2026-01-02_mine is there; take another --slug"):
        keep_run(run, tmp_path, "mine")
    replace(READ, options={"against": "/tmp/igpt", "limit": 3}).write(tmp_path / "read.json")
    (tmp_path / "read.png").write_bytes(b"picture")
    folder, tables = keep_result(tmp_path / "read.json", tmp_path, "other")
    assert ReadResult.read(folder / "result.json").options == {"against": "igpt", "limit": 3}
    assert tables == READ.to_markdown()
    assert (folder / "result.png").read_bytes() == b"picture"
    write_story(RecordConfig(result=tmp_path / "read.json", slug="other"), folder, tables)
    assert "](result.png)" in (folder / "README.md").read_text()


def test_a_table_is_shown_in_html_as_it_reads() -> None:
    shown = Table(("a", "b"), (("<x>", "**1**"),), caption="c & d", notes=("e",)).to_html()
    assert shown == (
        "<table><caption>c &amp; d</caption><thead><tr><th>a</th><th>b</th></tr></thead>"
        "<tbody><tr><td>&lt;x&gt;</td><td>1</td></tr></tbody></table><p>e</p>"
    )


@pytest.mark.parametrize(
    ("function", "config", "names"),
    [
        (score_ids, IdsConfig, ["ids", "limit", "steps", "seeds", "threads"]),
        (
            run_study,
            StudyConfig,
            [each.name for each in fields(StudyConfig) if each.name != "page"],
        ),
        *(
            (bench, BenchConfig, [*(o for o, used in USED_BY.items() if what in used), "repeats"])
            for what, bench in {
                "train": bench_train,
                "rollout": bench_rollout,
                "env": bench_env,
                "decode": bench_decode,
                "scale": bench_scale,
                "data": bench_data,
                "device": bench_device,
                "seeds": bench_seeds,
            }.items()
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_functions_take_the_options_of_their_scripts(
    function: Any, config: Any, names: list[str] | None
) -> None:
    """One set of defaults: an option is what the argument is."""
    options = {each.name: each.default for each in fields(config)}
    expected = {name: options[name] for name in (names or options)}
    arguments = dict(inspect.signature(function).parameters)
    if function is bench_device:
        del arguments["keep"]  # No option: how what is found so far is written.
    assert set(arguments) == set(expected)
    for name, argument in arguments.items():
        if argument.default is inspect.Parameter.empty:
            assert expected[name] in (MISSING, None), name
        else:
            assert argument.default == expected[name], name


def test_the_order_study_has_the_defaults_of_its_script() -> None:
    arguments = inspect.signature(compare_orders).parameters
    shared = [each for each in fields(OrdersConfig) if each.name in arguments]
    assert len(shared) == 6
    for option in shared:
        default = arguments[option.name].default
        assert default in (inspect.Parameter.empty, option.default), option.name


def test_a_stage_has_a_table_of_one_row_a_cell() -> None:
    stage = GRID.final
    assert stage is not None
    facts = replace(FACTS, teraflops=2.5)
    row = replace(
        stage.rows[0],
        cell="policy",
        value=MeanOverSeeds(mean=0.25, ci95=None, per_seed=(0.25,)),
        minus_baseline=Difference(
            mean=-0.25, ci95=(-0.5, 0.0), ci95_seeds=None, ci95_images=None, per_seed=(-0.25,)
        ),
    )
    whole = replace(
        stage, rows=(row, *stage.rows), facts={"random": (facts,), "policy": (facts, facts)}
    )
    table = summary_of(replace(GRID, ideas={"random": "alone", "policy": "learned"}), whole)
    assert table.columns[2:4] == ("linear, full", "linear, full: minus its baseline")
    crossed = replace(whole, rows=(replace(row, value_ci95=(0.125, 0.5)), *stage.rows))
    rows = summary_of(replace(GRID, ideas={"random": "alone", "policy": "learned"}), crossed).rows
    assert rows[1][2] == "0.250 [0.125, 0.500]"
    assert table.rows == (
        ("**random**", "alone", "0.500", "", "2.5", "8", "1.0"),
        ("policy", "learned", "0.250", "-0.250 [-0.500, +0.000] (random)", "2.5", "8", "1.0"),
    )

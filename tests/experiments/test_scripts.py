"""Each script from its command line: the smoke preset works, mistakes get one line and code 2."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from commands import call, start
from image_files import picture, write_parquet
from made_once import made_once
from PIL import Image
from torch import Tensor

from agents.baselines import OrderAgent, scan_with
from experiments.benchmarks import growth, streaming
from experiments.benchmarks.timing import count_flops
from experiments.evaluation import exported
from experiments.evaluation.read import read
from experiments.evaluation.scanpaths import Scanned
from experiments.metrics_file import read_metrics
from experiments.runs import Run, load_run
from experiments.training.build import build
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.loop import train
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer
from foveate.checkpoint import load_model
from foveate.recipes import RECIPES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This worker's copy of one run: evaluations write into it."""

    def carry_out(out: Path) -> None:
        done = start("train", "smoke", "--out", out / "smoke", "--no-report", "--threads", "1")
        assert done.returncode == 0, done.stderr

    made = made_once(tmp_path_factory, "smoke_run", carry_out) / "smoke"
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("runs") / "smoke"))


def test_training_leaves_a_whole_run_folder(run_folder: Path) -> None:
    assert {"config.json", "manifest.json", "metrics.jsonl", "checkpoint.safetensors"} <= {
        f.name for f in run_folder.iterdir()
    }
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 8
    assert [line["iteration"] for line in lines] == list(range(1, 9))
    assert all(0 < before["seconds"] <= after["seconds"] for before, after in pairwise(lines))
    for line in lines:
        # At the start, nothing learned: every value of a normalized image costs about 1.
        assert 0.2 < line["loss"] < 5
        assert ("return" in line) == (line["iteration"] > 4), "four iterations are warm-up"
    for line in lines[4:]:
        assert 0 < line["auc"] < 2
        assert line["return"] == pytest.approx(-4 * line["auc"], rel=1e-5), "four fixations"
        assert np.log(48) < line["entropy"] < np.log(64), "a soft rule, early"


def raster_agent(num_images: int) -> OrderAgent:
    return OrderAgent(torch.arange(4).expand(num_images, -1))


def test_compare_writes_what_the_model_says_of_every_order(run_folder: Path) -> None:
    done = call("compare", "--run", run_folder, "--limit", "30", "--oracle-limit", "10")
    assert done.returncode == 0, done.stderr
    result = json.loads((run_folder / "compare.json").read_text())
    said = {
        "dataset": "scenes",
        "seed": 0,
        "budget": 4,
        "num_patches": 64,
        "test_images": 30,
        "commit": json.loads((run_folder / "manifest.json").read_text())["commit"],
    }
    assert {name: result[name] for name in said} == said
    low, high = result["gap_closed_ci95"]
    assert low <= result["gap_closed"] <= high
    diagnostics = result["diagnostics"]
    assert len(diagnostics["fixation_entropy_nats"]) == 4
    assert all(0 <= nats <= np.log(30) + 1e-4 for nats in diagnostics["fixation_entropy_nats"])
    assert 1 <= diagnostics["distinct_orders"] <= diagnostics["images"] == 30
    orders = {
        "policy",
        "random",
        "raster",
        "center_out",
        "farthest_point",
        "best_fixed",
        "other_image",
        "saliency",
        "uncertainty",
        "oracle",
    }
    assert orders <= set(result["orders"])
    for name, row in result["orders"].items():
        assert row["images"] == (10 if name.startswith("oracle") else 30)
        assert row["auc"] == pytest.approx(np.mean(row["curve"][1:]), abs=2e-5)
        assert row["final_error"] == pytest.approx(row["curve"][-1], abs=1e-5)
        for other in ("random", "policy"):
            low, high = row[f"minus_{other}_ci95"]
            assert low <= row[f"minus_{other}"] <= high
            if row["images"] == 30:
                difference = row["auc"] - result["orders"][other]["auc"]
                assert row[f"minus_{other}"] == pytest.approx(difference, abs=1e-6)
        assert row["auc_ci95"][0] <= row["auc"] <= row["auc_ci95"][1]
        assert row["curve"][0] == 1
    assert result["orders"]["random"]["minus_random"] == 0
    assert result["orders"]["policy"]["minus_policy"] == 0
    run = load_run(run_folder)
    images = run.split("test", 30).batch(torch.arange(30))
    for name, agent in (("policy", run.agent), ("raster", raster_agent(30))):
        curve = run.model.error_curve(images, scan_with(agent, run.model, images, 4))
        again = [float(error) for error in curve.mean(0)]
        assert result["orders"][name]["curve"] == pytest.approx(again, abs=2e-5)
    best = min(row["auc"] for name, row in result["orders"].items() if row["images"] == 30)
    assert result["orders"]["oracle"]["auc"] < best + 0.05
    height = int(max(4.2, 0.16 * len(result["orders"]) + 0.5) * 120)
    picture(run_folder / "compare.png", 840, height)
    closed = f"The policy closes {result['gap_closed']:.1%} ["
    assert closed in done.stdout
    assert "of the gap from random to the greedy oracle over all patches" in done.stdout
    # Four iterations teach nothing, and the comparison says so.
    assert result["not_better_than"]
    assert "COLLAPSED" in done.stdout
    fewer = call("compare", "--run", run_folder, "--limit", "10", "--oracle-limit", "4")
    assert fewer.returncode == 0, fewer.stderr
    assert "kept: what was there, of other options, as compare_1.json" in fewer.stdout
    assert json.loads((run_folder / "compare_1.json").read_text()) == result
    assert json.loads((run_folder / "compare.json").read_text())["test_images"] == 10
    assert {"compare.png", "compare_1.png"} <= {file.name for file in run_folder.iterdir()}


def test_parts_of_ones_own_are_named_by_their_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What CONTRIBUTING says: its code as modules, used by the scripts."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    short = "def short(grid):\n    return fixed_ordering([2, 1, 0])\n"
    (tmp_path / "my_parts.py").write_text("\n".join([*blocks, short]))
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    own = ["--order", "my_parts:reverse", "--reward", "my_parts:relative"]
    done = call("train", "smoke", *own, "--out", run, "--no-report", "--threads", "1")
    assert done.returncode == 0, done.stderr
    lines = read_metrics(run / "metrics.jsonl")
    # Four fixations, each of which takes less than a tenth of the error: a sum of relative gains.
    assert abs(lines[-1]["return"]) < 0.4
    own = ["--orders", "my_parts:reverse", "--agents", "my_parts:LeftmostAgent"]
    done = call("compare", "--run", run, *own, "--limit", "10", "--oracle-limit", "4")
    assert done.returncode == 0, done.stderr
    rows = json.loads((run / "compare.json").read_text())["orders"]
    assert rows["my_parts:LeftmostAgent"]["auc"] == pytest.approx(rows["raster"]["auc"])
    assert rows["my_parts:reverse"]["auc"] != rows["raster"]["auc"]
    for options, complaint in (
        (["--reward", "my_parts:none"], "module my_parts has no 'none'"),
        (["--reward", "builtins:id"], "must return a real number per row"),
        (
            ["--order", "my_parts:short"],
            r"my_parts:short.* must return ranks of shape \(2, 64\).* shape \(2, 3\)",
        ),
    ):
        done = call("train", "smoke", *options, "--out", tmp_path / "none")
        assert done.returncode == 2
        assert re.search(complaint, done.stderr), done.stderr
        assert not (tmp_path / "none").exists()


def test_a_judge_other_than_the_run_itself(run_folder: Path) -> None:
    done = call(
        "compare",
        "--run",
        run_folder,
        "--judge",
        run_folder,
        "--limit",
        "10",
        "--oracle-limit",
        "4",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((run_folder / "compare_judged_by_smoke.json").read_text())["judge"] == "smoke"


def test_probe_writes_the_promised_keys(run_folder: Path) -> None:
    done = call("probe", "--run", run_folder, "--train-limit", "200", "--test-limit", "100")
    assert done.returncode == 0, done.stderr
    result = json.loads((run_folder / "probe.json").read_text())
    layers = {
        "layer_1",
        "layer_2",
        "causal_layer_1",
        "causal_layer_2",
        "random_weights_layer_1",
        "random_weights_layer_2",
        "pixels",
    }
    assert set(result["linear"]) == layers
    assert set(result["knn"]) == layers
    assert (result["train_images"], result["test_images"]) == (200, 100)
    for probe in ("linear", "knn"):
        for row in result[probe].values():
            low, high = row["ci95"]
            assert 0 <= low <= row["accuracy"] <= high <= 1
            num_right = 100 * row["accuracy"]
            assert round(num_right) == pytest.approx(num_right), "of 100 images"
    chosen, linear = result["best"], result["linear"]
    assert chosen["layer"] == max(
        ("layer_1", "layer_2"), key=lambda layer: linear[layer]["validation_accuracy"]
    )
    assert chosen["linear"] == linear[chosen["layer"]]["accuracy"]


def test_scanpaths_are_drawn(run_folder: Path) -> None:
    done = call("scanpaths", "--run", run_folder, "--index", "0", "3", "--heatmap-limit", "20")
    assert done.returncode == 0, done.stderr
    picture(run_folder / "scanpaths.png", 868, 600)
    picture(run_folder / "fixations.png", 742, 176)
    frame = picture(run_folder / "scanpaths.gif", 404, 616)
    with Image.open(run_folder / "scanpaths.gif") as animation:
        assert animation.n_frames == 5  # type: ignore[attr-defined]
        animation.seek(4)
        last = np.asarray(animation.convert("RGB"))
    assert np.abs(frame.astype(int) - last).max() > 50, "the last frame shows what was seen"


def test_an_export_is_loaded_by_others_alone(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "encoder"
    done = call("export", "--run", run_folder, "--out", out, "--image-size", "16x32")
    assert done.returncode == 0, done.stderr
    assert f"timm.create_model('local-dir:{out}', pretrained=True)" in done.stdout
    assert timm.create_model(f"local-dir:{out}", pretrained=True)(torch.rand(1, 1, 16, 32)).any()
    again = call("export", "--run", run_folder, "--to", "safetensors")
    assert again.returncode == 0, again.stderr
    assert load_model(run_folder / "smoke_safetensors").config.periphery
    # What the stand-in for the periphery changes is measured, and said to whoever loads the model.
    (said,) = re.findall(r"patch features are [\d.]+% of their .*", done.stdout)
    assert said in (out / "README.md").read_text()


@pytest.mark.parametrize("periphery", [0, 2])
def test_an_export_probes_as_its_run_where_both_see_the_same(
    periphery: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported, "PROBED", {"train": 400, "test": 300})
    config = run.config.replace(periphery=periphery)
    torch.manual_seed(0)
    model, policy = build(config, (1, 8, 8))
    run = replace(run, config=config, model=model.eval(), policy=policy.eval())
    folder = run.directory.parent / "encoder"
    said = exported.export_run(run, folder, probe=True)
    line = next(each for each in said if "linear probe" in each)
    (shares,) = re.findall(r"right on ([\d.]+)% of 300 test images.* on ([\d.]+)%", line)
    assert float(shares[0]) > 0
    assert abs(float(shares[0]) - float(shares[1])) <= 0.5
    assert ("With each image's own periphery that is" in said[-1]) == bool(periphery)
    assert all(each in (folder / "README.md").read_text() for each in said)


def train_recipe(name: str, out: Path, **changes: Any) -> TrainConfig:
    sizes = {"limit": 64, "embed_dim": 16, "depth": 4, "num_heads": 2, "log_every": 1}
    sizes |= {"warmup_iterations": 2, "warmup_batch_size": 4, **changes}
    config = PRESETS[name][1].replace(out=out, report=False, threads=1, **sizes)
    before = torch.get_num_threads()
    train(config)
    torch.set_num_threads(before)
    return config


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "foveate"])
def test_every_recipe_trains_from_its_one_command(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    if RECIPES[name].captions:
        pytest.importorskip("tokenizers")
    writes = RECIPES[name].tracks or RECIPES[name].captions
    scans = {"iterations": 1, "batch_size": 2, "budget": 3} if writes else {}
    config = train_recipe(name, out, **scans)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == config.total_iterations
    assert load_run(out).model.config.target == RECIPES[name].target


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows",
    [("--orders", "raster", "policy", "untrained"), ("--recipes", "foveate", "igpt_patch")],
    ids=["orders", "recipes"],
)
def test_orders_and_recipes_are_compared_at_equal_compute(
    rows: tuple[str, ...], tmp_path: Path
) -> None:
    options = ["--limit", "300", "--teraflops", "0.001", "--embed-dim", "16", "--depth", "2"]
    options += ["--probe-train", "200", "--probe-test", "100", "--batch-size", "16"]
    options += ["--budget", "4", *(["--memory", "last"] if rows[0] == "--orders" else []), *rows]
    done = call("orders", "--out", tmp_path, "--seeds", "0", "1", *options)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / f"{rows[0][2:]}.json").read_text())
    assert tuple(result["orders"]) == rows[1:]
    answered = tmp_path / f"{rows[-1]}_0" / "probe_orders.json"
    stale = {**json.loads(answered.read_text()), "linear": 0.123, "asked_model": "others"}
    answered.write_text(json.dumps(stale))  # As of a run that was trained anew since.
    one_row = [*options[: -len(rows) + 1], rows[-1]]
    again = call("orders", "--out", tmp_path, "--seeds", "0", "1", *one_row)
    assert again.returncode == 0, again.stderr
    kept = json.loads((tmp_path / f"{rows[0][2:]}.json").read_text())
    assert kept["orders"] == result["orders"], "a row that is not asked for again stays"
    other = call("orders", "--out", tmp_path, "--seeds", "0", *one_row)
    assert other.returncode == 0, other.stderr
    assert json.loads((tmp_path / f"{rows[0][2:]}_1.json").read_text()) == kept
    for name, row in result["orders"].items():
        assert len(row["linear_ci95"]) == 2
        for run in row["runs"]:
            spent = 0 if name == "untrained" else 0.001
            assert run["teraflops"] == pytest.approx(spent, rel=0.25), name
        if rows[0] == "--orders":
            parts = [load_run(tmp_path / f"{name}_{seed}").model.config for seed in (0, 1)]
            assert {each.memory for each in parts} == {"last"}
    runs = [run for row in result["orders"].values() for run in row["runs"]]
    assert any(run["linear_per_layer"] != run["linear_per_layer_causal"] for run in runs)
    # All that a finished run computed, counted anew.
    config = load_run(tmp_path / f"{rows[2]}_0").config.replace(out=tmp_path / "again")
    trainer = Trainer(config, Processes.started("cpu"))
    counted = count_flops(lambda: [trainer.step() for _ in range(config.total_iterations)])
    assert counted == pytest.approx(1e12 * result["orders"][rows[2]]["runs"][0]["teraflops"], 0.25)


def test_decodings_are_compared_with_an_autoregressive_model(tmp_path: Path) -> None:
    for name in ("autonat", "igpt"):
        train_recipe(name, tmp_path / name, image_size=8)
    run = tmp_path / "autonat"
    options = ["--passes", "2", "--num-images", "8", "--repeats", "2", "--no-one-by-one"]
    options += ["--search", "1", "--search-passes", "2", "--threads", "1"]
    done = call("decode", "--run", run, "--against", tmp_path / "igpt", *options)
    assert done.returncode == 0, done.stderr
    rows = json.loads((run / "decode.json").read_text())["decodings"]
    passes = {name: row["passes"] for name, row in rows.items()}
    assert passes == {
        "parallel, 2 passes": 2,
        "parallel, 2 passes, searched": 2,
        "autoregressive model, 64 passes": 64,
    }
    wrong = call("decode", "--run", run, "--against", run)
    assert wrong.returncode == 2
    assert "needs a causal model of a palette" in wrong.stderr


def test_words_are_read_at_the_first_fixations_of_a_whole_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a policy does depends on the fixations that are left."""
    sizes = {"embed_dim": 16, "depth": 1, "num_heads": 2, "decoder_depth": 1, "prefix_share": 0.0}
    config = TrainConfig().replace(
        recipe="git", limit=40, warmup_iterations=1, iterations=0, warmup_batch_size=4, **sizes
    )
    train(config.replace(out=tmp_path / "run", report=False, threads=1))
    budgets = []

    def watched(agent: object, model: object, images: Tensor, budget: int, **_: object) -> Scanned:
        budgets.append(budget)
        return Scanned(torch.arange(budget).repeat(len(images), 1), torch.ones(len(images), 1))

    monkeypatch.setattr("experiments.evaluation.read.scanned_in_chunks", watched)
    result = read(load_run(tmp_path / "run"), limit=6, tracks=3)
    assert budgets == [config.scan.budget]
    assert result.tracks == 3


def test_reading_needs_a_model_that_writes(run_folder: Path) -> None:
    done = call("read", "--run", run_folder)
    assert done.returncode == 2
    assert "writes no words" in done.stderr


@pytest.mark.parametrize(
    ("what", "ratios", "options"),
    [
        ("train", {}, ["--embed-dim", "16", "--depth", "1", "--batch-size", "8"]),
        pytest.param(
            "decode",
            {
                "one_by_one_over_8_passes": ("one by one, 256 passes", "parallel, 8 passes"),
                "re_encoded_over_cached": (
                    "scan, 12 fixations, re-encoded",
                    "scan, 12 fixations, cached",
                ),
            },
            ["--repeats", "5"],  # The median: one of them may be disturbed.
            marks=pytest.mark.slow,
        ),
        ("rollout", {}, ["--presets", "smoke"]),
    ],
)
def test_benchmarks_write_what_checks_read(
    what: str, ratios: dict[str, tuple[str, str]], options: list[str], tmp_path: Path
) -> None:
    """The numbers that checks read follow from the rows of the table."""
    out = tmp_path / "bench.json"
    done = call("bench", what, "--repeats", "1", "--out", out, *options)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    rows = {row[0]: dict(zip(result["columns"], row, strict=True)) for row in result["rows"]}
    for row in rows.values():
        assert all(isinstance(cell, str) or cell > 0 for cell in row.values())
    for name, (slow, fast) in ratios.items():
        assert result[name] == pytest.approx(rows[slow]["s"] / rows[fast]["s"])
        assert result[name] > 1, "what it is measured for"
    if what == "train":
        shares = {row["share of fp32 peak"] for row in rows.values()}
        assert 0 < result["share_of_fp32_peak"] < 1
        assert any(result["share_of_fp32_peak"] == pytest.approx(share) for share in shares)
        ratio = result["bf16_over_fp32_images_per_s"]
        assert (ratio is None) == (not any(name.startswith("bf16") for name in rows))
        assert ratio is None or ratio > 0
    if what == "rollout":
        over_random = {row["over random orders"] for row in rows.values()}
        assert result["joint_over_random_step"] in over_random - {1.0}


def test_growth_is_measured_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "two_process_difference", lambda: 0.0)
    options = ["--patches", "16", "25", "--embed-dim", "16", "--depth", "1", "--repeats", "1"]
    done = call("bench", "scale", *options, "--out", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "b.json").read_text())
    assert 0 < result["memory_growth_over_patches_growth"] < 2
    assert [row[0] for row in result["rows"]] == ["16", "25"]
    with Image.open(tmp_path / "b.png") as drawn:
        assert drawn.size == (720, 480)
        assert np.asarray(drawn.convert("L")).std() > 10


@pytest.mark.slow
def test_streaming_is_measured_beside_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [
        Image.fromarray(pixels)
        for pixels in np.random.default_rng(0).integers(0, 255, (80, 32, 32, 3), dtype=np.uint8)
    ]
    for part in range(2):
        chosen = images[40 * part : 40 * part + 40]
        write_parquet(tmp_path / f"train-{part}.parquet", chosen, label=[n % 2 for n in range(40)])
    monkeypatch.setattr(streaming, "STREAMED_BATCHES", 1)
    options = ["--data", tmp_path, "--repeats", "1", "--out", tmp_path / "b.json"]
    done = call("bench", "data", *options)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "b.json").read_text())
    assert result["streamed_images_per_s"] > 0
    assert result["streamed_over_memory_images_per_s"] > 0


def test_the_benchmark_writes_its_ratios(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    done = call("bench", "env", "--rows", "2", "--repeats", "1", "--out", out)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert set(result["steps_per_s"]["2"]) == {"vector", "sb3_adapter", "dummy_vec_env", "uncached"}
    assert result["vector_over_dummy_env_steps"]["2"] > 0


@pytest.mark.slow
def test_the_study_compares_both_agents_and_keeps_finished_runs(tmp_path: Path) -> None:
    few = ("--seeds", "0", "1", "--limit", "20", "--iterations", "2")
    command = ("study", "smoke", *few, "--out", tmp_path)
    done = call(*command)
    assert done.returncode == 0, done.stderr
    first = json.loads((tmp_path / "study_smoke.json").read_text())
    agents = {"group-relative", "maskable-ppo", "random", "center_out", "oracle"}
    assert set(first["agents"]) == agents
    for name in ("group-relative", "maskable-ppo"):
        assert len(first["agents"][name]["seconds_to_target"]) == 2
    again = call(*command)
    assert again.returncode == 0, again.stderr
    assert "it/s" not in again.stderr
    assert json.loads((tmp_path / "study_smoke.json").read_text()) == first


def test_wandb_works_offline(tmp_path: Path) -> None:
    done = call("train", "smoke", "--out", tmp_path / "run", "--no-report", "--wandb", "offline")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run").rglob("*.wandb"))


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        ("train", ["smok"], "did you mean 'smoke'"),
        ("train", ["smoke", "--budgt", "3"], "Perhaps you meant"),
        ("train", ["smoke", "--budget", "x"], "--budget: invalid literal"),
        ("train", ["smoke", "--data", "nowhere.parquet"], "nowhere.parquet"),
        ("train", ["smoke", "--patch-size", "5"], "does not divide"),
        ("train", ["smoke", "--device", "toaster"], "toaster"),
        ("compare", ["--run", "nowhere"], "no run folder at nowhere"),
        ("compare", [], "--run"),
        ("compare", ["--run", "RUN", "--threads", "0"], "threads must be at least 1"),
        ("compare", ["--run", "RUN", "--memory", "0"], "error: memory must be a number of GB"),
        ("train", ["smoke", "--group", "1"], "error: group must be at least 2"),
        ("train", ["smoke", "--reward", "caption"], "error: reward caption needs"),
        ("bench", ["what"], "invalid choice"),
        ("bench", ["device", "--device", "toaster"], "'toaster' cannot be used here"),
        ("probe", ["--run", "nowhere"], "no run folder at nowhere"),
        ("scanpaths", ["--run", "nowhere"], "no run folder at nowhere"),
        (
            "scanpaths",
            ["--run", "RUN", "--index", "999999"],
            "image 999999 of --index does not exist",
        ),
        ("scanpaths", ["--run", "RUN", "--order", "rastr"], "did you mean 'raster'"),
        ("scanpaths", ["--run", "RUN", "--image", "nowhere.jpg"], "no picture at nowhere.jpg"),
        ("study", ["cue", "--options", "data"], "--options takes names and their values in turn"),
        ("export", ["--run", "nowhere"], "no run folder at nowhere"),
        ("export", ["--run", "RUN", "--to", "keras"], "invalid choice"),
        ("export", ["--run", "RUN", "--out", "RUN"], "no export of foveate"),
        ("export", ["--run", "RUN", "--image-size", "30"], "multiples of the patch size 4"),
        ("export", ["--run", "RUN", "--to", "pt2", "--image-size", "64"], "has no effect"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(
    script: str, options: list[str], message: str, run_folder: Path, tmp_path: Path
) -> None:
    options = [str(run_folder) if option == "RUN" else option for option in options]
    if script == "train" and options[0] == "smoke":
        options += ["--out", str(tmp_path / "run")]
    done = call(script, *options)
    assert done.returncode == 2, done.stderr
    complaint = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(complaint) == 1, complaint
    assert complaint[0].startswith("error: ")
    assert message in complaint[0]

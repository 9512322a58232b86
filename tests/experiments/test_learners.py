"""The study of two learners: areas by their own definition, and intervals over seeds."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from study_facts import FACTS

from experiments.evaluation.intervals import seed_interval
from experiments.evaluation.scanpaths import scanned_in_chunks
from experiments.runs import Run
from experiments.studies.answers import Answers, keep_answers
from experiments.studies.learners import areas_on, study_of
from experiments.studies.shipped import learners
from experiments.tables import write_json
from experiments.training.config import TrainConfig
from experiments.training.who_learns import images_learned


def test_areas_are_of_the_fixations_that_the_run_learned(run: Run) -> None:
    areas = areas_on(run, "test", 12)
    assert list(areas) == ["area, random", "area, center_out", "area, policy", "area, oracle"]
    images = run.split("test", 12).images
    order = scanned_in_chunks(
        run.agent, run.model, images, run.budget, fixations=run.fixations
    ).order
    curve = run.model.error_curve(run.split("test", 12).batch(torch.arange(12)), order)
    np.testing.assert_allclose(areas["area, policy"], curve[:, 1:].mean(1), atol=1e-5)
    assert areas["area, oracle"].mean() < areas["area, random"].mean()


def test_a_control_counts_once_a_seed_though_it_scans_the_models_of_both(tmp_path: Path) -> None:
    grid = replace(learners("smoke"), seeds=(0, 1, 2))
    found = {0: (0.9, 0.91), 1: (0.8, 0.82), 2: (0.7, 0.71)}
    for seed, areas in found.items():
        for cell, area in zip(grid.cells, areas, strict=True):
            folder = tmp_path / f"{cell.name}_{seed}"
            folder.mkdir()
            values = {"area, random": np.full(4, area), "area, policy": np.full(4, area / 2)}
            keep_answers(folder, "", Answers(values, FACTS))
            write_json(folder / "manifest.json", {"threads": 1})
            line = f'{{"iteration": {seed}, "seconds": 1.0, "auc": {area}}}\n'
            (folder / "metrics.jsonl").write_text(line)
    agents = study_of(grid, tmp_path).agents
    means = [statistics.fmean(each) for each in found.values()]
    assert agents["random"].auc_per_run == pytest.approx(means)
    assert agents["random"].auc_ci95 == pytest.approx(seed_interval(means))
    assert len(agents["maskable-ppo"].auc_per_run) == 3


def test_images_count_that_the_model_learned_from() -> None:
    plan = TrainConfig().replace(
        warmup_iterations=3, warmup_batch_size=8, iterations=4, batch_size=2, group=2
    )
    whole = 3 * 8 + 4 * plan.num_learned
    assert images_learned(plan) == whole
    micro = plan.replace(micro_batches=2)
    assert images_learned(micro) == whole
    assert images_learned(plan.replace(schedule="policy_only")) == 3 * 8
    turns = plan.replace(schedule="alternating", alternate_every=1)
    assert images_learned(turns) == 3 * 8 + 2 * plan.num_learned
    assert images_learned(plan.replace(iterations=0)) == 3 * 8

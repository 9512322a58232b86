"""Scores of the environments: who scans them, what an episode is worth, and the picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from agents.baselines import OrderAgent
from envs.recognition import RecognitionProbe
from experiments.evaluation.ids.evaluate import Played, make, play, score, score_ids
from experiments.evaluation.ids.result import IdsResult
from experiments.ids import IdsConfig, main


def test_every_agent_is_scored_drawn_and_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ids.json"
    main(IdsConfig(ids=("CueScan", "CueGuess"), limit=20, steps=256, out=path))
    result = IdsResult.read(path)
    assert result.to_text() in capsys.readouterr().out
    scan, guess = (result.ids[name].agents for name in ("CueScan", "CueGuess"))
    for found in scan.values():
        # The reward is minus the error after each of four fixations.
        assert found.episode_return.mean == pytest.approx(-4 * found.auc.mean, abs=1e-6)
        assert found.right is None
    assert scan["uncertainty"].auc.mean < 0.45 < 0.65 < scan["random"].auc.mean
    assert scan["native"].auc.mean < 0.45 > scan["maskable_ppo"].auc.mean
    assert guess["native"].right == 1.0
    assert guess["random"].episode_return.mean < guess["native"].episode_return.mean < math.log(4)
    with Image.open(path.with_suffix(".png")) as picture:
        rows = np.asarray(picture.convert("L")).reshape(2, -1)
    assert all(np.ptp(row) > 0 for row in rows)


def test_a_guess_is_paid_for_what_the_probe_says_before_the_last_fixation() -> None:
    """A probe that says the odds of class 0, whatever it sees, is paid once and never again."""
    env = make("CueGuessTest", 8, limit=8, autoreset="disabled")
    probe = RecognitionProbe(env.model.config.embed_dim, 4).requires_grad_(False)
    probe.linear.bias[0] = math.log(5.0)
    agent = OrderAgent(torch.arange(4).expand(8, -1))
    played = play(env, agent, probe, seed=0)
    is_zero = env.images.labels.numpy() == 0
    expected = np.where(is_zero, math.log(4 * 5 / 8), math.log(4 / 8))
    np.testing.assert_allclose(played.returns, expected, atol=1e-5)
    assert played.is_right is not None
    assert played.is_right.tolist() == is_zero.tolist()


def test_intervals_are_over_seeds_and_images_where_there_are_several() -> None:
    """Of seeds that are far apart two say little, however many images there are."""

    def played(shift: float) -> Played:
        values = np.linspace(0.0, 1.0, 50) + shift
        return Played(values, -values, np.arange(50) < 10 + 20 * shift)

    one, two = score([played(0.0)]), score([played(0.0), played(1.0)])
    assert one.episode_return.mean == pytest.approx(0.5)
    assert (two.episode_return.mean, two.auc.mean) == pytest.approx((1.0, -1.0))
    assert (one.right, two.right) == (0.2, 0.4)
    assert one.auc.ci95 is not None
    assert two.auc.ci95 is not None
    assert np.ptp(one.auc.ci95) < 0.2 < 4 < np.ptp(two.auc.ci95)


def test_the_caption_names_all_seeds_and_a_result_of_one_still_reads() -> None:
    rest: dict[str, Any] = {"ids": {}, "steps": 1, "test_images": 2, "seconds": 60.0}
    rest |= {"threads": 1, "commit": "abc"}
    old, new = IdsResult(seed=3, **rest), IdsResult(seeds=(0, 1), **rest)
    assert "seed 3, 95% intervals over images;" in old.to_markdown()
    assert "seeds 0, 1, 95% intervals over seeds and images;" in new.to_markdown()


def test_an_unknown_id_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'ScenesScan'"):
        score_ids(("SceneScan",))
    with pytest.raises(ValueError, match=r"ends in \.json"):
        IdsConfig(out=Path("runs/ids"))
    with pytest.raises(ValueError, match="seeds takes one or more different numbers"):
        IdsConfig(seeds=(1, 1))

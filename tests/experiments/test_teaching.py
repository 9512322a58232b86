"""Ways to choose what is asked: their schedules, their cost, and every line of docs/teaching.md."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.policies import PointerPolicy, PolicyConfig
from agents.preference import PolicyPreference
from experiments.evaluation.equal_compute import flops_per_step
from experiments.training import policy_learner
from experiments.training.command_line import read_command_line
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.emphasis import EmphasisSchedule
from experiments.training.loop import train
from experiments.training.presets import PRESETS
from experiments.training.reference import RewardReference
from experiments.training.trainer import Trainer
from foveate.finite import NotFinite
from foveate.model.asking import harder

PAGE = Path(__file__).parents[2] / "docs" / "teaching.md"
LINES = re.findall(r"^\| (\d [^|]*) \| `([^`]*)` \|", PAGE.read_text(), re.MULTILINE)
SIZES: dict[str, Any] = {
    "patch_size": 8,
    "embed_dim": 16,
    "num_heads": 2,
    "depth": 2,
    "limit": 32,
    "warmup_batch_size": 4,
    "batch_size": 2,
    "group": 2,
    "report": False,
    "evaluate_every": None,
}
SMALL = PRESETS["foveate"][1].replace(
    **SIZES, budget=3, policy_every=1, random_share=0.5, warmup_iterations=2, iterations=5
)
"""16 patches of 8 px."""
IN_TURN: dict[str, Any] = {"recipe": "saim", "target": "pixels", "prefix_share": 0.0}


def trainer_of(config: TrainConfig) -> Trainer:
    return Trainer(config, Processes.started("cpu"))


# --- the page


def test_the_page_has_all_eight() -> None:
    assert {name[0] for name, _ in LINES} == set("12345678")


@pytest.mark.parametrize(("name", "options"), LINES, ids=[name for name, _ in LINES])
def test_each_line_of_the_page_trains(name: str, options: str, tmp_path: Path) -> None:
    held_out = tmp_path / "held_out"
    if "runs/held_out" in options:
        reference = SMALL.replace(out=held_out, iterations=0, learn_split="val")
        train(reference.replace(warmup_iterations=1))
        options = options.replace("runs/held_out", str(held_out))
    sizes = {**SIZES, "warmup_iterations": 0, "iterations": 2}
    if "--iterations 0" in options:
        of_policy = ("iterations", "batch_size", "group")
        sizes = {name: size for name, size in sizes.items() if name not in of_policy}
        sizes["warmup_iterations"] = 2
    common = ["--periphery", "0", "--budget", "8", "--out", str(tmp_path / "run")]
    config = read_command_line(["foveate", *common, *shlex.split(options)])
    trainer = trainer_of(config.replace(**sizes))
    before = [p.detach().clone() for p in trainer.model.parameters()]
    for _ in range(2):
        measured = trainer.step()
    assert "skipped_steps" not in measured
    moved = zip(before, trainer.model.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in moved), name


# --- schedules


@pytest.mark.parametrize(
    ("prefer", "shares"),
    [
        ("policy", [None, None, 0.0, 0.4, 0.8]),
        ("harder", [0.0, 0.2 * 2 / 3, 0.8 / 3, 0.8 * 4 / 6, 0.8]),
    ],
)
def test_the_share_of_a_preference_is_ramped_in(prefer: str, shares: list[float | None]) -> None:
    """Of 7 iterations 2 are warm-up, in which there is no policy to prefer anything."""
    config = SMALL.replace(prefer=prefer, prefer_share=0.8, prefer_share_start=0.0)
    policy = PointerPolicy(16, PolicyConfig())
    schedule = EmphasisSchedule(config, policy)
    for at, share in zip((0, 1, 2, 4, 6), shares, strict=True):
        emphasis = schedule(at)
        if share is None:
            assert emphasis is None
        else:
            assert emphasis is not None
            assert emphasis.share == pytest.approx(share)
            wanted = PolicyPreference(policy, 3) if prefer == "policy" else harder
            assert emphasis.preference == wanted
    constant = EmphasisSchedule(SMALL.replace(prefer=prefer, prefer_share=0.8), policy)
    assert {each.share for at in range(7) if (each := constant(at)) is not None} == {0.8}
    assert EmphasisSchedule(SMALL, policy)(3) is None


def test_a_run_with_schedules_and_a_reference_is_resumed_to_the_bit() -> None:
    config = SMALL.replace(
        prefer="policy",
        prefer_by="ask",
        prefer_share_start=0.0,
        reward="progress",
        random_share_end=1.0,
    )
    whole, first, again = (trainer_of(config) for _ in range(3))
    for _ in range(6):
        whole.step()
    for _ in range(4):
        first.step()
    again.load(first.state())
    for _ in range(2):
        again.step()
    assert again.measured == whole.measured
    for one, other in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


# --- the reference of rewards


def test_the_reference_follows_as_the_average_of_the_weights_over_time() -> None:
    """The first update copies; then 0.004 of each new weight is taken in."""
    trainer = trainer_of(SMALL)
    reference = RewardReference("average", trainer.model, "cpu")

    def set_to(value: float) -> Tensor:
        with torch.no_grad():
            trainer.model.decoder.head.bias.fill_(value)
        reference.update(trainer.model)
        return reference.model.decoder.head.bias

    torch.testing.assert_close(set_to(1.0)[0].item(), 1.0)
    torch.testing.assert_close(set_to(3.0)[0].item(), 1.008)
    assert not any(p.requires_grad for p in reference.model.parameters())


def test_the_reference_follows_a_step_of_the_model_though_the_policys_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first update copies the weights, which have moved."""
    trainer = trainer_of(SMALL.replace(warmup_iterations=0, reward="progress"))
    assert trainer.reference is not None
    before = [p.clone() for p in trainer.model.parameters()]

    def fail(*_: object) -> None:
        raise NotFinite("the gradient is nan", [], cause="policy")

    monkeypatch.setattr(policy_learner, "take_step", fail)
    assert trainer.step()["skipped_steps"] == 1
    ours, theirs = list(trainer.model.parameters()), list(trainer.reference.model.parameters())
    assert not all(map(torch.equal, before, ours))
    assert all(map(torch.equal, ours, theirs))


@pytest.mark.slow
def test_a_policy_that_is_paid_for_learning_needs_a_model_that_learns(tmp_path: Path) -> None:
    config = SMALL.replace(reward="progress", schedule="policy_only", warmup_iterations=0)
    with pytest.raises(ValueError, match="pays nothing where the model never learns"):
        train(config.replace(out=tmp_path / "run"))
    assert flops_per_step(config.replace(warmup_iterations=1), joint=True) > 0


def test_the_run_that_rewards_are_compared_with_stays_as_it_is(tmp_path: Path) -> None:
    other = tmp_path / "other"
    train(SMALL.replace(out=other, iterations=0, warmup_iterations=1))
    config = SMALL.replace(reward="reducible", reward_reference=str(other))
    first, again = trainer_of(config), trainer_of(config)
    again.load(first.state())
    shutil.rmtree(other)
    train(SMALL.replace(out=other, iterations=0, warmup_iterations=1, seed=1))
    with pytest.raises(ValueError, match=r"reward-reference\) has other weights"):
        trainer_of(config).load(first.state())


def test_a_policy_is_paid_against_the_reference_of_its_run() -> None:
    """Before the model moves both are equal, and nothing is paid; after it something is."""
    trainer = trainer_of(SMALL.replace(warmup_iterations=0, reward="reducible"))
    assert trainer.step()["return"] == pytest.approx(0, abs=1e-5)
    trainer.step()
    assert abs(trainer.step()["return"]) > 1e-4


# --- what is encoded, and what it costs


@pytest.mark.parametrize(
    ("change", "num_encoded"),
    [
        ({"budget": 4, "prefix_share": 0.0}, 4),
        (IN_TURN, 15),
        ({**IN_TURN, "encode_first": 5}, 5),
        ({**IN_TURN, "encode_first": 5, "scan_direction": "reversed"}, 5),
        ({**IN_TURN, "encode_first": 2, "budget": 4}, 2),
    ],
)
def test_so_many_patches_are_encoded(
    change: dict[str, Any], num_encoded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In random orders and in the policy's scans; the model always sees its start token."""
    trainer = trainer_of(SMALL.replace(warmup_iterations=0, periphery=0, **change))
    lengths: list[int] = []
    encode = trainer.model.encode_tokens

    def record(always: Tensor, patches: Tensor, order: Tensor, counts: Tensor, *ties: Any) -> Any:
        lengths.append(counts.shape[1])
        return encode(always, patches, order, counts, *ties)

    monkeypatch.setattr(trainer.model, "encode_tokens", record)
    trainer.step()
    scanned = min(3 if "budget" not in change else 4, num_encoded)
    if "scan_direction" in change:
        scanned = num_encoded
    assert lengths == [scanned, num_encoded]


def test_operations_are_counted_as_they_are_made() -> None:
    alone = SMALL.replace(prefix_share=0.0, iterations=0)

    def cost(**change: Any) -> float:
        return flops_per_step(alone.replace(**change), joint=False)

    plain = cost()
    assert cost(prefer="harder") == plain
    assert cost(prefer="harder", prefer_by="ask") > plain
    assert cost(**IN_TURN, encode_first=5) < cost(**IN_TURN)


# --- what has no meaning


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prefer_share": 0.2}, "prefer_share needs --prefer"),
        ({"prefer_share_start": 0.0}, "prefer_share_start needs --prefer"),
        ({"prefer_by": "ask"}, "prefer_by needs --prefer"),
        ({"prefer": "harder", "ask_among": 5}, "ask_among needs --prefer-by ask"),
        ({"prefer": "harder", "prefer_share": 1.5}, r"prefer_share must lie in 0..1"),
        (
            {"prefer": "harder", "prefer_by": "ask", "ask_among": 3},
            "ask_among must be at least num_targets 4, got 3",
        ),
        ({"prefer": "policy", "iterations": 0}, "prefer policy needs a policy"),
        ({"prefer": "policy", "fixation_size": 2}, "prefer policy needs recipe foveate"),
        ({"prefer": "policy", "saccade_cost": 0.1}, "prefer policy needs recipe foveate"),
        ({"prefer": "policy", **IN_TURN}, "prefer policy needs recipe foveate"),
        (
            {"prefer": "harder", "prefer_by": "ask", **IN_TURN},
            "prefer_by ask has no effect on recipe saim",
        ),
        ({"prefer": "policy", "schedule": "frozen"}, "no effect with --schedule frozen"),
        ({"prefer": "policy", "schedule": "policy_only"}, "no effect with --schedule policy_only"),
        ({"scan_direction": "reversed", "schedule": "policy_only"}, "scan_direction has no effect"),
        ({"random_share_end": 1.0, "schedule": "policy_only"}, "random_share_end has no effect"),
        (
            {"prefer": "harder", "recipe": "caption", "image_weight": 0.0},
            "prefer has no effect with --image-weight 0",
        ),
        ({"encode_first": 3}, "encode_first has no effect on recipe foveate"),
        ({"reward_reference": "runs/demo"}, "reward_reference needs --reward reducible"),
    ],
)
def test_options_without_effect_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMALL.replace(**change)

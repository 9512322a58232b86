"""A number that is not finite changes no weight, is counted, and reaches no checkpoint."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.rewards import REWARDS
from experiments.cli import Stopped
from experiments.metrics_file import read_metrics
from experiments.run_folder import read_config, read_manifest
from experiments.training.distributed import Processes
from experiments.training.loop import train
from experiments.training.presets import PRESETS
from experiments.training.skips import MOST_IN_A_ROW, Skips
from experiments.training.trainer import Trainer
from foveate.checkpoint import CHECKPOINT, read_checkpoint
from foveate.finite import not_finite
from foveate.model import AnyOrderTransformer

TINY = PRESETS["smoke"][1].replace(
    embed_dim=16,
    num_heads=2,
    depth=1,
    limit=32,
    warmup_batch_size=2,
    warmup_iterations=1,
    iterations=30,
    batch_size=2,
    group=2,
    budget=3,
    threads=1,
    evaluate_every=None,
    report=False,
    log_every=1,
)
AGENTS = ["group-relative", "maskable-ppo"]


def trainer_of(**options: Any) -> Trainer:
    return Trainer(TINY.replace(**options), Processes.started("cpu"))


def snapshot(trainer: Trainer) -> dict[str, Any]:
    """Copy the weights and what the optimizers keep."""
    learner = trainer.policy_learner
    assert learner is not None
    moving = [trainer.model.state_dict(), learner.optimizer.state_dict()["state"]]
    moving += [each.state_dict()["state"] for each in trainer.model_learner.optimizers]
    moving.append({name: p for name, p in trainer.policy.named_parameters()})
    return dict(enumerate(torch.utils._pytree.tree_map(lambda t: t.detach().clone(), moving)))


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    torch.testing.assert_close(after, before, rtol=0, atol=0)


class NanGradient(torch.autograd.Function):
    """Hand a value on; its gradient is not a number."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * math.nan


def nan_loss(trainer: Trainer) -> Any:
    return trainer.model.register_forward_hook(lambda _, __, loss: loss * math.nan)


def nan_loss_gradient(trainer: Trainer) -> Any:
    return trainer.model.register_forward_hook(lambda _, __, loss: NanGradient.apply(loss))


def nan_policy_gradient(trainer: Trainer) -> Any:
    return trainer.policy.register_forward_hook(lambda _, __, logits: NanGradient.apply(logits))


def nan_reward(trainer: Trainer) -> Any:
    class Hook:
        def __init__(self) -> None:
            REWARDS["auc"], self.kept = lambda f: -f.after * math.nan, REWARDS["auc"]

        def remove(self) -> None:
            REWARDS["auc"] = self.kept

    return Hook()


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize(
    ("inject", "cause"),
    [
        (nan_loss, "the loss is nan"),
        (nan_loss_gradient, "the model's gradient is nan"),
        (nan_policy_gradient, "the policy's gradient is nan"),
        (nan_reward, "the reward 'auc' is nan"),
    ],
)
def test_a_step_that_is_not_finite_is_skipped_and_the_next_one_is_taken(
    inject: Callable[[Trainer], Any], cause: str, agent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trainer_of(agent=agent)
    for _ in range(2):
        trainer.step()
    before = snapshot(trainer)
    hook = inject(trainer)
    trainer.step()
    hook.remove()
    after = snapshot(trainer)
    if "policy" in cause and agent == "maskable-ppo":
        # MaskablePPO learns after the model.
        before, after = ({k: s[k] for k in (1, 4)} for s in (before, after))
    assert_same(before, after)
    assert trainer.measured["skipped_steps"] == 1
    said = capsys.readouterr().err
    assert f"iteration 3 is skipped: {cause} on image " in said
    assert all(p.grad is None or p.grad.isfinite().all() for p in trainer.model.parameters())
    if agent == "group-relative":
        left = [p.grad for p in trainer.policy.parameters() if p.grad is not None]
        assert not any(each.any() for each in left), "the next step takes none of it over"
    trainer.step()
    assert trainer.measured["skipped_steps"] == 1
    assert all(map(math.isfinite, trainer.measured.values()))
    with pytest.raises(AssertionError):
        assert_same(before, {key: snapshot(trainer)[key] for key in before})


@pytest.mark.parametrize("agent", AGENTS)
def test_a_run_without_an_end_of_skips_stops_and_its_advice_can_be_followed(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TINY.replace(out=tmp_path / "run", save_every=2, agent=agent, iterations=13)
    steps, forward = [0], AnyOrderTransformer.forward

    def worse(model: AnyOrderTransformer, *parts: Any, **options: Any) -> Tensor:
        loss: Tensor = forward(model, *parts, **options)
        steps[0] += 1
        return loss * math.nan if steps[0] > 8 else loss

    with monkeypatch.context() as patch:
        patch.setattr(AnyOrderTransformer, "forward", worse)
        with pytest.raises(ValueError, match=rf"last of {MOST_IN_A_ROW} skipped in a row") as stop:
            train(config)
    line = str(stop.value)
    assert "the loss is nan on image " in line
    saved = read_checkpoint(config.run.out / CHECKPOINT)
    assert saved["iteration"] == 4, "none is written while steps are skipped"
    assert f"{config.run.out / CHECKPOINT} of iteration 4" in line
    assert not_finite(saved) is None
    lines = read_metrics(config.run.out / "metrics.jsonl")
    assert lines[-1]["skipped_steps"] == MOST_IN_A_ROW - 1
    assert "--resume --model-lr 0.0015 --change-on-resume model_lr" in line

    with pytest.raises(ValueError, match="--change-on-resume model_lr allows it"):
        train(config.replace(resume=True, model_lr=0.0015))
    done = train(config.replace(resume=True, model_lr=0.0015, change_on_resume=("model_lr",)))
    assert done.iteration == config.total_iterations
    manifest = read_manifest(config.run.out)
    (change,) = manifest["changes"]
    assert change["option"] == "model_lr"
    assert (change["before"], change["after"]) == (0.003, 0.0015)
    assert read_config(config.run.out).optimization.model_lr == 0.0015
    train(config.replace(resume=True, model_lr=0.0015))


@pytest.mark.parametrize("part", ["model", "policy"])
def test_a_weight_that_is_not_finite_is_never_saved(part: str, tmp_path: Path) -> None:
    """Neither where it is noticed by what it computes, nor right after the last step."""
    trainer = trainer_of(out=tmp_path)
    for _ in range(2):
        trainer.step()
    trainer.state()
    weight = next(getattr(trainer, part).parameters())
    with torch.no_grad():
        weight.view(-1)[0] = math.inf
    named = rf"{part}\.\S+ is not finite"
    with pytest.raises(ValueError, match=rf"{named} .* of iteration 2: .*--{part}-lr"):
        trainer.state()
    with pytest.raises(ValueError, match=named):
        trainer.step()


def test_a_checkpoint_with_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    trainer = trainer_of(out=tmp_path / "run")
    state = trainer.state()
    state["policy"]["score.weight"][0, 0] = math.nan
    with pytest.raises(ValueError, match=r"a weight that is not finite, policy\.score\.weight"):
        trainer.load(state)


def test_weight_decay_changes_with_the_continuation() -> None:
    state = trainer_of(iterations=0).state()
    trainer = trainer_of(iterations=0, weight_decay=0.5)
    trainer.load(state)
    assert trainer.model_learner.optimizers[0].param_groups[0]["weight_decay"] == 0.5


def test_changes_are_for_rates_and_for_a_continuation() -> None:
    with pytest.raises(ValueError, match="unknown option to change 'budget'"):
        TINY.replace(resume=True, change_on_resume=("budget",))
    with pytest.raises(ValueError, match="goes with --resume"):
        TINY.replace(change_on_resume=("model_lr",))


@pytest.mark.parametrize("inject", [nan_loss, nan_reward])
def test_a_model_whose_last_steps_were_skipped_is_not_saved(
    inject: Callable[[Trainer], Any], tmp_path: Path
) -> None:
    """Weights that twice give no finite loss are of no use; a reward says nothing of them."""
    trainer = trainer_of(out=tmp_path)
    for _ in range(2):
        trainer.step()
    hook = inject(trainer)
    trainer.step()
    assert trainer.state()["measured"]["skipped_steps"] == 1, "once says little"
    trainer.step()
    hook.remove()
    if inject is nan_reward:
        assert trainer.state()["measured"]["skipped_steps"] == 2
        return
    with pytest.raises(ValueError, match=r"iteration 4 and .* skipped: the loss is nan on image"):
        trainer.state()
    trainer.step()
    trainer.state()


@pytest.mark.parametrize("agent", AGENTS)
def test_scans_that_fail_are_not_hidden_by_steps_from_those_before(agent: str) -> None:
    """Between scans the model learns from the last ones, which goes well."""
    trainer = trainer_of(agent=agent, policy_every=4)
    for _ in range(3):
        trainer.step()
    hook = nan_reward(trainer)
    try:
        with pytest.raises(ValueError, match=rf"last of {MOST_IN_A_ROW} skipped in a row"):
            [trainer.step() for _ in range(20)]
    finally:
        hook.remove()


def test_a_signal_in_doubt_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TINY.replace(out=tmp_path / "run", save_every=2, iterations=9)
    take_step = Trainer.step

    def step(self: Trainer) -> dict[str, float]:
        hook = nan_loss(self) if self.iteration >= 4 else None
        try:
            return take_step(self)
        finally:
            if hook is not None:
                hook.remove()
            if self.iteration == 7:
                signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        with pytest.raises(Stopped, match=r"after iteration 7 of 10, the last good .* iteration 4"):
            train(config)
    assert read_checkpoint(config.run.out / CHECKPOINT)["iteration"] == 4
    assert train(config.replace(resume=True)).iteration == 10


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "option",
    ["model_lr", "policy_lr", "weight_decay", "entropy_weight", "discount", "random_share"],
)
def test_options_are_finite(option: str, number: float) -> None:
    with pytest.raises(ValueError, match=option):
        TINY.replace(**{option: number})


def test_what_is_ones_own_is_named_where_it_may_be_to_blame() -> None:
    plain, own = (
        Skips(TINY.replace(target=target), Processes.started("cpu")).way_back("model")
        for target in (None, "own_targets:Nan")
    )
    assert "mend" not in plain
    assert "mend own_targets:Nan if it is to blame, or repeat the command with --resume" in own

"""A number that is not finite changes no weight, is counted, and reaches no checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from envs.rewards import REWARDS, Fixation
from experiments.training.distributed import Processes
from experiments.training.loop import train
from experiments.training.presets import PRESETS
from experiments.training.skips import MOST_IN_A_ROW
from experiments.training.trainer import Trainer
from foveate.checkpoint import CHECKPOINT

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
            learner = trainer.policy_learner
            self.env = getattr(learner, "ppo", None) and learner.ppo.ppo.get_env()

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
    if "loss" in cause or "model" in cause:
        # The native policy learns before the model does.
        before, after = ({k: s[k] for k in (0, 2, 3)} for s in (before, after))
    elif "policy" in cause and agent == "maskable-ppo":
        # MaskablePPO learns after the model.
        before, after = ({k: s[k] for k in (1, 4)} for s in (before, after))
    assert_same(before, after)
    assert trainer.measured["skipped_steps"] == 1
    said = capsys.readouterr().err
    assert f"iteration 3 is skipped, nothing learns from it: {cause} on image " in said
    assert all(p.grad is None or p.grad.isfinite().all() for p in trainer.model.parameters())
    trainer.step()
    assert trainer.measured["skipped_steps"] == 1
    assert all(map(math.isfinite, trainer.measured.values()))
    with pytest.raises(AssertionError):
        assert_same(before, {key: snapshot(trainer)[key] for key in before})

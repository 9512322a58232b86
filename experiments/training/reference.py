"""What rewards of a training compare with: another model, or the other scans of its batch."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from envs.reference import check_reference
from envs.rewards import REWARDS_OF_BATCHES, REWARDS_OF_REFERENCE, Reward
from experiments.training.config import TrainConfig
from experiments.training.groups import PolicyTraining
from foveate.checkpoint import load_model
from foveate.model import AnyOrderTransformer
from foveate.model.teachers import AverageTeacher
from foveate.tensors import digest


class RewardReference:
    """The running average of a model's own weights, or a model that stays as it is.

    A run that goes on has the same one as before, by a digest of its weights.

    Raises:
        ValueError: there is no such model, or it predicts something else.
    """

    def __init__(self, source: str, model: AnyOrderTransformer, device: str) -> None:
        self.average: AverageTeacher | None = None
        if source == "average":
            self.average = AverageTeacher(model)
            self.model = cast(AnyOrderTransformer, self.average.average.module)
        else:
            self.model = load_model(source, device)
            self.model.eval().requires_grad_(False)
        check_reference(self.model, model)

    def update(self, model: AnyOrderTransformer) -> None:
        """Follow the model, after each of its steps."""
        if self.average is not None:
            self.average.update(model)

    def state(self) -> dict[str, Any] | None:
        """Return what a checkpoint keeps of it; of a model that stays a digest."""
        if self.average is not None:
            return self.average.state_dict()
        return {"digest": digest(self.model.state_dict().values())}

    def load(self, state: dict[str, Any] | None) -> None:
        """Continue from a state; older ones hold nothing of a model that stays.

        Raises:
            ValueError: the model that stays is another one.
        """
        if self.average is not None:
            assert state is not None, "an average is kept with the run"
            self.average.load_state_dict(state)
        elif state is not None and state != self.state():
            raise ValueError(
                "the run that rewards are compared with (--reward-reference) has other weights "
                "than when this run began: put them back, or start anew"
            )


def reference_of(config: TrainConfig, model: AnyOrderTransformer) -> RewardReference | None:
    """Return what the reward of a run compares with; None if it compares with nothing."""
    options = config.policy
    if options is None or options.reward not in REWARDS_OF_REFERENCE:
        return None
    return RewardReference(options.reward_reference, model, config.run.device)


def reward_of(options: PolicyTraining, reference: RewardReference | None) -> str | Reward:
    """Return the reward of a run, with its reference."""
    if reference is None:
        return REWARDS_OF_BATCHES.get(options.reward, options.reward)
    return partial(REWARDS_OF_REFERENCE[options.reward], reference=reference.model)


def check_paid(config: TrainConfig, policy: PolicyTraining) -> None:
    """Raise ValueError if the policy would be paid nothing, or noise.

    Not before a training starts: who counts its operations, or reads an older run, pays nobody.
    """
    warmup = config.optimization.warmup_iterations
    if policy.schedule == "policy_only" and policy.pays_for_learning and warmup == 0:
        raise ValueError(
            f"reward {policy.reward} pays nothing where the model never learns: with --schedule "
            "policy_only add --warmup-iterations, or --reward-reference RUN"
        )
    learns_words = config.parts.word_weight != 0 or config.model.start_from is not None
    if policy.reward == "caption" and not learns_words:
        raise ValueError(
            "reward caption asks a model that learns no word with --word-weight 0; add "
            "--iterations 0, --reward auc, or --start-from a model that has learned words"
        )

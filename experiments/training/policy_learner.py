"""How the policy learns: it scans a batch of images and is updated from its scans.

Both learners have one interface. Between scans and update they call ``learn`` with the scans, so
that the model learns from the orders that the policy chose before its update.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from agents.group_relative import PolicyStep, policy_step, scale_of
from agents.policies import PointerPolicy
from envs.recognition import RecognitionProbe
from envs.rewards import Reward
from envs.vector import ImageScanVectorEnv
from experiments.training.batches import Drawn, Scans, TrainingImages
from experiments.training.build import policy_config
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes, parameters_together
from experiments.training.groups import PolicyTraining
from experiments.training.recognition import ProbeLearner
from experiments.training.updates import LEAST_RATE, clip, take_step
from foveate.finite import NotFinite
from foveate.model import AnyOrderTransformer
from foveate.optim import CosineDecay, set_rate
from foveate.orders.segments import Fixations

LEAST_BONUS = 0.1
"""Share of the entropy bonus that is left at the end."""
RAMP = 10
"""Iterations in which the learning rate rises to its peak."""

Learn = Callable[[list[Scans]], None]
"""Lets the model learn from the scans of each micro-batch."""


class PolicyLearner(Protocol):
    """Who scans, and learns from scans."""

    policy: PointerPolicy
    optimizer: torch.optim.Optimizer
    rate: CosineDecay

    def iterate(
        self, at: int, generators: list[torch.Generator], learn: Learn, *, updates: bool
    ) -> dict[str, float]:
        """Scan, call ``learn``, and, if it says so, update the policy.

        Args:
            at: number of the iteration.
            generators: randomness of each micro-batch.
            learn: called with the scans of each micro-batch.
            updates: False leaves the policy as it is.

        Returns:
            Mean error after a fixation (auc), reward of a scan (return), and entropy, nats.
        """

    def state(self) -> dict[str, Any]:
        """Return what the next update depends on beside the policy's weights."""

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state."""


class GroupRelativeLearner:
    """The native group-relative policy gradient."""

    def __init__(
        self,
        config: TrainConfig,
        options: PolicyTraining,
        model: AnyOrderTransformer,
        policy: PointerPolicy,
        images: TrainingImages,
        processes: Processes,
        reward: str | Reward,
        probe: RecognitionProbe | None = None,
    ) -> None:
        self.config = config
        self.options, self.reward = options, reward
        self.model = model
        self.policy = policy
        self.images = images
        self.processes = processes
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(
            policy.parameters(), lr=options.policy_lr
        )
        self.fixations = Fixations.squares(model.grid, config.scan.fixation_size)
        self.rate = policy_rate(config, options)
        self.entropy_weight = entropy_bonus(config, options)
        self.probe_learner: ProbeLearner | None = None
        if probe is not None:
            self.probe_learner = ProbeLearner(config, probe, model, images, processes)

    def iterate(
        self, at: int, generators: list[torch.Generator], learn: Learn, *, updates: bool
    ) -> dict[str, float]:
        """Scan each image several times; of a batch the advantages have one scale."""
        num_micro_batches = self.config.optimization.micro_batches or 1
        with parameters_together(self.model):
            if self.probe_learner is not None:
                self.probe_learner.begin(self.fixations, generators)
            batches, steps = self._scan(at, generators)
        images = [index for _, index in batches]
        measured = self._measured(steps, images)
        if updates:
            # The graphs of all micro-batches are alive until the scale is known.
            told = [(step.advantage, step.rewards) for step in steps]
            gathered = (self.processes.gather(torch.cat(each)) for each in zip(*told, strict=True))
            scale = scale_of(*gathered)
            for step in steps:
                (step.loss_scaled_by(scale) / num_micro_batches).backward()
            clip(self.policy, self.processes, "policy", images)
        scans = [(drawn, step.order) for drawn, step in zip(batches, steps, strict=True)]
        try:
            learn(scans)
        except NotFinite:
            self.policy.zero_grad()  # Neither of the two learns.
            raise
        if updates:
            set_rate([self.optimizer], self.rate(at))
            take_step(self.policy, [self.optimizer])
        if self.probe_learner is not None:
            measured["recognized"] = self.probe_learner.learn(scans)
        return measured

    def _scan(
        self, at: int, generators: list[torch.Generator]
    ) -> tuple[list[Drawn], list[PolicyStep]]:
        """Draw the images of each micro-batch, and scan them."""
        config, options = self.config, self.options
        num_images = config.per_micro_batch(options.batch_size)
        batches = [self.images.draw(num_images, generator) for generator in generators]
        steps = [
            policy_step(
                self.model,
                self.policy,
                images,
                budget=config.scan.budget,
                reward=self.reward,
                group=options.group,
                discount=options.discount,
                entropy_weight=self.entropy_weight(at),
                fixations=self.fixations,
                num_candidates=options.num_candidates,
                generator=generator,
                saccade_cost=options.saccade_cost,
                labels=self.images.labels(index),
                probe=None if self.probe_learner is None else self.probe_learner.probe,
                words=self.images.rewarded_words(index, generator),
            )
            for (images, index), generator in zip(batches, generators, strict=True)
        ]
        return batches, steps

    def _measured(self, steps: list[PolicyStep], images: list[Tensor]) -> dict[str, float]:
        """Return the means over the scans of all processes.

        Raises:
            NotFinite: what was seen, paid or chosen in a scan is not finite in any process.
        """
        # One look for all, since the host waits for the device then.
        measured = torch.stack([step.means for step in steps]).tolist()
        sums = self.processes.sum([sum(values) for values in zip(*measured, strict=True)])
        num_micro_batches = self.config.optimization.micro_batches or 1
        auc, paid, entropy = (value / num_micro_batches for value in sums)
        if not math.isfinite(auc):
            raise NotFinite(f"the error after a fixation is {auc}", images, cause="model")
        if not math.isfinite(entropy):
            raise NotFinite(f"the policy's entropy is {entropy}", images, cause="policy")
        if not math.isfinite(paid):
            group = self.options.group
            unpaid = [
                index[(~step.rewards.isfinite()).any(1).unflatten(0, (-1, group)).any(1).cpu()]
                for index, step in zip(images, steps, strict=True)
            ]
            what = f"the reward {self.options.reward!r} is {paid}"
            raise NotFinite(what, unpaid, cause="reward")
        return {"auc": auc, "return": paid, "entropy": entropy}

    def state(self) -> dict[str, Any]:
        """Return what the next update depends on beside the policy's weights."""
        state = {"policy_optimizer": self.optimizer.state_dict(), "actor_critic": None}
        if self.probe_learner is not None:
            state["recognition"] = self.probe_learner.state()
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.optimizer.load_state_dict(state["policy_optimizer"])
        if self.probe_learner is not None:
            self.probe_learner.load(state["recognition"])


class MaskablePPOLearner:
    """MaskablePPO of sb3-contrib, which trains in a single process on whole batches."""

    def __init__(
        self,
        config: TrainConfig,
        options: PolicyTraining,
        model: AnyOrderTransformer,
        images: TrainingImages,
        reward: str | Reward,
    ) -> None:
        # Seconds, which runs of the native agent need not wait.
        from agents.joint_ppo import JointPPO

        self.images = images
        self.device = config.run.device
        env = ImageScanVectorEnv(
            options.batch_size * options.group,
            model=model,
            data=images.held,
            budget=config.scan.budget,
            reward=reward,
            saccade_cost=options.saccade_cost,
            fixation_size=config.scan.fixation_size,
        )
        self.ppo = JointPPO(
            env,
            discount=options.discount,
            policy=policy_config(options),
            seed=config.run.seed,
        )
        self.policy, self.optimizer = self.ppo.pointer, self.ppo.optimizer
        self.rate = policy_rate(config, options)
        self.entropy_weight = entropy_bonus(config, options)

    def iterate(
        self, at: int, generators: list[torch.Generator], learn: Learn, *, updates: bool
    ) -> dict[str, float]:
        """Collect one rollout, and learn from it; its randomness is the seed's and ``at``'s."""
        assert updates, "config refuses the schedules in which MaskablePPO would not learn"
        images, device = self.images.held, self.device
        return self.ppo.step(
            at,
            lambda index, order: learn(
                [((images.batch(index, device=device), index), order.to(device))]
            ),
            learning_rate=self.rate(at),
            entropy_weight=self.entropy_weight(at),
        )

    def state(self) -> dict[str, Any]:
        """Return what the next update depends on beside the policy's weights."""
        return {
            "policy_optimizer": self.optimizer.state_dict(),
            "actor_critic": self.ppo.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.ppo.load_state_dict(state["actor_critic"])
        self.optimizer.load_state_dict(state["policy_optimizer"])


def policy_rate(config: TrainConfig, options: PolicyTraining) -> CosineDecay:
    """Return the policy's learning rate, which is 0 in the warm-up."""
    start = config.optimization.warmup_iterations
    return CosineDecay(
        peak=options.policy_lr,
        start=start,
        end=config.total_iterations,
        floor=LEAST_RATE,
        ramp_start=start,
        ramp=RAMP,
    )


def entropy_bonus(config: TrainConfig, options: PolicyTraining) -> CosineDecay:
    """Return the weight of the policy's entropy."""
    return CosineDecay(
        peak=options.entropy_weight,
        start=config.optimization.warmup_iterations,
        end=config.total_iterations,
        floor=LEAST_BONUS,
    )


def most_entropy(config: TrainConfig, num_fixations: int) -> float | None:
    """Return the entropy of a policy that finds all fixations equally good, mean over a scan, nats.

    A fixation is chosen among those that were not made before, or among drawn candidates. None =
    the run trains no policy.
    """
    if config.policy is None:
        return None
    budget = config.scan.budget
    most = config.policy.num_candidates or num_fixations
    return sum(math.log(min(most, num_fixations - at)) for at in range(budget)) / budget

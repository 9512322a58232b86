"""One iteration of joint training: who learns in it, from which scans, and what a checkpoint holds.

The model's side is ``model_learner``, the policy's ``policy_learner``, the images ``batches``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch

from agents.policies import PointerPolicy
from envs.checks import check_reward
from envs.rewards import reward_named
from experiments.run_folder import goes_on
from experiments.training.batches import Ranked, Scans, TrainingImages, moved
from experiments.training.build import build, build_teacher
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes, sharded_like, whole
from experiments.training.emphasis import EmphasisSchedule
from experiments.training.groups import PolicyTraining
from experiments.training.mixing import Mixer
from experiments.training.model_learner import ModelLearner
from experiments.training.policy_learner import (
    GroupRelativeLearner,
    MaskablePPOLearner,
    PolicyLearner,
)
from experiments.training.recognition import make_probe
from experiments.training.reference import reference_of, reward_of
from experiments.training.skips import Skips
from experiments.training.weights import load_weights, start_from
from experiments.training.who_learns import who_learns
from foveate.config import ModelConfig
from foveate.finite import NotFinite, not_finite
from foveate.model import AnyOrderTransformer
from foveate.orders.segments import Fixations

REFERENCE_IMAGES = 64
"""Training images, the first ones, by which a teacher's features are standardized in scans."""


class Trainer:
    """Model, policy, their learners and all randomness; one :meth:`step` per iteration."""

    model: AnyOrderTransformer
    policy: PointerPolicy
    """It exists, as it started, in a run without policy as well: checkpoints hold one."""
    measured: dict[str, float]
    """Loss of the last iteration; of the last one that scanned auc, return and entropy. As soon as
    an iteration is skipped also how many were."""

    def __init__(self, config: TrainConfig, processes: Processes) -> None:
        self.config = config
        self.processes = processes
        if config.policy is not None:
            reward_named(config.policy.reward)  # A misspelled name need not wait for the data.
        torch.manual_seed(config.run.seed)
        self.images = TrainingImages(config, processes)
        shape = self.images.held.image_shape
        self.model, self.policy = build(config, shape, *self.images.words)
        teacher = build_teacher(config, self.model, self.images.first(REFERENCE_IMAGES))
        if config.model.start_from is not None and not goes_on(config):
            start_from(self.model, teacher, config.model.start_from)
        self.reference = reference_of(config, self.model)
        self.probe = make_probe(config, self.model, self.images, processes)
        if config.policy is not None:
            # A wrong reward is refused before files are written.
            first = torch.arange(2) % len(self.images.held)
            few, labels = (
                self.images.held.batch(first, config.run.device),
                self.images.labels(first),
            )
            words = self.images.rewarded_words(first, torch.Generator().manual_seed(0))
            reward = reward_of(config.policy, self.reference)
            fixations = Fixations.squares(self.model.grid, config.scan.fixation_size)
            check_reward(reward, self.model, few, labels, self.probe, words, first, fixations)
        if config.run.shard:
            processes.shard(self.model)
        self.model_learner = ModelLearner(config, self.model, self.images, processes, teacher)
        self.policy_learner: PolicyLearner | None = None
        if config.policy is not None:
            self.policy_learner = self._make_policy_learner(config.policy)
            self.policy = self.policy_learner.policy
        self.emphasis = EmphasisSchedule(config, self.policy)
        # A wrong order is refused before files are written.
        self.model_learner.check_order()
        self.generator = torch.Generator().manual_seed(config.run.seed)
        self.scans: list[Scans] = []
        self.measured = {}
        self.iteration = 0
        self.skips = Skips(config, processes)

    def _make_policy_learner(self, options: PolicyTraining) -> PolicyLearner:
        config, model, images = self.config, self.model, self.images
        reward = reward_of(options, self.reference)
        if options.agent == "maskable-ppo":
            return MaskablePPOLearner(config, options, model, images, reward)
        return GroupRelativeLearner(
            config, options, model, self.policy, images, self.processes, reward, self.probe
        )

    # --- one iteration

    def step(self) -> dict[str, float]:
        """Run one iteration and return the latest measurements.

        One in which a number is not finite is counted, and no step is taken with it. MaskablePPO
        keeps those that it took before it in the iteration.

        Raises:
            ValueError: too many in a row were skipped, or a weight is not finite.
        """
        config, at = self.config, self.iteration
        self.iteration += 1
        generators = self.generators()
        try:
            if at < config.optimization.warmup_iterations or config.policy is None:
                self.measured |= {"loss": self._learn_in_order(at, generators)}
            else:
                self.measured |= self._iterate_with_policy(at, config.policy, generators)
            self.skips.taken()
        except ValueError as reason:
            # What is computed from a weight that is not finite gives errors that name others.
            weights = {"model": self.model.state_dict(), "policy": self.policy.state_dict()}
            self._check_finite(weights)
            if not isinstance(reason, NotFinite):
                raise
            self.measured["skipped_steps"] = self.measured.get("skipped_steps", 0) + 1
            if reason.cause != "model":
                # Steps from kept scans would succeed between, and hide that no scan does.
                self.scans = []
            self.skips.count(self.iteration, reason)
        if skipped := self.images.num_skipped:
            self.measured["skipped_images"] = skipped
        return self.measured

    def _check_finite(self, content: Mapping[str, object]) -> None:
        if (place := not_finite(content)) is None:
            return
        cause = "policy" if place.startswith(("policy", "actor_critic")) else "model"
        raise ValueError(
            f"{place} is not finite after iteration {self.iteration}, and no checkpoint holds it; "
            f"{self.skips.way_back(cause)}"
        )

    def generators(self) -> list[torch.Generator]:
        """Randomness of each micro-batch of this process.

        A single micro-batch draws from the trainer's own generator. Several draw from one each,
        seeded from it, so that whichever process works on a micro-batch draws the same.
        """
        number = self.config.optimization.micro_batches or 1
        if number == 1:
            return [self.generator]
        seeds = torch.randint(2**62, (number,), generator=self.generator)
        return [torch.Generator().manual_seed(s) for s in self.processes.share(seeds.tolist())]

    def _iterate_with_policy(
        self, at: int, options: PolicyTraining, generators: list[torch.Generator]
    ) -> dict[str, float]:
        assert self.policy_learner is not None, "iterations with a policy have a learner of it"
        since_warmup = at - self.config.optimization.warmup_iterations
        if since_warmup % options.policy_every and self.scans:
            return {"loss": self._learn_from_scans(at, options, generators)}
        model_learns, policy_learns = who_learns(options, since_warmup)
        measured: dict[str, float] = {}

        def learn(scans: list[Scans]) -> None:
            self.scans = scans
            if model_learns:
                measured["loss"] = self._learn_from_scans(at, options, generators)

        scanned = self.policy_learner.iterate(at, generators, learn, updates=policy_learns)
        return {**scanned, **measured}

    def _learn_in_order(self, at: int, generators: list[torch.Generator]) -> float:
        """Update the model on micro-batches in the recipe's order."""
        size = self.config.per_micro_batch(self.config.optimization.warmup_batch_size)
        draw = self.model_learner.draw
        batches = ([draw(size, g)] for g in generators)
        return self._update_model(at, batches, generators)

    def _learn_from_scans(
        self, at: int, options: PolicyTraining, generators: list[torch.Generator]
    ) -> float:
        """Update the model on the policy's last scans and its share of random orders."""
        mixer = Mixer(self.config, options, self.model_learner)
        pairs = zip(self.scans, generators, strict=True)
        batches = [mixer.batch(at, scans, generator) for scans, generator in pairs]
        return self._update_model(at, batches, generators)

    def _update_model(
        self, at: int, batches: Iterable[list[Ranked]], generators: list[torch.Generator]
    ) -> float:
        loss = self.model_learner.update(at, batches, generators, self.emphasis(at))
        if self.reference is not None:
            self.reference.update(self.model)
        return loss

    # --- checkpoints

    def state(self) -> dict[str, Any]:
        """Everything that the next iteration depends on, whether it is sharded or not.

        Raises:
            ValueError: a number in it is not finite, or the last steps were skipped for the sake of
                model or policy.
        """
        self.skips.check_saving(self.iteration)
        options, processes = self.config.policy, self.processes
        kept = self.scans if options is not None and options.policy_every > 1 else []
        state = {
            "iteration": self.iteration,
            "image_shape": self.images.held.image_shape,
            "model_config": dataclasses.asdict(self.model.config),
            "model": whole(self.model.state_dict()),
            "policy": self.policy.state_dict(),
            **self.model_learner.state(),
            **({} if self.policy_learner is None else self.policy_learner.state()),
            **({} if self.reference is None else {"reference": self.reference.state()}),
            "generator": self.generator.get_state(),
            # Ours seed it before they draw; an order or a reward of one's own may not.
            "global_generator": torch.get_rng_state(),
            "streams": processes.gather_objects(self.images.stream_state()),
            "scans": list(chain(*processes.gather_objects(moved(kept, "cpu")))),
            "measured": self.measured,
        }
        if processes.is_first:
            self._check_finite(state)
        self.skips.saved_at = self.iteration
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state.

        Raises:
            ValueError: it is of another run, or holds a weight that is not finite.
        """
        self._check_fits(state)
        # The next checkpoint is to say how this run started.
        init = state["model_config"].get("init", ModelConfig.init)
        self.model.config = dataclasses.replace(self.model.config, init=init)
        weights = sharded_like(state["model"], self.model.state_dict())
        load_weights(self.model, self.policy, {**state, "model": weights}, self.config.run.out)
        self.model_learner.load(state)
        if self.policy_learner is not None:
            self.policy_learner.load(state)
        if self.reference is not None:
            self.reference.load(state["reference"])
        self.generator.set_state(state["generator"].cpu())
        if "global_generator" in state:
            torch.set_rng_state(state["global_generator"].cpu())
        scans = self.processes.share(state.get("scans", []))
        self.scans = moved(scans, self.config.run.device)
        self.images.load_stream_states(state["streams"])
        self.iteration = state["iteration"]
        self.measured = dict(state.get("measured", {}))
        self.skips.saved_at = self.iteration

    def _check_fits(self, state: dict[str, Any]) -> None:
        # How weights started matters no more; checkpoints from before there was a choice say none.
        saved = ModelConfig(**state["model_config"])
        config = dataclasses.replace(self.model.config, init=saved.init)
        fits = {
            "iteration": 0 <= state["iteration"] <= self.config.total_iterations,
            "image_shape": state["image_shape"] == self.images.held.image_shape,
            "model_config": saved == config,
            "model_optimizers": len(state["model_optimizers"])
            == len(self.model_learner.optimizers),
        }
        wrong = [name for name, fit in fits.items() if not fit]
        if wrong:
            raise ValueError(
                f"the checkpoint in {self.config.run.out} is of another run: it has another "
                f"{', '.join(wrong)}"
            )

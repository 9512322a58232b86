"""Validation while training: is the policy ahead, and does the model still learn?

Every ``--evaluate-every`` iterations the same few held-out images are looked at. Nothing of the
training's randomness is used, and nothing is kept between two measurements, so that a run is the
same to the bit with and without validation, and resumes as if it had not stopped.

On the demo preset a measurement takes as long as three training iterations: 1.5% of the training
time at the default of 200 iterations.
"""

from __future__ import annotations

import sys

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agents.baselines import OrderAgent, UncertaintyAgent, scan_to_end
from agents.policies import Agent, PolicyAgent
from envs.episode import Episode
from experiments.training.build import check_stream, load_split, policy_has_learned
from experiments.training.distributed import parameters_together
from experiments.training.trainer import Trainer
from foveate.data.texts import ImageTexts
from foveate.model import AnyOrderTransformer
from foveate.model.collapse import effective_rank, feature_std
from foveate.model.teachers import AverageTeacher
from foveate.model.tracks import NOTHING
from foveate.orders.segments import Fixations

NUM_IMAGES = 64
"""Held-out images, the first ones of the val split."""
SEED = 0
"""Of the orders and targets that are drawn: the same at every measurement."""


class Validation:
    """Held-out images and what is measured on them.

    ``validation_loss`` is the model's loss in the recipe's order, without tied prefixes and words,
    in the unit of ``loss`` before ``image_weight``; of a model that learns words alone there is
    none. Of a model that can be scanned ``validation_auc_random`` and
    ``validation_auc_uncertainty`` are added, and ``validation_auc_policy`` as soon as a policy has
    begun to learn: the mean normalized error after fixations 1..T, as ``auc``, of uniformly random
    scans, of the fixations where the model expects the largest error, and of the policy's most
    probable ones. Of a model that writes captions ``validation_words`` and
    ``validation_words_alone`` are the mean cross-entropy of a subword of one caption of each image,
    nats, given the whole image and given none of it. Of a model that predicts features of its own
    ``validation_feature_std`` and ``validation_feature_rank`` tell whether they have collapsed.
    """

    def __init__(self, trainer: Trainer) -> None:
        config = trainer.config
        assert config.run.evaluate_every is not None, "only runs that evaluate have a validation"
        self.every = config.run.evaluate_every
        with trainer.processes.one_before_the_others():
            held_out = load_split(config, "val", NUM_IMAGES)
        index = torch.arange(min(NUM_IMAGES, len(held_out)))
        self.images: Float[Tensor, "B C H W"] = held_out.batch(index, config.run.device)
        self.words: Int[Tensor, "B 1 L"] | None = None
        texts = trainer.images.texts
        if texts is not None and held_out.captions is not None:
            own = ImageTexts.of(held_out.captions, texts.subwords, texts.tokens.shape[1])
            drawn = own.draw(index, torch.Generator().manual_seed(SEED))
            self.words = drawn.to(config.run.device)

    @torch.no_grad()
    def measure(self, trainer: Trainer) -> dict[str, float]:
        """Measure the trainer's model and policy; all processes call it alike."""
        model, scan = trainer.model, trainer.config.scan
        fixations = trainer.model_learner.fixations
        devices = [self.images.device] if self.images.is_cuda else []
        # Orders and models of one's own might draw from the global generators.
        with torch.random.fork_rng(devices):
            measured = {}
            if model.config.image_weight > 0:
                measured["validation_loss"] = self._loss(trainer)
            if isinstance(teacher := trainer.model_learner.teacher, AverageTeacher):
                features = teacher.raw(self.images)
                measured["validation_feature_std"] = feature_std(features)
                measured["validation_feature_rank"] = effective_rank(features)
            with parameters_together(model):
                measured |= self._surprise(model)
            if not model.config.scannable:
                return measured
            with parameters_together(model):
                areas = {
                    f"validation_auc_{name}": error_area(
                        agent, model, self.images, scan.budget, fixations
                    )
                    for name, agent in self._agents(trainer, fixations).items()
                }
        return {**measured, **areas}

    def _loss(self, trainer: Trainer) -> float:
        learner, generator = trainer.model_learner, torch.Generator().manual_seed(SEED)
        index = torch.arange(len(self.images), device=self.images.device)
        batch = learner.in_order(self.images, index, generator)
        return float(learner.loss_of(batch, generator))

    def _surprise(self, model: AnyOrderTransformer) -> dict[str, float]:
        words = self.words
        if words is None or not bool((words >= 0).any()):
            return {}

        def nats(steps: int) -> float:
            visible = torch.full((len(self.images),), steps, device=self.images.device)
            return float(model.reader.loss(model, self.images, None, words, None, visible))

        whole, alone = nats(model.num_patches), nats(NOTHING)
        return {"validation_words": whole, "validation_words_alone": alone}

    def _agents(self, trainer: Trainer, fixations: Fixations) -> dict[str, Agent]:
        generator = torch.Generator().manual_seed(SEED)
        noise = torch.rand(len(self.images), len(fixations), generator=generator)
        chosen = noise.argsort(dim=1)[:, : trainer.config.scan.budget]
        order = fixations.scanpath(chosen).to(self.images.device)
        agents: dict[str, Agent] = {"random": OrderAgent(order), "uncertainty": UncertaintyAgent()}
        if policy_has_learned(trainer.config, trainer.iteration):
            agents["policy"] = PolicyAgent(trainer.policy, greedy=True)
        return agents


def validation_of(trainer: Trainer) -> Validation | None:
    """Return the validation of a run; None if it asks for none.

    Tar files and Hugging Face datasets may have no val split, since nothing can be held out of
    them. Such a run gets a warning, and no validation.
    """
    config = trainer.config
    if config.run.evaluate_every is None:
        return None
    if config.data.stream:
        try:
            check_stream(config, "val")
        except ValueError as reason:
            if trainer.processes.is_first:
                sys.stderr.write(f"warning: no validation while training: {reason}\n")
            return None
    return Validation(trainer)


def error_area(
    agent: Agent,
    model: AnyOrderTransformer,
    images: Float[Tensor, "B C H W"],
    budget: int,
    fixations: Fixations,
) -> float:
    """Mean over images and fixations 1..T of the normalized error that an agent leaves."""
    generator = torch.Generator().manual_seed(SEED)
    episode = Episode(model, images, budget=budget, fixations=fixations)
    return float(scan_to_end(agent, episode, generator)[:, 1:].mean())

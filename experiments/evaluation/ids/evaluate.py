"""Score the environments: train short, scan test images through gymnasium, and keep a picture."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float
from sb3_contrib import MaskablePPO
from torch import Tensor

from agents.baselines import OrderAgent, UncertaintyAgent
from agents.group_relative import policy_step
from agents.policies import Agent, PointerPolicy, PolicyAgent, PolicyConfig
from agents.sb3 import PointerActorCriticPolicy, ScanVecEnv
from envs.guessing import GuessScanVectorEnv
from envs.recognition import RecognitionProbe
from envs.rewards import name_of
from envs.vector import ImageScanVectorEnv
from experiments.evaluation.ids.picture import Pictures, Shown
from experiments.evaluation.ids.result import AGENTS, IdRow, IdScore, IdsResult, MeanOverImages
from experiments.evaluation.intervals import seeds_and_images
from experiments.evaluation.options import check_seeds
from experiments.run_folder import git_commit
from experiments.training.build import set_threads
from experiments.training.groups import PolicyTraining
from foveate.choices import check_choice
from foveate.ids import TASKS, WORLDS
from foveate.orders import ordering, rank_to_order
from foveate.sampling import seeded

ROWS = 64
"""Scans at once in training: of the native learner a group of each image."""
USUAL = PolicyTraining()
"""Group, discount, learning rate and entropy bonus of both learners are those of a training."""
NAMES = tuple(world + task for world in WORLDS for task in TASKS)
"""Environments that have a test split."""


def score_ids(
    ids: Sequence[str] = (),
    *,
    limit: int = 200,
    steps: int = 10_000,
    seeds: Sequence[int] = (0,),
    threads: int | None = None,
) -> tuple[IdsResult, Pictures]:
    """Measure all agents on the test images of every environment.

    Args:
        ids: a world and a task of ``foveate.ids`` each; none = all.
        limit: test images, at most.
        steps: environment steps of each training.
        seeds: of training and of the random order; intervals are over images, and over seeds as
            well if there are several.
        threads: CPU threads; None = torch's choice.

    Raises:
        ValueError: there is no such environment, or seeds that are not different.
    """
    check_seeds(seeds)
    for name in ids:
        check_choice("id", name, NAMES)
    began, rows, shown = time.monotonic(), {}, []
    set_threads(threads)
    learned: dict[str, list[tuple[int, dict[str, Agent]]]] = {}
    most_images = 0  # A split may have fewer than the limit.
    for name in ids or NAMES:
        taught = name.replace("Guess", "Recognition")
        if taught not in learned:
            world = make(taught, ROWS)
            learned[taught] = [(seed, learners(world, steps, seed)) for seed in seeds]
        # At once: every image is a row.
        number = len(make(name + "Test", 1, limit=limit).images)
        most_images = max(most_images, number)
        env = make(name + "Test", number, limit=limit, autoreset="disabled")
        probe = make(taught + "Test", 1, limit=limit).world.probe
        by_seed = [(seed, {**untrained(env, seed), **each}) for seed, each in learned[taught]]
        scores = {
            agent: score([play(env, agents[agent], probe, seed) for seed, agents in by_seed])
            for agent in AGENTS
        }
        rows[name] = IdRow(budget=env.budget, num_patches=env.model.num_patches, agents=scores)
        shown.append(Shown.of(name, env, by_seed[0][1]["native"], classes(env, name)))
        print(f"{name}: {', '.join(f'{each} {rows[name].cell(each)}' for each in AGENTS)}")
    result = IdsResult(
        ids=rows,
        steps=steps,
        test_images=most_images,
        seeds=tuple(seeds),
        seconds=time.monotonic() - began,
        threads=torch.get_num_threads(),
        commit=git_commit(),
    )
    return result, Pictures(tuple(shown))


def make(name: str, num_envs: int, **options: Any) -> ImageScanVectorEnv:
    """Make a batch of an id as any client does."""
    env = gym.make_vec(f"foveate.ids:foveate/{name}-v0", num_envs=num_envs, **options).unwrapped
    assert isinstance(env, ImageScanVectorEnv), "the ids make batches of ours"
    return env


def classes(env: ImageScanVectorEnv, name: str) -> tuple[str, ...]:
    """Return the names of what is guessed; none where nothing is."""
    return () if name.endswith("Scan") else env.images.class_names


def untrained(env: ImageScanVectorEnv, seed: int) -> dict[str, Agent]:
    """Return the agents that learn nothing, for one row of each image."""
    images, generator = torch.empty(env.num_envs, 1, 1, 1), torch.Generator().manual_seed(seed)
    orders: dict[str, Agent] = {}
    for name in ("random", "center_out"):
        rank = ordering(name, env.model.grid)(images, generator=generator)
        orders[name] = OrderAgent(rank_to_order(rank)[:, : env.budget])
    return {**orders, "uncertainty": UncertaintyAgent()}


def learners(env: ImageScanVectorEnv, steps: int, seed: int) -> dict[str, Agent]:
    """Train both learners on an environment for so many steps, rounded up to whole scans of all."""
    native = learn_natively(env, math.ceil(steps / (ROWS * env.budget)), seed)
    ppo = MaskablePPO(
        PointerActorCriticPolicy,
        ScanVecEnv(env),
        n_steps=env.budget,
        batch_size=4 * ROWS,
        n_epochs=4,
        gamma=USUAL.discount,
        ent_coef=USUAL.entropy_weight,
        learning_rate=USUAL.policy_lr,
        seed=seed,
        device="cpu",
    )
    ppo.learn(steps)
    pointer = ppo.policy.mlp_extractor.pointer
    assert isinstance(pointer, PointerPolicy), "PointerActorCriticPolicy has one"
    return {"maskable_ppo": PolicyAgent(pointer), "native": PolicyAgent(native)}


def learn_natively(env: ImageScanVectorEnv, iterations: int, seed: int) -> PointerPolicy:
    """Train a policy by the group-relative gradient on the world of an environment."""
    generator = torch.Generator().manual_seed(seed)
    policy = seeded(lambda: PointerPolicy(env.model.config.embed_dim, PolicyConfig()), seed)
    optimizer = torch.optim.Adam(policy.parameters(), lr=USUAL.policy_lr)
    for _ in range(iterations):
        index = torch.randint(len(env.images), (ROWS // USUAL.group,), generator=generator)
        images, labels = env.world.batch(index)
        step = policy_step(
            env.model,
            policy,
            images,
            budget=env.budget,
            reward=name_of(env.reward),
            group=USUAL.group,
            discount=USUAL.discount,
            entropy_weight=USUAL.entropy_weight,
            fixations=env.fixations,
            generator=generator,
            labels=labels,
            probe=env.world.probe,
        )
        optimizer.zero_grad()
        step.loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    return policy


@dataclass(frozen=True)
class Played:
    """One episode on every image."""

    returns: Float[np.ndarray, "B"]
    areas: Float[np.ndarray, "B"]
    is_right: Bool[np.ndarray, "B"] | None
    """Whether the last guess names the class; None = there are no guesses."""


def score(played: Sequence[Played]) -> IdScore:
    """Return means and intervals of what was played with every seed, on the same images."""
    is_right = [each.is_right for each in played if each.is_right is not None]
    return IdScore(
        episode_return=mean_of(np.stack([each.returns for each in played])),
        auc=mean_of(np.stack([each.areas for each in played])),
        right=float(np.mean(is_right)) if is_right else None,
    )


def mean_of(values: Float[np.ndarray, "S B"]) -> MeanOverImages:
    """Return a mean with its interval, over images, and over seeds if there are several."""
    mean, interval = seeds_and_images(values)
    return MeanOverImages(mean=mean, ci95=interval)


def play(
    env: ImageScanVectorEnv, agent: Agent, probe: RecognitionProbe | None, seed: int
) -> Played:
    """Play one episode on every image of an environment, image i in row i.

    Args:
        env: with as many rows as images, and without autoreset.
        agent: who fixates one patch at a time.
        probe: who says the guesses, where actions have one.
        seed: of the agent.
    """
    generator = torch.Generator().manual_seed(seed)
    _, info = env.reset(options={"index": np.arange(env.num_envs)})
    returns, errors = np.zeros(env.num_envs), []
    for _ in range(env.budget):
        episode = env.episode
        assert episode is not None, "has been reset"
        action: Any = agent(episode, generator).numpy()
        if isinstance(env, GuessScanVectorEnv):
            assert probe is not None, "the ids of recognition have one"
            logits: Tensor = probe(episode.scan.mean_content)
            action = {"action": action, "prediction": logits.numpy()}
        _, reward, _, _, info = env.step(action)
        returns += reward
        errors.append(info["error"])
    is_right = info["guess"] == info["label"] if "guess" in info else None
    return Played(returns, np.mean(errors, 0), is_right)

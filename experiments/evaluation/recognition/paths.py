"""Scanpaths of the images that a probe learns from, and of those that it is asked of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from experiments.evaluation.curves import error_curves_of
from experiments.evaluation.options import OF_THE_POLICY
from experiments.evaluation.scanpaths import (
    AGENTS,
    MOST_OF_VALIDATION,
    NEAR,
    best_fixed,
    make_agent,
    of_another_image,
    ordered_in_chunks,
    scan_ordering,
    scanned_in_chunks,
)
from experiments.runs import Run
from experiments.training.build import build
from experiments.training.config import TrainConfig
from foveate.choices import check_name, lookup
from foveate.data import ImageSet
from foveate.orders import ORDERINGS, SUBSETS
from foveate.orders.semantic import SEMANTIC

OF_TRAINING = 2**31
"""Random orders of training images are drawn from the seed plus this, so that the i-th training and
test images have different paths: where both splits list their classes in some order, the same path
would tell something of them."""
BY_THEMSELVES = (*AGENTS, NEAR, *ORDERINGS, *SEMANTIC)
"""Agents and orders that need none of them."""


class PathMaker(Protocol):
    """Scans images: a policy, an agent or an order."""

    def __call__(
        self, images: Num[Tensor, "M C H W"], seed_offset: int = 0
    ) -> Int[Tensor, "M T *S"]:
        """Return their scanpaths; random orders are drawn from the run's seed plus the offset."""
        ...


@dataclass(frozen=True)
class Scanpaths:
    """The scanpaths of one order on both splits."""

    train: Int[Tensor, "M T *S"]
    test: Int[Tensor, "K T *S"]


@dataclass(frozen=True)
class PathMakers:
    """Who makes scanpaths, by name: agents, orders, and what is made of the policy's.

    They are made before any image is read, as a name may be wrong.
    """

    run: Run
    scans: dict[str, PathMaker]
    asked: tuple[str, ...]

    @classmethod
    def of(cls, run: Run, names: tuple[str, ...]) -> PathMakers:
        """Make the policy and what is asked for.

        Raises:
            ValueError: there is no such order or agent, or ``uncertainty_near`` is named though
                saccades of this run cost nothing.
        """
        check_orders(names)
        alone = ["policy", *(name for name in names if name not in OF_THE_POLICY)]
        return cls(run, {name: scan_of(run, name) for name in alone}, tuple(dict.fromkeys(names)))

    def policy(self, train: ImageSet, test: ImageSet) -> Scanpaths:
        """Let the policy scan both splits."""
        return self._scan("policy", train, test)

    def paths(self, name: str, train: ImageSet, test: ImageSet, policy: Scanpaths) -> Scanpaths:
        """Scan both splits as asked.

        Args:
            name: whose scanpaths.
            train: images that a probe learns from.
            test: images that it is asked of.
            policy: the policy's scanpaths.
        """
        if name == "policy":
            return policy
        if name == "other_image":
            check_others((name,), train, test)
        if name in OF_THE_POLICY:
            both = (policy.train, policy.test)
            return Scanpaths(*(self.made_of(each, name, self.run.seed) for each in both))
        return self._scan(name, train, test)

    def made_of(self, policy: Int[Tensor, "M T *S"], name: str, seed: int) -> Int[Tensor, "M T *Z"]:
        """Return ``other_image`` or ``best_fixed``, by the policy's scanpaths of some images."""
        if name == "other_image":
            return of_another_image(policy, seed)
        return self.best_fixed.expand(len(policy), *self.best_fixed.shape[1:])

    @cached_property
    def best_fixed(self) -> Int[Tensor, "1 T *S"]:
        """Return the first fixations by the policy's mean rank on validation images."""
        run = self.run
        looked_at = self.scans["policy"](run.split("val", MOST_OF_VALIDATION).images)
        return best_fixed(looked_at, run.model.num_patches, run.budget, run.fixations)

    def _scan(self, name: str, train: ImageSet, test: ImageSet) -> Scanpaths:
        scan = self.scans[name]
        return Scanpaths(scan(train.images, OF_TRAINING), scan(test.images))


def curves_of(
    run: Run, orders: tuple[str, ...], images: ImageSet
) -> tuple[dict[str, Int[Tensor, "M T *S"]], dict[str, Float[np.ndarray, "M U"]]]:
    """Scan images by each order; return the scanpaths and their error curves, by order."""
    # Scans of training images are not needed here, but for those of two.
    makers, few = PathMakers.of(run, orders), run.split("train", 2)
    policy = makers.policy(few, images)
    paths = {name: makers.paths(name, few, images, policy).test for name in orders}
    return paths, error_curves_of(run.model, images.images, paths)


def check_orders(names: Iterable[str]) -> None:
    """Raise ValueError unless there are all these orders and agents; one's own are imported."""
    for name in names:
        check_name("order", name, (*OF_THE_POLICY, *BY_THEMSELVES))
        is_agent(name)


def try_own(names: Iterable[str], config: TrainConfig, images: ImageSet) -> None:
    """Scan images with each order and agent of one's own, on a model that has not learned.

    Their mistakes are found so before the hours of a training. What they raise is raised.

    Args:
        names: orders and agents; those that ship are passed over.
        config: of the training that is to be asked.
        images: a few of its images.
    """
    if not (own := [name for name in names if ":" in name]):
        return
    model, policy = build(config, images.image_shape)
    run = Run(config.run.out, config, model.eval(), policy.eval(), iteration=0)
    for name in own:
        scan_of(run, name)(images.images)


def check_others(names: Iterable[str], *splits: ImageSet) -> None:
    """Raise ValueError if a path of another image is asked for, and a split has no other image."""
    if "other_image" in names and min(map(len, splits)) < 2:
        raise ValueError(
            "other_image needs two or more training and test images; leave it out of orders"
        )


def scan_of(run: Run, name: str) -> PathMaker:
    """Return what scans images: the policy, an agent or an order.

    Raises:
        ValueError: there is no such agent or order.
    """
    model, budget, fixations = run.model, run.budget, run.fixations
    if name not in SUBSETS:  # Of which it is said what they are.
        check_name("order", name, ("policy", *BY_THEMSELVES))
    if name == "policy" or is_agent(name):
        agent = run.agent if name == "policy" else make_agent(name, run.saccade_cost)
        return lambda images, seed_offset=0: (
            scanned_in_chunks(agent, model, images, budget, fixations=fixations).order
        )
    order = scan_ordering(name, model)

    def scan(images: Num[Tensor, "M C H W"], seed_offset: int = 0) -> Int[Tensor, "M T *S"]:
        # Drawn anew from the seed: the same images have the same paths in every comparison.
        generator = torch.Generator().manual_seed(run.seed + seed_offset)
        return ordered_in_chunks(order, model, images, budget, generator, fixations)

    return scan


def is_agent(name: str) -> bool:
    """Whether a name is an agent's: of a user's own, what is called without arguments makes one."""
    if ":" not in name:
        return name in (*AGENTS, NEAR)
    own: Callable[..., object] = lookup("order or agent", name, {})
    try:
        inspect.signature(own).bind()
    except (TypeError, ValueError):
        return False
    return True

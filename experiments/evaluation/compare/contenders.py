"""Who is compared: the policy, its controls, other agents, orders and oracles; and their scans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from agents.baselines import GreedyOracleAgent
from agents.policies import Agent
from envs.episode import Episode
from experiments.evaluation.compare.result import SHOWN
from experiments.evaluation.curves import error_curves_of, predictions_of
from experiments.evaluation.options import OF_THE_POLICY
from experiments.evaluation.progress import Advance
from experiments.evaluation.scanpaths import (
    AGENTS,
    NEAR,
    Scanned,
    best_fixed,
    check_near,
    check_scans,
    make_agent,
    of_another_image,
    ordered_in_chunks,
    pixels_of,
    scan_ordering,
    scanned_in_chunks,
)
from experiments.runs import Run
from foveate.choices import check_choice
from foveate.model import AnyOrderTransformer
from foveate.orders import ORDERINGS, Ordering
from foveate.orders.semantic import SEMANTIC

ALWAYS = ("policy", "random", "best_fixed", "other_image")
"""What every comparison has: differences and signs of collapse need them."""
ORACLES: dict[str, int | None] = {"oracle_16": 16, "oracle": None}
"""Greedy oracles by the patches that they try at every step; None = all."""
MOST_TRIED = 64
"""Patches of the largest grid on which the oracle over all of them runs without being asked for:
its cost grows with their square."""


def compared(
    orders: tuple[str, ...], without: tuple[str, ...], num_patches: int
) -> tuple[str, ...]:
    """Return the names that are compared, beside agents of the user's own.

    Args:
        orders: which orders and oracles; ``all`` = every order. ``MODULE:NAME`` come on top: if
            there are no other names, the usual ones are compared.
        without: what is left out.
        num_patches: of an image.

    Raises:
        ValueError: an unknown name, one of subsets, which are no orders, or one that every
            comparison has is left out.
    """
    every, named = (*ORDERINGS, *SEMANTIC), tuple(name for name in orders if ":" not in name)
    known = tuple(dict.fromkeys((*ALWAYS, *AGENTS, NEAR, *ORACLES, *every)))
    for name in named:
        check_scans(name)
        check_choice("order", name, (*known, "all"), or_own=True)
    usual = tuple(name for name in SHOWN if name != "oracle" or num_patches <= MOST_TRIED)
    chosen = named or usual
    if "all" in named:
        chosen = (*usual, *every, *named)
    names = dict.fromkeys((*ALWAYS, *AGENTS, NEAR, *chosen, *orders))
    names.pop("all", None)
    for name in without:
        check_choice("order or agent to leave out", name, (*known, *orders))
        if name in ALWAYS:
            raise ValueError(
                f"{name} stands in every comparison and cannot be left out; "
                f"these stand: {', '.join(ALWAYS)}"
            )
        names.pop(name, None)
    return tuple(names)


@dataclass(frozen=True)
class Scanners:
    """All who scan beside the policy, by name.

    They are made before any image is read, as a name may be wrong.
    """

    orders: dict[str, Ordering]
    agents: dict[str, Agent]
    oracles: dict[str, int | None]
    """Patches that they try at every step; None = all."""

    @classmethod
    def of(
        cls,
        model: AnyOrderTransformer,
        orders: tuple[str, ...],
        agents: tuple[str, ...],
        without: tuple[str, ...] = (),
        saccade_cost: float = 0.0,
    ) -> Self:
        """Make those that are compared, and agents of the user's own.

        Where saccades cost something, ``uncertainty_near`` is the rule that subtracts the cost.

        Raises:
            ValueError: there is no such order or agent, or ``uncertainty_near`` is named though
                saccades cost nothing.
        """
        check_near((*orders, *without), saccade_cost)
        names = compared(orders, without, model.num_patches)
        near = [NEAR] if saccade_cost > 0 and NEAR in names else []
        rules = [name for name in names if name in AGENTS]
        return cls(
            {
                name: scan_ordering(name, model)
                for name in names
                if name not in (*OF_THE_POLICY, *AGENTS, NEAR, *ORACLES)
            },
            {name: make_agent(name, saccade_cost) for name in (*near, *rules, *agents)},
            {name: ORACLES[name] for name in names if name in ORACLES},
        )

    def check_own(self, run: Run, images: Num[Tensor, "B C H W"]) -> None:
        """Order two images by each order of the user's own, before anything that costs more.

        Raises:
            ValueError: one of them raises, or returns no order.
        """
        for name in (each for each in self.orders if ":" in each):
            generator = torch.Generator().manual_seed(run.seed)
            order = self.orders[name]
            ordered_in_chunks(order, run.model, images[:2], run.budget, generator, run.fixations)

    def __len__(self) -> int:
        """Return how many are compared, the policy and what is made of it included."""
        return 3 + len(self.orders) + len(self.agents) + len(self.oracles)

    def predictions(
        self, run: Run, images: int, validation: int, oracle_images: int, judged: bool
    ) -> int:
        """Patches that are predicted in all scans, the measure of their cost.

        Args:
            run: who scans.
            images: test images.
            validation: images that the best fixed order is made from.
            oracle_images: images that the oracles scan.
            judged: whether another model measures the errors, of agents and oracles as well.
        """
        model, budget = run.model, run.budget
        tried = sum(
            model.num_patches * (1 + budget * (number or model.num_patches))
            for number in self.oracles.values()
        )
        agents = 1 + len(self.agents)
        scanned = model.num_patches * (1 + budget) * (validation + images * agents)
        given = len(self.orders) + 2
        curves = images * predictions_of(model, given + judged * agents, budget)
        if judged and self.oracles:
            curves += oracle_images * predictions_of(model, len(self.oracles), budget)
        return scanned + oracle_images * tried + curves


@dataclass(frozen=True)
class ContenderCurves:
    """Scanpaths of all who are compared, and their error curves."""

    order: dict[str, Int[Tensor, "R T *S"]]
    curve: dict[str, Float[np.ndarray, "R L"]]

    @property
    def area(self) -> dict[str, Float[np.ndarray, " R"]]:
        """Mean error after fixations 1..T of each image."""
        return {name: curve[:, 1:].mean(1) for name, curve in self.curve.items()}

    @property
    def own_minus_other(self) -> Float[np.ndarray, " R"] | None:
        """Area of the policy's path minus that of another image's; None = there is no other."""
        area = self.area
        return area["policy"] - area["other_image"] if "other_image" in area else None


def measure(
    run: Run,
    scanners: Scanners,
    images: Num[Tensor, "B C H W"],
    validation: Num[Tensor, "V C H W"],
    *,
    judge: AnyOrderTransformer,
    oracle_limit: int,
    memory: int,
    advance: Advance,
) -> ContenderCurves:
    """Let all scan the images, and measure their errors.

    ``best_fixed`` is the mean rank of the policy on validation images. ``other_image`` gives each
    image the scanpath that the policy chose on a random other one, if there is one.

    Args:
        run: the model and the policy.
        scanners: who is compared with it.
        images: pixels in [0, 1], or bytes.
        validation: images that the best fixed order is made from.
        judge: model that measures errors.
        oracle_limit: the oracles scan only so many images, the first ones.
        memory: bound on what is computed at once, bytes.
        advance: told of the predictions as they are done.
    """
    model, budget, fixations = run.model, run.budget, run.fixations
    scanners.check_own(run, images)
    check_scores(run, images)

    def scan(agent: Agent, images: Num[Tensor, "R C H W"], num_candidates: int = 1) -> Scanned:
        return scanned_in_chunks(
            agent, model, images, budget, num_candidates, fixations, memory=memory, advance=advance
        )

    scans = {"policy": scan(run.agent, images)}
    scans |= {name: scan(agent, images) for name, agent in scanners.agents.items()}
    for name, number in scanners.oracles.items():
        few, tried = images[:oracle_limit], number or model.num_patches
        scans[name] = scan(GreedyOracleAgent(number), few, tried)
    paths = {name: each.order for name, each in scans.items()}
    given: dict[str, Int[Tensor, "B T *S"]] = {}
    for name, order in scanners.orders.items():
        # Each draws from its own seed, so that it is the same whoever else is compared.
        generator = torch.Generator().manual_seed(run.seed)
        given[name] = ordered_in_chunks(order, model, images, budget, generator, fixations)
    if len(images) > 1:
        given["other_image"] = of_another_image(paths["policy"], run.seed)
    looked_at = scan(run.agent, validation).order
    fixed = best_fixed(looked_at, model.num_patches, budget, fixations)
    given["best_fixed"] = fixed.expand(len(images), *fixed.shape[1:])
    # An agent's own errors are those of the model that it scans with.
    own = judge is model
    asked = given if own else {**paths, **given}
    curve = error_curves_of(judge, images, asked, memory=memory, advance=advance)
    if own:
        curve |= {name: each.errors.cpu().numpy() for name, each in scans.items()}
    return ContenderCurves({**paths, **given}, curve)


@torch.no_grad()
def check_scores(run: Run, images: Num[Tensor, "B C H W"]) -> None:
    """Raise ValueError if a policy scores the first fixation by numbers that are not finite.

    Those of a model that predicts such numbers are left to who measures its errors.
    """
    pixels = pixels_of(images[:2], run.device)
    episode = Episode(run.model, pixels, budget=run.budget, fixations=run.fixations)
    scores = run.agent.scores(episode)
    if episode.error.isfinite().all() and not scores[episode.selectable].isfinite().all():
        raise ValueError(
            f"the policy in {run.directory} scores fixations by numbers that are not finite; its "
            "training went wrong, train anew"
        )

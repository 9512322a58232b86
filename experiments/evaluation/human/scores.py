"""Scores of a viewer's next fixation, given the viewer's own history.

An episode is forced through the cells that the viewer fixated (teacher forcing), and an agent
scores what may come next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int, Num
from torch import Tensor

from agents.baselines import GreedyOracleAgent, error_after
from agents.policies import Agent, ScoringAgent
from envs.episode import Episode
from experiments.evaluation.progress import Advance, unheard
from experiments.evaluation.scanpaths import (
    MEMORY,
    ordered_in_chunks,
    pixels_of,
    rows_memory,
    split_rows,
)
from experiments.runs import Run
from foveate.devices import device_of, send
from foveate.human.cells import CellPaths, Steps
from foveate.model.scanning import bytes_per_row
from foveate.orders import Ordering
from foveate.orders.paths import Grid
from foveate.orders.segments import Fixations


@dataclass(frozen=True)
class Viewed:
    """Images, and the cells that viewers fixated on them."""

    images: Num[Tensor, "M C H W"]
    paths: CellPaths

    def first(self, num_images: int) -> Viewed:
        """Return the first images."""
        return Viewed(self.images[:num_images], self.paths.of_first(num_images))


@dataclass(frozen=True)
class ScoringOracle(GreedyOracleAgent):
    """The greedy oracle over all fixations, which tells how much each would help."""

    def scores(self, episode: Episode) -> Tensor:
        """Return minus the error after each fixation."""
        every = torch.arange(len(episode.fixations), device=episode.unseen.device)
        return -error_after(episode, every.expand(len(episode.unseen), -1))


def cell_grid(run: Run) -> Grid:
    """Return rows and columns of what the policy chooses from: patches, or squares of them.

    Raises:
        ValueError: the model cannot scan, or the squares are not all equally large.
    """
    run.model.check_scannable()
    (rows, cols), side = run.model.grid, run.config.scan.fixation_size
    if rows % side or cols % side:
        raise ValueError(
            f"the squares of {side}x{side} patches of {run.directory} do not divide its {rows}x"
            f"{cols} grid, so that those at the edges are no cells like the others; take a run "
            "whose fixation_size divides both sides"
        )
    return rows // side, cols // side


def forced_scores_of(
    agents: Sequence[Agent],
    run: Run,
    viewed: Viewed,
    *,
    tried: int = 1,
    memory: int = MEMORY,
    advance: Advance = unheard,
) -> list[Float64[np.ndarray, "F N"]]:
    """Return each agent's scores of all cells at each scored fixation, given the viewer's history.

    All look at the same episodes, whose predictions cost the most. Of an agent that tells no
    scores, the cell that it would choose scores 1 and all others 0. Cells that have been viewed
    score 0.

    Args:
        agents: who scores.
        run: its model is the world, its budget that of the episodes.
        viewed: images and viewers, whose scanpaths are no longer than the budget.
        tried: fixations that the agents try at every step.
        memory: bound on what is computed at once, bytes.
        advance: told of the predictions as they are done.
    """
    model, budget, fixations, paths = run.model, run.budget, run.fixations, viewed.paths
    cells, lengths = torch.from_numpy(paths.cell), torch.from_numpy(paths.length)
    generators = [torch.Generator().manual_seed(0) for _ in agents]
    found = torch.zeros(len(agents), *cells.shape, paths.num_cells)
    each = bytes_per_row(model, budget * fixations.size)
    by_length = lengths.argsort(stable=True)
    at_once = rows_memory(agents, memory)
    for rows in split_rows(by_length, model.num_patches * tried, each, at_once):
        images = viewed.images[torch.from_numpy(paths.image)[rows]]
        device = device_of(model)
        episode = Episode(model, pixels_of(images, device), budget=budget, fixations=fixations)
        longest = int(lengths[rows].max())
        for number in range(longest):
            if number >= paths.num_given:
                for place, (agent, generator) in enumerate(zip(agents, generators, strict=True)):
                    found[place, rows, number] = _scores(agent, episode, generator).cpu()
            if number < longest - 1:
                # A scanpath that has ended stays where it is; nobody asks what comes next.
                at = cells[rows].gather(1, (lengths[rows] - 1).clamp_max(number).unsqueeze(1))
                episode.step(episode.opens(at.squeeze(1).to(device)))
        advance(len(rows) * model.num_patches * longest * tried)
    steps = paths.steps
    scored = found.numpy()[:, steps.trial, steps.number]
    return [_of_new_cells(of_agent, steps, run) for of_agent in scored]


def image_scores(
    agent: ScoringAgent, run: Run, viewed: Viewed, memory: int = MEMORY
) -> Float64[np.ndarray, "F N"]:
    """Return what :func:`forced_scores_of` does, of one agent whose scores no history changes.

    Each image is scored once, and not once for each fixation of each viewer.
    """
    model, budget = run.model, run.budget
    each = bytes_per_row(model, budget * run.fixations.size)
    found = []
    for part in split_rows(viewed.images, model.num_patches, each, memory):
        images = pixels_of(part, device_of(model))
        found.append(agent.scores(Episode(model, images, budget=budget, fixations=run.fixations)))
    steps = viewed.paths.steps
    return _of_new_cells(torch.cat(found).cpu().numpy()[steps.image], steps, run)


def _of_new_cells(scores: np.ndarray, steps: Steps, run: Run) -> Float64[np.ndarray, "F N"]:
    """Return scores with 0 at cells that have been viewed, which may not be finite.

    Raises:
        ValueError: others are not finite.
    """
    scores = np.where(steps.viewed, 0.0, scores.astype(np.float64))
    if not np.isfinite(scores).all():
        raise ValueError(
            f"scores of the run in {run.directory} are not finite, in "
            f"{int((~np.isfinite(scores)).any(1).sum())} of {len(scores)} fixations; its training "
            "went wrong, train anew"
        )
    return scores


@torch.no_grad()
def _scores(agent: Agent, episode: Episode, generator: torch.Generator) -> Tensor:
    if isinstance(agent, ScoringAgent):
        return agent.scores(episode)
    chosen = cells_opened(agent(episode, generator), episode.fixations)
    num_cells = len(episode.fixations)
    # An agent may open nothing at all.
    return torch.nn.functional.one_hot(chosen + 1, num_cells + 1)[:, 1:].float()


def cells_opened(patches: Int[Tensor, "..."], fixations: Fixations) -> Int[Tensor, "..."]:
    """Return the cell of what each row opens, by its first new patch; -1 where it opens none."""
    opened = patches.reshape(len(patches), -1)
    # What has been seen of a segment is padding, be it at its beginning.
    place = (opened >= 0).int().argmax(1, keepdim=True)
    first = opened.gather(1, place).squeeze(1)
    known = send(fixations.fixation_of, first.device)[first.clamp_min(0)]
    return torch.where(first >= 0, known, -1)


def order_scores(rank: Float64[np.ndarray, "M A"], steps: Steps) -> Float64[np.ndarray, "F A"]:
    """Return the scores of an order: minus the new cells that it comes to before each.

    Args:
        rank: when each cell comes in the order of each image; ties by number.
        steps: the scored fixations.
    """
    order = rank.argsort(axis=1, kind="stable")[steps.image]
    new = np.take_along_axis(~steps.viewed, order, axis=1)
    before = np.cumsum(new, axis=1) - new
    scores = np.empty(before.shape)
    np.put_along_axis(scores, order, -before.astype(np.float64), axis=1)
    return scores


def ranks_of(
    order: Ordering, run: Run, images: Num[Tensor, "M C H W"]
) -> Float64[np.ndarray, "M A"]:
    """Return when each cell comes in an order's scanpath of each image."""
    generator, fixations = torch.Generator().manual_seed(run.seed), run.fixations
    number = len(fixations)
    paths = ordered_in_chunks(order, run.model, images, number, generator, fixations)
    cells = cells_opened(paths.reshape(len(images) * number, -1), fixations).view(
        len(images), number
    )
    return cells.argsort(1).double().cpu().numpy()

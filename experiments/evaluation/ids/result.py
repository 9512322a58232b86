"""Scores of the environments, an id a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from experiments.evaluation.intervals import Interval
from experiments.tables import Result, Table, plural, short_commit, with_interval

AGENTS = {
    "random": "random",
    "center_out": "center out",
    "uncertainty": "uncertainty",
    "maskable_ppo": "MaskablePPO",
    "native": "native",
}
"""Who scans, and what the table calls them."""


@dataclass(frozen=True, kw_only=True)
class MeanOverImages:
    """A mean over test images."""

    mean: float
    ci95: Interval | None


@dataclass(frozen=True, kw_only=True)
class IdScore:
    """What one agent reached on one id."""

    episode_return: MeanOverImages
    """Sum of the rewards of an episode."""
    auc: MeanOverImages
    """Area under the error curve."""
    right: float | None
    """Share of images whose class the last guess names; None = there are no guesses."""


@dataclass(frozen=True, kw_only=True)
class IdRow:
    """The agents on one id."""

    budget: int
    """Fixations per episode."""
    num_patches: int
    """Patches of an image."""
    agents: dict[str, IdScore]
    """By name."""

    def cell(self, agent: str) -> str:
        """Write what an agent reached: the area; where there are guesses return and share right."""
        score = self.agents[agent]
        shown = score.auc if score.right is None else score.episode_return
        text = with_interval(shown.mean, shown.ci95)
        return text if score.right is None else f"{text}, {score.right:.0%}"

    @property
    def unit(self) -> str:
        """What the row's numbers are."""
        has_guesses = next(iter(self.agents.values())).right is not None
        return "return, right" if has_guesses else "area"


@dataclass(frozen=True, kw_only=True)
class IdsResult(Result):
    """Scores of all agents on every id."""

    kind: ClassVar[str] = "ids"

    ids: dict[str, IdRow]
    """By id, without namespace, split and version."""
    steps: int
    """Environment steps of each training."""
    test_images: int
    seed: int | None = None
    """Of a result from before there were several; later ones have ``seeds``."""
    seeds: tuple[int, ...] = ()
    seconds: float
    """Time of the whole run."""
    threads: int
    commit: str

    def tables(self) -> list[Table]:
        """Return one table, a row for each id."""
        seeds = self.seeds or (self.seed,)
        over = "images" if len(seeds) == 1 else "seeds and images"
        of = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        return [
            Table(
                caption=f"{self.test_images} test images, learners after {self.steps} steps, {of}, "
                f"95% intervals over {over}; {self.seconds / 60:.1f} minutes on "
                f"{plural(self.threads, 'CPU thread')}, commit `{short_commit(self.commit)}`.",
                columns=("id", "fixations", "score", *AGENTS.values()),
                rows=tuple(
                    (
                        name,
                        f"{row.budget} of {row.num_patches}",
                        row.unit,
                        *(row.cell(agent) for agent in AGENTS),
                    )
                    for name, row in self.ids.items()
                ),
                notes=(
                    "Area: under the error curve, lower is better. Return: fall of the "
                    "cross-entropy over an episode, nats, higher is better; beside it the share of "
                    "images whose class the last guess names.",
                ),
            )
        ]

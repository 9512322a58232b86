"""A grid: trainings by name, what their runs are asked, and the rule by which some of them go on.

No torch here, so that mistakes are found before it is imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Literal

from experiments.evaluation.options import check_seeds
from experiments.studies.asked import Asked as Asked  # With Cell, public names of this module.
from experiments.studies.cell import Cell as Cell
from experiments.studies.cell import check_left_to_the_study
from foveate.choices import blaming, check_choice, told
from foveate.sizes import check_at_least

Split = Literal["val", "test"]


@dataclass(frozen=True, kw_only=True)
class Screening:
    """A smaller setting first, in which cells are chosen on validation images.

    A cell goes on to the grid's own setting if its mean is at least that of its baseline less
    ``within``, and if it is among the ``most`` that are furthest ahead; or if a cell goes on whose
    baseline it is.
    """

    options: Mapping[str, object] = field(default_factory=dict)
    """Options of all cells that make the setting small, such as ``{"embed_dim": 64}``."""
    seeds: tuple[int, ...] = (0, 1)
    by: str = "linear, full"
    """Measure that decides."""
    within: float = 0.01
    """How far behind the baseline a cell may be; of accuracies 0.01 is a point."""
    most: int | None = None
    """Cells that may go on, beside their baselines; None = all."""
    teraflops: float | None = None
    """Operations of each run; None = the grid's."""
    asked: Asked | None = None
    """What is asked; None = what the grid asks. Of either nothing that a test split answers."""

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        check_left_to_the_study(self.options)
        check_at_least(self, 0, "within")
        check_at_least(self, 1, "most")

    @property
    def rule(self) -> str:
        """Say the rule in words."""
        furthest = "" if self.most is None else f", and among the {self.most} furthest ahead"
        return (
            f"Every cell is screened with {len(self.seeds)} seeds on validation "
            f"images. It goes on if its mean of {self.by} is at most {self.within:g} worse than "
            f"that of its baseline{furthest}. What goes on is trained anew, with its baseline, and "
            "asked once, on test images."
        )


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Cells, and what is asked of them."""

    cells: tuple[Cell, ...]
    name: str = "grid"
    question: str = ""
    """What the study answers, a sentence."""
    baseline: str | None = None
    """Cell that the others are set against; None = the first."""
    seeds: tuple[int, ...] = (0, 1, 2)
    least_seeds: int = 1
    """Seeds of every cell, at least."""
    verdict_seeds: int = 3
    """Seeds of which fewer call no cell better or worse: too few to say."""
    asked: Asked = field(default_factory=Asked)
    screening: Screening | None = None
    """None = every cell is trained in the grid's setting."""
    teraflops: float | None = None
    """Operations of each run, 10^12: iterations are scaled to fill them, warm-up and others alike;
    None = iterations are the cells'."""
    summary: str | None = None
    """``MODULE:NAME`` of what makes a result of one's own from the folder of the runs and the grid,
    once all are done; None = a :class:`~experiments.studies.result.GridResult` alone."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(
                f"the name of a grid names a folder: letters, digits, _, - and .; got {self.name!r}"
            )
        for field_name, kind in (("cells", Cell), ("seeds", int)):
            given = getattr(self, field_name)
            if not isinstance(given, tuple) or not all(isinstance(each, kind) for each in given):
                what = f"{field_name} takes a tuple of {kind.__name__}"
                raise ValueError(f"{what}, got {told(given)}")
        if not isinstance(self.asked, Asked):
            raise ValueError(f"asked takes what Asked(...) makes, got {told(self.asked)}")
        names = [cell.name for cell in self.cells]
        if not names:
            raise ValueError(f"grid {self.name} has no cells")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"cells need different names; {', '.join(twice)} is there twice")
        if self.baseline is not None:
            check_choice("baseline", self.baseline, names)
        for seeds in (self.seeds, *(cell.seeds for cell in self.cells if cell.seeds is not None)):
            check_seeds(seeds)
            if len(seeds) < self.least_seeds:
                raise ValueError(
                    f"grid {self.name} takes {self.least_seeds} or more seeds, to have intervals; "
                    f"got {' '.join(map(str, seeds))}"
                )
        check_at_least(self, 2, "verdict_seeds")
        small = None if self.screening is None else self.screening.teraflops
        for each in (self.teraflops, small):
            if each is not None and not 0 < each < float("inf"):
                raise ValueError(f"teraflops must be above 0 and finite, got {each}")
        if self.teraflops is not None or small is not None:
            self._check_lengths()
        self._check_relations()

    def _check_lengths(self) -> None:
        """Raise ValueError if cells would be the same training by as many operations."""
        found: dict[str, tuple[str, int]] = {}
        for cell in self.cells:
            config = cell.config()
            options = config.flat()
            lengths = options.pop("iterations", 0), options.pop("warmup_iterations")
            ratio = Fraction(lengths[1], config.total_iterations or 1)
            training = repr((sorted(options.items()), sorted(cell.needs.items()), ratio))
            name, total = found.setdefault(training, (cell.name, config.total_iterations))
            if total != config.total_iterations:
                raise ValueError(
                    f"cells {name} and {cell.name} differ in their iterations alone, and teraflops "
                    "makes these equal; leave out teraflops, or one of the cells"
                )

    def _check_relations(self) -> None:
        """Raise ValueError if a cell is set against, or needs, what cannot be."""
        cells = {cell.name: cell for cell in self.cells}
        for cell in self.cells:
            with blaming("cell", cell.name):
                for relation in ("against", "needs"):
                    named = cell.needs.values() if relation == "needs" else (cell.against,)
                    for name in named:
                        if name is not None:
                            check_choice(relation, name, cells)
                        if name == cell.name:
                            raise ValueError(f"{relation} must name another cell")
        asked_of = {cell.against for cell in self.cells} | {self.against}
        needed = {name for cell in self.cells for name in cell.needs.values()}
        for cell in self.cells:
            with blaming("cell", cell.name):
                if cell.name in self.needs_of(cell.name):
                    raise ValueError("it needs itself, by way of others")
                if cell.reference and cell.name in asked_of:
                    raise ValueError("a reference is not asked, so that it is no baseline")
                if cell.reference and cell.name not in needed:
                    raise ValueError("no cell needs this reference; leave it out")
                for name in cell.needs.values():
                    lacking = set(self.seeds_of(cell)) - set(self.seeds_of(cells[name]))
                    if lacking:
                        seeds = " ".join(map(str, sorted(lacking)))
                        raise ValueError(f"it needs {name} with seeds {seeds}; give {name} those")

    @property
    def against(self) -> str:
        """Name of the baseline."""
        return self.baseline or self.cells[0].name

    @property
    def own_baselines(self) -> dict[str, str]:
        """Baseline of each cell that has one of its own, besides the grid's."""
        return {c.name: c.against for c in self.cells if c.against not in (None, self.against)}

    def needs_of(self, name: str) -> tuple[str, ...]:
        """Return the cells whose runs a cell needs, be it by way of others."""
        needs = {cell.name: tuple(cell.needs.values()) for cell in self.cells}
        found = list(needs[name])
        for each in found:
            found += [further for further in needs[each] if further not in found]
        return tuple(dict.fromkeys(found))

    def seeds_of(self, cell: Cell) -> tuple[int, ...]:
        """Return the seeds of a cell in the grid's own setting."""
        return self.seeds if cell.seeds is None else cell.seeds

    def changed(
        self,
        *,
        seeds: tuple[int, ...] | None = None,
        iterations: int | None = None,
        limit: int | None = None,
        teraflops: float | None = None,
        screening_teraflops: float | None = None,
        cells: Sequence[str] | None = None,
    ) -> Grid:
        """Return the grid with what a command line may change; None leaves it.

        Args:
            seeds: of every cell; screening takes the first of them, as many as it had.
            iterations: with a policy, of the cell that has the most; of others in proportion.
            limit: images that are asked about, in screening as well.
            teraflops: operations of every run in the grid's own setting.
            screening_teraflops: operations of every run in screening.
            cells: that are trained, without a screening, with those that they are set against and
                need.

        Raises:
            ValueError: there are no such cells or no screening, or fewer than 1 iterations.
        """
        grid = self if cells is None else self._of(cells)
        if teraflops is not None:
            if (rule := grid.screening) is not None and rule.teraflops is None:
                rule = replace(rule, teraflops=grid.teraflops)
            grid = replace(grid, teraflops=teraflops, screening=rule)
        if screening_teraflops is not None:
            if grid.screening is None:
                raise ValueError("screening_teraflops has no effect without a screening")
            smaller = replace(grid.screening, teraflops=screening_teraflops)
            grid = replace(grid, screening=smaller)
        if seeds is not None:
            if (rule := grid.screening) is not None:
                rule = replace(rule, seeds=seeds[: len(rule.seeds)])
            all_seeds = tuple(replace(cell, seeds=None) for cell in grid.cells)
            grid = replace(grid, seeds=seeds, screening=rule, cells=all_seeds)
        if iterations is not None:
            if iterations < 1:
                raise ValueError(f"iterations must be at least 1, got {iterations}")
            grid = replace(grid, cells=grid._scaled(iterations))
        if limit is not None:
            rule, asked = grid.screening, grid.asked.of_images(limit)
            if rule is not None and rule.asked is not None:
                rule = replace(rule, asked=rule.asked.of_images(limit))
            grid = replace(grid, asked=asked, screening=rule)
        return grid

    def _scaled(self, iterations: int) -> tuple[Cell, ...]:
        """Return the cells, the longest with so many iterations with a policy."""
        configs = {cell.name: cell.config() for cell in self.cells}
        own = {name: config.iterations for name, config in configs.items() if config.policy}
        factor = iterations / max(own.values(), default=1)
        scaled = {name: max(1, round(number * factor)) for name, number in own.items()}
        return tuple(
            replace(cell, training=configs[cell.name].replace(iterations=scaled[cell.name]))
            if cell.name in scaled
            else cell
            for cell in self.cells
        )

    def _of(self, names: Sequence[str]) -> Grid:
        """Return the grid of some cells, and what goes with them, which nothing screens."""
        known = {cell.name: cell for cell in self.cells}
        for name in names:
            check_choice("cell", name, known)
        kept = self.with_company(names)
        cells = tuple(cell for cell in self.cells if cell.name in kept)
        return replace(self, cells=cells, screening=None)

    def with_company(self, names: Iterable[str]) -> set[str]:
        """Return these cells, the baselines that they are set against, and what all these need."""
        company = {c.name: {c.against or self.against, *c.needs.values()} for c in self.cells}
        kept = set(names) | {self.against}
        while more := {each for name in kept for each in company[name]} - kept:
            kept |= more
        return kept

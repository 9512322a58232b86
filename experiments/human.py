"""Do learned scanpaths look where people look? Compare a run with human viewers of photographs.

    python -m experiments.human --run runs/photographs --data osie_fixations.parquet
    python -m experiments.human --run runs/seed_0 runs/seed_1 runs/seed_2 --data ...
    python -m experiments.human --data osie_fixations.parquet

The data are a parquet file of images with the fixations of their viewers (docs/human.md). For
every fixation of a viewer, each order and agent says where it should fall, given the viewer's own
history: bits per fixation over uniform and over the center bias, NSS and AUC. Their own scanpaths
are compared with the viewers' by ScanMatch and MultiMatch. Beside them stand what says nothing of
the image, and the other viewers. Without a run these stand alone. Densities are fitted on training
images.

Of several seeds the means and intervals are over seeds and images. Writes human.json, human.png
(scanpaths), human_densities.png and human_where.png (contrast, and distance from the center) into
the folder of the first run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.cli import main_with_options
from experiments.evaluation.options import check_memory


@dataclass(frozen=True, kw_only=True)
class HumanConfig:
    """Options of the comparison with human viewers."""

    data: Path
    """Parquet file of images and fixations. Train is what densities are fitted on, test what is
    asked; without a column ``split`` a part is held out."""
    run: tuple[Path, ...] = ()
    """Run folders made by experiments.train; several are runs of one kind and different seeds. None
    = nulls and ceilings alone."""
    out: Path | None = None
    """Folder of the results; None = the first run's, or runs/human without one."""
    orders: tuple[str, ...] = ()
    """Orders and oracles to compare; none = center_out, farthest_point, raster and oracle_16.
    Policy, the same untrained, best fixed order, another image's policy, saliency and uncertainty
    are there without being named.
    ``MODULE:NAME`` of your own come on top."""
    without: tuple[str, ...] = ()
    """Orders, oracles and agents to leave out."""
    agents: tuple[str, ...] = ()
    """Agents of your own, ``MODULE:NAME`` of a class or function that makes one without arguments.
    One with a method ``scores`` is asked for these."""
    grid: str | None = None
    """Cells without a run, ROWSxCOLS; None = 12x16. A run has its own."""
    first_fixation: bool = False
    """Score each scanpath's first fixation too. Otherwise it is given, as part of the history, and
    all scanpaths of orders and agents begin at the center."""
    revisits: bool = False
    """Keep fixations of cells that the viewer has fixated before."""
    limit: int = 200
    """Test images."""
    train_limit: int = 200
    """Training images, to whose viewers densities are fitted."""
    fit_limit: int = 30
    """Of these the first ones, on which orders and agents score, to fit their temperature. Each
    costs as much as a test image."""
    oracle_limit: int = 5
    """Images of test and training on which oracles score, the costliest by far."""
    memory: float = 1.0
    """Bound on what a scan computes at once, GB (10^9 bytes), at least 0.064."""
    image_column: str | None = None
    """Column of the file with its images; None = as of experiments.train."""
    split_column: str | None = "split"
    """Column of each row's split (``split``, where there is one). None = hold val and test out of
    all rows by name."""
    device: str = "cpu"
    """Torch device."""
    threads: int | None = None
    """CPU threads; None = torch's choice."""

    def __post_init__(self) -> None:
        check_memory(self.memory)
        for name in ("fit_limit", "oracle_limit", "memory"):
            if not self.run and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"{name} has no effect without --run; leave it out")


def main(config: HumanConfig) -> None:
    """Compare as configured."""
    from experiments.evaluation.human.evaluate import compare_with_viewers
    from experiments.evaluation.human.picture import present_human
    from experiments.run_folder import check_writable
    from experiments.runs import load_run
    from experiments.training.build import set_threads
    from foveate.checkpoint import check_device

    set_threads(config.threads)
    check_device(config.device)
    runs = [load_run(each, config.device) for each in config.run]
    out = config.out or next(iter(config.run), Path("runs/human"))
    out.mkdir(parents=True, exist_ok=True)
    check_writable(out)
    measured = compare_with_viewers(
        runs,
        config.data,
        orders=config.orders,
        without=config.without,
        agents=config.agents,
        grid=config.grid,
        first_fixation=config.first_fixation,
        revisits=config.revisits,
        limit=config.limit,
        train_limit=config.train_limit,
        fit_limit=config.fit_limit,
        oracle_limit=config.oracle_limit,
        memory=config.memory,
        image_column=config.image_column,
        split_column=config.split_column,
    )
    present_human(measured, out / "human.json", config.threads)


if __name__ == "__main__":
    main_with_options(main, HumanConfig)

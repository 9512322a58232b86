"""Keep and print what was measured of a run; :func:`report` measures all that is said of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.evaluation.compare.evaluate import compare, draw_comparison
from experiments.evaluation.compare.result import Comparison
from experiments.evaluation.draw import draw
from experiments.evaluation.probe.evaluate import probe
from experiments.evaluation.probe.picture import draw_fixations
from experiments.evaluation.probe.result import ProbeResult
from experiments.evaluation.questions import NoLabels
from experiments.evaluation.run_result import RunResult
from experiments.runs import load_run
from experiments.tables import written_whole

PROBED = ("policy", "random", "center_out", "best_fixed")
"""Orders after whose fixations a report asks what is recognized."""


def present(
    result: RunResult,
    path: Path,
    threads: int | None = None,
    pictures: Sequence[Path] = (),
) -> None:
    """Write a result with its options, and print its tables.

    Args:
        result: what was measured.
        path: its file.
        threads: option of the script that measured; None = torch's choice.
        pictures: files that show it; earlier ones are kept if the earlier result is.
    """
    result.keep(path, {**result.options, "threads": threads}, pictures)
    print(f"\n{result.to_text()}")
    print(f"written: {path}")


def present_comparison(comparison: Comparison, folder: Path, threads: int | None = None) -> None:
    """Write and draw a comparison, and print its tables; arguments as of :func:`present`."""
    other = comparison.options["judge"] is not None
    path = folder / f"compare{f'_judged_by_{comparison.judge}' if other else ''}.json"
    picture = path.with_suffix(".png")
    present(comparison, path, threads, [picture])
    with written_whole(picture) as partial:
        draw_comparison(comparison, partial)
    print(f"written: {picture}")


def present_probe(result: ProbeResult, path: Path, threads: int | None = None) -> None:
    """Write a probe, draw what is recognized by fixations; arguments as of :func:`present`."""
    picture = path.with_name(f"{path.stem}_fixations.png")
    present(result, path, threads, [picture])
    if result.fixations is not None:
        with written_whole(picture) as partial:
            draw_fixations(result, partial)
        print(f"written: {picture}")


def present_drawings(files: list[Path]) -> None:
    """Say where drawings are."""
    print("written: " + ", ".join(map(str, files)))


def report(folder: Path, *, device: str = "cpu", data_changed_ok: bool = False) -> None:
    """Compare orders, draw scanpaths, and probe: about two minutes on 2 cores.

    The comparison takes 400 test images, the probe 4,000 training and 2,000 test images, or the
    number that the run was trained on where that is less. A model that cannot scan is only probed,
    when it has seen all patches; without labels nothing is.
    """
    run = load_run(folder, device=device, data_changed_ok=data_changed_ok)
    most = run.config.data.limit or 4000
    options: dict[str, Any] = {}
    if run.model.config.scannable:
        few = max(2, min(400, most))  # Intervals are over images.
        print(f"comparing orders on up to {few} test images; the oracles take longest", flush=True)
        present_comparison(compare(run, limit=few, oracle_limit=min(100, few)), folder)
        present_drawings(draw(run, index=tuple(range(min(6, len(run.split("test", 6)))))))
        options = {"fixations": (run.budget,), "orders": PROBED, "read_outs": ("seen", "attentive")}
    limits: dict[str, Any] = {"train_limit": min(4000, most), "test_limit": min(2000, most)}
    print(f"probing on up to {limits['train_limit']:,} training images", flush=True)
    try:
        present_probe(probe(run, **limits, **options), folder / "probe.json")
    except NoLabels as reason:
        print(f"no probe: {reason}")

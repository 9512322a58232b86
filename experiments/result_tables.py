"""Result files of the studies and benchmarks as Markdown; each has a ``kind`` that names its table.

``experiments.record --result`` keeps such a file and renders it wherever its record's name is
marked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def study_table(result: dict[str, Any]) -> str:
    """Agents by area under the error curve, with the seconds that each seed took."""
    target = result["target_train_auc"]
    lines = [
        f"Preset `{result['preset']}`, seeds {', '.join(map(str, result['seeds']))}, "
        f"{result['test_images']} test images (the oracle on the first 100), "
        f"{plural(result['threads'], 'CPU thread')}, commit `{result['commit'][:10]}`.",
        "",
        "| agent | area under the error curve, 95% interval over seeds "
        f"| seconds until its training scans reach {target:.3f}, by seed |",
        "|---|---|---|",
    ]
    for name, row in result["agents"].items():
        low, high = row["auc_ci95"]
        seconds = ", ".join(f"{taken:.0f}" for taken in row.get("seconds_to_target", []))
        lines.append(f"| {name} | {row['auc']:.4f} [{low:.4f}, {high:.4f}] | {seconds} |")
    return "\n".join(lines)


def bench_env_table(result: dict[str, Any]) -> str:
    """Environment steps per second of every contender."""
    table = result["steps_per_s"]
    rows = list(table)
    lines = [
        f"{result['budget']} of {result['num_patches']} patches, "
        f"{plural(result['threads'], 'CPU thread')}, median of {result['repeats']} alternating "
        f"episodes, commit `{result['commit'][:10]}`.",
        "",
        "| environment steps/s | " + " | ".join(f"{count} rows" for count in rows) + " |",
        "|---|" + "---|" * len(rows),
    ]
    for name in table[rows[0]]:
        lines.append(f"| {name} | " + " | ".join(f"{table[r][name]:.0f}" for r in rows) + " |")
    for key in ("vector_over_dummy_env_steps", "vector_over_uncached"):
        ratios = " | ".join(f"{result[key][r]:.1f}x" for r in rows)
        lines.append(f"| **{key.replace('_', ' ')}** | {ratios} |")
    return "\n".join(lines)


def plural(number: int, noun: str) -> str:
    """Count a noun: 1 thread, 2 threads."""
    return f"{number} {noun}{'s' * (number != 1)}"


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "study": study_table,
    "bench_env": bench_env_table,
}
"""Renderers by the ``kind`` of a result file."""

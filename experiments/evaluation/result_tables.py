"""Result files of the studies and benchmarks as Markdown; each has a ``kind`` that names its table.

``experiments.record --result`` keeps such a file and renders it wherever its record's name is
marked.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from experiments.evaluation.intervals import seed_interval


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


def with_interval(row: dict[str, Any], key: str) -> str:
    """Write a mean and, where it was measured more than once, its 95% interval."""
    interval = row[f"{key}_ci95"]
    suffix = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{row[key]:.3f}{suffix}"


def bench_table(result: dict[str, Any]) -> str:
    """A benchmark's rows, and the numbers that checks read."""

    def cell(value: str | float | None) -> str:
        if value is None:
            return "cannot be measured"
        return value if isinstance(value, str) else f"{value:.4g}"

    lines = [
        f"{result['caption']}. {plural(result['threads'], 'CPU thread')}, median of "
        f"{result['repeats']}, commit `{result['commit'][:10]}`.",
        "",
        "| " + " | ".join(result["columns"]) + " |",
        "|---" * len(result["columns"]) + "|",
        *("| " + " | ".join(map(cell, row)) + " |" for row in result["rows"]),
        "",
        ", ".join(f"`{key}` {cell(result[key])}" for key in result["keys"]) + ".",
    ]
    return "\n".join(lines)


def orders_table(result: dict[str, Any]) -> str:
    """Orders by linear accuracy, with what their models cost; distillations in a table apart."""
    orders = dict(sorted(result["orders"].items(), key=lambda item: -item[1]["linear"]))
    first = next(iter(orders.values()))["runs"][0]
    millions = [run["parameters"] / 1e6 for row in orders.values() for run in row["runs"]]
    sizes = dict.fromkeys(f"{size:.2f}" for size in (min(millions), max(millions)))
    model = "recipes of their own order, decoder and target"
    if result["recipe"] is not None:
        memory = f", memory {result['memory']}" if "memory" in result else ""
        model = f"recipe `{result['recipe']}` with target {result['target']}{memory}"
    limit, probed = result.get("limit"), result["commit"]
    data = result["data"] if limit is None else f"first {limit} images of {result['data']}"
    if result.get("augment"):
        data += ", flipped and shifted at random"
    if result["recipe"] is not None and "patches" in first:
        data += f", {first['patches']} patches"
    lines = [
        f"{data}, {model}, {' to '.join(sizes)} M parameters, "
        f"{result['teraflops']:g} TFLOP a run, "
        f"{result['precision']}, seeds {', '.join(map(str, result['seeds']))}, "
        f"{plural(result['threads'], 'CPU thread')}, probed with {result['probe_train']} training "
        f"and {result['probe_test']} test images at the layer that is best on held-out training "
        f"images, commit `{first['commit'][:10]}`"
        + (f", probed at `{probed[:10]}`." if probed != first["commit"] else "."),
    ]
    for distilled in (False, True):
        chosen = {name: row for name, row in orders.items() if is_distilled(row) == distilled}
        if distilled and chosen:
            lines += ["", "Distillations, which see features beside pixels:"]
        if chosen:
            lines += ["", *order_rows(chosen, of_recipes=result["recipe"] is None)]
    if result["recipe"] is not None and len(result["seeds"]) > 1:
        reference = next(iter(result["orders"]))
        differences = [
            f"{name} {with_difference(row, result['orders'][reference])}"
            for name, row in orders.items()
            if name != reference
        ]
        lines += ["", f"Minus {reference}, paired over seeds: {'; '.join(differences)}."]
    return "\n".join(lines)


def with_difference(row: dict[str, Any], reference: dict[str, Any]) -> str:
    """Write the differences of all probes from another row's, with 95% intervals over seeds."""
    cells = []
    for key, what in accuracies_of(row).items():
        pairs = zip(row["runs"], reference["runs"], strict=True)
        differences = [one[key] - other[key] for one, other in pairs]
        low, high = seed_interval(differences)
        cells.append(f"{what} {statistics.mean(differences):+.3f} [{low:+.3f}, {high:+.3f}]")
    return ", ".join(cells)


def is_distilled(row: dict[str, Any]) -> bool:
    """Whether a row's models learned from features."""
    return bool(row["runs"][0].get("target") == "features")


ACCURACIES = {
    "linear": "linear",
    "linear_causal": "linear, causal mask",
    "knn": "k-NN",
    "knn_causal": "k-NN, causal mask",
}
"""What is measured of a row of orders or recipes, and what tables call it."""


def accuracies_of(row: dict[str, Any]) -> dict[str, str]:
    """Accuracies that a row has: older ones lack the causal mask."""
    return {key: name for key, name in ACCURACIES.items() if key in row}


def order_rows(orders: dict[str, dict[str, Any]], *, of_recipes: bool) -> list[str]:
    """Head and rows of a table of orders or recipes."""
    accuracies = accuracies_of(next(iter(orders.values())))
    heads = [
        "recipe" if of_recipes else "order",
        *(f"{name}, 95% interval" for name in accuracies.values()),
        "TFLOP",
        "images",
        "images/s",
        "activations, MB",
        "by seed",
    ]
    heads[1] += " over seeds"
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, row in orders.items():
        runs = row["runs"]
        cells = [name]
        if of_recipes:
            cells = [f"{name} ({runs[0]['patches']} patches, target {runs[0]['target']})"]
        cells += [with_interval(row, key) for key in accuracies]
        for key, form in (
            ("teraflops", ".1f"),
            ("images", ".0f"),
            ("images_per_s", ".0f"),
            ("saved_mb", ".0f"),
        ):
            cells.append(format(sum(run[key] for run in runs) / len(runs), form))
        cells.append(", ".join(f"{run['linear']:.3f}" for run in runs))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def minutes(seconds: float | None) -> str:
    """How long a model was trained."""
    return "an unknown time" if seconds is None else plural(round(seconds / 60), "minute")


def decode_table(result: dict[str, Any]) -> str:
    """Decodings by their number of passes."""
    other = result.get("against_train_seconds")
    trained = minutes(result["train_seconds"])
    if other is not None:
        trained += f" (the autoregressive one for {minutes(other)})"
    lines = [
        f"A model of {result['data']}, trained for {trained}: {result['num_images']} "
        f"images of {result['num_patches']} pixels, {result['repeats']} repetitions, "
        f"distances by this model's features, "
        f"{plural(result['threads'], 'CPU thread')}, commit `{result['commit'][:10]}`.",
        "",
        "| decoding | forward passes | s/image | Frechet distance, 95% interval |",
        "|---|---|---|---|",
    ]
    for name, row in result["decodings"].items():
        lines.append(
            f"| {name} | {row['passes']} | {row['seconds_per_image']:.4f} "
            f"| {with_interval(row, 'distance')} |"
        )
    return "\n".join(lines)


def read_table(result: dict[str, Any]) -> str:
    """What a model writes at the policy's fixations, and at random points."""
    lines = [
        f"{result['data']}, {result['test_images']} test images, {result['tracks']} points of "
        f"each, seed {result['seed']}, trained for {minutes(result['train_seconds'])}, "
        f"commit `{result['commit'][:10]}`; intervals over images.",
        "",
        "| points | sentences right, 95% interval | most sentences of an image right |",
        "|---|---|---|",
    ]
    for name, row in result["points"].items():
        cells = [with_interval(row, what) for what in ("sentences", "images")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "study": study_table,
    "bench_env": bench_env_table,
    "bench": bench_table,
    "orders": orders_table,
    "decode": decode_table,
    "read": read_table,
}
"""Renderers by the ``kind`` of a result file."""

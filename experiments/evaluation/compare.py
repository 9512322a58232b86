"""The measurements behind ``experiments.compare``: scanpaths, error curves, and diagnostics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from agents.baselines import (
    GreedyOracleAgent,
    OrderAgent,
    SaliencyAgent,
    UncertaintyAgent,
    error_after,
    scan_with,
)
from agents.policies import Agent
from envs.episode import Episode
from experiments.cli import signed
from experiments.runs import Run, git_commit, load_run, write_result
from experiments.training.build import set_threads
from foveate.choices import lookup
from foveate.drawing import error_curves
from foveate.model import AnyOrderTransformer
from foveate.orders import ORDERINGS, mean_rank_order, order_to_rank, rank_to_order
from foveate.orders.semantic import SEMANTIC, model_ordering

if TYPE_CHECKING:
    from experiments.compare import CompareConfig

ORACLE_CANDIDATES = 16
AGENTS: dict[str, Callable[[], Agent]] = {
    "saliency": SaliencyAgent,
    "uncertainty": UncertaintyAgent,
}
"""Agents that are compared with the policy, beside the oracles."""
IMAGE_INDEPENDENT = ("best_fixed", "other_image")
"""Controls that a policy which looks at the image must beat."""
MAX_PREDICTIONS = 200_000
"""Patches predicted in one pass, so that memory does not grow with the grid."""


def split_rows(rows: Tensor, predictions_per_row: int) -> tuple[Tensor, ...]:
    """Split rows into chunks of at most MAX_PREDICTIONS predictions."""
    return rows.split(max(1, MAX_PREDICTIONS // predictions_per_row))


def error_curves_of(
    model: AnyOrderTransformer, images: Float[Tensor, "B C H W"], order: Int[Tensor, "B T"]
) -> Float[np.ndarray, "B S"]:
    """Error curves of scanpaths of the first images, a chunk at a time."""
    each = model.num_patches * (order.shape[1] + 1)
    pairs = zip(split_rows(images[: len(order)], each), split_rows(order, each), strict=True)
    return torch.cat([model.error_curve(*pair) for pair in pairs]).cpu().numpy()


def scan_in_chunks(
    agent: Agent,
    model: AnyOrderTransformer,
    images: Float[Tensor, "B C H W"],
    budget: int,
    num_candidates: int = 1,
) -> Int[Tensor, "B T"]:
    """Scan many images, a chunk at a time, with a fixed seed.

    Args:
        agent: who scans.
        model: the world.
        images: pixels in [0, 1].
        budget: fixations.
        num_candidates: patches that the agent tries at every step.
    """
    generator = torch.Generator().manual_seed(0)
    chunks = split_rows(images, model.num_patches * num_candidates)
    return torch.cat([scan_with(agent, model, part, budget, generator) for part in chunks])


def make_agent(name: str) -> Agent:
    """Make an agent of AGENTS, or one of the user's own, ``MODULE:NAME``."""
    make = lookup("agent", name, AGENTS)
    try:
        return make()
    except TypeError as reason:
        raise ValueError(f"agent {name!r}, called without arguments: {reason}") from reason


def ordered_in_chunks(
    name: str,
    model: AnyOrderTransformer,
    images: Float[Tensor, "B C H W"],
    budget: int,
    generator: torch.Generator,
) -> Int[Tensor, "B T"]:
    """First fixations of an order on many images, a chunk at a time."""
    order = model_ordering(name, model)
    ranks = [order(part, generator=generator) for part in split_rows(images, model.num_patches)]
    return rank_to_order(torch.cat(ranks))[:, :budget]


def scanpaths(
    run: Run,
    images: Float[Tensor, "B C H W"],
    validation: Float[Tensor, "V C H W"],
    *,
    oracle_limit: int,
    orders: tuple[str, ...] = (),
    agents: tuple[str, ...] = (),
) -> dict[str, Int[Tensor, "B T"]]:
    """Let every order and agent scan the images, and those of the user's own that are named.

    The oracles scan the first ``oracle_limit`` only.

    ``best_fixed`` is the mean rank of the policy on validation images; ``other_image`` gives each
    image the scanpath that the policy chose on a random other one.
    """
    model, budget = run.model, run.config.scan.budget
    generator = torch.Generator().manual_seed(run.config.run.seed)
    chosen_agents = {name: make_agent(name) for name in (*AGENTS, *agents)}
    paths = {
        name: ordered_in_chunks(name, model, images, budget, generator)
        for name in (*ORDERINGS, *SEMANTIC, *orders)
    }
    paths["policy"] = scan_in_chunks(run.agent, model, images, budget)
    # Not simply the next image: where classes take turns, that one would be of another class. Drawn
    # apart, so that it does not depend on which orders are compared.
    others = torch.Generator().manual_seed(run.config.run.seed)
    shuffled = torch.randperm(len(images), generator=others).to(images.device)
    paths["other_image"] = torch.empty_like(paths["policy"])
    paths["other_image"][shuffled] = paths["policy"][shuffled.roll(1)]
    chosen = order_to_rank(scan_in_chunks(run.agent, model, validation, budget), model.num_patches)
    paths["best_fixed"] = mean_rank_order(chosen)[:budget].expand(len(images), -1)
    for name, agent in chosen_agents.items():
        paths[name] = scan_in_chunks(agent, model, images, budget)
    few = images[:oracle_limit]
    for name, candidates in ((f"oracle_{ORACLE_CANDIDATES}", ORACLE_CANDIDATES), ("oracle", None)):
        paths[name] = scan_in_chunks(
            GreedyOracleAgent(candidates), model, few, budget, candidates or model.num_patches
        )
    return paths


def mean_interval(values: Float[np.ndarray, " B"]) -> tuple[float, list[float]]:
    """Mean and its 95% bootstrap interval over images (percentile, 2,000 resamples, fixed seed)."""
    if np.ptp(values) == 0:
        return float(values[0]), [float(values[0])] * 2
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=2000,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(values.mean()), [float(interval.low), float(interval.high)]


def gap_interval(
    random: Float[np.ndarray, " B"],
    policy: Float[np.ndarray, " B"],
    oracle: Float[np.ndarray, " B"],
) -> tuple[float, list[float]]:
    """Share of the random-to-oracle gap the policy closes, with its paired 95% bootstrap interval.

    ``mean(random - policy) / mean(random - oracle)``: 0 = as random, 1 = as the oracle.
    """

    def share(won: np.ndarray, gap: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(won.mean(axis) / gap.mean(axis))

    won, gap = random - policy, random - oracle
    interval = stats.bootstrap(
        (won, gap),
        share,
        paired=True,
        n_resamples=2000,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(share(won, gap)), [float(interval.low), float(interval.high)]


@torch.no_grad()
def diagnose(
    run: Run,
    images: Float[Tensor, "B C H W"],
    paths: dict[str, Tensor],
    curves: dict[str, Float[np.ndarray, "B S"]],
) -> dict[str, object]:
    """Signs of collapse: does the policy look at the image at all?

    fixation_entropy_nats: entropy over images of the patch fixated at each step (0 = the same for
    all). distinct_orders: different scanpaths over images. own_minus_other: area of the policy's
    own path minus that of another image's (below 0 = the policy uses the image).
    chosen_percentile: where the chosen patch stands among all selectable ones by true one-step
    reward (1 = best, 0.5 = random).
    """
    order = paths["policy"]
    share = torch.nn.functional.one_hot(order, run.model.num_patches).float().mean(0)
    entropy = torch.special.entr(share).sum(-1)
    difference = curves["policy"][:, 1:].mean(1) - curves["other_image"][:, 1:].mean(1)
    mean, interval = mean_interval(difference)

    percentiles = []
    everywhere = torch.arange(run.model.num_patches, device=order.device)
    each = run.model.num_patches**2
    for part, path in zip(
        split_rows(images, each), split_rows(order[: len(images)], each), strict=True
    ):
        episode, agent = Episode(run.model, part, budget=run.config.scan.budget), OrderAgent(path)
        for _ in range(run.config.scan.budget):
            patch = agent(episode)
            after = error_after(episode, everywhere.expand(len(part), -1))
            chosen = after.gather(1, patch.unsqueeze(1))
            others = (episode.selectable.sum(1) - 1).clamp_min(1)
            worse = ((after > chosen) & episode.selectable).sum(1)
            equal = ((after == chosen) & episode.selectable).sum(1) - 1
            percentiles.append((worse + 0.5 * equal) / others)
            episode.step(patch)
    return {
        "fixation_entropy_nats": [round(float(e), 4) for e in entropy],
        "distinct_orders": len(torch.unique(order, dim=0)),
        "images": len(order),
        "own_minus_other": mean,
        "own_minus_other_ci95": interval,
        "chosen_percentile": float(torch.cat(percentiles).mean()),
    }


def compare(config: CompareConfig) -> dict[str, object]:
    """Run the comparison, print the table, and write compare.json and compare.png."""
    set_threads(config.threads)
    run = load_run(config.run, config.device)
    judge = run.model if config.judge is None else load_run(config.judge, config.device).model
    sizes, judged = run.model.config, judge.config
    if (judged.in_chans, judged.image_size, judge.grid) != (
        sizes.in_chans,
        sizes.image_size,
        run.model.grid,
    ):
        raise ValueError(
            f"the judge reads {judged.in_chans} x {judged.image_size} pixels on a {judge.grid} "
            f"grid, the run {sizes.in_chans} x {sizes.image_size} on {run.model.grid}; "
            "choose a judge that fits"
        )
    test, validation = run.split("test", config.limit), run.split("val", config.limit)
    images = test.batch(torch.arange(len(test)), device=config.device)
    looked_at = validation.batch(torch.arange(len(validation)), device=config.device)
    few = min(config.oracle_limit, len(images))
    if min(few, len(looked_at)) < 2:
        raise ValueError(
            f"a comparison takes two or more images; {test.name} has {len(test)} in test and "
            f"{len(validation)} in val"
        )

    paths = scanpaths(
        run,
        images,
        looked_at,
        oracle_limit=few,
        orders=config.orders,
        agents=config.agents,
    )
    curves = {name: error_curves_of(judge, images, path) for name, path in paths.items()}
    area = {name: curve[:, 1:].mean(1) for name, curve in curves.items()}
    orders: dict[str, dict[str, object]] = {}
    at_least: dict[str, float] = {}
    # By the paired difference: the oracles scan fewer images than the others.
    paired = {name: (each - area["policy"][: len(each)]).mean() for name, each in area.items()}
    for name in sorted(paired, key=lambda name: float(paired[name])):
        auc, auc_ci95 = mean_interval(area[name])
        minus = {
            f"minus_{other}": mean_interval(area[name] - area[other][: len(area[name])])
            for other in ("random", "policy")
        }
        at_least[name] = minus["minus_policy"][1][0]
        orders[name] = {
            "auc": auc,
            "auc_ci95": auc_ci95,
            "final_error": float(curves[name][:, -1].mean()),
            **{key: mean for key, (mean, _) in minus.items()},
            **{f"{key}_ci95": interval for key, (_, interval) in minus.items()},
            "images": len(area[name]),
            "curve": [round(float(e), 5) for e in curves[name].mean(0)],
        }
    not_better_than = [name for name in IMAGE_INDEPENDENT if at_least[name] <= 0]
    gap, gap_ci95 = gap_interval(area["random"][:few], area["policy"][:few], area["oracle"])
    few_name = f"oracle_{ORACLE_CANDIDATES}"
    gap_few, gap_few_ci95 = gap_interval(area["random"][:few], area["policy"][:few], area[few_name])
    result: dict[str, object] = {
        "orders": orders,
        "gap_closed": gap,
        "gap_closed_ci95": gap_ci95,
        f"gap_closed_{few_name}": gap_few,
        f"gap_closed_{few_name}_ci95": gap_few_ci95,
        "diagnostics": diagnose(run, images[:few], paths, curves),
        "not_better_than": not_better_than,
        "dataset": run.config.data.data if run.config.data.data.isidentifier() else test.name,
        "split": "test",
        "seed": run.config.run.seed,
        "budget": run.config.scan.budget,
        "num_patches": run.model.num_patches,
        "periphery": run.config.model.periphery,
        "judge": "own" if config.judge is None else config.judge.resolve().name,
        "test_images": len(images),
        "commit": git_commit(),
    }
    suffix = "" if config.judge is None else f"_judged_by_{config.judge.resolve().name}"
    write_result(config.run / f"compare{suffix}.json", result, run, config)
    bands = {name: mean_bands(curve) for name, curve in curves.items()}
    error_curves(
        {name: band[0] for name, band in bands.items()},
        {name: band[1] for name, band in bands.items()},
        {name: band[2] for name, band in bands.items()},
        config.run / f"compare{suffix}.png",
    )
    print_table(result)
    print(f"written: {config.run / f'compare{suffix}.json'} and .png")
    return result


def mean_bands(curve: Float[np.ndarray, "B S"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over images with the 95% normal interval, for drawing."""
    mean, half = curve.mean(0), 1.96 * curve.std(0) / np.sqrt(len(curve))
    return mean, mean - half, mean + half


def print_table(result: dict[str, Any]) -> None:
    """Print the comparison as a table, best order first."""
    orders, diagnostics = result["orders"], result["diagnostics"]
    width = max(map(len, orders)) + 1
    print(
        f"\n{result['dataset']}: {result['budget']} of {result['num_patches']} patches, "
        "error over the error before"
    )
    print(
        "the first fixation; area = mean over fixations 1..T; "
        "differences paired over images, 95% bootstrap interval\n"
    )
    print(
        f"{'order':<{width}}{'area':>7}{'final':>8}   {'minus random, 95% interval':<28}"
        f"{'minus policy, 95% interval':<28}{'images':>6}"
    )
    for name, row in orders.items():
        differences = "".join(
            f"{signed(row[f'minus_{other}'], row[f'minus_{other}_ci95']):<28}"
            for other in ("random", "policy")
        )
        print(
            f"{name:<{width}}{row['auc']:7.4f}{row['final_error']:8.4f}   "
            f"{differences}{row['images']:>6}"
        )
    print("(areas of the oracles are over fewer images: compare their differences)")
    for label, key in (
        ("oracle over all patches", "oracle"),
        (f"over {ORACLE_CANDIDATES} random ones", f"oracle_{ORACLE_CANDIDATES}"),
    ):
        stem = "gap_closed" if key == "oracle" else f"gap_closed_{key}"
        low, high = result[f"{stem}_ci95"]
        print(
            f"{'' if key != 'oracle' else chr(10)}random-to-oracle gap closed ({label}): "
            f"{result[stem]:.1%} [{low:.1%}, {high:.1%}]"
        )
    low, high = diagnostics["own_minus_other_ci95"]
    entropy = diagnostics["fixation_entropy_nats"]
    print(
        f"own path minus another image's: {diagnostics['own_minus_other']:+.4f} "
        f"[{low:+.4f}, {high:+.4f}]; distinct orders {diagnostics['distinct_orders']} "
        f"of {diagnostics['images']};\nfixation entropy over images, first to last step: "
        f"{entropy[0]:.2f} to {entropy[-1]:.2f} nats; chosen patch's percentile by true reward: "
        f"{diagnostics['chosen_percentile']:.2f}"
    )
    if result["not_better_than"]:
        print(
            "COLLAPSED: the policy is not better than "
            f"{' and '.join(result['not_better_than'])}, which know nothing of the image"
        )

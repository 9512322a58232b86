"""The trainer does what its options say: rates, bonus, clipping, decay, orders, batches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from experiments.training import model_learner, policy_learner
from experiments.training.batches import TrainingImages
from experiments.training.build import build_optimizers
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.policy_learner import GroupRelativeLearner, MaskablePPOLearner
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer
from experiments.training.updates import clip_and_step
from foveate.model.stepping import Encoding
from foveate.orders.saccades import path_length

TINY = PRESETS["smoke"][1].replace(
    embed_dim=16, num_heads=2, depth=1, limit=32, warmup_batch_size=2
)
WARMUP, POLICY = 20, 40
WITH_POLICY = TINY.replace(
    warmup_iterations=WARMUP, iterations=POLICY, batch_size=1, group=2, budget=2
)
BEFORE_POLICY = TINY.replace(warmup_iterations=40, iterations=0)
AUTONAT = {
    "recipe": "autonat",
    "decoder_depth": None,
    "prefix_share": 0,
    "periphery": 0,
    "budget": 12,
}


def trainer_of(config: TrainConfig) -> Trainer:
    return Trainer(config, Processes.started("cpu"))


def patch_updates(monkeypatch: pytest.MonkeyPatch, stand_in: object) -> None:
    """Replace what updates model and policy from their gradients."""
    monkeypatch.setattr(model_learner, "clip_and_step", stand_in)
    monkeypatch.setattr(policy_learner, "clip", stand_in)
    monkeypatch.setattr(policy_learner, "take_step", lambda *_: None)


# --- the reward


@pytest.mark.parametrize("agent", ["group-relative", "maskable-ppo"])
def test_saccades_cost_the_policy_that_attends_over_candidates(agent: str) -> None:
    """The return is minus the errors, and minus the cost of the way of the same scans."""
    options = {"saccade_cost": 0.5, "policy_depth": 1, "warmup_iterations": 1, "budget": 3}
    trainer = trainer_of(WITH_POLICY.replace(agent=agent, **options))
    assert trainer.policy.saccade_cost == 0.5
    assert len(trainer.policy.blocks) == 1
    trainer.step()
    measured = trainer.step()
    ((_, order),) = trainer.scans
    length = float(path_length(order, trainer.model.grid).mean())
    assert measured["return"] == pytest.approx(-3 * measured["auc"] - 0.5 * length, rel=1e-4)


# --- schedules


@dataclasses.dataclass(frozen=True)
class Schedules:
    """What every iteration of a run was given."""

    model_lr: list[float]
    policy_lr: list[float]
    entropy_weight: list[float]
    """Of the iterations with a policy."""


@pytest.fixture(scope="module", params=["group-relative", "maskable-ppo"])
def schedules(request: pytest.FixtureRequest) -> Schedules:
    """Take all steps of a short run whose updates are left out."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return schedules_of(request.param, monkeypatch)


def schedules_of(agent: str, monkeypatch: pytest.MonkeyPatch) -> Schedules:
    seen = Schedules([], [], [])
    trainer = trainer_of(WITH_POLICY.replace(agent=agent))
    learner = trainer.policy_learner
    assert learner is not None
    patch_updates(monkeypatch, lambda *_: None)
    if isinstance(learner, GroupRelativeLearner):
        policy_step = policy_learner.policy_step

        def scan(*parts: Any, **options: Any) -> object:
            seen.entropy_weight.append(options["entropy_weight"])
            return policy_step(*parts, **options)

        monkeypatch.setattr(policy_learner, "policy_step", scan)
    else:
        assert isinstance(learner, MaskablePPOLearner)

        def step(
            at: int,
            learn: Callable[[Tensor, Tensor], None],
            *,
            learning_rate: float,
            entropy_weight: float,
        ) -> dict[str, float]:
            seen.entropy_weight.append(entropy_weight)
            seen.policy_lr.append(learning_rate)
            learn(torch.tensor([0, 1]), torch.tensor([[0, 1], [2, 3]]))
            return {}

        monkeypatch.setattr(learner.ppo, "step", step)
    for _ in range(WARMUP + POLICY):
        trainer.step()
        (model_lr,) = rates_of(*trainer.model_learner.optimizers)
        seen.model_lr.append(model_lr)
        if trainer.iteration <= WARMUP:
            seen.policy_lr.append(learner.rate(trainer.iteration - 1))
        elif isinstance(learner, GroupRelativeLearner):
            (policy_lr,) = rates_of(learner.optimizer)
            seen.policy_lr.append(policy_lr)
    return seen


def rates_of(*optimizers: torch.optim.Optimizer) -> set[float]:
    return {group["lr"] for each in optimizers for group in each.param_groups}


def cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def test_the_models_rate_falls_from_its_peak_to_five_percent(schedules: Schedules) -> None:
    peak, rates = WITH_POLICY.optimization.model_lr, schedules.model_lr
    ramp = 6  # a tenth of all iterations
    assert rates[:WARMUP] == pytest.approx([peak * min(1, (at + 1) / ramp) for at in range(WARMUP)])
    after = [peak * max(0.05, cosine(at / POLICY)) for at in range(POLICY)]
    assert rates[WARMUP:] == pytest.approx(after)
    assert rates[WARMUP + POLICY // 2] == pytest.approx(peak / 2)
    assert rates[-1] == pytest.approx(peak / 20)


def test_the_policys_rate_rises_over_its_first_ten_iterations_and_falls_to_five_percent(
    schedules: Schedules,
) -> None:
    peak, rates = WITH_POLICY.policy.policy_lr, schedules.policy_lr
    assert rates[:WARMUP] == [0] * WARMUP
    after = [peak * max(0.05, cosine(at / POLICY)) * min(1, (at + 1) / 10) for at in range(POLICY)]
    assert rates[WARMUP:] == pytest.approx(after)
    assert rates[-1] == pytest.approx(peak / 20)


def test_the_entropy_bonus_falls_to_a_tenth(schedules: Schedules) -> None:
    start, weights = WITH_POLICY.policy.entropy_weight, schedules.entropy_weight
    assert weights == pytest.approx([start * max(0.1, cosine(at / POLICY)) for at in range(POLICY)])
    assert weights[-1] == pytest.approx(start / 10)


@pytest.mark.parametrize(
    ("change", "middle", "last"),
    [
        ({}, 0.5, 0.05),
        ({**AUTONAT, "image_size": 8}, 1, 1),
    ],
)
def test_without_a_policy_the_rate_falls_over_the_whole_run_unless_the_recipe_keeps_it(
    change: dict[str, Any], middle: float, last: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(config := BEFORE_POLICY.replace(**change))
    patch_updates(monkeypatch, lambda *_: None)
    rates = []
    for _ in range(config.total_iterations):
        trainer.step()
        rates.append(
            trainer.model_learner.optimizers[0].param_groups[0]["lr"] / config.optimization.model_lr
        )
    assert rates[20] == pytest.approx(middle)
    assert rates[-1] == pytest.approx(last)


# --- updates


@pytest.mark.parametrize(("norm", "taken"), [(100.0, 1.0), (0.25, 0.25)])
def test_a_gradient_longer_than_one_is_cut_to_one(norm: float, taken: float) -> None:
    """Over all parameters together; a shorter one stays as it is."""
    module = nn.Module()
    module.one, module.other = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SGD([module.one], lr=1.0),
        torch.optim.SGD([module.other], lr=1.0),
    ]
    module.one.grad = torch.tensor([0.6, 0.0]) * norm
    module.other.grad = torch.tensor([0.0, 0.0, 0.8]) * norm
    clip_and_step(module, optimizers, Processes.started("cpu"))
    torch.testing.assert_close(module.one.detach(), torch.tensor([-0.6, 0.0]) * taken)
    torch.testing.assert_close(module.other.detach(), torch.tensor([0.0, 0.0, -0.8]) * taken)
    assert all(p.grad is None or not p.grad.any() for p in module.parameters())


def test_model_and_policy_are_updated_by_the_same_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hence both are clipped."""
    trainer = trainer_of(WITH_POLICY.replace(warmup_iterations=0))
    updated: list[nn.Module] = []
    patch_updates(monkeypatch, lambda module, *_: updated.append(module))
    trainer.step()
    assert updated == [trainer.policy, trainer.model]


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    return ".blocks." in name and parameter.ndim == 2


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("recipe", ["foveate", "randsac", "mae"])
def test_hidden_matrices_decay_and_nothing_else_does(optimizer: str, recipe: str) -> None:
    """Without a gradient a step shrinks them by rate times decay."""
    config = BEFORE_POLICY.replace(
        recipe=recipe,
        budget=12,  # Its default: most recipes are not scanned.
        prefix_share=0,
        model_optimizer=optimizer,
        weight_decay=0.2,
        model_lr=0.1,
    )
    model = trainer_of(config).model
    optimizers = build_optimizers(config, model)
    groups = [group for each in optimizers for group in each.param_groups]
    updated = [id(p) for group in groups for p in group["params"]]
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sorted(updated) == sorted(id(p) for p in named.values()), "each is updated once"

    before = {name: p.detach().clone() for name, p in named.items()}
    for parameter in named.values():
        parameter.grad = torch.zeros_like(parameter)
    for each in optimizers:
        each.step()
    hidden = [name for name, p in named.items() if is_hidden_matrix(name, p)]
    assert {"encoder.blocks.0.attn.qkv.weight", "encoder.blocks.0.mlp.fc1.weight"} <= {*hidden}
    for name, parameter in named.items():
        kept = 1 - 0.1 * 0.2 if name in hidden else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * kept, msg=name)


# --- what the model learns from


@dataclasses.dataclass(frozen=True)
class Call:
    """A training pass of the model."""

    images: Tensor
    rank: Tensor
    num_steps: int
    loss: float


def calls_of(trainer: Trainer) -> list[Call]:
    """Record the model's training passes from here on."""
    calls: list[Call] = []

    def record(
        _: nn.Module, positional: tuple[Tensor, Tensor], named: dict[str, Any], loss: Tensor
    ) -> None:
        images, rank = positional
        calls.append(Call(images, rank, named["num_steps"], float(loss.detach())))

    trainer.model.register_forward_hook(record, with_kwargs=True)
    return calls


@pytest.mark.parametrize(
    ("share", "num_scans", "num_random"),
    [(0.0, 6, 0), (0.25, 6, 2), (0.5, 6, 6), (0.75, 6, 18), (1.0, 0, 6)],
)
def test_random_orders_have_their_share_of_the_models_batch(
    share: float, num_scans: int, num_random: int
) -> None:
    """Three images are scanned twice each; the loss is the mean over scans and random orders."""
    config = TINY.replace(
        warmup_iterations=0, batch_size=3, group=2, random_share=share, prefix_share=0
    )
    trainer = trainer_of(config)
    calls = calls_of(trainer)
    loss = trainer.step()["loss"]
    assert [len(call.rank) for call in calls] == [n for n in (num_scans, num_random) if n]
    assert config.num_learned == num_scans + num_random
    weighted = sum(len(call.rank) * call.loss for call in calls)
    assert loss == pytest.approx(weighted / config.num_learned, rel=1e-5)
    assert {call.num_steps for call in calls} == {config.scan.budget + 1}
    if num_scans:
        # Each image stands beside itself, once per scan, with the policy's fixations first.
        images = calls[0].images
        assert torch.equal(images[0::2], images[1::2])
        assert not torch.equal(images[0], images[2])
        scanned = torch.cat([order for _, order in trainer.scans])
        first = calls[0].rank.argsort(dim=1, stable=True)[:, : config.scan.budget]
        assert torch.equal(first, scanned)
        assert (calls[0].rank.amax(1) == config.scan.budget).all()


def test_the_model_learns_again_from_the_last_scans_beside_new_random_orders() -> None:
    config = TINY.replace(warmup_iterations=0, batch_size=2, group=2, policy_every=3)
    trainer = trainer_of(config)
    calls = calls_of(trainer)
    policies = []
    for _ in range(4):
        trainer.step()
        policies.append([p.detach().clone() for p in trainer.policy.parameters()])
    scans, others = calls[0::2], calls[1::2]
    for again in scans[1:3]:
        assert torch.equal(again.images, scans[0].images)
        assert torch.equal(again.rank, scans[0].rank)
    assert not torch.equal(scans[3].images, scans[0].images)
    assert not any(torch.equal(others[0].images, other.images) for other in others[1:])

    def same(one: int, other: int) -> bool:
        pairs = zip(policies[one], policies[other], strict=True)
        return all(torch.equal(before, after) for before, after in pairs)

    assert same(0, 1)
    assert same(1, 2)
    assert not same(2, 3)


def test_the_warm_up_learns_from_batches_of_its_own_size_in_the_recipes_order() -> None:
    config = TINY.replace(warmup_iterations=2, warmup_batch_size=6, iterations=1)
    trainer = trainer_of(config)
    calls = calls_of(trainer)
    policy = [p.detach().clone() for p in trainer.policy.parameters()]
    for _ in range(2):
        trainer.step()
    assert [len(call.rank) for call in calls] == [6, 6]
    assert trainer.scans == []
    pairs = zip(policy, trainer.policy.parameters(), strict=True)
    assert all(torch.equal(before, after) for before, after in pairs)


def prefixes(share: float, draws: int) -> list[int]:
    """Draw batches, and count the patches of rank 0 of each."""
    trainer = trainer_of(BEFORE_POLICY.replace(prefix_share=share))
    generator = torch.Generator().manual_seed(0)
    sizes = []
    for _ in range(draws):
        rank = trainer.model_learner.draw(3, generator).rank
        (size,) = {int(n) for n in (rank == 0).sum(1)}
        sizes.append(size)
    return sizes


def test_tied_prefixes_of_any_size_have_their_share_of_batches() -> None:
    """Of 400 batches a quarter: 100, give or take four standard deviations of 9."""
    assert set(prefixes(0.0, 30)) == {1}
    always = prefixes(1.0, 400)
    assert min(always) <= 3
    assert max(always) >= 61
    assert 29 < sum(always) / 400 < 35, "uniform over 1..63"
    tied = [size for size in prefixes(0.25, 400) if size > 1]
    assert 64 <= len(tied) <= 136


def test_scans_of_unseen_queries_end_with_the_budget() -> None:
    config = BEFORE_POLICY.replace(prefix_share=0)
    rank = trainer_of(config).model_learner.draw(4, torch.Generator().manual_seed(0)).rank
    assert (rank.amax(1) == BEFORE_POLICY.scan.budget).all()
    assert ((rank == BEFORE_POLICY.scan.budget).sum(1) == 64 - BEFORE_POLICY.scan.budget).all()


@pytest.mark.parametrize("augment", [False, True])
def test_images_are_the_training_sets_unless_they_are_augmented(augment: bool) -> None:
    trainer = trainer_of(BEFORE_POLICY.replace(augment=augment))
    drawn = trainer.model_learner.draw(16, torch.Generator().manual_seed(0))
    images, index = drawn.images, drawn.index
    assert len(set(index.tolist())) > 1
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    stored = trainer.images.held.batch(index)
    assert torch.equal(images, stored) != augment


def test_images_are_cropped_and_colored_as_the_run_says() -> None:
    def drawn(**changes: Any) -> Tensor:
        images = TrainingImages(TINY.replace(augment=True, **changes), Processes.started("cpu"))
        return images.draw(8, torch.Generator().manual_seed(0))[0]

    assert torch.equal(drawn(crop_scale=0.25), drawn(crop_scale=0.25))
    assert not torch.equal(drawn(crop_scale=0.25), drawn())
    assert not torch.equal(drawn(crop_scale=0.25), drawn(crop_scale=0.9))
    assert not torch.equal(drawn(color_jitter=0.4), drawn())


def test_bfloat16_is_for_the_training_passes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes: set[torch.dtype] = set()
    scanned: set[torch.dtype] = set()
    append = Encoding.append

    def recorded(*arguments: Any) -> tuple[Tensor, ...]:
        layers = append(*arguments)
        scanned.update(layer.dtype for layer in layers)
        return layers

    monkeypatch.setattr(Encoding, "append", recorded)
    trainer = trainer_of(TINY.replace(warmup_iterations=1, precision="bf16"))
    linear = trainer.model.encoder_blocks()[0].attn.qkv
    linear.register_forward_hook(lambda _, __, output: dtypes.add(output.dtype))
    trainer.step()
    assert dtypes == {torch.bfloat16}
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    scanned.clear()
    with pytest.warns(UserWarning, match="hooks of .* do not run"):
        trainer.step()
    assert dtypes == {torch.bfloat16}
    assert scanned == {torch.float32}, "rollouts are float32"


def test_an_averaging_teacher_follows_the_model() -> None:
    config = BEFORE_POLICY.replace(
        recipe="digpt", prefix_share=0, budget=12, model_lr=0.05, depth=2
    )
    trainer = trainer_of(config)
    assert trainer.model_learner.teacher is not None
    teacher = trainer.model_learner.teacher
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.step()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    trainer.step()
    after, now = teacher.state_dict(), trainer.model.state_dict()
    moved = [
        name
        for name in before
        if name.endswith("weight") and not torch.equal(before[name], after[name])
    ]
    assert moved, "the teacher never moved"
    assert any(not torch.equal(start[name], value) for name, value in now.items())
    for name in moved:
        own = name.removeprefix("module.")
        # It moved a part of the way from where it was to where the model is by now.
        low, high = torch.minimum(before[name], now[own]), torch.maximum(before[name], now[own])
        assert ((low - 1e-6 <= after[name]) & (after[name] <= high + 1e-6)).all(), name


@pytest.mark.parametrize("recipe", ["mae", "igpt_patch"])
def test_an_order_that_the_parts_do_not_take_is_refused_at_once(recipe: str) -> None:
    """Both know no random squares: one takes two ranks, the other no ties."""
    config = BEFORE_POLICY.replace(
        recipe=recipe, order="random_squares", prefix_share=0, periphery=0, budget=12
    )
    if recipe == "igpt_patch":
        config = config.replace(decoder_depth=0)
    with pytest.raises(ValueError, match=r"ranks 0|equal rank"):
        trainer_of(config)

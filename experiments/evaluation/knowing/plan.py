"""The three runs of a seed: what each trains, and what that must have in common.

No torch here, so that mistakes are found before it is imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from experiments.evaluation.recognition.options import (
    FixationsProbe,
    ReadOut,
    check_label_shares,
)
from experiments.training.config import TrainConfig
from foveate.sizes import check_at_least

POLICY = "policy"
RANDOM = "random"
"""Orders that the 2 x 2 is made of, and what the models in it are trained on."""


@dataclass(frozen=True, kw_only=True)
class SeedPlan:
    """The configs of one seed."""

    policy: TrainConfig
    """Model and policy learn jointly."""
    teaching: TeachingRuns | None
    """None = seeing alone is asked about."""

    @classmethod
    def of(cls, common: TrainConfig, seed: int, out: Path, *, teaching: bool = True) -> SeedPlan:
        """Derive the runs of a seed, in folders ``policy_SEED`` and so on.

        Args:
            common: a joint training of model and policy; its seed, folder and report do not count.
            seed: of all three.
            out: folder of the run folders.
            teaching: whether a model learns from random scans as well.

        Raises:
            ValueError: ``common`` cannot be scanned, trains no policy, or not jointly with the
                model; or its policy cannot be taught on another model.
        """
        check_joint(common, teaching=teaching)
        of_seed = common.replace(seed=seed, report=False, resume=False, stop_after=None)
        policy = of_seed.replace(out=out / f"policy_{seed}")
        return cls(policy=policy, teaching=TeachingRuns.of(of_seed, out) if teaching else None)


@dataclass(frozen=True, kw_only=True)
class TeachingRuns:
    """What the policy's model is compared with."""

    random: TrainConfig
    """The same model learns as often, from uniformly random scans."""
    random_then_policy: TrainConfig
    """A policy learns on that model, which stays as it is, by as many updates."""

    @classmethod
    def of(cls, of_seed: TrainConfig, out: Path) -> TeachingRuns:
        """Derive both runs from the joint training of a seed."""
        assert of_seed.policy is not None, "check_joint refuses trainings without a policy"
        seed = of_seed.run.seed
        random_out = out / f"random_{seed}"
        return cls(
            random=of_seed.replace(out=random_out, schedule="frozen"),
            random_then_policy=of_seed.replace(
                out=out / f"random_then_policy_{seed}",
                schedule="policy_only",
                start_from=str(random_out),
                warmup_iterations=0,
                policy_every=1,
                iterations=math.ceil(of_seed.iterations / of_seed.policy.policy_every),
                # How a model learns from scans, which this one does not.
                scan_direction="forward",
                random_share_end=None,
            ),
        )


@dataclass(frozen=True, kw_only=True)
class KnowingQuestions:
    """What a run is asked."""

    orders: tuple[str, ...]
    """Whose fixations."""
    after: tuple[int, ...]
    """How many of them."""
    read_outs: tuple[ReadOut, ...]
    """Features, as of experiments.probe."""
    train_limit: int
    """Training images of the probes."""
    test_limit: int | None
    """Test images of the probes; None = all."""
    area_limit: int
    """Test images of the areas under the error curve."""
    fixations_probe: FixationsProbe = "per_order"
    """Probes trained for each order and number of fixations, or once on random fixations."""
    finetune_epochs: int = 0
    """Passes over the training images by which a copy of the model is fine-tuned; 0 = none is."""
    controls: bool = False
    """Whether the policy's model is asked as well what its path tells without a part of it."""
    label_shares: tuple[float, ...] = (1.0,)
    """Shares of the training labels; all are always among them."""

    def check(self, budget: int) -> None:
        """Raise ValueError unless runs of this budget can be asked so."""
        for name in ("orders", "after", "read_outs"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} takes one or more different values, got {values}")
        if lacking := [name for name in (POLICY, RANDOM) if name not in self.orders]:
            raise ValueError(f"orders must contain policy and random; add {' '.join(lacking)}")
        if not 1 <= min(self.after) <= max(self.after) <= budget:
            raise ValueError(
                f"fixations must lie in 1..{budget}, the budget of the scans, got "
                f"{' '.join(map(str, self.after))}"
            )
        tested = 2 if self.test_limit is None else self.test_limit
        if min(self.train_limit, self.area_limit, tested) < 2:
            raise ValueError("train_limit, test_limit and area_limit must be at least 2 images")
        check_at_least(self, 0, "finetune_epochs")
        check_label_shares(self.label_shares)


def check_joint(common: TrainConfig, *, teaching: bool) -> None:
    """Raise ValueError unless a model can be scanned, and learns jointly with a policy.

    With ``teaching`` a model learns without that policy as well, and a policy on what it became.
    """
    if not common.parts.scannable:
        raise ValueError(
            "the study needs a recipe that can be scanned, which "
            f"{common.model.recipe} is not with these options; choose --recipe foveate, or "
            "a preset of it such as demo"
        )
    if common.policy is None:
        raise ValueError(
            "the study trains a policy, and this training has none; add --iterations 1000"
        )
    if common.policy.schedule != "joint":
        raise ValueError(
            f"schedule must be joint, got {common.policy.schedule}; the study derives the others"
        )
    if common.policy.agent != "group-relative":
        raise ValueError(
            f"agent must be group-relative, got {common.policy.agent}, which knows no random scans"
        )
    if teaching and common.teaching.prefer == "policy":
        raise ValueError(
            "prefer policy needs --no-teaching, as no policy judges what random scans ask"
        )
    if teaching and common.policy.pays_for_learning:
        raise ValueError(
            f"reward {common.policy.reward} needs --no-teaching or --reward-reference RUN, as it "
            "pays nothing for the scans of a model that does not learn"
        )


def usual_fixations(budget: int) -> tuple[int, ...]:
    """Return the powers of two below the budget, and the budget."""
    return (*(2**n for n in range(budget.bit_length()) if 2**n < budget), budget)

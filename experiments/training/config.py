"""A training run: seven groups of options, the rules between groups, and the flat form on disk.

No torch here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.training.groups import ModelOptions, Optimization, PolicyTraining, ScanOptions
from experiments.training.run_options import DataConfig, RunOptions
from experiments.training.teaching import Teaching
from foveate.recipes import Recipe

GROUPS: dict[str, type] = {
    "run": RunOptions,
    "data": DataConfig,
    "model": ModelOptions,
    "scan": ScanOptions,
    "policy": PolicyTraining,
    "teaching": Teaching,
    "optimization": Optimization,
}
GROUP_OF: dict[str, str] = {
    option.name: name for name, group in GROUPS.items() for option in dataclasses.fields(group)
}
"""Group of each option: names are unique across groups, which makes the flat form possible."""
PATHS = ("out", "data_root")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run of an any-order transformer, and of a fixation policy jointly with it."""

    run: RunOptions = field(default_factory=RunOptions)
    """Where and how the run is carried out."""
    data: DataConfig = field(default_factory=DataConfig)
    """The training images."""
    model: ModelOptions = field(default_factory=ModelOptions)
    """The model: a recipe, what is swapped of it, and sizes."""
    scan: ScanOptions = field(default_factory=ScanOptions)
    """A scan of an image. Models learn from such scans without a policy, too."""
    policy: PolicyTraining | None = field(default_factory=PolicyTraining)
    """The policy, which scans and learns after the warm-up; None trains the model alone."""
    teaching: Teaching = field(default_factory=Teaching)
    """What the model is asked, and how much each answer counts."""
    optimization: Optimization = field(default_factory=Optimization)
    """How the model learns."""

    def __post_init__(self) -> None:
        for name, value in self.flat().items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value}")
        self._check_length()
        self._check_parts()
        self._check_teaching()
        self._check_micro_batches()
        if self.run.shard and self.optimization.model_optimizer == "muon":
            raise ValueError("shard needs --model-optimizer adamw; Muon takes matrices as a whole")
        if self.policy is None or self.policy.agent != "maskable-ppo":
            return
        for name in ("augment", "wander"):
            if getattr(self.data, name):
                raise ValueError(
                    f"{name} needs --agent group-relative; maskable-ppo scans images as they are "
                    "stored"
                )
        if (self.optimization.micro_batches or 1) > 1:
            raise ValueError(
                "micro_batches needs --agent group-relative; maskable-ppo takes a batch as a whole"
            )
        if self.data.stream:
            raise ValueError(
                "stream needs --agent group-relative; maskable-ppo keeps all images in memory"
            )

    def _check_length(self) -> None:
        total, stop_after = self.total_iterations, self.run.stop_after
        if total == 0:
            raise ValueError(
                "warmup_iterations and iterations are both 0, which trains nothing; "
                "--warmup-iterations 1 --model-lr 0 makes a run of the model as it starts"
            )
        if stop_after is not None and stop_after > total:
            raise ValueError(
                f"stop_after {stop_after} lies beyond the end of the run, iteration {total}"
            )

    def _check_parts(self) -> None:
        parts, recipe = self.parts, self.model.recipe
        for name in ("augment", "wander"):
            if getattr(self.data, name) and parts.tracks:
                raise ValueError(
                    f"{name} moves what words say the place of; leave it out with tracks"
                )
        if self.data.stream and parts.captions:
            raise ValueError(
                f"recipe {recipe} learns its subwords from all captions; leave out --stream"
            )
        if self.data.stream and parts.tracks:
            raise ValueError(
                f"recipe {recipe} writes words, for which it needs all labels; leave out --stream"
            )
        if self.data.stream and self.policy is not None and self.policy.reward == "recognition":
            raise ValueError("reward recognition needs all labels; leave out --stream")
        if self.policy is not None and self.policy.reward == "caption" and not parts.captions:
            raise ValueError("reward caption needs a recipe with captions, such as caption")
        if self.optimization.prefix_share > 0 and parts.ranks != "any":
            raise ValueError(f"recipe {recipe} takes no tied prefixes; add --prefix-share 0")
        for name in ("budget", "fixation_size"):
            usual = getattr(ScanOptions, name)
            idle = self.policy is None and not parts.takes_budget
            if idle and getattr(self.scan, name) != usual:
                raise ValueError(
                    f"{name} has no effect on recipe {recipe}, which nothing scans; leave it out, "
                    f"or, where the preset has one, add --{name.replace('_', '-')} {usual}"
                )

    def _check_teaching(self) -> None:
        teaching, parts = self.teaching, self.parts
        for name in ("num_captions", "word_dropout", "parallel_share"):
            if getattr(teaching, name) != getattr(Teaching, name) and not parts.captions:
                raise ValueError(f"{name} needs a recipe with captions, such as caption")
        in_turn = parts.queries == "own"
        if teaching.encode_first is not None and (not in_turn or parts.ranks != "any"):
            raise ValueError(
                f"encode_first has no effect on recipe {self.model.recipe}; foveate and git encode "
                "as many steps as --budget says, and mae the share --order-options visible"
            )
        if teaching.prefer_by == "ask":
            if in_turn:
                raise ValueError(
                    f"prefer_by ask has no effect on recipe {self.model.recipe}, which asks for "
                    "every patch once; use --prefer-by weight"
                )
            if teaching.ask_among < self.model.num_targets:
                raise ValueError(
                    f"ask_among must be at least num_targets {self.model.num_targets}, got "
                    f"{teaching.ask_among}"
                )
        if teaching.prefer != "none" and parts.image_weight == 0:
            raise ValueError(
                "prefer has no effect with --image-weight 0, which learns words alone; leave it out"
            )
        if teaching.prefer != "policy":
            return
        if self.policy is None:
            raise ValueError("prefer policy needs a policy: --iterations 1000, or --prefer harder")
        if self.policy.schedule in ("frozen", "policy_only"):
            raise ValueError(
                f"prefer policy has no effect with --schedule {self.policy.schedule}, in which no "
                "model learns from a policy that does; use joint or alternating"
            )
        if in_turn or self.scan.fixation_size > 1 or self.policy.saccade_cost > 0:
            raise ValueError(
                "prefer policy needs recipe foveate (queries='unseen'), --fixation-size 1 and "
                "--saccade-cost 0: a policy judges single patches after each step, without the way "
                "to them"
            )

    def _check_micro_batches(self) -> None:
        for name, size in self._batch_sizes.items():
            if size % (self.optimization.micro_batches or 1):
                raise ValueError(
                    f"micro_batches (by default one per process) must divide {name} "
                    f"{size}, got {self.optimization.micro_batches}"
                )

    # --- the flat form

    def replace(self, **options: object) -> TrainConfig:
        """Return a config with some options changed, by their names alone.

        ``iterations=0`` leaves out the policy; any other number gives one to a run without.

        Raises:
            ValueError: an option that does not exist, or that this run has no policy for.
        """
        for name in options:
            if name not in GROUP_OF:
                close = difflib.get_close_matches(name, GROUP_OF, n=1, cutoff=0.0)
                raise ValueError(f"unknown option {name!r}; did you mean {close[0]!r}?")
        groups: dict[str, Any] = {name: getattr(self, name) for name in GROUPS}
        if options.get("iterations", self.iterations) == 0:
            check_without_policy([name for name in options if name != "iterations"])
            groups["policy"] = None
            options = {name: value for name, value in options.items() if name != "iterations"}
        elif groups["policy"] is None:
            groups["policy"] = PolicyTraining()
        for group in {GROUP_OF[name]: None for name in options}:
            changes = {name: value for name, value in options.items() if GROUP_OF[name] == group}
            groups[group] = dataclasses.replace(groups[group], **changes)
        return TrainConfig(**groups)

    def flat(self) -> dict[str, Any]:
        """Return the options by name, as config.json holds them; of no policy ``iterations: 0``."""
        options: dict[str, Any] = {}
        for name in GROUPS:
            group = getattr(self, name)
            options |= {"iterations": 0} if group is None else dataclasses.asdict(group)
        return options

    @classmethod
    def from_flat(cls, content: Mapping[str, Any]) -> TrainConfig:
        """Return the config of a flat form; what it lacks has its default.

        Earlier versions wrote the policy's options for runs without one as well.

        Raises:
            ValueError: an option that does not exist, or a value that is not allowed.
        """
        options = {
            name: _from_json(name, value)
            for name, value in content.items()
            if content.get("iterations") != 0
            or name == "iterations"
            or GROUP_OF.get(name) != "policy"
        }
        return cls().replace(**options)

    # --- derived

    @property
    def parts(self) -> Recipe:
        """The recipe, with the parts that are swapped."""
        return self.model.parts

    @property
    def iterations(self) -> int:
        """Iterations with the policy, after the warm-up."""
        return 0 if self.policy is None else self.policy.iterations

    @property
    def total_iterations(self) -> int:
        """Warm-up and policy iterations together."""
        return self.optimization.warmup_iterations + self.iterations

    @property
    def _batch_sizes(self) -> dict[str, int]:
        sizes = {} if self.policy is None else {"batch_size": self.policy.batch_size}
        return {**sizes, "warmup_batch_size": self.optimization.warmup_batch_size}

    def per_micro_batch(self, num_images: int) -> int:
        """Images of a batch that are in each of its micro-batches."""
        return num_images // (self.optimization.micro_batches or 1)

    @property
    def stream_batch(self) -> int:
        """Images that are streamed at once: the largest number that makes up every micro-batch."""
        sizes = [self.per_micro_batch(size) for size in self._batch_sizes.values()]
        if self.policy is None:
            return math.gcd(*sizes)
        if self.policy.last_random_share != self.policy.random_share:
            return 1  # Any number of images may be drawn.
        num_scanned = self.num_scanned(self.policy.random_share)
        return math.gcd(*sizes, self.num_learned - num_scanned, self.num_learned)

    @property
    def num_learned(self) -> int:
        """Images in each of the model's micro-batches after the warm-up."""
        if self.policy is None:
            return 0
        share, num_scans = self.policy.least_random_share, self._num_scans
        return num_scans if share == 1 else num_scans + round(num_scans * share / (1 - share))

    def num_scanned(self, random_share: float) -> int:
        """Images among them that are in the order of the policy's scans, of a share of the rest."""
        assert self.policy is not None, "only policies scan"
        least = self.policy.least_random_share
        return 0 if least == 1 else round(self._num_scans * (1 - random_share) / (1 - least))

    @property
    def _num_scans(self) -> int:
        assert self.policy is not None, "only policies scan"
        return self.per_micro_batch(self.policy.batch_size) * self.policy.group


def _from_json(name: str, value: Any) -> Any:
    """Return an option's value as it was before it was written."""
    if name in PATHS:
        return Path(value)
    return tuple(value) if isinstance(value, list) else value


def check_without_policy(names: list[str]) -> None:
    """Raise ValueError if one of the named options belongs to a policy."""
    idle = [name for name in names if GROUP_OF.get(name) == "policy"]
    if idle:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise ValueError(
            f"{options}: of no effect without iterations with a policy; leave out, or give the "
            "run a policy by --iterations 1000"
        )

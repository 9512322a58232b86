"""Which patches count more in an iteration: the options of ``teaching`` as the model takes them."""

from __future__ import annotations

from agents.policies import PointerPolicy
from agents.preference import PolicyPreference
from experiments.training.config import TrainConfig
from foveate.model.asking import Emphasis, Preference, easier, harder
from foveate.optim import LinearRamp


class EmphasisSchedule:
    """The emphasis of each iteration of a run; none where all patches count alike."""

    def __init__(self, config: TrainConfig, policy: PointerPolicy) -> None:
        options = self.options = config.teaching
        warmup = config.optimization.warmup_iterations
        self.start = warmup if options.prefer == "policy" else 0
        """First iteration that has one: before it there is no policy."""
        self.share = LinearRamp(
            first=options.first_share,
            last=options.prefer_share,
            start=self.start,
            end=config.total_iterations - 1,
        )
        self.preference: Preference | None = None
        if options.prefer == "policy":
            self.preference = PolicyPreference(policy, config.scan.budget)
        elif options.prefer != "none":
            self.preference = harder if options.prefer == "harder" else easier

    def __call__(self, at: int) -> Emphasis | None:
        """Return the emphasis of an iteration."""
        if self.preference is None or at < self.start:
            return None
        return Emphasis(
            self.preference, self.share(at), self.options.prefer_by, self.options.ask_among
        )

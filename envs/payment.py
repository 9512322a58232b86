"""What a fixation is paid: a reward, less its prices."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Num
from torch import Tensor

from envs.fixation import Fixation
from envs.recognition import RecognitionProbe
from envs.rewards import Reward, checked_reward, name_of, reward_with
from foveate.finite import check_price
from foveate.orders.saccades import check_saccade_cost


@dataclass(frozen=True)
class Payment:
    """What a fixation is paid: its reward, less what a revisit and the way to it cost.

    Raises:
        ValueError: a price is below 0 or not finite.
    """

    name: str
    """What errors call the reward."""
    reward: Reward
    revisit_penalty: float
    """Price of a fixation that shows nothing new."""
    saccade_cost: float
    """Price of a patch of distance."""

    def __post_init__(self) -> None:
        check_saccade_cost(self.saccade_cost)
        check_price("revisit_penalty", self.revisit_penalty)

    @classmethod
    def of(
        cls,
        reward: str | Reward,
        probe: RecognitionProbe | None,
        revisit_penalty: float,
        saccade_cost: float,
        has_words: bool = False,
    ) -> Payment:
        """Pay a reward by name, or one's own, that has the probe or words which it may need."""
        paid = reward_with(reward, probe, has_words)
        return cls(name_of(reward), paid, revisit_penalty, saccade_cost)

    def __call__(self, fixation: Fixation, saccade: Float[Tensor, "B"] | None) -> Num[Tensor, "B"]:
        """Return what each row is paid.

        Args:
            fixation: what was looked at.
            saccade: length of the way to it, patches; None = it costs nothing.
        """
        reward = checked_reward(self.name, self.reward, fixation)
        revisit = ~fixation.is_new.any(1)
        paid = reward - self.revisit_penalty * revisit
        return paid if saccade is None else paid - self.saccade_cost * saccade

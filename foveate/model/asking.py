"""Which unseen patches are asked for after each step, and how much each answer counts.

By default a few are drawn evenly, and all count alike. An :class:`Emphasis` prefers some of them:
it weights their losses, or draws them more often. What is preferred is a function of what the model
says of the patches (:class:`AskedPatches`), be it the model's expected error or a policy's choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foveate.choices import check_choice
from foveate.devices import send
from foveate.model.attention import shared_counts
from foveate.model.decoder import Prediction
from foveate.model.encoder import take
from foveate.model.predictor import AnyOrderPredictor, InTurn
from foveate.orders import rank_to_order
from foveate.sampling import gumbel
from foveate.sizes import check_at_least, check_share

PreferenceUse = Literal["weight", "ask"]


@dataclass(frozen=True)
class AskedPatches:
    """Patches that are asked for together, K after each of S steps; nothing carries gradients.

    With ``queries="own"`` they are all patches of an image: S = 1, K = N.
    """

    positions: Int[Tensor, "B S K"]
    """The patches."""
    states: Float[Tensor, "B S K D"]
    """Decoder state of each."""
    log_error: Float[Tensor, "B S K"] | None
    """The model's expected error of each, log; None = it learns none."""
    content: Float[Tensor, "B S D"] | None
    """Encoder state of the patch seen last; before the first, of the last always-visible token.
    None with ``queries="own"``, whose patches are asked after a step each."""
    num_seen: Int[Tensor, "B S"] | None
    """Patches seen before; None likewise."""


Preference = Callable[[AskedPatches], Tensor]
"""A logit for each patch, (B, S, K): those of a step compete."""


def harder(asked: AskedPatches) -> Float[Tensor, "B S K"]:
    """Prefer in proportion to the expected error.

    Reference: HPM (Wang et al. 2023, arXiv 2304.05919), whose predicted loss says what is masked.

    Raises:
        ValueError: the model learns no expected error.
    """
    if asked.log_error is None:
        raise ValueError(
            "the model learns no expected error to prefer by; give its config learns_error=True"
        )
    return asked.log_error


def easier(asked: AskedPatches) -> Float[Tensor, "B S K"]:
    """Prefer in proportion to the inverse of the expected error.

    Raises:
        ValueError: the model learns no expected error.
    """
    return -harder(asked)


@dataclass(frozen=True)
class Emphasis:
    """A preference among K patches that are asked for together, mixed with an even choice.

    ``q = (1 - share) / K + share * softmax(preference)``. With ``by="weight"`` the loss of each
    counts ``K q``, whose mean is 1. With ``by="ask"`` K is ``among``, and those that are asked are
    drawn from q without replacement.

    The preference gets no gradient, and what it looks at passes none on to the model.

    Reference: a map of objects as weights of the loss helps where the same map as mask harms
    (AttG-MAE, Sick et al. 2024, arXiv 2402.15172). Draws without replacement: Kool et al. 2019
    (arXiv 1903.06059), the largest of perturbed log-probabilities.

    Raises:
        ValueError: share is outside 0..1, among below 1, or by is neither of the two.
    """

    preference: Preference
    share: float
    by: PreferenceUse = "weight"
    among: int = 8
    """Unseen patches of each step among which those asked are drawn; each costs a pass of the
    decoder without gradient."""

    def __post_init__(self) -> None:
        check_choice("by", self.by, get_args(PreferenceUse))
        check_share(self, "share")
        check_at_least(self, 1, "among")

    @torch.no_grad()
    def distribution(
        self, asked: AskedPatches, counted: Bool[Tensor, "B S K"] | None = None
    ) -> Float[Tensor, "B S K"]:
        """Return q of each step.

        Args:
            asked: the patches.
            counted: those that there are (True = is); others get 0. None = all.
        """
        logits = self.preference(asked).float()
        if counted is None:
            counted = torch.ones_like(logits, dtype=torch.bool)
        even = counted / counted.sum(-1, keepdim=True).clamp_min(1)
        preferred = logits.masked_fill(~counted, torch.finfo(logits.dtype).min).softmax(-1)
        return (1 - self.share) * even + self.share * preferred * counted

    def weights(
        self, asked: AskedPatches, counted: Bool[Tensor, "B S K"] | None = None
    ) -> Float[Tensor, "B S K"]:
        """Return the weight of each loss, whose mean over those counted in a step is 1."""
        chances = self.distribution(asked, counted)
        number = chances.shape[-1] if counted is None else counted.sum(-1, keepdim=True)
        return chances * number

    def draw(
        self,
        asked: AskedPatches,
        number: int,
        generator: torch.Generator | None,
        counted: Bool[Tensor, "B S K"] | None = None,
    ) -> Int[Tensor, "B S M"]:
        """Draw so many of K, each once; where fewer are counted, others make up for them.

        Raises:
            ValueError: there are fewer than that.
        """
        if number > asked.positions.shape[-1]:
            raise ValueError(
                f"{number} patches cannot be drawn among {asked.positions.shape[-1]}; among must "
                "be at least num_targets"
            )
        noisy = self.distribution(asked, counted).log()
        return (noisy + gumbel(noisy, generator)).topk(number, dim=-1).indices


class AskingPredictor(AnyOrderPredictor):
    """Predictions of a few unseen patches after every step, evenly drawn or as emphasized."""

    def predict_unseen(
        self,
        images: Float[Tensor, "B C H W"],
        rank: Int[Tensor, "B N"],
        ties: bool | None,
        last_rank: int | None,
        num_steps: int | None,
        generator: torch.Generator | None,
        emphasis: Emphasis | None,
    ) -> tuple[Prediction, Int[Tensor, "B Q"], Float[Tensor, "B Q"] | None]:
        """Predict unseen patches after each step; say which, and the weights of their losses.

        Raises:
            ValueError: ``num_steps`` is below 1.
        """
        if num_steps is not None and num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        order = rank_to_order(rank)
        sorted_rank = rank.gather(1, order)
        last = sorted_rank[:, -1:]
        num_ranks = 1 + (int(last.max()) if last_rank is None else last_rank)
        steps = torch.arange(num_ranks, device=rank.device).expand(len(rank), -1)
        most = num_ranks - 1
        all_steps = num_steps is None or num_steps >= num_ranks
        if num_steps is not None and not all_steps:
            drawn = torch.rand(steps.shape, generator=generator).topk(num_steps, dim=1).indices
            steps, most = send(drawn, rank.device), int(drawn.max())
        steps = torch.minimum(steps, last)
        # Whatever the ties, what is visible after t steps is a prefix of the patches in rank order.
        counts = torch.searchsorted(sorted_rank, steps)
        asks = emphasis is not None and emphasis.by == "ask"
        number = emphasis.among if emphasis is not None and asks else self.config.num_targets
        places = self._unseen_places(counts, number, generator)
        # Without ties t patches are visible after t steps.
        length = most if ties is False else int(counts.max())
        layers = self.encode_first(*self.embed(images), order, sorted_rank, length, ties)
        agree = None if ties is None else not ties and all_steps

        def asked_at(places: Tensor) -> tuple[Prediction, AskedPatches]:
            positions = order.gather(1, places.flatten(1))
            prediction = self._decode_after(layers, positions, counts, agree)
            return prediction, self._asked(prediction, positions, layers, counts)

        if emphasis is not None and asks:
            with torch.no_grad():
                among, once = asked_at(places)[1], ~repeats(places)
            chosen = emphasis.draw(among, self.config.num_targets, generator, once)
            places = places.gather(2, chosen)
        prediction, asked = asked_at(places)
        weights = None
        if emphasis is not None and not asks:
            weights = emphasis.weights(asked).flatten(1)
        return prediction, asked.positions.flatten(1), weights

    def _unseen_places(
        self, counts: Int[Tensor, "B S"], number: int, generator: torch.Generator | None
    ) -> Int[Tensor, "B S M"]:
        """Draw M of the sorted places that follow the first ``counts``.

        They are spread evenly, with one random shift for all M.
        """
        shift = send(torch.rand(*counts.shape, 1, generator=generator), counts.device)
        spacing = torch.arange(number, device=counts.device) / number
        unseen = (self.num_patches - counts).unsqueeze(-1)
        offset = ((shift + spacing) % 1 * unseen).long()
        return counts.unsqueeze(-1) + torch.minimum(offset, unseen - 1)

    def _decode_after(
        self,
        layers: tuple[Float[Tensor, "B L D"], ...],
        positions: Int[Tensor, "B Q"],
        counts: Int[Tensor, "B S"],
        agree: bool | None,
    ) -> Prediction:
        """Predict Q / S patches after each step, from the first ``counts`` sorted patches."""
        counts = counts.repeat_interleave(positions.shape[1] // counts.shape[1], dim=1)
        if agree is None:
            return self.decode(layers, positions, counts)
        prediction: Prediction = self.decoder(layers, positions, shared_counts(counts, agree))
        return prediction

    def _asked(
        self,
        prediction: Prediction,
        positions: Int[Tensor, "B Q"],
        layers: tuple[Float[Tensor, "B L D"], ...],
        counts: Int[Tensor, "B S"],
    ) -> AskedPatches:
        """Lay out by step what a preference sees."""
        shape = counts.shape[1], positions.shape[1] // counts.shape[1]
        error = prediction.log_error
        return AskedPatches(
            positions=positions.unflatten(1, shape),
            states=prediction.states.detach().unflatten(1, shape),
            log_error=None if error is None else error.detach().unflatten(1, shape),
            content=take(layers[-1].detach(), self.num_always - 1 + counts),
            num_seen=counts,
        )

    def _weights_in_turn(self, turn: InTurn, emphasis: Emphasis) -> Float[Tensor, "B N"]:
        """Weigh the losses of patches that are each asked once.

        Raises:
            ValueError: the emphasis is on what is asked.
        """
        if emphasis.by == "ask":
            raise ValueError(
                "queries='own' ask for every patch once; an emphasis by 'ask' needs "
                "queries='unseen', or take by='weight'"
            )
        states, error = turn.prediction.states, turn.prediction.log_error
        every = torch.arange(self.num_patches, device=states.device)
        asked = AskedPatches(
            positions=every.expand(len(states), 1, -1),
            states=states.detach().unsqueeze(1),
            log_error=None if error is None else error.detach().unsqueeze(1),
            content=None,
            num_seen=None,
        )
        return emphasis.weights(asked, turn.predicted.unsqueeze(1)).squeeze(1)


def repeats(places: Int[Tensor, "B S K"]) -> Bool[Tensor, "B S K"]:
    """Say which places stand at an earlier one of the K as well."""
    same = places.unsqueeze(-1) == places.unsqueeze(-2)
    return same.tril(-1).any(-1)

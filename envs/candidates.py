"""Candidates: the fixations among which the next one is chosen, and what is predicted for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from foveate.devices import send
from foveate.model.decoder import Prediction
from foveate.model.encoder import take
from foveate.orders.paths import Grid
from foveate.orders.saccades import centers_of, distances
from foveate.orders.segments import Fixations


@dataclass(frozen=True)
class Observation:
    """What a policy may look at; nothing here carries gradients.

    Nothing depends on an unseen patch, unless the model has a periphery. Of a fixation that opens
    several patches the states are the mean over those unseen, and the errors their sum.
    """

    query_states: Float[Tensor, "B K D"]
    """Decoder state of every candidate: of all fixations, unless an episode draws some of them."""
    content_state: Float[Tensor, "B D"]
    """Encoder state of the patch seen last; before the first, of the last always-visible token."""
    log_error: Float[Tensor, "B K"]
    """The model's expected error of every candidate, log."""
    selectable: Bool[Tensor, "B K"]
    """Whether a candidate may be chosen (True = it would show something new)."""
    remaining: Float[Tensor, "B"]
    """Share of the budget that is left, 1 to 0."""
    distance: Float[Tensor, "B K"] | None = None
    """Length of the saccade to every candidate, patches; 0 before the first fixation. An episode
    always tells; None = an environment without a cost of saccades does not."""
    expected_gain: Float[Tensor, "B K"] | None = None
    """What every candidate's own patches add to the rewards ``auc`` to come, as the model expects:
    their error over that of the image before the first fixation, once for each fixation that is
    left. None as in ``distance``."""


@dataclass(frozen=True)
class Candidates:
    """Fixations of each row, and the patches that they would open."""

    fixation: Int[Tensor, "B K"]
    """Numbers of the fixations."""
    predicted: Int[Tensor, "B Q"]
    """Patches that are predicted; -1 = padding. All of them in raster order, or the S patches of
    the candidates one after the other."""
    fixations: Fixations
    """What each fixation opens."""
    are_all: bool
    """Whether every fixation is a candidate."""

    @classmethod
    def every(cls, fixations: Fixations, num_rows: int) -> Candidates:
        """Take all fixations, for which all patches are predicted."""
        device = fixations.patches.device
        number = torch.arange(len(fixations), device=device).expand(num_rows, -1)
        patches = torch.arange(fixations.num_patches, device=device).expand(num_rows, -1)
        return cls(number, patches, fixations, are_all=True)

    @classmethod
    def drawn(
        cls,
        fixations: Fixations,
        unseen: Bool[Tensor, "B N"],
        number: int,
        *,
        group: int,
        num_opened: int,
        generator: torch.Generator | None,
    ) -> Candidates:
        """Draw selectable fixations, as many in all rows, where there are so many.

        Args:
            fixations: what there is to draw from.
            unseen: True = the patch has not been seen.
            number: candidates K.
            group: scans of each image, which get the same candidates as far as they can.
            num_opened: patches that have been opened in a row, at most.
            generator: randomness, on the CPU.
        """
        selectable = fixations.any(unseen)
        num_rows, num_fixations = selectable.shape
        noise = torch.rand(num_rows // group, num_fixations, generator=generator)
        noise = send(noise, unseen.device).repeat_interleave(group, dim=0)
        # Of fixations that share no patch, each spent one took S opened patches. Only where that
        # might leave too few are they counted, for which a GPU must be waited for.
        if not fixations.is_partition or num_fixations - num_opened // fixations.size < number:
            number = min(number, max(1, int(selectable.sum(1).min())))
        chosen = noise.masked_fill(~selectable, -1.0).topk(number, dim=1).indices
        return cls(chosen, fixations.opened_by(chosen).flatten(1), fixations, are_all=False)

    @property
    def positions(self) -> Int[Tensor, "B Q"]:
        """Patches to predict; patch 0 stands at the padding."""
        return self.predicted.clamp_min(0)

    def of_predicted(self, unseen: Bool[Tensor, "B N"]) -> Bool[Tensor, "B Q"]:
        """Which predicted patches are unseen (False at the padding)."""
        if self.are_all:
            return unseen
        return unseen.gather(1, self.positions) & (self.predicted >= 0)

    def distance(self, newest: Int[Tensor, "B S"], grid: Grid) -> Float[Tensor, "B K"]:
        """Return the length of the saccade from what was opened last to each, patches."""
        centers = centers_of(self.fixations.patches, grid)[self.fixation]
        return distances(centers_of(newest, grid).unsqueeze(1), centers)

    def observe(
        self,
        prediction: Prediction,
        unseen: Bool[Tensor, "B N"],
        *,
        content_state: Float[Tensor, "B D"],
        remaining: Float[Tensor, "B"],
        distance: Float[Tensor, "B K"] | None,
        initial_log_error: Float[Tensor, "B"],
        num_left: Num[Tensor, "B"],
    ) -> Observation:
        """Return what a policy sees, from a prediction of the predicted patches.

        Without distances it is not told what it may expect to gain either.
        """
        log_error, states = expected_log_error(prediction), prediction.states
        selectable = self.of_predicted(unseen)
        if not self.fixations.is_single:
            states, log_error, selectable = self._pooled(states, log_error, selectable)
        if distance is None:
            return Observation(states, content_state, log_error, selectable, remaining)
        share = (log_error - initial_log_error.unsqueeze(1)).exp()
        gain = share * num_left.unsqueeze(1)
        return Observation(states, content_state, log_error, selectable, remaining, distance, gain)

    def _pooled(
        self,
        states: Float[Tensor, "B Q D"],
        log_error: Float[Tensor, "B Q"],
        is_unseen: Bool[Tensor, "B Q"],
    ) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K"], Bool[Tensor, "B K"]]:
        """Return mean states, summed errors, and what is selectable, by fixation."""
        patches = self.fixations.opened_by(self.fixation)
        place = patches.clamp_min(0)
        if not self.are_all:
            each = torch.arange(self.predicted.shape[1], device=patches.device)
            place = each.view(patches.shape[1:]).expand_as(patches)
        exists = patches >= 0
        new = members(is_unseen, place) & exists
        selectable = new.any(2)
        # A fixation that shows nothing new is described by all of its patches.
        counted = torch.where(selectable.unsqueeze(2), new, exists)
        weight = counted / counted.sum(2, keepdim=True)
        each_state = take(states, place.flatten(1)).unflatten(1, place.shape[1:])
        expected = members(log_error, place).masked_fill(~counted, -torch.inf)
        mean_states = (each_state * weight.unsqueeze(-1)).sum(2)
        return mean_states, expected.logsumexp(2), selectable


def expected_log_error(prediction: Prediction) -> Float[Tensor, "B Q"]:
    """Return the loss of its target that the model expects of each predicted patch, log."""
    assert prediction.log_error is not None, "a model that can scan predicts its error"
    return prediction.log_error


def members(of_predicted: Tensor, place: Int[Tensor, "B K S"]) -> Tensor:
    """Lay a value of the predicted patches, (B, Q), out by candidate, (B, K, S)."""
    return of_predicted.gather(1, place.flatten(1)).unflatten(1, place.shape[1:])

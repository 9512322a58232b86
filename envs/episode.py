"""A batch of image-scanning episodes in plain torch, for the environment and the trainers alike.

An action is the next patch. The reward compares the raw-pixel reconstruction error of what is still
unseen before and after the fixation. An episode ends after ``budget`` fixations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foveate.choices import lookup
from foveate.model import AnyOrderTransformer
from foveate.model.decoder import Prediction
from foveate.model.encoder import take
from foveate.model.scanning import Scan


@dataclass(frozen=True)
class ErrorChange:
    """Squared raw-pixel errors around one fixation.

    All are divided by the image's own error before the first fixation.
    """

    before: Float[Tensor, "B"]
    """Summed over the patches unseen before the fixation."""
    after: Float[Tensor, "B"]
    """Summed over the patches unseen after it."""
    decoded: Float[Tensor, "B"]
    """Of the fixated patch, as predicted before it was seen."""


REWARDS: dict[str, Callable[[ErrorChange], Tensor]] = {
    "auc": lambda change: -change.after,
    "gain": lambda change: change.before - change.after,
    "surprise": lambda change: change.decoded,
    "ease": lambda change: -change.decoded,
}
"""Reward per fixation, (B,), by name.

``auc`` is the area under the error curve; with ``gain`` and no discount the sum telescopes to the
final error, so that the order of the same patches carries no signal; ``surprise`` seeks noise and
``ease`` flat sky.
"""


def reward_named(name: str) -> Callable[[ErrorChange], Tensor]:
    """Return a reward of REWARDS, or one of the user's own, ``MODULE:NAME``.

    Raises:
        ValueError: unknown, or no function from an ErrorChange to one reward per row.
    """
    reward = lookup("reward", name, REWARDS)
    ones = torch.ones(2)
    try:
        value = reward(ErrorChange(**{each.name: ones for each in fields(ErrorChange)}))
    except Exception as reason:
        raise ValueError(f"reward {name!r}: {type(reason).__name__}: {reason}") from reason
    if not isinstance(value, Tensor) or value.shape != ones.shape:
        raise ValueError(f"reward {name!r} must return a reward per row, got {value!r} for 2")
    return reward


@dataclass(frozen=True)
class Observation:
    """What a policy may look at; nothing here carries gradients.

    Nothing depends on an unseen patch, unless the model has a periphery.
    """

    query_states: Float[Tensor, "B K D"]
    """Decoder state of every candidate: of all patches, unless an episode draws some of them."""
    content_state: Float[Tensor, "B D"]
    """Encoder state of the patch seen last; before the first, of the last always-visible token."""
    log_error: Float[Tensor, "B K"]
    """The model's expected squared error of every candidate, log."""
    selectable: Bool[Tensor, "B K"]
    """Whether a candidate may be chosen (True = not yet visited)."""
    remaining: Float[Tensor, "B"]
    """Share of the budget that is left, 1 to 0."""


REVISIT_PENALTY = 0.1
"""Taken from the reward of a fixation that shows nothing new."""


class Episode:
    """B scans under way with their rewards.

    Args:
        model: frozen here; it is the world.
        images: pixels in [0, 1].
        budget: fixations T per episode.
        reward: a key of REWARDS, or a function of your own, ``MODULE:NAME``.
        group: scans of each image, in succession along the batch.
        num_candidates: if given, only so many random unseen patches are predicted after each
            fixation, the same for the scans of an image as far as they can be: the next fixation
            is one of them, and their errors stand for those of all. None = all patches.
            ``error`` and the reward are estimates then.
        generator: draws the candidates, on the CPU.

    Raises:
        ValueError: unknown reward, a budget outside 1..N, or less than one candidate.
    """

    def __init__(
        self,
        model: AnyOrderTransformer,
        images: Float[Tensor, "B C H W"],
        *,
        budget: int,
        reward: str = "auc",
        group: int = 1,
        num_candidates: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.reward_of = reward_named(reward)
        if num_candidates is not None and num_candidates < 1:
            raise ValueError(f"there must be at least 1 candidate, got {num_candidates}")
        self.budget, self.group = budget, group
        self.num_candidates, self.generator = num_candidates, generator
        scan = Scan.start(model, images, budget)
        # Before the first fixation the scans of an image do not differ.
        prediction = scan.predict().repeat(group)
        self.scan = scan.repeat(group)
        self.targets = model.patchify(model.normalize(images)).repeat_interleave(group, dim=0)
        num_rows, device = len(self.targets), images.device
        self.num_steps = torch.zeros(num_rows, dtype=torch.long, device=device)
        self.order = torch.full((num_rows, budget), -1, device=device)
        self.selectable = torch.ones(self.targets.shape[:2], dtype=torch.bool, device=device)
        self.initial_error = self._look_at_all(prediction)
        self.error = torch.ones_like(self.initial_error)

    order: Int[Tensor, "B T"]
    """Patches fixated at each step; -1 = not yet."""
    num_steps: Int[Tensor, "B"]
    """Fixations made by each row."""
    selectable: Bool[Tensor, "B N"]
    """True = not yet visited."""
    error: Float[Tensor, "B"]
    """Error of what is still unseen, over the image's own error before the first fixation; an
    estimate where candidates are drawn."""
    candidates: Int[Tensor, "B K"]
    """Patches that are predicted, and among which the next fixation is chosen."""

    candidate_errors: Float[Tensor, "B K"]
    """Mean squared error of each candidate; 0 where seen."""

    def _judge(self, prediction: Prediction) -> None:
        """Keep a prediction of the candidates, and its errors."""
        self.prediction = prediction
        all_patches = self.num_candidates is None
        targets = self.targets if all_patches else take(self.targets, self.candidates)
        error = (prediction.values - targets).square().mean(-1)
        self.candidate_errors = error * self.selectable.gather(1, self.candidates)

    def remaining_error(self) -> Float[Tensor, "B"]:
        """Squared error summed over the unseen patches, as far as the candidates tell."""
        number = self.selectable.gather(1, self.candidates).sum(1).clamp_min(1)
        return self.candidate_errors.sum(1) * (self.selectable.sum(1) / number)

    def _draw_candidates(self, number: int) -> Int[Tensor, "B K"]:
        """Draw unseen patches, where there are so many."""
        num_rows, num_patches = self.selectable.shape
        noise = torch.rand(num_rows // self.group, num_patches, generator=self.generator)
        noise = noise.to(self.selectable.device).repeat_interleave(self.group, dim=0)
        fewest = max(1, int(self.selectable.sum(1).min()))
        unseen = noise.masked_fill(~self.selectable, -1.0)
        return unseen.topk(min(number, fewest), dim=1).indices

    def _look_at_all(self, prediction: Prediction) -> Float[Tensor, "B"]:
        """Take a prediction of all patches, return its error, and draw the first candidates."""
        num_rows, num_patches = self.selectable.shape
        self.candidates = torch.arange(num_patches, device=self.selectable.device)
        self.candidates = self.candidates.expand(num_rows, -1)
        self._judge(prediction)
        error = self.remaining_error().clamp_min(1e-12)
        if self.num_candidates is not None:
            self.candidates = self._draw_candidates(self.num_candidates)
            self._judge(prediction.take(self.candidates))
        return error

    def _predict(self) -> None:
        if self.num_candidates is None:
            self._judge(self.scan.predict())
        else:
            self.candidates = self._draw_candidates(self.num_candidates)
            self._judge(self.scan.predict(self.candidates))

    def patch_of(self, choice: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """Return the patch that is each row's chosen candidate."""
        return self.candidates.gather(1, choice.unsqueeze(1)).squeeze(1)

    @property
    def done(self) -> Bool[Tensor, "B"]:
        """Whether a row's budget is spent."""
        return self.num_steps >= self.budget

    def observe(self) -> Observation:
        """Return what the policy sees now."""
        assert self.prediction.log_error is not None, "a model that can scan predicts its error"
        return Observation(
            query_states=self.prediction.states,
            content_state=self.scan.content,
            log_error=self.prediction.log_error,
            selectable=self.selectable.gather(1, self.candidates),
            remaining=1 - self.num_steps / self.budget,
        )

    def step(self, patch: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
        """Fixate one patch per row and return the reward.

        A visited patch shows nothing new: the step is spent, the error stays, and the reward is
        lower by REVISIT_PENALTY.

        Raises:
            ValueError: the budget of a row is spent, or a patch is outside 0..N-1, or not among
                the candidates that were drawn.
        """
        if bool(self.done.any()):
            row = int(self.done.nonzero()[0])
            raise ValueError(
                f"the budget of {self.budget} fixations is spent (row {row}); start a new episode"
            )
        num_patches = self.selectable.shape[1]
        if bool(((patch < 0) | (patch >= num_patches)).any()):
            raise ValueError(f"a patch must lie in 0..{num_patches - 1}, got {patch.tolist()}")
        is_decoded = self.candidates == patch.unsqueeze(1)
        if self.num_candidates is not None and not bool(is_decoded.any(1).all()):
            raise ValueError("with num_candidates the next patch must be one of the candidates")
        rows = torch.arange(len(patch), device=patch.device)
        new = self.selectable[rows, patch]
        before = self.error
        decoded = (self.candidate_errors * is_decoded).sum(1) / self.initial_error
        self.selectable = self.selectable.index_put((rows, patch), torch.zeros_like(new))
        self.order = self.order.index_put((rows, self.num_steps), patch)
        self.num_steps = self.num_steps + 1
        self.scan.reveal(patch.unsqueeze(1), None if bool(new.all()) else new.unsqueeze(1))
        self._predict()
        self.error = self.remaining_error() / self.initial_error
        reward = self.reward_of(ErrorChange(before, self.error, decoded))
        return reward - REVISIT_PENALTY * ~new

    def restart(self, rows: Bool[Tensor, "B"], images: Float[Tensor, "R C H W"]) -> None:
        """Begin a new episode with new images in the chosen rows (True = restart)."""
        model = self.scan.model
        if bool(rows.all()):
            self.scan = Scan.start(model, images, self.budget)
        else:
            self.scan.restart(rows, images)
        fresh = model.patchify(model.normalize(images))
        self.targets = self.targets.masked_scatter(rows.view(-1, 1, 1), fresh)
        self.num_steps = self.num_steps.masked_fill(rows, 0)
        self.order = self.order.masked_fill(rows.unsqueeze(1), -1)
        self.selectable = self.selectable | rows.unsqueeze(1)
        initial = self._look_at_all(self.scan.predict())
        self.initial_error = torch.where(rows, initial, self.initial_error)
        self.error = self.error.masked_fill(rows, 1.0)

"""A batch of image-scanning episodes in plain torch, for the environment and the trainers alike.

An action is the next fixation: a patch, or a segment of patches that become visible together. The
reward compares the error of what is unseen before and after it, as the model's target measures it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from envs.candidates import Candidates, Observation, expected_log_error
from envs.fixation import Fixation, Knowledge
from envs.opening import check_numbers, check_opening, checked_segments, noted
from envs.payment import Payment
from envs.recognition import RecognitionProbe, labels_of
from envs.rewards import REVISIT_PENALTY, Reward
from envs.words import CaptionQuestion, renewed, several_of
from foveate.devices import send
from foveate.errors import unseen_error
from foveate.model import AnyOrderTransformer
from foveate.model.decoder import Prediction
from foveate.model.encoder import take
from foveate.model.scanning import Scan
from foveate.orders.saccades import saccades
from foveate.orders.segments import Fixations, patches_in


class Episode:
    """B scans under way with their rewards.

    Args:
        model: frozen here; it is the world.
        images: pixels in [0, 1].
        budget: fixations T per episode.
        reward: a key of REWARDS, or your own: ``MODULE:NAME``, or a function of a Fixation.
        group: scans of each image, in succession along the batch.
        fixations: what a policy chooses from; None = each fixation opens one patch. Agents may
            open other sets of patches as well, see :meth:`step`.
        num_candidates: if given, only so many random unseen fixations are predicted after each
            step, the same for the scans of an image as far as they can be. The next fixation is
            one of them; ``error`` and the reward are estimates, made of theirs. None = all.
        generator: draws the candidates, on the CPU.
        saccade_cost: taken from the reward per patch of distance between the middles of successive
            fixations (all patches of each, new or not); the first one is free.
        labels: class of each image, for rewards that ask for it; -1 or None = unknown.
        probe: the classifier of the reward ``recognition``; frozen here.
        revisit_penalty: taken from the reward of a fixation that shows nothing new.
        words: captions of each image, one, (B, L), or K, for rewards that ask; -1 = padding.
        static: whether the scan is (``foveate.model.scanning``). Then no value is looked at: the
            caller vouches for patches and budget, and no step opens more than a fixation does.

    Raises:
        ValueError: unknown reward, or one without its probe; a budget outside 1..A, less than one
            candidate, or a price below 0 or not finite.
    """

    def __init__(
        self,
        model: AnyOrderTransformer,
        images: Float[Tensor, "B C H W"],
        *,
        budget: int,
        reward: str | Reward = "auc",
        group: int = 1,
        fixations: Fixations | None = None,
        num_candidates: int | None = None,
        generator: torch.Generator | None = None,
        saccade_cost: float = 0.0,
        labels: Int[Tensor, "B"] | None = None,
        probe: RecognitionProbe | None = None,
        revisit_penalty: float = REVISIT_PENALTY,
        words: Int[Tensor, "B *K"] | None = None,
        static: bool = False,
    ) -> None:
        costs = revisit_penalty, saccade_cost, words is not None
        self.probe, self.payment = probe, Payment.of(reward, probe, *costs)
        fixations = Fixations.single(model.num_patches) if fixations is None else fixations
        check_numbers(budget, len(fixations), num_candidates)
        self.fixations = fixations.to(images.device)
        self.budget, self.group = budget, group
        self.num_candidates, self.generator = num_candidates, generator
        room = min(model.num_patches, budget * fixations.size)
        scan = Scan.start(model, images, room, static=static)
        # Before the first fixation the scans of an image do not differ.
        prediction = scan.predict().repeat(group)
        self.scan = scan.repeat(group)
        self.images = images.repeat_interleave(group, dim=0)
        self.targets = model.targets(images).repeat_interleave(group, dim=0)
        self.labels = labels_of(images, labels).repeat_interleave(group)
        self.words = None if words is None else several_of(words).repeat_interleave(group, dim=0)
        num_rows, self.num_opened = len(self.targets), 0
        self.num_steps = torch.zeros(num_rows, dtype=torch.long, device=images.device)
        self.opened = self.num_steps.new_full((num_rows, budget, fixations.size), -1)
        self.newest = self.opened[:, 0]
        self.unseen = torch.ones_like(self.targets[..., 0], dtype=torch.bool)
        self.initial_error = self._look_at_all(prediction)
        self.initial_log_error = expected_log_error(prediction).logsumexp(1)
        self.error = torch.ones_like(self.initial_error)
        self.known = self._knowledge()

    opened: Int[Tensor, "B T S"]
    """New patches opened at each step; -1 = not yet, nothing new, or padding."""
    newest: Int[Tensor, "B K"]
    """All patches of the last fixation, whether they were new or not; -1 = none, or padding."""
    num_steps: Int[Tensor, "B"]
    """Fixations made by each row."""
    num_opened: int
    """Patches that have been opened in a row, at most."""
    unseen: Bool[Tensor, "B N"]
    """True = the patch has not been seen."""
    error: Float[Tensor, "B"]
    """Error of what is unseen, over the image's own at first; an estimate among candidates."""
    initial_log_error: Float[Tensor, "B"]
    """The target's loss of all patches that was expected before the first fixation, log."""
    known: Knowledge
    """What is known after the last fixation."""
    choices: Candidates
    """Fixations among which the next one is chosen, and the patches that are predicted."""
    patch_errors: Float[Tensor, "B Q"]
    """Error of each predicted patch, the loss of the model's target; 0 where seen."""

    @property
    def order(self) -> Int[Tensor, "B T *S"]:
        """The scanpath: the patch of each step, (B, T), or its segment, (B, T, S); -1 = none."""
        return self.opened[..., 0] if self.opened.shape[2] == 1 else self.opened

    @property
    def selectable(self) -> Bool[Tensor, "B A"]:
        """Which fixations would show something new."""
        return self.fixations.any(self.unseen)

    @property
    def candidates(self) -> Int[Tensor, "B K"]:
        """Fixations among which the next one is chosen."""
        return self.choices.fixation

    @property
    def done(self) -> Bool[Tensor, "B"]:
        """Whether a row's budget is spent."""
        return self.num_steps >= self.budget

    @property
    def remaining(self) -> Float[Tensor, "B"]:
        """Share of the budget that is left, 1 to 0."""
        return 1 - self.num_steps / self.budget

    def of_fixations(self, of_patches: Float[Tensor, "B N"]) -> Float[Tensor, "B A"]:
        """Sum a value over the unseen patches that each fixation would open."""
        return self.fixations.sum(of_patches * self.unseen)

    def opens(self, fixation: Int[Tensor, "B"]) -> Int[Tensor, "B *S"]:
        """Return the patch, or the segment, that a fixation of each row opens, for :meth:`step`."""
        return self.fixations.scanpath(fixation)

    def patch_of(self, choice: Int[Tensor, "B"]) -> Int[Tensor, "B *S"]:
        """Return the patch, or the segment, of each row's chosen candidate."""
        return self.opens(self.candidates.gather(1, choice.unsqueeze(1)).squeeze(1))

    def observe(self, *, ways: bool = True) -> Observation:
        """Return what the policy sees now; without ``ways`` no distance and no expected gain."""
        return self.choices.observe(
            self.prediction,
            self.unseen,
            content_state=self.scan.content,
            remaining=self.remaining,
            distance=self.choices.distance(self.newest, self.scan.model.grid) if ways else None,
            initial_log_error=self.initial_log_error,
            num_left=self.budget - self.num_steps,
        )

    def remaining_error(self) -> Float[Tensor, "B"]:
        """Error summed over the unseen patches, as far as the predicted ones tell."""
        if self.choices.are_all:
            return self.patch_errors.sum(1)
        number = self.choices.of_predicted(self.unseen).sum(1).clamp_min(1)
        return self.patch_errors.sum(1) * (self.unseen.sum(1) / number)

    def step(self, patches: Int[Tensor, "B *K"], *, all_new: bool = False) -> Tensor:
        """Make one fixation per row and return the reward, (B,).

        Patches that have been seen show nothing new. A fixation that shows nothing new at all
        spends the step, leaves the error, and costs ``revisit_penalty`` beside its saccade.

        Args:
            patches: the patch that each row opens, (B,), or the K patches that it opens together,
                (B, K), padded with -1.
            all_new: True = the caller states that a step of the budget is left in every row, and
                that all patches are unseen, different, and no padding. The step then looks at no
                values, for which a GPU must be waited for. False = look, and check.

        Raises:
            ValueError: the budget of a row is spent; a patch is outside 0..N-1, or twice in a
                row; or, where candidates are drawn, it is not of a candidate.
        """
        patches = checked_segments(patches)
        if not (all_new or self.scan.static):
            among = None if self.num_candidates is None else self.choices.predicted
            check_opening(patches, self.unseen.shape[1], self.done, self.budget, among)
        known_before, grid = self.known, self.scan.model.grid
        saccade = saccades(self.newest, patches, grid) if self.payment.saccade_cost else None
        place = patches.clamp_min(0)
        new = (patches >= 0) & self.unseen.gather(1, place)
        self.newest, self.opened = patches, noted(self.opened, self.num_steps, patches, new)
        self.num_steps = self.num_steps + 1
        self.unseen = self.unseen & ~patches_in(patches, self.unseen.shape[1])
        self.num_opened += place.shape[1]
        self.scan.make_room(place.shape[1])
        known_new = all_new or (not self.scan.static and bool(new.all()))
        self.scan.reveal(place, None if known_new else new)
        self._predict()
        self.error = self.remaining_error() / self.initial_error
        self.known = self._knowledge()
        fixation = Fixation(
            known_before=known_before,
            known_after=self.known,
            patches=patches,
            is_new=new,
            initial_error=self.initial_error,
            images=self.images,
            targets=self.targets,
            model=self.scan.model,
            labels=self.labels,
            probe=self.probe,
            opened=self.opened,
            group=self.group,
        )
        return self.payment(fixation, saccade)

    def restart(
        self,
        rows: Bool[Tensor, "B"],
        images: Float[Tensor, "R C H W"],
        labels: Int[Tensor, "R"] | None = None,
        words: Int[Tensor, "R *K"] | None = None,
    ) -> None:
        """Begin a new episode with new images in the chosen rows (True = restart).

        Raises:
            ValueError: there are captions of each image, and no new ``words``, or the reverse.
        """
        model, every = self.scan.model, bool(rows.all())
        rows = send(rows, images.device)
        self.words = renewed(self.words, rows, words)
        if every:
            self.num_opened = 0
            # An agent of segments may have made more room than a row has patches.
            room = min(model.num_patches, self.scan.capacity - model.num_always)
            self.scan = Scan.start(model, images, room, static=self.scan.static)
        else:
            self.scan.restart(rows, images)
        self.images = self.images.masked_scatter(rows.view(-1, 1, 1, 1), images)
        self.targets = self.targets.masked_scatter(rows.view(-1, 1, 1), model.targets(images))
        self.labels = self.labels.masked_scatter(rows, labels_of(images, labels))
        self.num_steps = self.num_steps.masked_fill(rows, 0)
        self.opened = self.opened.masked_fill(rows.view(-1, 1, 1), -1)
        self.newest = self.newest.masked_fill(rows.unsqueeze(1), -1)
        self.unseen = self.unseen | rows.unsqueeze(1)
        prediction = self.scan.predict()
        initial = self._look_at_all(prediction), expected_log_error(prediction).logsumexp(1)
        self.initial_error = torch.where(rows, initial[0], self.initial_error)
        self.initial_log_error = torch.where(rows, initial[1], self.initial_log_error)
        self.error = self.error.masked_fill(rows, 1.0)
        self.known = self._knowledge()

    def _knowledge(self) -> Knowledge:
        said = self.prediction, self.choices.predicted, self.patch_errors
        seen = self.scan.content, self.scan.mean_content
        question = self.images, self.words, self.order, self.num_steps
        return Knowledge(self.error, *said, *seen, CaptionQuestion.of(self.scan.model, *question))

    def _judge(self, prediction: Prediction) -> None:
        """Keep a prediction of the predicted patches, and its errors."""
        self.prediction = prediction
        choices, unseen = self.choices, self.choices.of_predicted(self.unseen)
        targets = self.targets if choices.are_all else take(self.targets, choices.positions)
        values, target = prediction.values, self.scan.model.target
        self.patch_errors = unseen_error(target, values, targets, unseen)

    def _look_at_all(self, prediction: Prediction) -> Float[Tensor, "B"]:
        """Take a prediction of all patches, return its error, and draw the first candidates."""
        self.choices = Candidates.every(self.fixations, len(self.unseen))
        self._judge(prediction)
        error = self.remaining_error().clamp_min(1e-12)
        if (positions := self._draw()) is not None:
            self._judge(prediction.take(positions))
        return error

    def _predict(self) -> None:
        self._judge(self.scan.predict(self._draw()))

    def _draw(self) -> Int[Tensor, "B Q"] | None:
        """Draw candidates, and return the patches to predict of them; None = all are."""
        if self.num_candidates is None:
            return None
        of = self.fixations, self.unseen, self.num_candidates
        group, opened, generator = self.group, self.num_opened, self.generator
        self.choices = Candidates.drawn(*of, group=group, num_opened=opened, generator=generator)
        return self.choices.positions

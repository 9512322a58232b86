"""How strongly what is predicted of each patch depends on each patch, of anything that predicts.

By gradient, and by replacing patches: what is rounded or looked up has no gradient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foveate.model import AnyOrderTransformer

ROUNDING = 1e-6
"""Share of the largest gradient, or of the largest value, below which a dependence is rounding."""


@dataclass(frozen=True)
class Probe:
    """Something that predicts, what it sees, and what its patches can be replaced by."""

    predict: Callable[[Tensor], list[Tensor]]
    """From inputs to one or two sets of P predictions, each (B, P, *); P = N where of patches."""
    inputs: Float[Tensor, "B *S"]
    owner: Int[Tensor, "..."]
    """The patch that each input value belongs to, of a form that broadcasts."""
    others: tuple[Float[Tensor, "B *S"], ...]
    """What patches are replaced by; none where gradients say all."""

    def strengths(self) -> list[Float[Tensor, "B P N"]]:
        """How strongly each prediction depends on each patch, over the strongest; 0 = not at all.

        The larger of two: its gradient, and how far it moves when the patch is replaced.
        """
        found = self._by_gradient()
        if self.others:
            moved = self._by_replacement()
            found = [torch.maximum(*pair) for pair in zip(found, moved, strict=True)]
        return found

    @torch.enable_grad()
    def _by_gradient(self) -> list[Float[Tensor, "B P N"]]:
        """By the gradient of a random mixture of what is predicted of a patch."""
        inputs = self.inputs.detach().requires_grad_()
        predictions = [each.flatten(2) for each in self.predict(inputs)]
        found = []
        for values in predictions:
            if not values.requires_grad:
                found.append(values.new_zeros(*values.shape[:2], self._num_patches).float())
                continue
            mixture = torch.randn(values.shape[-1], generator=torch.Generator().manual_seed(0))
            mixed = values @ mixture.to(values)
            rows = []
            for i in range(mixed.shape[1]):
                (gradient,) = torch.autograd.grad(
                    mixed[:, i].sum(), inputs, retain_graph=True, materialize_grads=True
                )
                if not gradient.isfinite().all():
                    raise ValueError(
                        "the gradient of a prediction is not finite, as of a square root or a "
                        "spread of 0; give images without flat patches"
                    )
                rows.append(self._largest_of_patches(gradient.abs()))
            found.append(torch.stack(rows, dim=1))
        return [each / each.max().clamp_min(torch.finfo(each.dtype).tiny) for each in found]

    @torch.no_grad()
    def _by_replacement(self) -> list[Float[Tensor, "B P N"]]:
        """By how far a prediction moves when the values of a patch are others.

        Raises:
            ValueError: predictions are not finite, whatever a patch is replaced by.
        """
        before = self.predict(self.inputs)
        columns: list[list[Tensor]] = [[] for _ in before]
        for j in range(self._num_patches):
            moved = [torch.zeros(each.shape[:2], device=each.device) for each in before]
            judged = False
            for other in self.others:
                after = self.predict(torch.where(self.owner == j, other, self.inputs))
                if _lost(before, after):
                    continue
                judged = True
                moved = [
                    torch.maximum(far, distance(one, two))
                    for far, one, two in zip(moved, before, after, strict=True)
                ]
            if not judged:
                raise not_finite_where(f"patch {j} is replaced")
            for column, far in zip(columns, moved, strict=True):
                column.append(far)
        return [torch.stack(column, dim=2) for column in columns]

    @property
    def _num_patches(self) -> int:
        return int(self.owner.max()) + 1

    def _largest_of_patches(self, values: Float[Tensor, "B *S"]) -> Float[Tensor, "B N"]:
        owner = self.owner.expand(values.shape).flatten(1)
        empty = values.new_zeros(len(values), self._num_patches)
        return empty.scatter_reduce(1, owner, values.flatten(1), "amax")

    @torch.no_grad()
    def check_images(self, what: str = "the prediction of patch") -> None:
        """Refuse predictions that are random, or that depend on another image of the batch.

        Args:
            what: what an error calls a prediction, before its number.

        Raises:
            AssertionError: a prediction depends on another image.
            ValueError: predictions hold NaN, are not finite for another image, or two calls differ.
        """
        before, again = self.predict(self.inputs), self.predict(self.inputs)
        if any(bool(each.isnan().any()) for each in before):
            raise ValueError(
                "predictions hold NaN, as of attention that sees nothing; return zeros where "
                "there is no prediction"
            )
        if not all(torch.equal(one, two) for one, two in zip(before, again, strict=True)):
            raise ValueError(
                "two calls with the same images and ranks give different predictions; call "
                "model.eval(), or seed what is random"
            )
        for image, other in enumerate(different(self.inputs)[0]):
            replaced = self.inputs.clone()
            replaced[image] = other
            after = self.predict(replaced)
            if _lost(before, after):
                raise not_finite_where("an image is turned to its negative")
            for one, two in zip(before, after, strict=True):
                moved = distance(one, two) > ROUNDING
                moved[image] = False
                if bool(moved.any()):
                    number, i = (int(index) for index in moved.nonzero()[0])
                    raise AssertionError(
                        f"image {number}: {what} {i} leaks: depends on image {image} of the batch"
                    )


def _lost(before: list[Tensor], after: list[Tensor]) -> bool:
    """Whether a finite prediction is none any more, which says nothing of what it depends on.

    Attention gives what is not finite to all that it reads, be its weight zero.
    """
    return any(
        bool((one.isfinite() & ~two.isfinite() | ~one.isnan() & two.isnan()).any())
        for one, two in zip(before, after, strict=True)
    )


def not_finite_where(what: str) -> ValueError:
    """Return what is raised where nothing can be judged.

    Args:
        what: in which case predictions are not finite.
    """
    return ValueError(
        f"predictions are not finite where {what}; add an epsilon where a spread divides"
    )


def distance(one: Float[Tensor, "B P *V"], two: Float[Tensor, "B P *V"]) -> Float[Tensor, "B P"]:
    """Largest difference of each prediction, over the largest finite value of all.

    Values that are the same infinity do not differ, such as logits that are ruled out.
    """
    one, two = one.flatten(2).float(), two.flatten(2).float()
    apart = (one - two).abs().masked_fill(one == two, 0)
    largest = one.abs().masked_fill(~one.isfinite(), 0).max()
    return apart.amax(-1) / largest.clamp_min(1e-12)


def owner_of_pixels(
    images: Float[Tensor, "B C H W"], grid: tuple[int, int]
) -> Int[Tensor, "1 H W"]:
    """Return the patch that each pixel belongs to."""
    rows, cols = (
        torch.arange(side, device=images.device) // (side // parts)
        for side, parts in zip(images.shape[2:], grid, strict=True)
    )
    return (rows.unsqueeze(1) * grid[1] + cols).unsqueeze(0)


@contextlib.contextmanager
def frozen_periphery(
    model: AnyOrderTransformer, images: Float[Tensor, "B C H W"]
) -> Iterator[None]:
    """Let a model see the periphery of these images, whatever images it is given."""
    embed, thumbnail = model.embed, model.embed(images)[0][:, 1:].detach()

    def embedded(seen: Tensor) -> tuple[Tensor, Tensor]:
        always, patches = embed(seen)
        return torch.cat([always[:, :1], thumbnail], dim=1), patches

    with mock.patch.object(model, "embed", embedded):
        yield


def different(inputs: Float[Tensor, "B *S"]) -> tuple[Tensor, ...]:
    """Return inputs turned around, all low, and all high: what hides from one shows in another.

    Raises:
        ValueError: all values are the same, so that none is another.
    """
    low, high = inputs.aminmax()
    if bool(low == high):
        raise ValueError("all values of the images are the same; give images that differ")
    return low + high - inputs, low.expand_as(inputs), high.expand_as(inputs)


def first_wrong(
    strength: Float[Tensor, "B Q N"],
    allowed: Bool[Tensor, "B Q N"],
    counted: Bool[Tensor, "B Q"] | None = None,
    *,
    complete: bool = False,
) -> tuple[int, int, int, str] | None:
    """Return the first dependence that should not be, or is missing, and the verb that says which.

    Args:
        strength: of the dependence of each of Q predictions on each patch.
        allowed: which may be.
        counted: which predictions count; None = all.
        complete: whether one that is missing is wrong too.
    """
    wrong = (strength > ROUNDING) & ~allowed
    if complete:
        wrong |= (strength == 0) & allowed
    if counted is not None:
        wrong &= counted.unsqueeze(-1)
    if not bool(wrong.any()):
        return None
    image, query, patch = (int(index) for index in wrong.nonzero()[0])
    missing = bool(allowed[image, query, patch])
    verb = "misses: does not depend" if missing else "leaks: depends"
    return image, query, patch, verb

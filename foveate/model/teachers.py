"""Teachers: whose features a model predicts.

A frozen timm model, or the student's own weights: their running average, or as they are.
"""

from __future__ import annotations

import difflib
from functools import partial
from typing import Any, Protocol, cast, runtime_checkable

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.data.config import resolve_model_data_config
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from foveate.devices import device_of
from foveate.model.encoder import PatchEncoder
from foveate.model.untaught import copy_untaught
from foveate.targets import Features, FeatureSource


@runtime_checkable
class Teacher(FeatureSource, Protocol):
    """What a trainer asks of a teacher, beside what a target asks."""

    @property
    def feature_dim(self) -> int:
        """Width of the features, F."""
        ...

    def __call__(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N F"]:
        """Return a feature of every patch of the student's grid, without gradient, to train on."""
        ...

    def update(self, student: PatchEncoder) -> None:
        """Follow the student, after each of its steps."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        ...


MOMENTS = "feature_moments"
"""Key of deviation and mean in a teacher's state; earlier states have none."""
OWN_DECAY = {"average": 0.996, "own": 0.0}
"""Teachers of the student's own weights, and how much of their average each step keeps."""


def _step_average(
    decay: float, averaged: list[Tensor], current: list[Tensor], number: Tensor | int
) -> None:
    """Move an average on as torch does, whose own function cannot be pickled."""
    get_ema_multi_avg_fn(decay)(averaged, current, number)


class AverageTeacher:
    """The exponential moving average of the student's weights.

    Features are those of the last layer, all patches visible, standardized: what all patches share
    teaches nothing, and without its removal the cosine is near 1 from the start. In training the
    mean and deviation are the batch's. In a scan, whose errors must not depend on the other images
    of the batch, they are those of reference images, by the weights of that time.

    Reference: data2vec (Baevski et al. 2022, arXiv 2202.03555), Sec. 3.3: normalized targets of an
    averaged teacher. SemAIM (Song et al. 2024, arXiv 2312.10457) averages as well, by a decay that
    rises from 0.999 to 0.9999, or takes the weights as they are; it does not standardize.

    Args:
        student: whose weights are averaged; it is copied.
        decay: how much of the average each step keeps.
        reference: images in [0, 1]; None = mean and deviation come with the state that is loaded.
    """

    def __init__(
        self,
        student: PatchEncoder,
        decay: float = OWN_DECAY["average"],
        reference: Float[Tensor, "R C H W"] | None = None,
    ) -> None:
        average = partial(_step_average, decay)
        self.average = AveragedModel(copy_untaught(student), multi_avg_fn=average)
        self.average.eval().requires_grad_(False)
        self.reference = reference
        self._moments: Float[Tensor, "2 1 1 F"] | None = None

    @property
    def feature_dim(self) -> int:
        """Width of the features, F."""
        return self._encoder.config.embed_dim

    @property
    def _encoder(self) -> PatchEncoder:
        return cast(PatchEncoder, self.average.module)

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N F"]:
        """Return a feature of every patch, standardized over the batch, without gradient."""
        tokens = self.raw(images)
        deviation, mean = torch.std_mean(tokens, dim=(0, 1), keepdim=True)
        return (tokens - mean) / (deviation + 1e-6)

    @torch.no_grad()
    def raw(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N F"]:
        """Return a feature of every patch before it is standardized, without gradient."""
        return self._encoder.features(images)[-1]

    @torch.no_grad()
    def of_each(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N F"]:
        """Return a feature of every patch, standardized as the reference, without gradient.

        Raises:
            ValueError: there are no reference images, and no state that knows of them.
        """
        deviation, mean = self.moments()
        return (self.raw(images) - mean) / (deviation + 1e-6)

    @torch.no_grad()
    def moments(self) -> Float[Tensor, "2 1 1 F"]:
        """Return deviation and mean of each feature over the reference, by the weights of now.

        Raises:
            ValueError: as of :meth:`of_each`.
        """
        if self._moments is None:
            if self.reference is None:
                raise ValueError(
                    "the teacher knows no mean and deviation of its features: its checkpoint is "
                    "from before features could be scanned; train anew"
                )
            tokens = self.raw(self.reference)
            self._moments = torch.stack(torch.std_mean(tokens, dim=(0, 1), keepdim=True))
        return self._moments

    def update(self, student: PatchEncoder) -> None:
        """Follow the student, after each of its steps."""
        self.average.update_parameters(student)
        if self.reference is not None:
            self._moments = None

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights, and, if they are known, the moments of their features."""
        state = self.average.state_dict()
        if self._moments is None and self.reference is None:
            return state
        return {**state, MOMENTS: self.moments()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from averaged weights."""
        weights = {name: value for name, value in state.items() if name != MOMENTS}
        self.average.load_state_dict(weights)
        moments = state.get(MOMENTS)
        device = device_of(self.average)
        self._moments = None if moments is None else moments.to(device)


class TimmTeacher:
    """A frozen timm model; its last feature map is resized to the student's grid.

    Args:
        name: timm model.
        grid: the student's rows and columns of patches.
        pretrained: load timm's weights; False = random ones, for tests.
        device: where it runs.

    Raises:
        ValueError: timm has no such model, its weights cannot be had, or it has no feature map.
    """

    def __init__(
        self, name: str, grid: tuple[int, int], *, pretrained: bool = True, device: str = "cpu"
    ) -> None:
        check_timm_name(name)
        try:
            model = timm.create_model(name, pretrained=pretrained, num_classes=0)
        except Exception as reason:
            raise ValueError(
                f"no weights for the teacher {name!r} ({type(reason).__name__}): timm fetches them "
                "once from the Hugging Face hub; or use --teacher average"
            ) from reason
        # timm's models share no type that knows their token grid.
        self.model: Any = model.to(device).eval().requires_grad_(False)
        facts = resolve_model_data_config(model)
        self.name, self.grid, self.size_px = name, grid, facts["input_size"][-2:]
        self.mean = torch.tensor(facts["mean"], device=device).view(-1, 1, 1)
        self.std = torch.tensor(facts["std"], device=device).view(-1, 1, 1)
        self(torch.zeros(1, 3, *self.size_px, device=device))  # Refuses what has no feature map.

    @property
    def feature_dim(self) -> int:
        """Width of the features, F."""
        return int(self.model.num_features)

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N F"]:
        """Return a feature of every patch of the student's grid, without gradient."""
        colored = images.expand(-1, 3, -1, -1)
        resized = F.interpolate(colored, self.size_px, mode="bilinear", antialias=True)
        maps = self.model.forward_features((resized - self.mean) / self.std)
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            maps = maps.movedim(-1, 1)
        if maps.ndim == 3:
            if not hasattr(self.model, "num_prefix_tokens"):
                raise ValueError(
                    f"the tokens of the teacher {self.name!r} cannot be laid out on a grid; "
                    "take a ViT or a convolutional network"
                )
            patches = maps[:, self.model.num_prefix_tokens :]
            rows, cols = self.model.patch_embed.grid_size
            maps = patches.transpose(1, 2).unflatten(2, (rows, cols))
        return F.interpolate(maps, self.grid, mode="bilinear").flatten(2).transpose(1, 2)

    def of_each(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N F"]:
        """Return the same, as its features depend on no other image."""
        return self(images)

    def update(self, student: PatchEncoder) -> None:
        """Stay as it is."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the weights are timm's."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue; there is nothing to load."""


def teacher_dim(name: str, embed_dim: int) -> int:
    """Return the width of a teacher's features, without its weights; see :func:`make_teacher`."""
    if name in OWN_DECAY:
        return embed_dim
    check_timm_name(name)
    with torch.device("meta"):
        # Not the tag of the weights, which timm checks only when it is to load them.
        model: Any = timm.create_model(name.partition(".")[0], pretrained=False, num_classes=0)
    return int(model.num_features)


def check_timm_name(name: str) -> None:
    """Raise ValueError unless timm has a model of this name, and weights of its tag."""
    architecture, _, tag = name.partition(".")
    if timm.is_model(architecture) and tag:
        known = timm.list_pretrained(f"{architecture}.*")
        if name not in known:
            raise ValueError(
                f"timm has no weights {name!r}; there are {', '.join(known) or 'none'}"
            )
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.0)
        raise ValueError(
            f"timm has no model {name!r} to teach with; did you mean one of {', '.join(close)}?"
        )


def make_teacher(
    name: str,
    student: PatchEncoder,
    device: str = "cpu",
    reference: Float[Tensor, "R C H W"] | None = None,
) -> Teacher:
    """Build ``average``, ``own`` (the weights as they are), or a timm model by name.

    Args:
        name: whose features.
        student: whose weights are averaged, and whose grid the features lie on.
        device: where a timm model runs.
        reference: images by which the student's own features are standardized in scans.
    """
    if name in OWN_DECAY:
        return AverageTeacher(student, OWN_DECAY[name], reference)
    return TimmTeacher(name, student.grid, device=device)


def attach_teacher(model: PatchEncoder, teacher: Teacher) -> None:
    """Let a model take what it is to predict from a teacher: in scans, and where none is given.

    The teacher does not become a part of the model: it stays on its device when the model moves.

    Raises:
        ValueError: the model predicts no features, or features of another width.
    """
    if not isinstance(model.target, Features):
        raise ValueError(
            f"target={model.config.target!r} has no teacher; 'features' and 'pixels_features' have"
        )
    if teacher.feature_dim != model.config.feature_dim:
        raise ValueError(
            f"the model predicts {model.config.feature_dim} features, the teacher has "
            f"{teacher.feature_dim}; give one of that width"
        )
    # Past torch, which would make a teacher that is a module a part of the model.
    object.__setattr__(model.target, "teacher", teacher)

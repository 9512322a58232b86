"""Teachers: whose features a model predicts with target="features".

A frozen timm model, or the student's own weights: their running average, or as they are.
"""

from __future__ import annotations

import difflib
from typing import Any, Protocol, cast, runtime_checkable

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.data.config import resolve_model_data_config
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from foveate.model.encoder import PatchEncoder


@runtime_checkable
class Teacher(Protocol):
    """What a trainer asks of a teacher."""

    @property
    def feature_dim(self) -> int:
        """Width of the features, F."""
        ...

    def __call__(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N F"]:
        """Return a feature of every patch of the student's grid, without gradient."""
        ...

    def update(self, student: PatchEncoder) -> None:
        """Follow the student, after each of its steps."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        ...


OWN_DECAY = {"average": 0.996, "own": 0.0}
"""Teachers of the student's own weights, and how much of their average each step keeps."""


class AverageTeacher:
    """The exponential moving average of the student's weights.

    Features are those of the last layer, all patches visible, standardized over the batch: what all
    patches share teaches nothing, and without its removal the cosine is near 1 from the start.

    Reference: data2vec (Baevski et al. 2022, arXiv 2202.03555), Sec. 3.3: normalized targets of an
    averaged teacher. SemAIM (Song et al. 2024, arXiv 2312.10457) offers both, and decay 0.
    """

    def __init__(self, student: PatchEncoder, decay: float = OWN_DECAY["average"]) -> None:
        self.average = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.average.eval().requires_grad_(False)

    @property
    def feature_dim(self) -> int:
        """Width of the features, F."""
        return self._encoder.config.embed_dim

    @property
    def _encoder(self) -> PatchEncoder:
        return cast(PatchEncoder, self.average.module)

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N F"]:
        """Return a feature of every patch, without gradient."""
        tokens = self._encoder.features(images)[-1]
        deviation, mean = torch.std_mean(tokens, dim=(0, 1), keepdim=True)
        return (tokens - mean) / (deviation + 1e-6)

    def update(self, student: PatchEncoder) -> None:
        """Follow the student, after each of its steps."""
        self.average.update_parameters(student)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights."""
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from averaged weights."""
        self.average.load_state_dict(state)


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


def make_teacher(name: str, student: PatchEncoder, device: str = "cpu") -> Teacher:
    """Build ``average``, ``own`` (the weights as they are), or a timm model by name."""
    if name in OWN_DECAY:
        return AverageTeacher(student, OWN_DECAY[name])
    return TimmTeacher(name, student.grid, device=device)

"""The world of an environment: a model, images, and what the reward needs of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from envs.checks import check_classes, check_world
from envs.episode import Episode
from envs.probing import fitted_probe
from envs.recognition import RecognitionProbe, probe_of
from envs.rewards import REWARDS_OF_CLASSES, Reward
from envs.toy import cue_set
from foveate.checkpoint import PRETRAINED, check_device, load_model, read_newest
from foveate.choices import told
from foveate.data import ImageSet, load_data
from foveate.data.decoding import ImageSize
from foveate.data.wander import wandered
from foveate.devices import send
from foveate.model import AnyOrderTransformer
from foveate.orders.segments import Fixations

Data: TypeAlias = str | Path | ImageSet | NDArray[Any] | Tensor | tuple[object, object]
"""Images by name, as a set, or as an array or tensor, with their labels in a pair or without."""
DEFAULT_BUDGET = 12


@dataclass(frozen=True)
class World:
    """A model, images that it reads, and what of them a fixation opens."""

    model: AnyOrderTransformer
    images: ImageSet
    probe: RecognitionProbe | None
    """Classifier of the reward ``recognition``; None = the model has none, or none is needed."""
    fixations: Fixations
    budget: int
    """Fixations per episode."""

    @classmethod
    def of(
        cls,
        model: str | Path | AnyOrderTransformer,
        data: Data,
        *,
        split: str,
        image_size: ImageSize | None,
        limit: int | None,
        budget: int | None,
        fixation_size: int | None,
        reward: str | Reward,
        device: str | None,
    ) -> World:
        """Load what is given by name; of a run folder take what is None as it was in training.

        A model that ships brings no probe: if the reward needs one it is fitted to the training
        images of that name.

        Raises:
            ValueError: a name or number outside what is allowed, images that the model does not
                read, or a reward that cannot be had of them.
        """
        check_effects(data, split, image_size)
        # What fits the probe is remembered by its arguments, and a list cannot be.
        if isinstance(image_size, list):
            image_size = cast("tuple[int, int]", tuple(image_size))
        trained = config_of_run(model)
        loaded = model_on(model, device)
        images = load(data, split, trained.image_size if image_size is None else image_size, limit)
        if trained.wander is not None and images.image_shape[1:] != loaded.config.image_size:
            images = wandered(images, trained.wander, loaded.config.patch_size)
        size = trained.fixation_size if fixation_size is None else fixation_size
        fixations = Fixations.squares(loaded.grid, size)
        budget = trained.budget if budget is None else budget
        if not isinstance(budget, Integral) or not 1 <= budget < len(fixations):
            raise ValueError(
                f"budget must lie in 1..{len(fixations) - 1} fixations, a whole number, got "
                f"{told(budget)}; fixation_size {size} leaves {len(fixations)} to choose from on a "
                f"grid of {loaded.grid[0]}x{loaded.grid[1]} patches"
            )
        world = cls(loaded, images, None, fixations, budget)
        if isinstance(reward, str) and reward in REWARDS_OF_CLASSES:
            world = replace(world, probe=trained_probe(model, str(_device_of(loaded))))
            if world.probe is None and str(model) in PRETRAINED and isinstance(data, str | Path):
                check_classes(images, reward)
                check_world(loaded, images, "auc", None)
                where = str(_device_of(loaded))
                probe = shipped_probe(str(model), str(data), image_size, size, budget, where)
                world = replace(world, probe=probe)
        check_world(loaded, images, reward, world.probe)
        return world

    def beside_model(self) -> World:
        """Return the world with its images where the model lies."""
        return replace(self, images=self.images.to(_device_of(self.model)))

    def batch(self, index: Int[Tensor, "B"]) -> tuple[Float[Tensor, "B C H W"], Int[Tensor, "B"]]:
        """Return images by number, where the model lies, and their labels."""
        images = self.images.batch(index, device=_device_of(self.model))
        return images, self.images.labels[send(index, self.images.labels.device)]

    def episode(
        self,
        index: Int[Tensor, "B"],
        *,
        reward: str | Reward,
        revisit_penalty: float,
        saccade_cost: float,
        static: bool = False,
    ) -> Episode:
        """Begin to scan images by number."""
        images, labels = self.batch(index)
        return Episode(
            self.model,
            images,
            budget=self.budget,
            reward=reward,
            fixations=self.fixations,
            saccade_cost=saccade_cost,
            labels=labels,
            probe=self.probe,
            revisit_penalty=revisit_penalty,
            static=static,
        )


@dataclass(frozen=True)
class TrainedWith:
    """What a run says of its scans; without a run what an environment does by itself."""

    budget: int = DEFAULT_BUDGET
    fixation_size: int = 1
    image_size: ImageSize | None = None
    wander: float | None = None
    """Images lie on a gray canvas so many times as high and wide; None = they fill what is seen."""


def config_of_run(model: str | Path | AnyOrderTransformer) -> TrainedWith:
    """Read what the config of a run folder says; the defaults of anything else."""
    path = None if isinstance(model, AnyOrderTransformer) else Path(model) / "config.json"
    if path is None or str(model) in PRETRAINED or not path.is_file():
        return TrainedWith()
    try:
        said = json.loads(path.read_text())
        known = {
            field.name: said[field.name] for field in fields(TrainedWith) if field.name in said
        }
    except (OSError, TypeError, ValueError) as reason:
        raise ValueError(f"{path} is no readable config of a run ({reason})") from reason
    sides = known.get("image_size")
    return TrainedWith(
        **{**known, "image_size": tuple(sides) if isinstance(sides, list) else sides}
    )


def model_on(model: str | Path | AnyOrderTransformer, device: str | None) -> AnyOrderTransformer:
    """Return a model by name, or the given one, which must lie on the device already.

    Args:
        model: what ``load_model`` takes, or a model.
        device: where it is to be; None = on the CPU, and a given model where it is.

    Raises:
        ValueError: no such model, no such device, or a given model lies elsewhere.
    """
    if isinstance(model, str | Path):
        return load_model(model, device or "cpu")
    if not isinstance(model, AnyOrderTransformer):
        raise ValueError(
            f"model must be one of {', '.join(PRETRAINED)}, a run folder, a checkpoint file, or an "
            f"AnyOrderTransformer; got {told(model)}"
        )
    if device is not None:
        check_device(device)
        here, wanted = _device_of(model), torch.device(device)
        if here.type != wanted.type or wanted.index not in (None, here.index):
            raise ValueError(
                f"the model lies on {here}, not on {device}; give model.to({device!r})"
            )
    return model


def check_effects(data: object, split: str, image_size: ImageSize | None) -> None:
    """Raise ValueError if ``split`` or ``image_size`` has no effect on these data."""
    is_named = isinstance(data, str | Path)
    if image_size is not None and not is_named:
        raise ValueError("image_size resizes data by name; resize images of your own before")
    if image_size is not None and data == "cue":
        raise ValueError(
            f"image_size has no effect on the cue world of 8x8 pixels, got {image_size}; "
            "leave it out"
        )
    if not is_named and split != "train":
        raise ValueError(
            f"split chooses among data by name, and images of your own are taken whole; leave out "
            f"split={split!r}, and take an id without Test"
        )


def load(data: object, split: str, image_size: ImageSize | None, limit: int | None) -> ImageSet:
    """Return images by name, of the cue world or what ``load_data`` takes, or the given ones.

    Raises:
        ValueError: no such data, or no images.
    """
    is_cue = isinstance(data, str) and data == "cue"
    if isinstance(data, str | Path) and not is_cue:
        return load_data(str(data), split, image_size=image_size, limit=limit)
    if is_cue:
        images = cue_set(split)
    else:
        images = data if isinstance(data, ImageSet) else _set_of(data)
    return images if limit is None else images.subset(limit)


def _set_of(data: object) -> ImageSet:
    """Make a set of images, or of images and labels."""
    images, labels = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    if not isinstance(images, np.ndarray | Tensor):
        raise ValueError(
            "data must be a name, a path, an ImageSet, an array or tensor of images (images, "
            f"channels, height, width), or a pair of images and labels; got {told(data)}"
        )
    unknown = np.full(len(images), -1) if labels is None else labels
    return ImageSet(images, unknown, (), "data")  # type: ignore[arg-type]  # it takes arrays too


def _device_of(model: AnyOrderTransformer) -> torch.device:
    return next(model.parameters()).device


def trained_probe(model: str | Path | AnyOrderTransformer, device: str) -> RecognitionProbe | None:
    """Return the probe of a run folder that was trained with one."""
    if isinstance(model, AnyOrderTransformer) or not Path(model).is_dir():
        return None
    state = read_newest(Path(model)).state.get("recognition")
    return None if state is None else probe_of(state["probe"]).to(device)


@lru_cache(maxsize=16)
def shipped_probe(
    model: str,
    data: str,
    image_size: ImageSize | None,
    fixation_size: int,
    budget: int,
    device: str,
) -> RecognitionProbe:
    """Fit the probe of a model that ships to training images; once in a process, for all of it."""
    loaded = load_model(model, device)
    train = load(data, "train", image_size, None)
    return fitted_probe(loaded, train, Fixations.squares(loaded.grid, fixation_size), budget)

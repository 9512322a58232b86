"""The world of an environment: a model, images, and what the reward needs of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from envs.checks import check_classes, check_world, rewards_of
from envs.episode import Episode
from envs.images import Data, Size, check_effects, hashable, load
from envs.probing import shipped_probe, trained_probe
from envs.recognition import RecognitionProbe
from envs.rewards import ALL_REWARDS, REWARDS_OF_CLASSES, REWARDS_OF_WORDS, Reward
from envs.trained import config_of_run
from foveate.checkpoint import PRETRAINED, check_device, load_model
from foveate.choices import check_choice, told
from foveate.data import ImageSet
from foveate.data.decoding import ImageSize
from foveate.data.texts import ImageTexts, texts_for
from foveate.data.wander import wandered
from foveate.devices import device_of, send
from foveate.finite import is_whole
from foveate.model import AnyOrderTransformer
from foveate.orders.segments import Fixations


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
    texts: ImageTexts | None = None
    """Captions, for the reward ``caption``; None = none is needed, or the model writes none."""

    @classmethod
    def of(
        cls,
        model: str | Path | AnyOrderTransformer,
        data: Data | None,
        *,
        split: str,
        image_size: ImageSize | None,
        limit: int | None,
        budget: int | None,
        fixation_size: int | None,
        reward: str | Reward,
        device: str | torch.device | None,
    ) -> World:
        """Load what is given by name; of a run folder take what is None as it was in training.

        A model that ships brings no probe: if the reward needs one it is fitted to the training
        images of that name.

        Raises:
            ValueError: a name or number outside what is allowed, images that the model does not
                read, a run of a stream without ``data``, or a reward that cannot be had of them.
        """
        loaded = model_on(model, device)
        trained = config_of_run(model)
        data = trained.images() if data is None else data
        check_effects(data, split, image_size)
        image_size = trained.image_size if image_size is None else image_size
        pays_words = isinstance(reward, str) and reward in REWARDS_OF_WORDS
        is_own = trained.named_as(data)
        column = trained.caption_column if pays_words or is_own else None
        columns = trained.columns_of(data)
        root = Path(trained.data_root)
        images = load(data, split, image_size, limit, root=root, caption_column=column, **columns)
        if is_own:
            trained.warn_of_changes(images)
        if trained.wander is not None and images.image_shape[1:] != loaded.config.image_size:
            images = wandered(images, trained.wander, loaded.config.patch_size)
        size = trained.fixation_size if fixation_size is None else fixation_size
        fixations = Fixations.squares(loaded.grid, size)
        budget = trained.budget if budget is None else budget
        if not is_whole(budget) or not 1 <= budget < len(fixations):
            raise ValueError(
                f"budget must lie in 1..{len(fixations) - 1} fixations, a whole number, got "
                f"{told(budget)}; fixation_size {size} leaves {len(fixations)} to choose from on a "
                f"grid of {loaded.grid[0]}x{loaded.grid[1]} patches"
            )
        world = cls(loaded, images, None, fixations, budget)
        if isinstance(reward, str) and ":" not in reward:
            world = world.with_probe(reward, model, data, hashable(image_size), size)
        if pays_words:
            world = replace(world, texts=texts_for(loaded.config, images))
        check_world(loaded, images, reward, world.probe, world.texts, fixations)
        return world

    def with_probe(
        self,
        reward: str,
        model: str | Path | AnyOrderTransformer,
        data: Data,
        image_size: Size,
        fixation_size: int,
    ) -> World:
        """Return the world with the classifier that a reward needs, if it needs one.

        Raises:
            ValueError: no such reward, or images that have no classes.
        """
        if reward in ALL_REWARDS and reward not in REWARDS_OF_CLASSES:
            return self
        where = str(device_of(self.model))
        probe = trained_probe(model, where)
        can_fit = str(model) in PRETRAINED and isinstance(data, str | Path)
        has_probe = can_fit or probe is not None
        if reward not in ALL_REWARDS:
            check_choice("reward", reward, rewards_of(self.model, has_probe), or_own=True)
        if probe is None and can_fit:
            check_classes(self.images, reward)
            check_world(self.model, self.images, "auc", None)
            asked = str(model), str(data), image_size, fixation_size, self.budget
            probe = shipped_probe(*asked, where)
        return replace(self, probe=probe)

    def beside_model(self) -> World:
        """Return the world with its images where the model lies."""
        return replace(self, images=self.images.to(device_of(self.model)))

    def batch(self, index: Int[Tensor, "B"]) -> tuple[Float[Tensor, "B C H W"], Int[Tensor, "B"]]:
        """Return images by number, where the model lies, and their labels."""
        images = self.images.batch(index, device=device_of(self.model))
        return images, self.images.labels[send(index, self.images.labels.device)]

    def words(self, index: Int[Tensor, "B"]) -> Int[Tensor, "B K L"] | None:
        """Return all captions of images by number, if the reward is for them."""
        if self.texts is None:
            return None
        return send(self.texts.of_images(index), device_of(self.model))

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
            words=self.words(index),
            static=static,
        )


def model_on(
    model: str | Path | AnyOrderTransformer, device: str | torch.device | None
) -> AnyOrderTransformer:
    """Return a model by name, or the given one, which must lie on the device already.

    Args:
        model: what ``load_model`` takes, or a model.
        device: where it is to be; None = on the CPU, and a given model where it is.

    Raises:
        ValueError: no such model, no such device, or a given model lies elsewhere.
    """
    if isinstance(model, str | Path):
        return load_model(model, "cpu" if device is None else device)
    if not isinstance(model, AnyOrderTransformer):
        raise ValueError(
            f"model must be one of {', '.join(PRETRAINED)}, a run folder, a checkpoint file, or an "
            f"AnyOrderTransformer; got {told(model)}"
        )
    if device is not None:
        check_device(device)
        here, wanted = device_of(model), torch.device(device)
        if here.type != wanted.type or wanted.index not in (None, here.index):
            raise ValueError(
                f"the model lies on {here}, not on {device}; give model.to({str(device)!r})"
            )
    return model

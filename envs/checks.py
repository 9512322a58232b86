"""What a batch, its images and its model must be, for a reward too; checked beforehand."""

from __future__ import annotations

from typing import get_args

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from envs.episode import Episode
from envs.forms import ALL_OBSERVERS
from envs.output import Output
from envs.recognition import RecognitionProbe
from envs.rendering import check_render_mode
from envs.rewards import (
    PART_REWARDS,
    REWARDS,
    REWARDS_OF_CLASSES,
    REWARDS_OF_WORDS,
    Reward,
    name_of,
)
from foveate.choices import check_choice, told
from foveate.data import ImageSet
from foveate.data.texts import ImageTexts, writes_captions
from foveate.devices import device_of
from foveate.finite import check_finite, is_whole
from foveate.model import AnyOrderTransformer
from foveate.orders.segments import Fixations
from foveate.targets import PixelsAndFeatures


def check_form(
    num_envs: int,
    max_episode_steps: int | None,
    obs: str,
    action: str,
    output: str,
    render_mode: object,
) -> None:
    """Raise ValueError unless a batch of environments can be of this form."""
    least = {"num_envs": num_envs}
    if max_episode_steps is not None:
        least["max_episode_steps"] = max_episode_steps
    for name, number in least.items():
        if not (is_whole(number) and number >= 1):
            raise ValueError(f"{name} must be at least 1, a whole number, got {told(number)}")
    check_choice("obs", obs, ALL_OBSERVERS)
    check_choice("action", action, ("patch", "gaze"))
    check_choice("output", output, get_args(Output))
    check_render_mode(render_mode)


def check_world(
    model: AnyOrderTransformer,
    images: ImageSet,
    reward: str | Reward,
    probe: RecognitionProbe | None,
    texts: ImageTexts | None = None,
    fixations: Fixations | None = None,
) -> None:
    """Raise ValueError unless the model reads the images, and the reward can be had of them.

    The reward is tried on a fixation of the first two images; None = each opens one patch.
    """
    dtype = next(model.parameters()).dtype
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"an environment takes a model in float32 or float64, got {dtype}; use model.float()"
        )
    if probe is not None:
        check_classes(images, name_of(reward), most=probe.num_classes)
    wanted = (model.config.in_chans, *model.config.image_size)
    if images.image_shape != wanted:
        raise ValueError(
            f"the model reads images of shape {wanted}, the data holds {images.image_shape}; "
            "choose another data, image_size or model"
        )
    device = device_of(model)
    few = torch.arange(2) % len(images)
    words = None if texts is None else texts.of_images(few).to(device)
    given = images.batch(few, device), images.labels[few], probe, words, few, fixations
    check_reward(reward, model, *given)


def rewards_of(model: AnyOrderTransformer, has_probe: bool) -> list[str]:
    """Return the names of the rewards that an environment can pay.

    Args:
        model: the world.
        has_probe: whether there is, or can be, a classifier for rewards of classes.
    """
    of_parts = PART_REWARDS if isinstance(model.target, PixelsAndFeatures) else {}
    of_words = REWARDS_OF_WORDS if writes_captions(model.config) else {}
    return [*REWARDS, *of_parts, *(REWARDS_OF_CLASSES if has_probe else {}), *of_words]


def check_classes(images: ImageSet, reward: str | None, *, most: int | None = None) -> None:
    """Raise ValueError unless the images tell classes apart.

    Args:
        images: what is to be recognized.
        reward: for whose sake; None = for that of a guess, which no other reward replaces.
        most: classes that its probe knows; None = any.
    """
    labels = images.labels[images.labels >= 0]
    if len(labels.unique()) < 2:
        what = "has no labels" if not len(labels) else f"has labels of class {int(labels[0])} alone"
        who = "a guess" if reward is None else f"reward {reward!r}"
        others = "" if reward is None else f", or choose {', '.join(REWARDS)}"
        raise ValueError(
            f"{who} needs labels of two classes or more, and {images.name} {what}; give other "
            f"data{others}"
        )
    if most is not None and int(labels.max()) >= most:
        raise ValueError(
            f"the probe of reward {reward!r} knows classes 0..{most - 1}, and {images.name} has "
            f"class {int(labels.max())}; give the data of its training"
        )


def check_reward(
    reward: str | Reward,
    model: AnyOrderTransformer,
    images: Float[Tensor, "B C H W"],
    labels: Int[Tensor, "B"] | None = None,
    probe: RecognitionProbe | None = None,
    words: Int[Tensor, "B *K"] | None = None,
    index: Int[Tensor, "B"] | None = None,
    fixations: Fixations | None = None,
) -> None:
    """Raise ValueError unless a finite reward can be had of a fixation on these images.

    It names the images by ``index``, None = 0, 1, ...
    """
    episode = Episode(
        model,
        images,
        budget=1,
        reward=reward,
        fixations=fixations,
        labels=labels,
        probe=probe,
        words=words,
    )
    first = torch.zeros(len(images), dtype=torch.long, device=images.device)
    paid = episode.step(episode.opens(first))
    check_paid(reward, paid, torch.arange(len(images)) if index is None else index)


def check_paid(reward: str | Reward, paid: Num[Tensor, "B"], index: Int[Tensor, "B"]) -> None:
    """Raise ValueError, which names the images, unless all that a reward paid is finite."""
    check_finite(f"the reward {name_of(reward)!r}", paid, index, cause="reward")

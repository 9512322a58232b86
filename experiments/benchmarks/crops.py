"""ap_gym's classification of images by glimpses, which it cuts out without a model.

An optional contender of ``experiments.bench env`` (extra ``bench``), on the same images.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.data import ImageSet


def is_installed() -> bool:
    """Whether there is an ap_gym."""
    return find_spec("ap_gym") is not None


def crops_episode(images: ImageSet, num_rows: int | None, budget: int) -> Callable[[], None]:
    """Return one episode of random glimpses and a guess of no class, reset included.

    Args:
        images: what is looked at.
        num_rows: rows of a batch; None = a single environment.
        budget: steps of an episode.

    Raises:
        ImportError: ap_gym is not installed.
    """
    from ap_gym.envs.image import ImageClassificationDataset, ImagePerceptionConfig
    from ap_gym.envs.image_classification import (
        ImageClassificationEnv,
        ImageClassificationVectorEnv,
    )

    class Images(ImageClassificationDataset):  # type: ignore[misc]  # it may be missing
        def _get_length(self) -> int:
            return len(images)

        def _get_num_classes(self) -> int:
            return len(images.class_names)

        def _get_num_channels(self) -> int:
            return images.image_shape[0]

        def _get_data_point_batch(self, idx: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
            return images.images[idx].permute(0, 2, 3, 1).numpy(), images.labels[idx].numpy()

    config = ImagePerceptionConfig(dataset=Images(), step_limit=budget)
    if num_rows is None:
        env = ImageClassificationEnv(config)
    else:
        env = ImageClassificationVectorEnv(num_rows, config)
    shape = () if num_rows is None else (num_rows,)
    looks = np.random.default_rng(0).uniform(-1, 1, (budget, *shape, 2)).astype(np.float32)
    guess = np.zeros((*shape, len(images.class_names)), np.float32)
    env.reset(seed=0)

    def episode() -> None:
        env.reset()
        for look in looks:
            env.step({"action": look, "prediction": guess})

    return episode

"""Learning rates over a run, by hand."""

from __future__ import annotations

import pytest
import torch

from foveate.errors import unseen_error
from foveate.optim import cosine_decay, warm_up


def test_the_learning_rate_rises_to_its_peak_and_stays() -> None:
    assert [warm_up(step, 4) for step in range(-2, 6)] == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]


def test_the_learning_rate_falls_along_half_a_cosine_to_its_floor() -> None:
    rates = [cosine_decay(step, 4) for step in (-3, 0, 1, 2, 3, 4)]
    assert rates == pytest.approx([1, 1, 0.8535534, 0.5, 0.1464466, 0])
    assert cosine_decay(4, 4, floor=0.05) == 0.05
    assert cosine_decay(1, 4, floor=0.05) == cosine_decay(1, 4)


def test_the_error_of_unseen_patches_by_hand() -> None:
    predicted = torch.tensor([[[1.0, 3.0], [5.0, 5.0]]])
    error = unseen_error(predicted, torch.zeros(1, 2, 2), torch.tensor([[True, False]]))
    assert error.tolist() == [[5.0, 0.0]]

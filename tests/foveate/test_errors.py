"""The error of unseen patches, by hand."""

from __future__ import annotations

import torch

from foveate.errors import unseen_error


def test_the_error_of_unseen_patches_by_hand() -> None:
    predicted = torch.tensor([[[1.0, 3.0], [5.0, 5.0]]])
    error = unseen_error(predicted, torch.zeros(1, 2, 2), torch.tensor([[True, False]]))
    assert error.tolist() == [[5.0, 0.0]]

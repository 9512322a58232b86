"""Muon against torch's."""

from __future__ import annotations

import torch

from foveate.optim import Muon


def test_muon_takes_the_steps_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(16, 16), (48, 16), (16, 16), (16, 64)]
    theirs = [torch.randn(shape, generator=generator) for shape in shapes]
    ours = [matrix.clone() for matrix in theirs]
    start = [matrix.clone() for matrix in theirs]
    reference = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    muon = Muon(ours, lr=0.1, weight_decay=0.1)
    for _ in range(4):
        for one, other in zip(theirs, ours, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        reference.step()
        muon.step()
    for one, other, first in zip(theirs, ours, start, strict=True):
        # Theirs is in bfloat16: 8 bits of every update.
        torch.testing.assert_close(other, one, atol=2e-2 * float((one - first).abs().max()), rtol=0)


def test_muon_leaves_matrices_without_gradient_alone() -> None:
    matrices = [torch.ones(4, 4), torch.ones(4, 4)]
    matrices[0].grad = torch.eye(4)
    Muon(matrices, lr=0.1, weight_decay=0.1).step()
    assert not torch.equal(matrices[0], torch.ones(4, 4))
    assert torch.equal(matrices[1], torch.ones(4, 4))

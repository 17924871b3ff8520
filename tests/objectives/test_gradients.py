"""Autograd against finite differences, in float64."""

import pytest
import torch

from xkd.objectives.alignment import coral, mmd
from xkd.objectives.distillation import CrossModalDistillation
from xkd.objectives.reconstruction import reconstruction_loss


def rows(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def distillation(student):
    term = CrossModalDistillation(6, 0.1, 0.9).double()
    return term(student, term.targets(rows(3, 6, seed=1), 0.07))


def reconstruction(predicted):
    return reconstruction_loss(predicted, rows(2, 3, 5, seed=1).detach())


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (mmd, (rows(4, 3), rows(5, 3, seed=1))),
        (coral, (rows(4, 3), rows(5, 3, seed=1))),
        (distillation, (rows(6, 6),)),
        (reconstruction, (rows(2, 3, 5),)),
    ],
    ids=["mmd", "coral", "distillation", "reconstruction"],
)
def test_gradients(function, inputs):
    assert torch.autograd.gradcheck(function, inputs)

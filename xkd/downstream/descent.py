"""The loop that trains classifiers on frozen outputs by gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xkd.data.labels import classes_of, several
from xkd.device import device
from xkd.downstream.labels import targets
from xkd.errors import UserError
from xkd.settings import Attentive, Layer
from xkd.training.schedules import cosine

Inputs = Callable[[int, Tensor], Any]


def descend(
    build: Callable[[int], nn.Module], inputs: Inputs, labels: np.ndarray, settings: Layer | Attentive, seed: int
) -> tuple[nn.Module, np.ndarray]:
    """Trains a classifier by AdamW on the cross-entropy, or on one per class where clips have several labels.

    Args:
        build: returns the module for a number of classes, with logits (B, classes) as its output.
        inputs: takes an epoch and the numbers of some clips (B,), and returns the input of the module.
        labels: (clips,) training labels.
        settings: group `evaluate.layer` or `evaluate.attentive`.
        seed: of starting weights, order and dropout.

    Returns:
        The module, for inference, and class names (classes,).

    Raises:
        UserError: fewer than two classes, or the loss is not finite.
    """
    classes = classes_of(labels)
    if len(classes) < 2:
        raise UserError(
            "a linear layer needs training clips of two labels or more; see the column label of the manifest"
        )
    target = torch.from_numpy(targets(labels, classes)).float().to(device())
    loss = F.binary_cross_entropy_with_logits if several(labels) else F.cross_entropy
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(len(classes)).to(device())
        _train(module, inputs, target, loss, settings)
    return module.eval(), classes


def check_scores(scores: np.ndarray, settings: Layer | Attentive) -> np.ndarray:
    """Returns the scores, if all are finite.

    Raises:
        UserError: otherwise.
    """
    if not np.isfinite(scores).all():
        raise UserError(f"the scores are not finite; lower {_rate_of(settings)}")
    return scores


def _train(
    module: nn.Module, inputs: Inputs, target: Tensor, loss_of: Callable[..., Tensor], settings: Layer | Attentive
) -> None:
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.0, weight_decay=settings.weight_decay)
    for epoch, rates in enumerate(_rates(settings, -(-len(target) // settings.batch_size))):
        order = torch.randperm(len(target))
        for rate, chosen in zip(rates, order.split(settings.batch_size), strict=True):
            optimiser.param_groups[0]["lr"] = rate
            loss = loss_of(module(inputs(epoch, chosen)), target[chosen])
            if not torch.isfinite(loss):
                raise UserError(f"epoch {epoch}: the loss is not finite; lower {_rate_of(settings)}")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def _rate_of(settings: Layer | Attentive) -> str:
    return f"evaluate.{type(settings).__name__.lower()}.learning_rate"


def _rates(settings: Layer | Attentive, batches: int) -> np.ndarray:
    """Returns the learning rate of each batch of each epoch: fixed, or a cosine to 0 after a warm-up."""
    steps = settings.epochs * batches
    if settings.schedule == "fixed":
        rates = np.full(steps, settings.learning_rate)
    else:
        rates = np.asarray(cosine(settings.learning_rate, 0.0, steps, round(settings.warmup * steps)), dtype=float)
    return rates.reshape(settings.epochs, batches)

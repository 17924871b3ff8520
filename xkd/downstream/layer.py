"""Protocol `layer`: a linear layer trained on frozen features, as the paper probes Kinetics400 and FSD50K."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xkd.data.labels import classes_of, several
from xkd.downstream.features import device
from xkd.downstream.job import EvaluationJob
from xkd.downstream.labels import targets
from xkd.downstream.probes import ProbeInput, probed
from xkd.downstream.scores import Judged, Scores
from xkd.errors import UserError
from xkd.protocols import LayerProbe
from xkd.settings import Layer
from xkd.training.schedules import cosine


@LayerProbe.runs
def probe_layer(job: EvaluationJob[Layer]) -> Iterator[Judged]:
    """Probes frozen features by a linear layer that gradient descent trains."""

    def fit(examples: ProbeInput) -> list[Scores]:
        values = train_layer(examples.train, examples.labels, examples.test, job.settings, job.seed)
        return [examples.scores("layer", *values)]

    return probed(job, fit)


def train_layer(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, settings: Layer, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Trains on the training clips and scores the test clips.

    Cross-entropy, or binary cross-entropy per class where clips have several labels; AdamW; features scaled to unit
    variance on the training clips.

    Args:
        train: (clips, D) features.
        labels: (clips,) training labels.
        test: (test clips, D) features.
        settings: group `evaluate.layer`.
        seed: of starting weights, order and dropout.

    Returns:
        Logits (test clips, classes), class names (classes,).

    Raises:
        UserError: fewer than two classes, or the loss or the scores are not finite.
    """
    classes = classes_of(labels)
    if len(classes) < 2:
        raise UserError(
            "a linear layer needs training clips of two labels or more; see the column label of the manifest"
        )
    mean, scale = train.mean(0), train.std(0) + 1e-6
    x, x_test = (torch.from_numpy((part - mean) / scale).float().to(device()) for part in (train, test))
    target = torch.from_numpy(targets(labels, classes)).float().to(device())
    loss = F.binary_cross_entropy_with_logits if several(labels) else F.cross_entropy
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(x.shape[1], len(classes))).to(device())
        _train(layer, x, target, loss, settings)
    with torch.inference_mode():
        scores: np.ndarray = layer.eval()(x_test).cpu().numpy()
    if not np.isfinite(scores).all():
        raise UserError("the layer's scores are not finite; lower evaluate.layer.learning_rate")
    return scores, classes


def _train(layer: nn.Module, x: Tensor, target: Tensor, loss_of: Callable[..., Tensor], settings: Layer) -> None:
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.0, weight_decay=settings.weight_decay)
    for epoch, rates in enumerate(_rates(settings, -(-len(x) // settings.batch_size))):
        order = torch.randperm(len(x))
        for rate, chosen in zip(rates, order.split(settings.batch_size), strict=True):
            optimiser.param_groups[0]["lr"] = rate
            loss = loss_of(layer(x[chosen]), target[chosen])
            if not torch.isfinite(loss):
                raise UserError(f"epoch {epoch}: the loss is not finite; lower evaluate.layer.learning_rate")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def _rates(settings: Layer, batches: int) -> np.ndarray:
    """Returns the learning rate of each batch of each epoch: fixed, or a cosine to 0 after a warm-up."""
    steps = settings.epochs * batches
    if settings.schedule == "fixed":
        rates = np.full(steps, settings.learning_rate)
    else:
        rates = np.asarray(cosine(settings.learning_rate, 0.0, steps, round(settings.warmup * steps)), dtype=float)
    return rates.reshape(settings.epochs, batches)

"""Protocol `layer`: a linear layer trained on frozen features, as the paper probes Kinetics400 and FSD50K."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from xkd.device import device
from xkd.downstream.descent import check_scores, descend
from xkd.downstream.job import EvaluationJob
from xkd.downstream.probes import ProbeInput, probed
from xkd.downstream.scores import Judged, Scores
from xkd.protocols import LayerProbe
from xkd.settings import Layer


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
    mean, scale = train.mean(0), train.std(0) + 1e-6
    x, x_test = (torch.from_numpy((part - mean) / scale).float().to(device()) for part in (train, test))
    layer, classes = descend(
        lambda count: nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(x.shape[1], count)),
        lambda epoch, chosen: x[chosen],
        labels,
        settings,
        seed,
    )
    with torch.inference_mode():
        return check_scores(layer(x_test).cpu().numpy(), settings), classes

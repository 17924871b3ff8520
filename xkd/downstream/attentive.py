"""Protocol `attentive`: learned queries attend to frozen patch tokens, and a linear layer classifies what they gather.

Shapes: B clips, N patches, D width, Q queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from xkd.device import device
from xkd.downstream.descent import check_scores, descend
from xkd.downstream.features import ClipOutputs, Key, Taken
from xkd.downstream.job import EvaluationJob
from xkd.downstream.probes import clip_scores, judged_by
from xkd.downstream.scores import Judged, Scores
from xkd.protocols import AttentiveProbe, Column
from xkd.settings import Attentive

BATCH = 256  # clips that are read at once where no gradient is needed


@dataclass(frozen=True)
class Tokens:
    """Patch tokens of some clips by one encoder, read batch by batch.

    Attributes:
        parts: (all clips, views, N * D) each, float16 on disk; their views follow one another.
        rows: (clips,) numbers of the clips meant.
        width: D.
    """

    parts: Sequence[np.ndarray]
    rows: np.ndarray
    width: int

    @property
    def views(self) -> int:
        """Views of each clip."""
        return sum(part.shape[1] for part in self.parts)

    def batch(self, chosen: np.ndarray, view: int) -> Tensor:
        """Returns one view of some of the clips, by their numbers (B,): (B, N, D), float32, on the device."""
        part, local = [(part, number) for part in self.parts for number in range(part.shape[1])][view]
        values = part[self.rows[chosen], local].astype(np.float32)
        return torch.from_numpy(values).view(len(chosen), -1, self.width).to(device())


class AttentiveClassifier(nn.Module):
    """For each modality, learned queries that attend to all tokens; then a linear layer over all that they gather.

    Args:
        moments: per modality, mean and scale (D,) of the training tokens, which are standardised by them.
        heads: of the attention.
        queries: Q, of each modality.
        classes: number of logits.
    """

    def __init__(self, moments: Sequence[tuple[Tensor, Tensor]], heads: int, queries: int, classes: int) -> None:
        super().__init__()
        self.pools = nn.ModuleList(_Pool(mean, scale, heads, queries) for mean, scale in moments)
        self.layer = nn.Linear(queries * sum(len(mean) for mean, _ in moments), classes)

    def forward(self, tokens_BND: Sequence[Tensor]) -> Tensor:
        """Returns logits (B, classes) from the tokens of each modality."""
        pooled = [pool(one) for pool, one in zip(self.pools, tokens_BND, strict=True)]
        logits: Tensor = self.layer(torch.cat(pooled, 1))
        return logits


class _Pool(nn.Module):
    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, heads: int, queries: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.queries = nn.Parameter(0.02 * torch.randn(1, queries, len(mean)))
        self.attention = nn.MultiheadAttention(len(mean), heads, batch_first=True)
        self.norm = nn.LayerNorm(len(mean))

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Returns what the queries gather, side by side (B, Q * D)."""
        x = (tokens_BND - self.mean) / self.scale
        gathered, _ = self.attention(self.queries.expand(len(x), -1, -1), x, x, need_weights=False)
        pooled: Tensor = self.norm(gathered).flatten(1)
        return pooled


class _Examples(NamedTuple):
    """What one probe is trained on and judged on: tokens of each modality that it sees."""

    column: Column
    train: list[Tokens]
    labels: np.ndarray
    test: list[Tokens]


@AttentiveProbe.runs
def probe_attentive(job: EvaluationJob[Attentive]) -> Iterator[Judged]:
    """Probes frozen patch tokens by attention with as many heads as the encoders have."""

    def examples(owner: str, modality: str, keys: list[Key], train: ClipOutputs, test: ClipOutputs) -> _Examples:
        trained, tested = ([_tokens(part, key, job.encoders[key].width) for key in keys] for part in (train, test))
        return _Examples(Column(owner, modality, "attentive"), trained, train.labels, tested)

    def fit(one: _Examples) -> list[Scores]:
        values = train_attentive(one.train, one.labels, one.test, job.settings, job.recipe.model.heads, job.seed)
        return [clip_scores(one.column, *values, one.labels)]

    return judged_by(job, examples, fit)


def train_attentive(
    train: Sequence[Tokens],
    labels: np.ndarray,
    test: Sequence[Tokens],
    settings: Attentive,
    heads: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Trains on the tokens of training clips and scores the test clips.

    Args:
        train: tokens of one modality, or of several of the same clips.
        labels: (clips,) training labels.
        test: tokens of the test clips, of the same modalities.
        settings: group `evaluate.attentive`.
        heads: of the attention.
        seed: of starting weights and order.

    Returns:
        Logits (test clips, classes), means over their views; class names (classes,).

    Raises:
        UserError: fewer than two classes, or the loss or the scores are not finite.
    """
    moments = [_moments(one) for one in train]
    model, classes = descend(
        lambda count: AttentiveClassifier(moments, heads, settings.queries, count),
        lambda epoch, chosen: _view(train, chosen.numpy(), epoch % _views(train)),
        labels,
        settings,
        seed,
    )
    scores = []
    with torch.inference_mode():
        for chosen in _batches(test[0]):
            logits = [model(_view(test, chosen, view)) for view in range(_views(test))]
            scores.append(torch.stack(logits).mean(0).cpu().numpy())
    return check_scores(np.concatenate(scores), settings), classes


def _tokens(clips: ClipOutputs, key: Key, width: int) -> Tokens:
    assert isinstance(clips.outputs, Taken), "as a fold has them"
    return Tokens(clips.outputs.parts(key), clips.outputs.rows, width)


def _views(tokens: Sequence[Tokens]) -> int:
    return max(one.views for one in tokens)


def _view(tokens: Sequence[Tokens], chosen: np.ndarray, view: int) -> list[Tensor]:
    """Returns a view of each modality; a moment's crops share its audio."""
    return [one.batch(chosen, view * one.views // _views(tokens)) for one in tokens]


def _batches(tokens: Tokens) -> list[np.ndarray]:
    return np.array_split(np.arange(len(tokens.rows)), -(-len(tokens.rows) // BATCH))


def _moments(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Computes mean and standard deviation (D,) over all tokens of the clips' first views."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for chosen in _batches(tokens):
        x_MD = tokens.batch(chosen, 0).flatten(0, 1).double()
        count, total, squares = count + len(x_MD), total + x_MD.sum(0), squares + (x_MD**2).sum(0)
    mean = total / count
    return mean.float(), (squares / count - mean**2).clamp(min=0).sqrt().float() + 1e-6

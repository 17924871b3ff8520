"""Protocol `finetune`: encoder and a linear head on its mean token, trained with labels (paper section 4)."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xkd.data.labels import classes_of
from xkd.data.loader import Loader, train_loader
from xkd.downstream.features import device
from xkd.downstream.finetune_augment import augment, mix
from xkd.downstream.job import EvaluationJob
from xkd.downstream.probes import clip_scores
from xkd.downstream.scores import Judged
from xkd.errors import UserError
from xkd.models.encoder import Encoder
from xkd.progress import track
from xkd.protocols import Column, Finetuning
from xkd.settings import Finetune
from xkd.training.schedules import cosine


@Finetuning.runs
def finetune_encoders(job: EvaluationJob[Finetune]) -> Iterator[Judged]:
    """Finetunes the student of each modality, or the teacher where a run was given one alone, in every fold."""
    owners = {m: "student" if ("student", m) in job.encoders else "teacher" for _, m in job.encoders}
    encoders = {modality: job.encoders[owner, modality] for modality, owner in owners.items()}
    for fold in job.folds:
        size = min(job.settings.batch_size, len(job.ids("train", fold)))
        loader = train_loader(
            job.recipe, job.path, job.seed, list(encoders), local_views=False, fold=fold, batch_size=size
        )
        models = finetune(encoders, loader, job.settings, job.seed)
        test = job.outputs({(owners[modality], modality): model for modality, model in models.items()}, fold)
        classes = np.array(loader.classes)
        trained = job.manifest.split("train", fold).rows["label"].to_numpy(str)
        known = np.isin(classes, classes_of(trained))  # outputs of other labels were never trained
        scores = [
            clip_scores(Column(*key, "finetune"), values.mean(1)[:, known], classes[known], trained)
            for key, values in test.outputs.items()
        ]
        yield Judged(fold, test, scores)


class Classifier(nn.Module):
    """An encoder (its own copy) and a linear head on the mean of its patch tokens.

    Args:
        encoder: left as it is.
        classes: outputs of the head.
        seed: of the head's starting weights.
        dropout: of the feature.
        unit_features: L2-normalises the feature.
    """

    def __init__(
        self, encoder: Encoder, classes: int, seed: int, dropout: float = 0.0, unit_features: bool = False
    ) -> None:
        super().__init__()
        # A copy also separates encoders that share blocks: each modality is tuned alone.
        self.encoder = deepcopy(encoder).requires_grad_(True)
        self.unit_features, self.dropout = unit_features, nn.Dropout(dropout)
        self.head = nn.Linear(encoder.width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of views (B, ...)."""
        features = self.encoder.features(x)
        if self.unit_features:
            features = F.normalize(features, dim=-1)
        logits: Tensor = self.head(self.dropout(features))
        return logits


def finetune(encoders: dict[str, Encoder], loader: Loader, settings: Finetune, seed: int) -> dict[str, Classifier]:
    """Trains one classifier per modality; the modalities share nothing but the pass over the data.

    Args:
        encoders: pretrained encoder per modality.
        loader: `xkd.data.loader.train_loader`; the first (global) view of each modality is learned from.
        settings: group `evaluate.finetune`.
        seed: of the heads' starting weights, augmentation and dropout.

    Returns:
        Classifiers in evaluation mode; outputs in the order of `loader.classes`.

    Raises:
        UserError: the loss is no longer finite.
    """
    models = {
        m: Classifier(e, len(loader.classes), seed, settings.dropout, settings.unit_features).to(device()).train()
        for m, e in encoders.items()
    }
    optimisers = {m: make_optimiser(model, settings) for m, model in models.items()}
    steps = settings.epochs * len(loader)
    schedule = enumerate(_rates(settings, steps))
    for epoch in track(range(settings.epochs), "finetuning"):
        loader.set_epoch(epoch)
        for batch in loader:
            step, rate = next(schedule)
            for number, (modality, model) in enumerate(models.items()):
                view, label = batch.views[modality][0].to(device()), batch.labels.to(device())
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed((seed << 32) + 2 * step + number)
                    loss = _loss(model, augment(view, modality, settings), label, settings)
                    _update(optimisers[modality], loss, float(rate))
    return {m: model.eval() for m, model in models.items()}


def _loss(model: Classifier, view: Tensor, label: Tensor, settings: Finetune) -> Tensor:
    """Computes cross-entropy, or binary cross-entropy per class where clips have several labels."""
    if label.is_floating_point():
        view, target = mix(view, label, settings)
        return F.binary_cross_entropy_with_logits(model(view), target)
    if settings.mixup or settings.cutmix:
        view, target = mix(view, F.one_hot(label, model.head.out_features).float(), settings)
        return F.cross_entropy(model(view), target, label_smoothing=settings.label_smoothing)
    return F.cross_entropy(model(view), label, label_smoothing=settings.label_smoothing)


def _rates(settings: Finetune, steps: int) -> np.ndarray:
    """Returns the share of the highest learning rate at each step: fixed, or a cosine after a warm-up."""
    if settings.schedule == "fixed":
        return np.ones(steps)
    last = settings.last_learning_rate / settings.learning_rate
    return cosine(1.0, last, steps, round(settings.warmup * steps))


def make_optimiser(model: Classifier, settings: Finetune) -> torch.optim.AdamW:
    """AdamW whose learning rate falls by `layer_decay` per layer from the head down to the embedding.

    The head and the last of the encoder's `layers` learn at the full rate, the layer below at `layer_decay` of it, and
    so on; what belongs to no layer, such as the embedding, comes below the first. Vectors are not decayed.
    """
    layers = [*enumerate(model.encoder.layers, start=1), (len(model.encoder.layers), model.head)]
    depths = {parameter: depth for depth, layer in layers for parameter in layer.parameters()}
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for parameter in model.parameters():
        depth, decays = depths.get(parameter, 0), parameter.ndim > 1
        rate = settings.learning_rate * settings.layer_decay ** (len(model.encoder.layers) - depth)
        decay = settings.weight_decay if decays else 0.0
        new: dict[str, Any] = {"params": [], "lr": rate, "peak": rate, "weight_decay": decay}
        groups.setdefault((depth, decays), new)["params"].append(parameter)
    return torch.optim.AdamW(list(groups.values()))


def _update(optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate * group["peak"]
    if not torch.isfinite(loss):
        raise UserError("finetuning diverged (the loss is not finite); lower evaluate.finetune.learning_rate")
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

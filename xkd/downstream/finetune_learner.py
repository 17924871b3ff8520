"""What finetuning trains: a classifier of each modality, as the engine takes it (paper section 4).

Shapes: B clips, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xkd.downstream.finetune_augment import augment, mix
from xkd.logged import LoggedColumn
from xkd.models.encoder import Encoder
from xkd.models.networks import PerModality
from xkd.settings import Finetune
from xkd.training.distributed import ALONE, TrainingGroup
from xkd.training.learner import Learner, PartLosses, faulty_rows, on_device
from xkd.training.schedules import cosine

if TYPE_CHECKING:
    from xkd.data.loader import Batch, Loader

RANK_SEEDS = 24  # bits of a step's number in the seed of its draws; the rank stands above them


class Classifier(nn.Module):
    """An encoder (its own copy) and a linear head on the mean of its patch tokens.

    Args:
        encoder: left as it is.
        classes: outputs of the head.
        seed: of the head's starting weights.
        unit_features: L2-normalises the feature.
    """

    def __init__(self, encoder: Encoder, classes: int, seed: int, unit_features: bool = False) -> None:
        super().__init__()
        # A copy also separates encoders that share blocks: each modality is tuned alone.
        self.encoder = deepcopy(encoder).requires_grad_(True)
        self.unit_features = unit_features
        self.head = nn.Linear(encoder.width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, kept_BD: Tensor | None = None) -> Tensor:
        """Returns logits (B, classes) of views (B, ...); features are multiplied by `kept_BD`, see `dropout`."""
        features = self.encoder.features(x)
        if self.unit_features:
            features = F.normalize(features, dim=-1)
        logits: Tensor = self.head(features if kept_BD is None else features * kept_BD)
        return logits


@dataclass(frozen=True)
class ClassifierInputs:
    """The inputs of the classifiers, by modality.

    Attributes:
        views: augmented.
        targets: class numbers (B,), or (B, classes) where clips are mixed or have several labels.
        kept_BD: what features are multiplied by, see `dropout`; empty without it.
        several: clips have several labels.
    """

    views: dict[str, Tensor]
    targets: dict[str, Tensor]
    kept_BD: dict[str, Tensor]
    several: bool

    def parts(self, count: int) -> list[ClassifierInputs]:
        """Returns the same in `count` parts of equally many clips."""
        cut = [{m: rows.chunk(count) for m, rows in of.items()} for of in (self.views, self.targets, self.kept_BD)]
        of_part = [[{m: rows[i] for m, rows in of.items()} for of in cut] for i in range(count)]
        return [ClassifierInputs(views, targets, kept, self.several) for views, targets, kept in of_part]


class Classifiers(Learner):
    """One classifier per modality; they share nothing but the pass over the data.

    Args:
        encoders: per modality; left as they are.
        loader: of the training clips.
        settings: of the protocol.
        seed: of heads and draws.
        group: the processes that share each batch. Draws of the first are those of a process alone.
    """

    place = "evaluate.finetune"
    advice = "; or lower evaluate.finetune.learning_rate"

    def __init__(
        self, encoders: dict[str, Encoder], loader: Loader, settings: Finetune, seed: int, group: TrainingGroup = ALONE
    ) -> None:
        super().__init__(group)
        self.settings, self.seed = settings, seed
        classes = len(loader.classes)
        self.models = PerModality(
            {m: Classifier(encoder, classes, seed, settings.unit_features) for m, encoder in encoders.items()}
        )
        self.columns = tuple(LoggedColumn(f"loss_{m}", f"loss, {m}") for m in encoders)
        self._shares = rates(settings, settings.epochs * len(loader))
        self.schedules = {"learning_rate": settings.peak_learning_rate * self._shares}

    def optimiser(self) -> torch.optim.Optimizer:
        """Makes AdamW for all classifiers."""
        groups = [group for model in self.models.values() for group in layer_groups(model, self.settings)]
        return torch.optim.AdamW(groups, fused=self.device.type == "cuda")

    def learning_rate(self, group: dict[str, Any], step: int) -> float:
        """Returns the learning rate of a layer."""
        return float(self._shares[step]) * float(group["peak"])

    def inputs(self, batch: Batch, step: int) -> ClassifierInputs:
        """Augments and mixes this process's share of a batch, from draws of (seed, step, modality)."""
        views, wanted, kept = {}, {}, {}
        for number, (modality, model) in enumerate(self.models.items()):
            view = batch.views[modality][0].to(self.device, non_blocking=True)
            label = batch.labels.to(self.device, non_blocking=True)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed((self.seed << 32) + (self.group.rank << RANK_SEEDS) + 2 * step + number)
                views[modality], wanted[modality] = self._mixed(augment(view, modality, self.settings), label)
                if self.settings.dropout:
                    drawn = dropout(len(view), model.encoder.width, self.settings.dropout)
                    kept[modality] = on_device(drawn, self.device)
        return ClassifierInputs(views, wanted, kept, batch.labels.is_floating_point())

    def forward(self, inputs: ClassifierInputs, whole: None, parts: int) -> PartLosses:
        """Computes the sum of the classifiers' losses for a part of the batch."""
        losses = {
            m: self._loss(model(inputs.views[m], inputs.kept_BD.get(m)), inputs.targets[m], inputs.several)
            for m, model in self.models.items()
        }
        total = torch.stack([*losses.values()]).sum()
        logged = {"loss": total} | {f"loss_{m}": loss for m, loss in losses.items()}
        return PartLosses(total / parts, {name: loss.detach() for name, loss in logged.items()})

    @torch.no_grad()
    def faulty_clips(self, inputs: ClassifierInputs) -> Tensor:
        """Finds clips that hold or give values that are not finite: (B,) booleans."""
        return faulty_rows([*inputs.views.values()], [model(inputs.views[m]) for m, model in self.models.items()])

    def _mixed(self, view: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes clips, where the settings say so; class numbers become (B, classes) then."""
        if not (self.settings.mixup or self.settings.cutmix):
            return view, label
        if not label.is_floating_point():
            classes = next(iter(self.models.values())).head.out_features
            label = torch.zeros(len(label), classes, device=label.device).scatter_(1, label[:, None], 1.0)
        return mix(view, label, self.settings)

    def _loss(self, logits: Tensor, target: Tensor, several: bool) -> Tensor:
        """Computes cross-entropy, or binary cross-entropy per class where clips have several labels, in float32."""
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
            if several:
                return F.binary_cross_entropy_with_logits(logits, target)
            return F.cross_entropy(logits, target, label_smoothing=self.settings.label_smoothing)


def dropout(clips: int, width: int, probability: float) -> Tensor:
    """Draws what features are multiplied by (B, D): 0, or 1 / (1 - probability) where they are kept."""
    return F.dropout(torch.ones(clips, width), probability)


def rates(settings: Finetune, steps: int) -> np.ndarray:
    """Returns the share of the highest learning rate at each step: fixed, or a cosine after a warm-up."""
    if settings.schedule == "fixed":
        return np.ones(steps)
    last = settings.last_learning_rate / settings.learning_rate
    return cosine(1.0, last, steps, round(settings.warmup * steps))


def layer_groups(model: Classifier, settings: Finetune) -> Iterator[dict[str, Any]]:
    """Yields the optimiser's groups, whose learning rate falls by `layer_decay` per layer from the head down.

    The head and the last of the encoder's `layers` learn at the full rate, the layer below at `layer_decay` of it, and
    so on; what belongs to no layer, such as the embedding, comes below the first. Vectors are not decayed.
    """
    layers = [*enumerate(model.encoder.layers, start=1), (len(model.encoder.layers), model.head)]
    depths = {parameter: depth for depth, layer in layers for parameter in layer.parameters()}
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for parameter in model.parameters():
        depth, decays = depths.get(parameter, 0), parameter.ndim > 1
        rate = settings.peak_learning_rate * settings.layer_decay ** (len(model.encoder.layers) - depth)
        decay = settings.weight_decay if decays else 0.0
        new: dict[str, Any] = {"params": [], "lr": rate, "peak": rate, "weight_decay": decay}
        groups.setdefault((depth, decays), new)["params"].append(parameter)
    yield from groups.values()

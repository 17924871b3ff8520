"""The supervised yardstick: the same encoders trained with labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xkd.models.networks import Networks
from xkd.training.losses import StepLosses, full_precision, mean, spread


class SupervisedObjective(nn.Module):
    """Cross-entropy of a linear layer on each modality's mean patch token of the unmasked global view.

    Args:
        networks: only the students are used.
        width: size of the encoders' tokens.
        classes: number of labels.
    """

    def __init__(self, networks: Networks, width: int, classes: int) -> None:
        super().__init__()
        self.networks = networks
        self.classifiers = nn.ModuleDict({m: nn.Linear(width, classes) for m in networks.students})
        for classifier in self.classifiers.values():  # nothing is drawn: a run depends on its seed alone
            nn.init.zeros_(classifier.weight)
            nn.init.zeros_(classifier.bias)

    def forward(self, views: dict[str, list[Tensor]], labels_B: Tensor) -> StepLosses:
        """Mean of the modalities' cross-entropies for one batch."""
        features = {m: encoder.features(views[m][0]) for m, encoder in self.networks.students.items()}
        logits = {m: full_precision(self.classifiers[m](features[m])) for m in features}
        with torch.autocast(labels_B.device.type, enabled=False):
            terms = {f"cross_entropy_{m}": F.cross_entropy(logits[m], labels_B) for m in logits}
            spreads = {f"feature_spread_{m}": spread(full_precision(f)) for m, f in features.items()}
            logged = {"loss": mean(terms), **terms, **spreads}
        return StepLosses(logged["loss"], {name: value.detach() for name, value in logged.items()})

"""The supervised yardstick: the same encoders trained with labels (not part of the paper's objective)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import nn

from xkd import registry
from xkd.logged import LoggedColumn, each
from xkd.modalities import MODALITIES
from xkd.models.networks import PerModality
from xkd.objectives.term import Outputs, RunSizes, Term, Values


@registry.terms.register("supervised")
class Supervised(Term):
    """Cross-entropy of a linear layer on each modality's mean patch token of the unmasked global view.

    Where clips have several labels it is the binary cross-entropy of each class, averaged over classes.
    """

    columns = each(MODALITIES, LoggedColumn("cross_entropy_{}", "cross-entropy of labels, {}"))
    masks = False

    def __init__(self, settings: Any, sizes: RunSizes) -> None:
        super().__init__(settings, sizes)
        self.classifiers = PerModality({m: nn.Linear(sizes.width, sizes.classes) for m in sizes.modalities})
        for classifier in self.classifiers.values():  # nothing is drawn: a run depends on its seed alone
            nn.init.zeros_(classifier.weight)
            nn.init.zeros_(classifier.bias)

    def forward(self, outputs: Outputs) -> Values:
        labels = outputs.labels_B
        assert labels is not None
        cross_entropy = F.binary_cross_entropy_with_logits if labels.is_floating_point() else F.cross_entropy
        return Values(
            {
                f"cross_entropy_{m}": cross_entropy(classifier(outputs.features_BD[m]), labels)
                for m, classifier in self.classifiers.items()
            }
        )

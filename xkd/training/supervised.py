"""The supervised yardstick: the same encoders trained with labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xkd.models.networks import Networks, PerModality
from xkd.training.distributed import ALONE, Group
from xkd.training.forward import Outputs, full_precision
from xkd.training.objective import detached, mean
from xkd.training.sharing import Inputs, PartLosses, Whole, faulty_clips, over_parts, spreads


class SupervisedObjective(nn.Module):
    """Cross-entropy of a linear layer on each modality's mean patch token of the unmasked global view.

    Args:
        networks: only the students are used.
        width: size of the encoders' tokens.
        classes: number of labels.
    """

    losses = ("cross_entropy_video", "cross_entropy_audio")
    compares_clips = False
    uses_labels = True

    def __init__(self, networks: Networks, width: int, classes: int) -> None:
        super().__init__()
        self.networks = networks
        self.classifiers = PerModality({m: nn.Linear(width, classes) for m in networks.students})
        for classifier in self.classifiers.values():  # nothing is drawn: a run depends on its seed alone
            nn.init.zeros_(classifier.weight)
            nn.init.zeros_(classifier.bias)

    def survey(self, inputs: Inputs) -> Outputs:
        """Returns nothing: no loss here compares clips."""
        return Outputs()

    def part(self, inputs: Inputs, whole: Whole | None = None, group: Group = ALONE, parts: int = 1) -> PartLosses:
        """Averages the modalities' cross-entropies for a part of the batch; arguments as in `Objective.part`."""
        features = {m: encoder.features(inputs.views[m][0]) for m, encoder in self.networks.students.items()}
        logits = {m: full_precision(self.classifiers[m](features[m])) for m in features}
        labels_B = inputs.labels_B
        assert labels_B is not None
        with torch.autocast(labels_B.device.type, enabled=False):
            terms = {f"cross_entropy_{m}": F.cross_entropy(logits[m], labels_B) for m in logits}
            total = mean(terms)
        terms = detached({"loss": total, **terms})
        return PartLosses(total / parts, terms, {}, {m: full_precision(f.detach()) for m, f in features.items()})

    @torch.no_grad()
    def faulty(self, inputs: Inputs) -> Tensor:
        """Finds clips as `Objective.faulty` does."""
        features = [encoder.features(inputs.views[m][0]) for m, encoder in self.networks.students.items()]
        return faulty_clips(inputs.views, features)

    @torch.no_grad()
    def finish(self, parts: list[PartLosses], group: Group = ALONE) -> dict[str, Tensor]:
        """Returns what is logged for the whole batch."""
        return over_parts([part.terms for part in parts], group) | spreads(parts, group)

"""The objective: equation (1) of the paper, the weighted average of the terms in `xkd.training.terms`."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from xkd.models.networks import Networks
from xkd.training.distributed import ALONE, Group
from xkd.training.forward import Outputs, run_networks
from xkd.training.sharing import Inputs, PartLosses, Whole, faulty_clips, gathered, over_parts, spreads
from xkd.training.terms import Term, make_terms

if TYPE_CHECKING:  # the step runs in other projects, which may lack pydantic
    from xkd.settings import Objective as Settings


class Objective(nn.Module):
    """L = (w_ae L_ae + w_kd L_kd + w_da L_da) / (w_ae + w_kd + w_da).

    Args:
        networks: students and teachers.
        settings: group `objective` of `xkd.settings`. A term of weight 0 is not computed.
        logits: columns of the projection heads.
    """

    uses_labels = False

    def __init__(self, networks: Networks, settings: Settings, logits: int) -> None:
        super().__init__()
        self.networks = networks
        self.settings = settings
        self.terms = nn.ModuleDict(make_terms(networks, settings, logits))

    def losses(
        self, outputs: Outputs, temperatures: dict[str, float], whole: Whole | None, parts: int, all_parts: int
    ) -> PartLosses:
        """Computes every term and their weighted average from the networks' outputs, in float32.

        Args:
            outputs: of a part of the batch.
            temperatures: of each modality's teacher.
            whole: all parts' head outputs, for terms that compare clips; None where this part is the whole batch.
            parts, all_parts: of this process, and of all processes.
        """
        shares: list[tuple[float, Tensor, int]] = []
        terms: dict[str, Tensor] = {}
        diagnostics: dict[str, Tensor] = {}
        for name, term in self._terms():
            seen = whole.around(outputs) if whole is not None and term.compares_clips else outputs
            values = term(seen, temperatures)
            # Every part sees such a term's value for the whole batch, but the gradient of its own rows alone.
            scale = all_parts if term.compares_clips else 1
            shares.append((getattr(self.settings, name), mean(values.losses), scale))
            terms |= values.losses
            diagnostics |= values.diagnostics
        total = weighted_average([(weight, loss) for weight, loss, _ in shares])
        terms = {"loss": total, **terms}
        if all_parts > 1:
            total = weighted_average([(weight, scale * loss) for weight, loss, scale in shares]) / parts
        return PartLosses(total, detached(terms), detached(diagnostics), outputs.features_BD, outputs.teacher_BK)

    @property
    def compares_clips(self) -> bool:
        """Whether a term needs the whole batch at once; the others are averages over clips."""
        return any(term.compares_clips for _, term in self._terms())

    @torch.no_grad()
    def survey(self, inputs: Inputs) -> Outputs:
        """Computes only the heads' outputs of a part, for `Whole`; of students and teachers, without a graph."""
        return run_networks(self.networks, self.settings, inputs.views, inputs.ranks, reconstruct=False)

    def part(self, inputs: Inputs, whole: Whole | None = None, group: Group = ALONE, parts: int = 1) -> PartLosses:
        """Computes the terms of a part of the batch; changes nothing.

        Args:
            inputs: rows of the part only.
            whole: what `survey` gave for all parts; without it, every process has one part.
            group: the processes that share the batch.
            parts: of this process; the gradients of its parts add up.
        """
        known = whole.known_teachers() if whole is not None else None
        outputs = run_networks(self.networks, self.settings, inputs.views, inputs.ranks, teacher_BK=known)
        device = next(iter(inputs.views.values()))[0].device.type
        with torch.autocast(device, enabled=False):
            if whole is None and group.size > 1 and self.compares_clips:
                whole = gathered([outputs], group)[0]
            return self.losses(outputs, inputs.temperatures, whole, parts, parts * group.size)

    @torch.no_grad()
    def faulty(self, inputs: Inputs) -> Tensor:
        """Finds clips that hold or give values that are not finite: (B,) booleans."""
        outputs = run_networks(self.networks, self.settings, inputs.views, inputs.ranks)
        computed = (outputs.predicted_BNP, outputs.student_RK, outputs.teacher_BK)
        return faulty_clips(inputs.views, [tensor for of in computed for tensor in of.values()])

    @torch.no_grad()
    def finish(self, parts: list[PartLosses], group: Group = ALONE) -> dict[str, Tensor]:
        """Lets the terms update what they keep, once all parts have used it; returns what is logged for the batch."""
        logged = over_parts([part.terms for part in parts], group)
        logged |= spreads(parts, group)
        logged |= over_parts([part.diagnostics for part in parts], group)
        teacher_BK = {m: torch.cat([part.teacher_BK[m] for part in parts]) for m in parts[0].teacher_BK}
        for _, term in self._terms():
            logged |= term.finish(teacher_BK)
        return logged

    def _terms(self) -> list[tuple[str, Term]]:
        return [(name, cast(Term, term)) for name, term in self.terms.items()]


def weighted_average(shares: list[tuple[float, Tensor]]) -> Tensor:
    """Averages losses by their weights."""
    return reduce(Tensor.add, (weight * loss for weight, loss in shares)) / sum(weight for weight, _ in shares)


def mean(losses: dict[str, Tensor]) -> Tensor:
    """Averages scalars."""
    return reduce(Tensor.add, losses.values()) / len(losses)


def detached(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns named values without their graphs."""
    return {name: value.detach() for name, value in values.items()}

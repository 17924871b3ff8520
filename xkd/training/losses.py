"""The objective of one step: from views and masks to every loss term (paper section 3; method section 3).

Shapes: B clips, V student views per modality, N patches, K logits, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xkd.models.networks import MODALITIES, OTHER, Networks, PerModality
from xkd.models.vit import Patches
from xkd.objectives.alignment import DISCREPANCIES
from xkd.objectives.distillation import CrossModalDistillation, entropy
from xkd.objectives.reconstruction import kept_patches, masked, reconstruction_loss
from xkd.objectives.refinement import patch_weights, refine
from xkd.training.distributed import ALONE, Group

if TYPE_CHECKING:  # the step runs in other projects, which may lack pydantic
    from xkd.settings import Objective as Settings

Views = dict[str, list[Tensor]]
CutViews = dict[str, list[Patches]]


@dataclass
class Outputs:
    """What the networks gave for one batch, per modality, in float32."""

    patches_BNP: dict[str, Tensor] = field(default_factory=dict)
    predicted_BNP: dict[str, Tensor] = field(default_factory=dict)
    hidden_BN: dict[str, Tensor] = field(default_factory=dict)
    features_BD: dict[str, Tensor] = field(default_factory=dict)
    student_RK: dict[str, Tensor] = field(default_factory=dict)
    teacher_BK: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class StepLosses:
    """`total` is minimised; `logged` holds every term and diagnostic as detached scalars."""

    total: Tensor
    logged: dict[str, Tensor]


@dataclass
class PartLosses:
    """Of a part of the batch: `total` gives its share of the gradient; the rest is for `Objective.finish`, detached.

    Attributes:
        terms: every term as a scalar; each is the whole batch's once averaged over equal parts.
        diagnostics: the same for what is only logged.
    """

    total: Tensor
    terms: dict[str, Tensor]
    diagnostics: dict[str, Tensor]
    features_BD: dict[str, Tensor]
    teacher_BK: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Whole:
    """Head outputs of all parts of a batch, of all processes, where a term compares clips with each other.

    Attributes:
        student_RK, teacher_BK: per modality one block of rows for each part, in an order that all processes share.
        part: which of the blocks is this one's; the student's is replaced by rows with a gradient.
    """

    student_RK: dict[str, list[Tensor]]
    teacher_BK: dict[str, list[Tensor]]
    part: int

    def student(self, modality: str, own_RK: Tensor) -> Tensor:
        blocks = self.student_RK[modality]
        return torch.cat([*blocks[: self.part], own_RK, *blocks[self.part + 1 :]])

    def teacher(self, modality: str) -> Tensor:
        return torch.cat(self.teacher_BK[modality])


class Objective(nn.Module):
    """L = (w_ae L_ae + w_kd L_kd + w_da L_da) / (w_ae + w_kd + w_da).

    Args:
        networks: students and teachers.
        settings: group `objective` of `xkd.settings`. A term of weight 0 is not computed.
        logits: columns of the projection heads.
    """

    def __init__(self, networks: Networks, settings: Settings, logits: int) -> None:
        super().__init__()
        self.networks = networks
        self.settings = settings
        # Named after the student that learns; the centre is that of the other modality's teacher.
        self.distillation = PerModality(
            {
                m: CrossModalDistillation(logits, settings.student_temperature, settings.centre_momentum)
                for m in networks.teachers
            }
        )

    def forward(self, views: Views, ranks: dict[str, Tensor], temperatures: dict[str, float]) -> StepLosses:
        """All terms for one batch; moves the centres.

        Args:
            views: per modality the global view, then the local views, B rows each.
            ranks: per modality a (B, N) order of the global view's patches; the lowest stay visible.
            temperatures: of each modality's teacher.
        """
        part = self.part(views, ranks, temperatures)
        return StepLosses(part.total, self.finish([part]))

    @property
    def compares_clips(self) -> bool:
        """Whether a term needs the whole batch at once; the others are averages over clips."""
        return bool(self.settings.alignment)

    @torch.no_grad()
    def survey(self, views: Views, ranks: dict[str, Tensor]) -> Outputs:
        """Only the heads' outputs of a part, for `Whole`; students and teachers, without a graph."""
        return self.run_networks(views, ranks, reconstruct=False)

    def part(
        self,
        views: Views,
        ranks: dict[str, Tensor],
        temperatures: dict[str, float],
        whole: Whole | None = None,
        group: Group = ALONE,
        parts: int = 1,
    ) -> PartLosses:
        """The terms of a part of the batch; nothing is changed.

        Args:
            views, ranks, temperatures: as in `forward`, rows of the part only.
            whole: what `survey` gave for all parts; without it, every process has one part.
            group: the processes that share the batch.
            parts: of this process; the gradients of its parts add up.
        """
        known = {m: blocks[whole.part] for m, blocks in whole.teacher_BK.items()} if whole is not None else None
        outputs = self.run_networks(views, ranks, teacher_BK=known)
        device = next(iter(views.values()))[0].device.type
        with torch.autocast(device, enabled=False):
            if whole is None and group.size > 1 and self.compares_clips:
                whole = gathered([outputs], group)[0]
            return self.losses(outputs, temperatures, whole, parts, parts * group.size)

    def run_networks(
        self,
        views: Views,
        ranks: dict[str, Tensor],
        reconstruct: bool = True,
        teacher_BK: dict[str, Tensor] | None = None,
    ) -> Outputs:
        """Students on all views, teachers on theirs unless their logits are known; may run under autocast."""
        outputs, networks = Outputs(), self.networks
        # Student, teacher and reconstruction target read the same global view: cut it once.
        cut = {m: [encoder.cut(view) for view in views[m]] for m, encoder in networks.students.items()}
        for modality, encoder in networks.students.items():
            keep_BK = kept_patches(ranks[modality], getattr(self.settings, f"mask_{modality}"))
            visible_BSD = encoder.encode_patches(cut[modality][0], keep_BK).tokens
            means = [visible_BSD[:, 1:].mean(1)]
            outputs.features_BD[modality] = full_precision(means[0].detach())
            if reconstruct and modality in networks.decoders:
                outputs.patches_BNP[modality] = cut[modality][0].values
                outputs.predicted_BNP[modality] = full_precision(networks.decoders[modality](visible_BSD, keep_BK))
                outputs.hidden_BN[modality] = masked(keep_BK, ranks[modality].shape[1])
            if modality in networks.student_heads:
                means += [encoder.encode_patches(patches).tokens[:, 1:].mean(1) for patches in cut[modality][1:]]
                outputs.student_RK[modality] = full_precision(networks.student_heads[modality](torch.cat(means)))
        outputs.teacher_BK = self.teacher_logits(cut) if teacher_BK is None else teacher_BK
        return outputs

    @torch.no_grad()
    def teacher_logits(self, cut: CutViews) -> dict[str, Tensor]:
        """Logits (B, K) of each teacher's refined tokens."""
        logits = {}
        for modality, tokens_BND in self.refined_tokens(cut).items():
            logits[modality] = full_precision(self.networks.teacher_heads[modality](tokens_BND.mean(1)))
        return logits

    def refined_tokens(self, cut: CutViews) -> dict[str, Tensor]:
        """Teachers' patch tokens (B, N, D) after cross-modal refinement."""
        tokens, weights = self.teacher_tokens_and_weights(cut)
        return {m: refine(tokens[m], weights[m]) if weights else tokens[m] for m in tokens}

    @torch.no_grad()
    def teacher_tokens_and_weights(self, cut: CutViews) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Teachers' patch tokens (B, N, D) and refinement weights (B, N); no weights with refinement "none"."""
        seen = 0 if self.settings.teacher_view == "global" else 1
        refines = self.settings.refinement != "none"
        teachers = self.networks.teachers.items()
        encoded = {m: t.encode_patches(cut[m][seen], with_cls_attention=refines) for m, t in teachers}
        tokens = {m: full_precision(e.tokens[:, 1:]) for m, e in encoded.items()}
        attention = {m: full_precision(e.cls_attention) for m, e in encoded.items() if e.cls_attention is not None}
        weights = {m: patch_weights(attention[m], attention[OTHER[m]], self.settings.refinement) for m in attention}
        return tokens, weights

    def losses(
        self, outputs: Outputs, temperatures: dict[str, float], whole: Whole | None, parts: int, all_parts: int
    ) -> PartLosses:
        """Every term from the networks' outputs, in float32."""
        weights = self.settings
        shares: list[tuple[float, Tensor, int]] = []
        terms: dict[str, Tensor] = {}
        diagnostics: dict[str, Tensor] = {}
        reconstructions = {
            f"reconstruction_{m}": reconstruction_loss(predicted, outputs.patches_BNP[m], outputs.hidden_BN[m])
            for m, predicted in outputs.predicted_BNP.items()
        }
        if reconstructions:
            terms |= reconstructions
            shares.append((weights.reconstruction, mean(reconstructions), 1))
        if weights.distillation:
            distillations, diagnostics = self._distil(outputs, temperatures)
            terms |= distillations
            shares.append((weights.distillation, mean(distillations), 1))
        if weights.alignment:
            alignments = self._align(outputs, whole)
            terms |= alignments
            # Every part sees the value of the whole batch, but the gradient of its own rows alone.
            shares.append((weights.alignment, mean(alignments), all_parts))
        total = combined([(w, loss) for w, loss, _ in shares])
        terms = {"loss": total, **terms}
        if all_parts > 1:
            total = combined([(w, scale * loss) for w, loss, scale in shares]) / parts
        return PartLosses(total, detached(terms), detached(diagnostics), outputs.features_BD, outputs.teacher_BK)

    def _distil(self, outputs: Outputs, temperatures: dict[str, float]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        losses, diagnostics = {}, {}
        for student, direction in self.distillation.items():
            teacher = OTHER[student]
            targets_BK = direction.targets(outputs.teacher_BK[teacher], temperatures[teacher])
            losses[f"distillation_{student}"] = direction(outputs.student_RK[student], targets_BK)
            diagnostics[f"teacher_entropy_{teacher}"] = entropy(targets_BK)
        return losses, diagnostics

    def _align(self, outputs: Outputs, whole: Whole | None) -> dict[str, Tensor]:
        students, teachers = outputs.student_RK, outputs.teacher_BK
        if whole is not None:
            students = {m: whole.student(m, own) for m, own in students.items()}
            teachers = {m: whole.teacher(m) for m in teachers}
        discrepancy = DISCREPANCIES[self.settings.discrepancy]
        return {
            "alignment_students": discrepancy(*(students[m] for m in MODALITIES)),
            "alignment_teachers": discrepancy(*(teachers[m] for m in MODALITIES)),
        }

    @torch.no_grad()
    def faulty(self, views: Views, ranks: dict[str, Tensor], _temperatures: dict[str, float]) -> Tensor:
        """Which of B clips give or hold values that are not finite: (B,) booleans."""
        outputs = self.run_networks(views, ranks)
        computed = (outputs.predicted_BNP, outputs.student_RK, outputs.teacher_BK)
        return faulty_clips(views, [tensor for of in computed for tensor in of.values()])

    @torch.no_grad()
    def finish(self, parts: list[PartLosses], group: Group = ALONE) -> dict[str, Tensor]:
        """Moves the centres, once all parts have used them, and says what is logged for the whole batch."""
        logged = over_parts([part.terms for part in parts], group)
        logged |= spreads(parts, group)
        logged |= over_parts([part.diagnostics for part in parts], group)
        if self.settings.distillation:
            for student, direction in self.distillation.items():
                teacher = OTHER[student]
                direction.update_centre(torch.cat([part.teacher_BK[teacher] for part in parts]))
                logged[f"centre_norm_{teacher}"] = direction.centre.norm()
        return logged


def gathered(outputs: list[Outputs], group: Group) -> list[Whole]:
    """From the outputs of this process's parts, the whole batch as each of them sees it."""
    students, teachers = (
        {m: [block for one in of for block in group.rows(one[m])] for m in of[0]}
        for of in ([one.student_RK for one in outputs], [one.teacher_BK for one in outputs])
    )
    # Blocks come part by part, and within each rank by rank.
    return [Whole(students, teachers, number * group.size + group.rank) for number in range(len(outputs))]


def faulty_clips(views: Views, outputs: list[Tensor]) -> Tensor:
    """(B,) booleans: any value of a clip is not finite, in its views or in outputs of B rows, or of B for each view."""
    tensors = [view for of in views.values() for view in of]
    clips = len(tensors[0])
    return torch.stack([~t.reshape(-1, clips, t[0].numel()).isfinite().all(2).all(0) for t in tensors + outputs]).any(0)


def combined(shares: list[tuple[float, Tensor]]) -> Tensor:
    """Weighted average of losses."""
    return reduce(Tensor.add, (w * loss for w, loss in shares)) / sum(w for w, _ in shares)


def over_parts(values: list[dict[str, Tensor]], group: Group) -> dict[str, Tensor]:
    """Average of named scalars over the parts of all processes."""
    if not values[0]:
        return {}
    means = group.mean(torch.stack([torch.stack(list(of.values())) for of in values]).mean(0))
    return dict(zip(values[0], means.unbind(), strict=True))


def spreads(parts: list[PartLosses], group: Group) -> dict[str, Tensor]:
    """`feature_spread_<modality>` over all clips of the batch."""
    own = {m: torch.cat([part.features_BD[m] for part in parts]) for m in parts[0].features_BD}
    return {f"feature_spread_{m}": spread(torch.cat(group.rows(features_BD))) for m, features_BD in own.items()}


def detached(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Named values without their graphs."""
    return {name: value.detach() for name, value in values.items()}


def full_precision(x: Tensor) -> Tensor:
    """Half precisions to float32; float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def mean(terms: dict[str, Tensor]) -> Tensor:
    """Plain average of scalars."""
    return reduce(Tensor.add, terms.values()) / len(terms)


def spread(features_BD: Tensor) -> Tensor:
    """Standard deviation over the batch, averaged over dimensions; 0 means that all clips look the same."""
    return features_BD.std(0).mean()

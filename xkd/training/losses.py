"""The objective of one step: from views and masks to every loss term (paper section 3; method section 3).

Shapes: B clips, V student views per modality, N patches, K logits, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from xkd.models.networks import MODALITIES, OTHER, Networks
from xkd.models.vit import Patches
from xkd.objectives.alignment import DISCREPANCIES
from xkd.objectives.distillation import CrossModalDistillation, entropy
from xkd.objectives.reconstruction import kept_patches, masked, reconstruction_loss
from xkd.objectives.refinement import patch_weights, refine

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


class Objective(nn.Module):
    """L = (w_ae L_ae + w_kd L_kd + w_da L_da) / (w_ae + w_kd + w_da).

    Args:
        networks: students and teachers.
        settings: group `objective` of `xkd.settings`. A term of weight 0 is not computed.
        logits: columns of the projection heads.
    """

    def __init__(self, networks: Networks, settings, logits: int) -> None:
        super().__init__()
        self.networks = networks
        self.settings = settings
        # Named after the student that learns; the centre is that of the other modality's teacher.
        self.distillation = nn.ModuleDict(
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
        outputs = self.run_networks(views, ranks)
        device = next(iter(views.values()))[0].device.type
        with torch.autocast(device, enabled=False):
            return self.losses(outputs, temperatures)

    def run_networks(self, views: Views, ranks: dict[str, Tensor]) -> Outputs:
        """Students on all views, teachers on theirs; may run under autocast."""
        outputs, networks = Outputs(), self.networks
        # Student, teacher and reconstruction target read the same global view: cut it once.
        cut = {m: [encoder.cut(view) for view in views[m]] for m, encoder in networks.students.items()}
        for modality, encoder in networks.students.items():
            keep_BK = kept_patches(ranks[modality], getattr(self.settings, f"mask_{modality}"))
            visible_BSD = encoder.encode_patches(cut[modality][0], keep_BK).tokens
            means = [visible_BSD[:, 1:].mean(1)]
            outputs.features_BD[modality] = full_precision(means[0].detach())
            if modality in networks.decoders:
                outputs.patches_BNP[modality] = cut[modality][0].values
                outputs.predicted_BNP[modality] = full_precision(networks.decoders[modality](visible_BSD, keep_BK))
                outputs.hidden_BN[modality] = masked(keep_BK, ranks[modality].shape[1])
            if modality in networks.student_heads:
                means += [encoder.encode_patches(patches).tokens[:, 1:].mean(1) for patches in cut[modality][1:]]
                outputs.student_RK[modality] = full_precision(networks.student_heads[modality](torch.cat(means)))
        outputs.teacher_BK = self.teacher_logits(cut)
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
        if not refines:
            return tokens, {}
        attention = {m: full_precision(e.cls_attention) for m, e in encoded.items()}
        weights = {m: patch_weights(attention[m], attention[OTHER[m]], self.settings.refinement) for m in attention}
        return tokens, weights

    def losses(self, outputs: Outputs, temperatures: dict[str, float]) -> StepLosses:
        """Every term from the networks' outputs, in float32."""
        weights, parts, terms = self.settings, [], {}
        reconstructions = {
            f"reconstruction_{m}": reconstruction_loss(predicted, outputs.patches_BNP[m], outputs.hidden_BN[m])
            for m, predicted in outputs.predicted_BNP.items()
        }
        if reconstructions:
            terms |= reconstructions
            parts.append((weights.reconstruction, mean(reconstructions)))
        diagnostics = {f"feature_spread_{m}": spread(f) for m, f in outputs.features_BD.items()}
        if weights.distillation:
            distillations, of_teachers = self._distil(outputs, temperatures)
            terms |= distillations
            diagnostics |= of_teachers
            parts.append((weights.distillation, mean(distillations)))
        if weights.alignment:
            discrepancy = DISCREPANCIES[weights.discrepancy]
            alignments = {
                "alignment_students": discrepancy(*(outputs.student_RK[m] for m in MODALITIES)),
                "alignment_teachers": discrepancy(*(outputs.teacher_BK[m] for m in MODALITIES)),
            }
            terms |= alignments
            parts.append((weights.alignment, mean(alignments)))
        total = sum(w * loss for w, loss in parts) / sum(w for w, _ in parts)
        logged = {"loss": total, **terms, **diagnostics}
        return StepLosses(total, {name: value.detach() for name, value in logged.items()})

    def _distil(self, outputs: Outputs, temperatures: dict[str, float]) -> tuple[dict, dict]:
        losses, diagnostics = {}, {}
        for student, direction in self.distillation.items():
            teacher = OTHER[student]
            targets_BK = direction.targets(outputs.teacher_BK[teacher], temperatures[teacher])
            losses[f"distillation_{student}"] = direction(outputs.student_RK[student], targets_BK)
            direction.update_centre(outputs.teacher_BK[teacher])
            diagnostics[f"teacher_entropy_{teacher}"] = entropy(targets_BK)
            diagnostics[f"centre_norm_{teacher}"] = direction.centre.norm()
        return losses, diagnostics


def full_precision(x: Tensor) -> Tensor:
    """Half precisions to float32; float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def mean(terms: dict[str, Tensor]) -> Tensor:
    """Plain average of scalars."""
    return sum(terms.values()) / len(terms)


def spread(features_BD: Tensor) -> Tensor:
    """Standard deviation over the batch, averaged over dimensions; 0 means that all clips look the same."""
    return features_BD.std(0).mean()

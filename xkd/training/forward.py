"""The forward pass: students and teachers on the views of a batch (paper section 3; method section 3).

Shapes: B clips, N patches, M hidden ones, P values of a patch, R rows (clips of all student views), K logits, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from xkd.modalities import OTHER
from xkd.models.encoder import Encoder, Patches
from xkd.models.head import head_input
from xkd.models.networks import Networks
from xkd.objectives.reconstruction import split_patches
from xkd.objectives.refinement import patch_weights, refine
from xkd.objectives.term import Outputs

if TYPE_CHECKING:  # the step runs in other projects, which may lack pydantic
    from xkd.settings import ObjectiveSettings

ViewTensors = dict[str, list[Tensor]]
CutViews = dict[str, list[Patches]]


def run_networks(
    networks: Networks,
    settings: ObjectiveSettings,
    views: ViewTensors,
    ranks: dict[str, Tensor],
    reconstruct: bool = True,
    teacher_BK: dict[str, Tensor] | None = None,
) -> Outputs:
    """Runs students on all views, and teachers on theirs unless their logits are known; may run under autocast.

    Args:
        ranks: per modality an order of the global view's patches, of which the lowest stay visible; empty where
            students see all patches.
        reconstruct: whether decoders run, where there are any.
        teacher_BK: the teachers' logits, if they are known.
    """
    outputs = Outputs()
    # Student, teacher and reconstruction target read the same global view: cut it once.
    cut = {m: [encoder.cut(view) for view in views[m]] for m, encoder in networks.students.items()}
    for modality, encoder in networks.students.items():
        keep_BK = hidden_BM = None
        if ranks:
            keep_BK, hidden_BM = split_patches(ranks[modality], getattr(settings, f"mask_{modality}"))
        local = cut[modality][1:] if modality in networks.student_heads else []
        visible_BSD, *others = student_tokens(encoder, cut[modality][0], keep_BK, local)
        seen = [cls_and_mean(tokens_BSD) for tokens_BSD in (visible_BSD, *others)]
        outputs.features_BD[modality] = full_precision(seen[0][1])
        if reconstruct and hidden_BM is not None and modality in networks.decoders:
            predicted_BMP = networks.decoders[modality](visible_BSD, keep_BK, hidden_BM)
            outputs.predicted_BMP[modality] = full_precision(predicted_BMP)
            outputs.patches_BNP[modality], outputs.hidden_BM[modality] = cut[modality][0].values, hidden_BM
        if modality in networks.student_heads:
            seen_RD = torch.cat([head_input(networks.head_input, *of) for of in seen])
            outputs.student_RK[modality] = full_precision(networks.student_heads[modality](seen_RD))
    outputs.teacher_BK = teacher_logits(networks, settings, cut) if teacher_BK is None else teacher_BK
    return outputs


def student_tokens(
    encoder: Encoder, whole: Patches, keep_BK: Tensor | None, local: Sequence[Patches]
) -> Sequence[Tensor]:
    """Returns a student's tokens of the global view (B, S, D), then those of all local views, B rows for each.

    All pass through the encoder together, which takes half as many operations.
    """
    if not local:
        return [encoder.encode_patches(whole, keep_BK).tokens]
    together = local[0].values if len(local) == 1 else torch.cat([patches.values for patches in local])
    return encoder.encode_views([(whole, keep_BK), (Patches(together, local[0].grid), None)])


def cls_and_mean(tokens_BSD: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the CLS token and the mean patch token, (B, D) each."""
    cls_B1D, patches_BND = tokens_BSD.split([1, tokens_BSD.shape[1] - 1], 1)
    return cls_B1D.squeeze(1), patches_BND.mean(1)


@torch.no_grad()
def teacher_logits(networks: Networks, settings: ObjectiveSettings, cut: CutViews) -> dict[str, Tensor]:
    """Computes the logits (B, K) of each teacher's refined tokens."""
    taught, logits = run_teachers(networks, settings, cut), {}
    for modality, refined_BND in taught.refined_BND.items():
        seen_BD = head_input(networks.head_input, taught.cls_BD[modality], refined_BND.mean(1))
        logits[modality] = full_precision(networks.teacher_heads[modality](seen_BD))
    return logits


class Taught(NamedTuple):
    """What teachers say of their views, per modality; no weights with refinement "none"."""

    cls_BD: dict[str, Tensor]
    refined_BND: dict[str, Tensor]
    weights_BN: dict[str, Tensor]


@torch.no_grad()
def run_teachers(networks: Networks, settings: ObjectiveSettings, cut: CutViews) -> Taught:
    """Computes the teachers' CLS and patch tokens, the latter after cross-modal refinement, and its weights."""
    seen = 0 if settings.teacher_view == "global" else 1
    refines = settings.refinement != "none"
    encoded = {m: t.encode_patches(cut[m][seen], with_cls_attention=refines) for m, t in networks.teachers.items()}
    tokens = {m: full_precision(e.tokens[:, 1:]) for m, e in encoded.items()}
    attention = {m: full_precision(e.cls_attention) for m, e in encoded.items() if e.cls_attention is not None}
    weights = {m: patch_weights(attention[m], attention[OTHER[m]], settings.refinement) for m in attention}
    refined = {m: refine(tokens[m], weights[m]) if weights else tokens[m] for m in tokens}
    return Taught({m: full_precision(e.tokens[:, 0]) for m, e in encoded.items()}, refined, weights)


def full_precision(x: Tensor) -> Tensor:
    """Converts half precisions to float32; leaves float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x

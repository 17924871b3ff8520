"""Students and teachers: all networks of XKD, XKD-MAS and XKD-MATS in one class (method: "Variants").

The variants differ only in which encoders share their blocks; patch embeddings, CLS tokens, positions, final norms,
decoders and heads always belong to one modality.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import nn

from xkd.models.backbones import build_encoder, make_blocks
from xkd.models.decoder import PatchDecoder
from xkd.models.encoder import Backbone, Encoder, ModalityShape
from xkd.models.head import ProjectionHead

Kind = TypeVar("Kind", bound=nn.Module)


class PerModality(nn.ModuleDict, Generic[Kind]):
    """Maps modalities to modules of one class; a `ModuleDict` does not tell type checkers the class."""

    if TYPE_CHECKING:

        def __init__(self, modules: Mapping[str, Kind]) -> None: ...

        def __getitem__(self, key: str) -> Kind: ...

        def items(self) -> ItemsView[str, Kind]: ...

        def values(self) -> ValuesView[Kind]: ...


@dataclass(frozen=True)
class NetworkSizes:
    """Sizes of every network.

    Attributes:
        decoder: width, depth, heads.
        head: hidden, bottleneck, out.
        share: "none" (XKD), "students" (MAS) or "all" (MATS).
        head_input: what heads read (`xkd.models.head.head_input`).
    """

    backbone: Backbone
    decoder: tuple[int, int, int]
    head: tuple[int, int, int]
    share: str = "none"
    head_input: str = "patches"


def make_encoders(shapes: dict[str, ModalityShape], backbone: Backbone, shared: bool) -> PerModality[Encoder]:
    """Draws one encoder per modality; with `shared` they hold the same blocks."""
    common = make_blocks(backbone) if shared else None
    return PerModality({m: build_encoder(shape, backbone, common) for m, shape in shapes.items()})


class Networks(nn.Module):
    """Student encoders, decoders and heads, and their EMA teachers.

    Args:
        shapes: the modalities to build, in the order video, audio.
        sizes: of the networks, and what they share.
        reconstruct: modalities that get a decoder.
        teachers: whether heads and teachers exist (any term beyond reconstruction needs them).
    """

    def __init__(
        self, shapes: dict[str, ModalityShape], sizes: NetworkSizes, reconstruct: Sequence[str], teachers: bool
    ) -> None:
        super().__init__()
        self.share, self.head_input = sizes.share, sizes.head_input
        self.students = make_encoders(shapes, sizes.backbone, shared=sizes.share != "none")
        width, positions = sizes.backbone.width, sizes.backbone.positions
        self.decoders = PerModality(
            {
                m: PatchDecoder(shapes[m].grid, shapes[m].patch_values, width, *sizes.decoder, positions)
                for m in reconstruct
            }
        )
        with_heads = shapes if teachers else {}
        self.student_heads = PerModality({m: ProjectionHead(width, *sizes.head) for m in with_heads})
        self.teachers = PerModality(self._copies_of_students() if teachers else {})
        self.teacher_heads = deepcopy(self.student_heads)
        for module in (self.teachers, self.teacher_heads):
            module.requires_grad_(False).eval()

    def _copies_of_students(self) -> dict[str, Encoder]:
        # Copying the dictionary keeps shared blocks shared (MATS); copying each encoder separates them.
        if self.share == "all":
            return dict(deepcopy(self.students).items())
        return {m: deepcopy(encoder) for m, encoder in self.students.items()}

    def train(self, mode: bool = True) -> Networks:
        """Teachers stay in evaluation mode."""
        super().train(mode)
        self.teachers.eval()
        self.teacher_heads.eval()
        return self

    @torch.no_grad()
    def update_teachers(
        self, momentum: Mapping[str, float | torch.Tensor], updated: torch.Tensor | None = None
    ) -> None:
        """Moves teachers towards students, t <- m t + (1 - m) s: each modality's encoder and head in turn, video first.

        The shared teacher of MATS is reached through both modalities, so it moves twice.

        Args:
            updated: whether the students were changed, a boolean scalar; where not, teachers stay exactly as they are.
        """
        for modality in self.teachers:
            for teacher, student in (
                (self.teachers[modality], self.students[modality]),
                (self.teacher_heads[modality], self.student_heads[modality]),
            ):
                moved: list[torch.Tensor] = list(teacher.parameters())
                moves = torch.as_tensor(True if updated is None else updated).to(moved[0])
                weight = (moves * (1 - momentum[modality])).to(moved[0])
                torch._foreach_lerp_(moved, list(student.parameters()), [weight] * len(moved))

    def clipped_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the tensors whose gradient is clipped: student encoders and heads, each once, without decoders."""
        yield from nn.ModuleList([self.students, self.student_heads]).parameters()

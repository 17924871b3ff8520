"""Students and teachers: all networks of XKD, XKD-MAS and XKD-MATS in one class (method: "Variants").

The variants differ only in which encoders share their transformer blocks; patch embeddings, CLS
tokens, positions, final norms, decoders and heads always belong to one modality.
"""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import nn

from xkd.models.decoder import Decoder
from xkd.models.head import ProjectionHead
from xkd.models.vit import Encoder, make_blocks

Network = TypeVar("Network", bound=nn.Module)


class PerModality(nn.ModuleDict, Generic[Network]):
    """A `ModuleDict` from modalities to modules of one class, which `ModuleDict` alone does not tell type checkers."""

    if TYPE_CHECKING:

        def __init__(self, modules: Mapping[str, Network]) -> None: ...

        def __getitem__(self, key: str) -> Network: ...

        def items(self) -> ItemsView[str, Network]: ...

        def values(self) -> ValuesView[Network]: ...


@dataclass(frozen=True)
class ModalityShape:
    """Patch size, patches of the global view along each axis, and channels of one modality."""

    patch: tuple[int, ...]
    grid: tuple[int, ...]
    channels: int

    @property
    def tokens(self) -> int:
        return math.prod(self.grid)

    @property
    def patch_values(self) -> int:
        return math.prod(self.patch) * self.channels


@dataclass(frozen=True)
class Sizes:
    """Sizes of every network; `share` is "none" (XKD), "students" (MAS) or "all" (MATS)."""

    width: int
    depth: int
    heads: int
    decoder: tuple[int, int, int]
    head: tuple[int, int, int]
    share: str = "none"
    positions: str = "normal"


def make_encoders(shapes: dict[str, ModalityShape], sizes: Sizes, shared: bool) -> PerModality[Encoder]:
    """One encoder per modality of `shapes`; with `shared` they hold the same transformer blocks."""
    common = make_blocks(sizes.width, sizes.depth, sizes.heads) if shared else None
    encoders = {}
    for modality, shape in shapes.items():
        blocks = common if common is not None else make_blocks(sizes.width, sizes.depth, sizes.heads)
        encoders[modality] = Encoder(shape.patch, shape.grid, shape.channels, sizes.width, blocks, sizes.positions)
    return PerModality(encoders)


class Networks(nn.Module):
    """Student encoders, decoders and heads, and their EMA teachers.

    Args:
        shapes: the modalities to build, in the order video, audio.
        sizes: network sizes and the sharing of blocks.
        reconstruct: modalities that get a decoder.
        teachers: whether heads and teachers exist (any term beyond reconstruction needs them).
    """

    def __init__(
        self, shapes: dict[str, ModalityShape], sizes: Sizes, reconstruct: Sequence[str], teachers: bool
    ) -> None:
        super().__init__()
        self.share = sizes.share
        self.students = make_encoders(shapes, sizes, shared=sizes.share != "none")
        self.decoders = PerModality(
            {
                m: Decoder(shapes[m].grid, shapes[m].patch_values, sizes.width, *sizes.decoder, sizes.positions)
                for m in reconstruct
            }
        )
        with_heads = shapes if teachers else {}
        self.student_heads = PerModality({m: ProjectionHead(sizes.width, *sizes.head) for m in with_heads})
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
    def update_teachers(self, momentum: dict[str, float]) -> None:
        """t <- m t + (1 - m) s for encoder and head of each modality in turn, video first.

        The shared teacher of MATS is reached through both modalities, so it moves twice.
        """
        for modality in self.teachers:
            for teacher, student in (
                (self.teachers[modality], self.students[modality]),
                (self.teacher_heads[modality], self.student_heads[modality]),
            ):
                torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum[modality])

    def clipped_parameters(self) -> Iterator[nn.Parameter]:
        """Tensors whose gradient is clipped: student encoders and heads, each once, decoders left out."""
        yield from nn.ModuleList([self.students, self.student_heads]).parameters()

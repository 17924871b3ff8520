"""The interface of encoders: all that training, evaluation and `xkd plan` ask of a backbone (method: networks).

A backbone is a subclass of `Encoder`, registered under the name that `model.arch` gives. It consists of an embedding of
patches, of `blocks`, and of a final `norm`.

Shapes: B batch, N patches of a view, K kept ones, P values of a patch, D width, H heads; S = 1 + patches (CLS first).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xkd.models.patches import grid_of, patchify


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
class Backbone:
    """Name and sizes of a backbone.

    Attributes:
        positions: initial positions where they are learned, "normal" or "sincos".
        settings: those of a plugin, an instance of its `Settings`.
    """

    arch: str
    width: int
    depth: int
    heads: int
    positions: str = "normal"
    settings: Any = None


class Encoded(NamedTuple):
    """Tokens after the final norm (B, S, D), CLS first, and the CLS attention (B, H, N) if asked for."""

    tokens: Tensor
    cls_attention: Tensor | None


class Patches(NamedTuple):
    """A view cut into patch vectors (B, N, P), and the number of patches along each axis."""

    values: Tensor
    grid: tuple[int, ...]


class Stack(nn.Module):
    """A network with `blocks`, which training may compile, and whose activations it may recompute.

    Attributes:
        recompute: the backward pass computes the activations within blocks again, so that they need not be kept.
    """

    blocks: nn.ModuleList
    recompute = False

    def run(self, block: nn.Module, *inputs: Any) -> Any:
        """Calls one of the blocks."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)


class Encoder(Stack, ABC):
    """The encoder of one modality.

    A subclass sets `blocks` and `norm`, and implements `make_blocks` and `encode_patches`.

    Args:
        shape: of the global view and its patches.
        backbone: sizes.
        blocks: those of `make_blocks`; two encoders that get the same list share it (MAS, MATS).

    Attributes:
        Settings: a plugin may have settings of its own, which stand in group `model` under its name: a subclass of
            `xkd.settings.Settings`.
        HAS_CLS_ATTENTION: `encode_patches` can return the attention of CLS to the patches, which refinement needs.
    """

    Settings: ClassVar[Any] = None
    HAS_CLS_ATTENTION: ClassVar[bool] = True
    norm: nn.Module

    def __init__(self, shape: ModalityShape, backbone: Backbone, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.patch, self.grid, self.width = shape.patch, shape.grid, backbone.width

    @classmethod
    @abstractmethod
    def make_blocks(cls, backbone: Backbone) -> nn.ModuleList:
        """Returns new blocks, the first one applied first. They must suit every modality."""

    @abstractmethod
    def encode_patches(
        self, patches: Patches, keep_BK: Tensor | None = None, with_cls_attention: bool = False
    ) -> Encoded:
        """Encodes a view that has been cut into patches.

        Args:
            patches: of a view of any size.
            keep_BK: indices of the patches to encode; the others are left out (masking).
            with_cls_attention: also returns the last block's attention of CLS to the patches, per head.

        Returns:
            Tokens (B, 1 + N, D), or (B, 1 + K, D) with `keep_BK` and in its order.
        """

    def encode_views(self, views: Sequence[tuple[Patches, Tensor | None]]) -> list[Tensor]:
        """Returns the tokens of several views (B, S, D), each with the patches to keep (None: all).

        A backbone may let them pass through its blocks together; here each goes alone.
        """
        return [self.encode_patches(patches, keep_BK).tokens for patches, keep_BK in views]

    @property
    def tokens(self) -> int:
        """Patches of the global view."""
        return math.prod(self.grid)

    @property
    def layers(self) -> list[nn.Module]:
        """Layers from bottom to top, for layer-wise learning rates.

        The last one learns at the rate of a classifier on top; parameters outside of them come below the first.
        """
        return [*self.blocks, self.norm]

    def cut(self, x: Tensor) -> Patches:
        """Cuts a view into patches; done once where several networks read the same view.

        Args:
            x: (B, 3, T, H, W) or (B, 1, M, F).

        Raises:
            ValueError: the patch does not divide the view.
        """
        return Patches(grid=grid_of(x.shape, self.patch), values=patchify(x, self.patch))

    def encode(self, x: Tensor, keep_BK: Tensor | None = None, with_cls_attention: bool = False) -> Encoded:
        """Cuts and encodes a view; see `cut` and `encode_patches`."""
        return self.encode_patches(self.cut(x), keep_BK, with_cls_attention)

    def forward(self, x: Tensor, keep_BK: Tensor | None = None) -> Tensor:
        """Returns the tokens of a view after the final norm, (B, S, D); see `encode`."""
        return self.encode(x, keep_BK).tokens

    def features(self, x: Tensor) -> Tensor:
        """Returns the representation for downstream tasks: the mean patch token after the final norm, (B, D)."""
        return self.pooled(self(x))

    @staticmethod
    def pooled(tokens_BSD: Tensor) -> Tensor:
        """Returns the mean patch token, (B, D)."""
        return tokens_BSD[:, 1:].mean(1)


def take(x_BND: Tensor, index_BK: Tensor) -> Tensor:
    """Returns the tokens of each sequence that the indices name, (B, K, D)."""
    B, N, D = x_BND.shape
    # Whole rows are copied; `gather` would look up every value, which takes a CPU two to ten times as long.
    first_B1 = torch.arange(0, B * N, N, device=x_BND.device).unsqueeze(1)
    return x_BND.reshape(B * N, D).index_select(0, (index_BK + first_B1).flatten()).view(B, -1, D)


def rows_at(table_1ND: Tensor, index_BK: Tensor) -> Tensor:
    """Returns the rows of a table that all sequences share, such as positions, (B, K, D)."""
    return table_1ND[0].index_select(0, index_BK.flatten()).view(*index_BK.shape, -1)

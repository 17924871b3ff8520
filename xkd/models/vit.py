"""The encoder: a pre-norm vision transformer over patches of one modality (method: networks).

Shapes: B batch, N patch tokens, K kept tokens, D width, H heads; S = 1 + tokens (CLS first).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xkd.models.patches import grid_of, patchify

POSITION_STD = 0.02
SINCOS_AMPLITUDE = 0.5


class Attention(nn.Module):
    """Multi-head self-attention; qkv without bias, output projection with bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BSD: Tensor, with_cls_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Returns the output and, on request, the CLS query's attention to the patch keys (B, H, N)."""
        B, S, D = x_BSD.shape
        q, k, v = self.qkv(x_BSD).view(B, S, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v)
        cls_attention = None
        if with_cls_attention:
            scores_BHS = (q[:, :, :1] @ k.transpose(-2, -1)).squeeze(2) * q.shape[-1] ** -0.5
            cls_attention = scores_BHS.softmax(-1)[..., 1:]
        return self.proj(out.transpose(1, 2).reshape(B, S, D)), cls_attention


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """LayerNorm, attention, LayerNorm, MLP of ratio 4; residual around each pair.

    Attributes:
        recompute: whether the backward pass computes activations again instead of keeping them.
    """

    recompute = False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x_BSD: Tensor, with_cls_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._run, x_BSD, with_cls_attention, use_reentrant=False, preserve_rng_state=False)
        return self._run(x_BSD, with_cls_attention)

    def _run(self, x_BSD: Tensor, with_cls_attention: bool) -> tuple[Tensor, Tensor | None]:
        out, cls_attention = self.attn(self.norm1(x_BSD), with_cls_attention)
        x_BSD = x_BSD + out
        return x_BSD + self.mlp(self.norm2(x_BSD)), cls_attention


def make_blocks(width: int, depth: int, heads: int) -> nn.ModuleList:
    """`depth` transformer blocks; one list given to two encoders is what MAS and MATS share."""
    return nn.ModuleList(Block(width, heads) for _ in range(depth))


class Encoded(NamedTuple):
    """Tokens after the final norm (B, S, D), CLS first, and the CLS attention (B, H, N) if asked for."""

    tokens: Tensor
    cls_attention: Tensor | None


class Patches(NamedTuple):
    """A view cut into patch vectors (B, N, P), and the number of patches along each axis."""

    values: Tensor
    grid: tuple[int, ...]


class Encoder(nn.Module):
    """One modality's encoder.

    Args:
        patch: (frames, rows, columns) for video or (mel bands, frames) for audio.
        grid: patches along each axis of the global view; positions are learned for it.
        channels: 3 for video, 1 for audio.
        blocks: transformer blocks; pass the same list to two encoders to share them.
        positions: "normal" (paper) or "sincos", an initialisation that short runs learn from faster.
    """

    def __init__(
        self,
        patch: Sequence[int],
        grid: Sequence[int],
        channels: int,
        width: int,
        blocks: nn.ModuleList,
        positions: str = "normal",
    ) -> None:
        super().__init__()
        self.patch, self.grid, self.width = tuple(patch), tuple(grid), width
        self.embed = nn.Linear(math.prod(patch) * channels, width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(initial_positions(self.grid, width, positions))
        self.blocks = blocks
        self.norm = nn.LayerNorm(width)
        nn.init.trunc_normal_(self.cls_token, std=POSITION_STD)
        self.apply(init_linear)

    def forward(self, x: Tensor, keep_BK: Tensor | None = None) -> Tensor:
        """Tokens of a view after the final norm.

        Args:
            x: (B, 3, T, H, W) or (B, 1, M, F), any size that the patch divides.
            keep_BK: indices of the patches to encode (the rest is dropped after positions are added).

        Returns:
            (B, 1 + N, D), or (B, 1 + K, D) with `keep_BK`; token 0 is CLS.
        """
        return self.encode(x, keep_BK).tokens

    def encode(self, x: Tensor, keep_BK: Tensor | None = None, with_cls_attention: bool = False) -> Encoded:
        """`forward`, optionally with the last block's attention of CLS to every patch, per head."""
        return self.encode_patches(self.cut(x), keep_BK, with_cls_attention)

    def cut(self, x: Tensor) -> Patches:
        """A view as patch vectors; worth doing once where several networks read the same view."""
        return Patches(grid=grid_of(x.shape, self.patch), values=patchify(x, self.patch))

    def encode_patches(
        self, patches: Patches, keep_BK: Tensor | None = None, with_cls_attention: bool = False
    ) -> Encoded:
        """`encode` for a view that has been cut already."""
        values_BNP, positions_BND = patches.values, self.positions_for(patches.grid)
        if keep_BK is not None:
            # Embedding is per patch, so dropping before it gives the same tokens for less work.
            values_BNP = take(values_BNP, keep_BK)
            positions_BND = take(positions_BND.expand(len(keep_BK), -1, -1), keep_BK)
        tokens_BND = self.embed(values_BNP) + positions_BND
        cls_B1D = (self.cls_token + self.positions[:, :1]).expand(len(tokens_BND), -1, -1)
        x_BSD, attention = torch.cat((cls_B1D, tokens_BND), 1), None
        for depth, block in enumerate(self.blocks, start=1):
            x_BSD, attention = block(x_BSD, with_cls_attention and depth == len(self.blocks))
        return Encoded(self.norm(x_BSD), attention)

    def features(self, x: Tensor) -> Tensor:
        """The representation that downstream tasks use: mean of the patch tokens after the final norm, (B, D)."""
        tokens_BSD: Tensor = self(x)
        return tokens_BSD[:, 1:].mean(1)

    def positions_for(self, grid: tuple[int, ...]) -> Tensor:
        """Patch positions (1, N, D) for another grid, interpolated: trilinear for video, bicubic for audio.

        The released weights were trained with a resampling by scale factor (n_new + 0.1) / n_old,
        which shifts the sampling points slightly; the mel axis of audio keeps its size.
        """
        positions_1ND = self.positions[:, 1:]
        if grid == self.grid:
            return positions_1ND
        grid_1DX = positions_1ND.transpose(1, 2).unflatten(2, self.grid)
        scale = tuple((new + 0.1) / old for new, old in zip(grid, self.grid))
        mode = "trilinear" if len(grid) == 3 else "bicubic"
        if len(grid) == 2 and grid[0] == self.grid[0]:
            scale = (1.0, scale[1])
        resized = F.interpolate(grid_1DX, scale_factor=scale, mode=mode, align_corners=False)
        assert tuple(resized.shape[2:]) == grid, (resized.shape, grid)
        return resized.flatten(2).transpose(1, 2)


def take(x_BND: Tensor, index_BK: Tensor) -> Tensor:
    """Rows of each sequence by index: (B, K, D)."""
    return x_BND.gather(1, index_BK.unsqueeze(-1).expand(-1, -1, x_BND.shape[-1]))


def initial_positions(grid: Sequence[int], width: int, kind: str) -> Tensor:
    """Starting positions (1, 1 + N, D), CLS first: N(0, 0.02) truncated, or sine-cosine over each axis."""
    positions = torch.empty(1, 1 + math.prod(grid), width)
    nn.init.trunc_normal_(positions, std=POSITION_STD)
    if kind == "sincos":
        positions[0, 1:] = SINCOS_AMPLITUDE * sincos(grid, width)
    return positions


def sincos(grid: Sequence[int], width: int) -> Tensor:
    """(N, D): a share of the width for each axis, half sines and half cosines; what is left over is 0."""
    share = width // (2 * len(grid))
    frequencies = 1.0 / 100 ** (torch.arange(share) / share)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * frequencies for axis in axes]
    table = torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1)
    return F.pad(table, (0, width - table.shape[1]))


def init_linear(module: nn.Module) -> None:
    """Xavier-uniform weights, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

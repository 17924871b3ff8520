"""Backbone `vit`: a pre-norm vision transformer with learned positions (method: networks).

Shapes: B batch, N patch tokens, K kept tokens, D width, H heads; S = 1 + tokens (CLS first). T = B * S: blocks take the
tokens of all sequences in one row of tokens, since only attention needs to know where a sequence begins. Sequences of
several lengths, such as the views of a clip, can so pass through a block together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xkd import registry
from xkd.models.encoder import Backbone, Encoded, Encoder, ModalityShape, Patches, rows_at, take

Batches = Sequence[tuple[int, int]]  # B and S of each batch of sequences among the T tokens

POSITION_STD = 0.02
SINCOS_AMPLITUDE = 0.5


class Attention(nn.Module):
    """Multi-head self-attention; qkv without bias, output projection with bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x_TD: Tensor, batches: Batches, with_cls_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Returns the output and, on request, the CLS query's attention to the patch keys of one batch (B, H, N)."""
        outs, cls_attention = [], None
        for qkv_TD, (B, S) in zip(split_batches(self.qkv(x_TD), batches), batches, strict=True):
            # Cut before heads and tokens are swapped, so that the gradients of the three are put together by one copy.
            q, k, v = (x_BSHC.transpose(1, 2) for x_BSHC in qkv_TD.view(B, S, 3, self.heads, -1).unbind(2))
            outs.append(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B * S, -1))
        if with_cls_attention:
            scores_BHS = (q[:, :, :1] @ k.transpose(-2, -1)).squeeze(2) * q.shape[-1] ** -0.5
            cls_attention = scores_BHS.softmax(-1)[..., 1:]
        return self.proj(torch.cat(outs) if len(outs) > 1 else outs[0]), cls_attention


class Mlp(nn.Module):
    """The feed-forward part of a block: four times as wide inside, with GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """LayerNorm, attention, LayerNorm, MLP of ratio 4; residual around each pair."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x_TD: Tensor, batches: Batches, with_cls_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        out, cls_attention = self.attn(self.norm1(x_TD), batches, with_cls_attention)
        x_TD = x_TD + out
        return x_TD + self.mlp(self.norm2(x_TD)), cls_attention


def split_batches(x_TD: Tensor, batches: Batches) -> Sequence[Tensor]:
    """Returns the tokens of each batch of sequences."""
    return x_TD.split([B * S for B, S in batches]) if len(batches) > 1 else (x_TD,)


def transformer_blocks(width: int, depth: int, heads: int) -> nn.ModuleList:
    """Returns `depth` transformer blocks."""
    return nn.ModuleList(Block(width, heads) for _ in range(depth))


@registry.backbones.register("vit")
class VisionTransformer(Encoder):
    """The encoder of the paper; its positions are learned, and initialised as `backbone.positions` says."""

    def __init__(self, shape: ModalityShape, backbone: Backbone, blocks: nn.ModuleList) -> None:
        super().__init__(shape, backbone, blocks)
        self.embed = nn.Linear(shape.patch_values, self.width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, self.width))
        self.positions = nn.Parameter(initial_positions(self.grid, self.width, backbone.positions))
        self.blocks = blocks
        self.norm = nn.LayerNorm(self.width)
        nn.init.trunc_normal_(self.cls_token, std=POSITION_STD)
        self.apply(init_linear)

    @classmethod
    def make_blocks(cls, backbone: Backbone) -> nn.ModuleList:
        return transformer_blocks(backbone.width, backbone.depth, backbone.heads)

    def encode_patches(
        self, patches: Patches, keep_BK: Tensor | None = None, with_cls_attention: bool = False
    ) -> Encoded:
        (tokens_BSD,), attention = self._encode([self._embed(patches, keep_BK)], with_cls_attention)
        return Encoded(tokens_BSD, attention)

    def encode_views(self, views: Sequence[tuple[Patches, Tensor | None]]) -> list[Tensor]:
        return self._encode([self._embed(*view) for view in views])[0]

    def _embed(self, patches: Patches, keep_BK: Tensor | None) -> Tensor:
        """Returns the input of the first block, (B, S, D)."""
        values_BNP, positions_BND = patches.values, self.positions_for(patches.grid)
        if keep_BK is not None:
            # Embedding is per patch, so dropping before it gives the same tokens for less work.
            values_BNP, positions_BND = take(values_BNP, keep_BK), rows_at(positions_BND, keep_BK)
        tokens_BND = self.embed(values_BNP) + positions_BND
        cls_B1D = (self.cls_token + self.positions[:, :1]).expand(len(tokens_BND), -1, -1)
        return torch.cat((cls_B1D, tokens_BND), 1)

    def _encode(self, inputs: list[Tensor], with_cls_attention: bool = False) -> tuple[list[Tensor], Tensor | None]:
        """Returns the tokens of each input (B, S, D), and the CLS attention of a single one."""
        batches = [(x_BSD.shape[0], x_BSD.shape[1]) for x_BSD in inputs]
        flat = [x_BSD.flatten(0, 1) for x_BSD in inputs]
        x_TD, attention = torch.cat(flat) if len(flat) > 1 else flat[0], None
        for depth, block in enumerate(self.blocks, start=1):
            x_TD, attention = self.run(block, x_TD, batches, with_cls_attention and depth == len(self.blocks))
        found = split_batches(self.norm(x_TD), batches)
        return [of_TD.unflatten(0, batch) for of_TD, batch in zip(found, batches, strict=True)], attention

    def positions_for(self, grid: tuple[int, ...]) -> Tensor:
        """Returns patch positions (1, N, D) for a grid, interpolated where it is not the grid they were learned for.

        Trilinear for video, bicubic for audio. The released weights were trained with a resampling by scale factor
        (n_new + 0.1) / n_old, which shifts the sampling points slightly; the mel axis of audio keeps its size.
        """
        positions_1ND = self.positions[:, 1:]
        if grid == self.grid:
            return positions_1ND
        grid_1DX = positions_1ND.transpose(1, 2).unflatten(2, self.grid)
        scale = tuple((new + 0.1) / old for new, old in zip(grid, self.grid, strict=True))
        mode = "trilinear" if len(grid) == 3 else "bicubic"
        if len(grid) == 2 and grid[0] == self.grid[0]:
            scale = (1.0, scale[1])
        resized = F.interpolate(grid_1DX, scale_factor=scale, mode=mode, align_corners=False)
        assert tuple(resized.shape[2:]) == grid, (resized.shape, grid)
        return resized.flatten(2).transpose(1, 2)


def initial_positions(grid: Sequence[int], width: int, kind: str) -> Tensor:
    """Draws starting positions (1, 1 + N, D), CLS first: N(0, 0.02) truncated, or sine-cosine over each axis."""
    positions = torch.empty(1, 1 + math.prod(grid), width)
    nn.init.trunc_normal_(positions, std=POSITION_STD)
    if kind == "sincos":
        positions[0, 1:] = SINCOS_AMPLITUDE * sincos(grid, width)
    return positions


def sincos(grid: Sequence[int], width: int) -> Tensor:
    """Returns a table (N, D): a share of the width for each axis, half sines and half cosines; zeros in the rest."""
    share = width // (2 * len(grid))
    frequencies = 1.0 / 100 ** (torch.arange(share) / share)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * frequencies for axis in axes]
    table = torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1)
    return F.pad(table, (0, width - table.shape[1]))


def init_linear(module: nn.Module) -> None:
    """Sets a linear layer to Xavier-uniform weights and zero biases; leaves other modules as they are."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

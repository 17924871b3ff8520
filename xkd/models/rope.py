"""Backbone `rope`: a transformer with rotary positions on every axis of the patch grid.

Queries and keys are rotated by angles proportional to the place of their patch, so that attention sees offsets between
patches (Su et al., RoFormer, 2021), here along time, rows and columns of video, and along mel bands and time of audio,
as in V-JEPA 2 and DINOv3. There is no table of positions: views of other lengths and resolutions need no interpolation.
Further: RMSNorm, normalised queries and keys, SwiGLU.

Shapes: as in `xkd.models.encoder`; Q pairs of channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xkd import registry
from xkd.errors import UserError
from xkd.models.encoder import Backbone, Encoded, Encoder, ModalityShape, Patches, rows_at, take
from xkd.models.vit import POSITION_STD, init_linear

BASE = 100.0  # wavelengths from 6 to 600 patches; grids have tens of patches along an axis


class RotaryAttention(nn.Module):
    """Multi-head self-attention with normalised and rotated queries and keys, without biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm, self.k_norm = nn.RMSNorm(width // heads), nn.RMSNorm(width // heads)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(
        self, x_BSD: Tensor, angles_BSQ: Tensor, with_cls_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the output and, on request, the CLS query's attention to the patch keys (B, H, N)."""
        q, k, v = (x_BSHC.transpose(1, 2) for x_BSHC in self.qkv(x_BSD).unflatten(-1, (3, self.heads, -1)).unbind(2))
        q, k = self._rotated(q, self.q_norm, angles_BSQ), self._rotated(k, self.k_norm, angles_BSQ)
        out = F.scaled_dot_product_attention(q, k, v)
        cls_attention = None
        if with_cls_attention:
            scores_BHS = (q[:, :, :1] @ k.transpose(-2, -1)).squeeze(2) * q.shape[-1] ** -0.5
            cls_attention = scores_BHS.softmax(-1)[..., 1:]
        return self.proj(out.transpose(1, 2).flatten(2)), cls_attention

    @staticmethod
    def _rotated(x_BHSC: Tensor, norm: nn.RMSNorm, angles_BSQ: Tensor) -> Tensor:
        # In the precision of the weights: angles need it under autocast, and so does the fused kernel of RMSNorm.
        return rotate(norm(x_BHSC.to(norm.weight.dtype)), angles_BSQ).to(x_BHSC.dtype)


class SwiGlu(nn.Module):
    """The gated MLP of Shazeer (2020), with as many weights as an MLP of ratio 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 8 * max(1, round(width / 3))
        self.gate_and_value = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        out: Tensor = self.out(F.silu(gate) * value)
        return out


class RotaryBlock(nn.Module):
    """RMSNorm, attention, RMSNorm, SwiGLU; residual around each pair."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.RMSNorm(width), RotaryAttention(width, heads)
        self.norm2, self.mlp = nn.RMSNorm(width), SwiGlu(width)

    def forward(
        self, x_BSD: Tensor, angles_BSQ: Tensor, with_cls_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        out, cls_attention = self.attn(self.norm1(x_BSD), angles_BSQ, with_cls_attention)
        x_BSD = x_BSD + out
        return x_BSD + self.mlp(self.norm2(x_BSD)), cls_attention


@registry.backbones.register("rope")
class RotaryTransformer(Encoder):
    """The encoder; `backbone.positions` means nothing to it.

    Raises:
        UserError: heads too narrow to give every axis a pair of channels.
    """

    def __init__(self, shape: ModalityShape, backbone: Backbone, blocks: nn.ModuleList) -> None:
        super().__init__(shape, backbone, blocks)
        channels = self.width // backbone.heads
        if channels % 2 or channels < 2 * len(self.grid):
            raise UserError(
                f"model: width / heads is {channels}, but rope needs an even number of at least {2 * len(self.grid)} "
                "channels a head; change model.width or model.heads"
            )
        self.pairs = channels // 2
        self.embed = nn.Linear(shape.patch_values, self.width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, self.width))
        self.blocks = blocks
        self.norm = nn.RMSNorm(self.width)
        nn.init.trunc_normal_(self.cls_token, std=POSITION_STD)
        self.apply(init_linear)

    @classmethod
    def make_blocks(cls, backbone: Backbone) -> nn.ModuleList:
        return nn.ModuleList(RotaryBlock(backbone.width, backbone.heads) for _ in range(backbone.depth))

    def encode_patches(
        self, patches: Patches, keep_BK: Tensor | None = None, with_cls_attention: bool = False
    ) -> Encoded:
        values_BNP, angles_BNQ = patches.values, patch_angles(patches.grid, self.pairs, patches.values.device)[None]
        if keep_BK is not None:
            values_BNP = take(values_BNP, keep_BK)
            angles_BNQ = rows_at(angles_BNQ, keep_BK)
        angles_BSQ = F.pad(angles_BNQ, (0, 0, 1, 0))  # CLS has no place: it is not rotated
        tokens_BND = self.embed(values_BNP)
        x_BSD, attention = torch.cat((self.cls_token.expand(len(tokens_BND), -1, -1), tokens_BND), 1), None
        for depth, block in enumerate(self.blocks, start=1):
            x_BSD, attention = self.run(block, x_BSD, angles_BSQ, with_cls_attention and depth == len(self.blocks))
        return Encoded(self.norm(x_BSD), attention)


def patch_angles(grid: tuple[int, ...], pairs: int, device: torch.device | None = None) -> Tensor:
    """Returns the angles (N, Q) by which the pairs of channels of each patch are rotated.

    The axes of the grid take turns: of three axes, pairs 0, 3, 6, ... belong to the first.
    """
    axes = torch.meshgrid(*(torch.arange(n, device=device) for n in grid), indexing="ij")
    place_NA = torch.stack([axis.flatten() for axis in axes], 1)
    pair_Q = torch.arange(pairs, device=device)
    turns, of_turns = pair_Q // len(grid), -(-pairs // len(grid))
    return place_NA[:, pair_Q % len(grid)] * BASE ** (-turns / of_turns)


def rotate(x_BHSC: Tensor, angles_BSQ: Tensor) -> Tensor:
    """Rotates each pair of channels (q, q + C / 2) by its angle."""
    cos, sin = angles_BSQ.cos().unsqueeze(1), angles_BSQ.sin().unsqueeze(1)
    first, second = x_BHSC.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)

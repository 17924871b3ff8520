"""The light decoder that turns visible tokens back into patches (method: networks, "Decoder")."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xkd.models.encoder import Stack
from xkd.models.vit import POSITION_STD, init_linear, initial_positions, transformer_blocks


class PatchDecoder(Stack):
    """Predicts every patch vector of the global view from the encoder's visible tokens.

    Args:
        grid: patches along each axis of the global view.
        patch_values: values of one patch vector (P).
        encoder_width, width, depth, heads: sizes; the input projection is the identity if the widths agree.
        positions: initial positions, "normal" or "sincos".
    """

    def __init__(
        self,
        grid: Sequence[int],
        patch_values: int,
        encoder_width: int,
        width: int,
        depth: int,
        heads: int,
        positions: str = "normal",
    ) -> None:
        super().__init__()
        self.tokens = math.prod(grid)
        self.project = nn.Identity() if encoder_width == width else nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(initial_positions(grid, width, positions))
        self.blocks = transformer_blocks(width, depth, heads)
        self.predict = nn.Linear(width, patch_values)
        nn.init.trunc_normal_(self.mask_token, std=POSITION_STD)
        self.apply(init_linear)

    def forward(self, visible_BSD: Tensor, keep_BK: Tensor) -> Tensor:
        """Returns predicted patches (B, N, P).

        Args:
            visible_BSD: encoder output for CLS and the K kept patches (B, 1 + K, D).
            keep_BK: the kept patches' places among the N.
        """
        x_BSE = self.project(visible_BSD)
        width = x_BSE.shape[-1]
        # Under autocast the projection is in low precision while the parameter is not.
        filled_BNE = self.mask_token.to(x_BSE.dtype).expand(len(x_BSE), self.tokens, width)
        filled_BNE = filled_BNE.scatter(1, keep_BK.unsqueeze(-1).expand(-1, -1, width), x_BSE[:, 1:])
        x_BSE = torch.cat((x_BSE[:, :1], filled_BNE), 1) + self.positions
        batch, x_TE = x_BSE.shape[:2], x_BSE.flatten(0, 1)
        for block in self.blocks:
            x_TE, _ = self.run(block, x_TE, [batch])
        predicted_BNP: Tensor = self.predict(x_TE.unflatten(0, batch)[:, 1:])
        return predicted_BNP

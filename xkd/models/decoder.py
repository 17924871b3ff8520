"""The light decoder that turns visible tokens back into patches (method: networks, "Decoder")."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xkd.models.encoder import Stack, rows_at
from xkd.models.vit import POSITION_STD, init_linear, initial_positions, transformer_blocks


class PatchDecoder(Stack):
    """Predicts the patch vectors of the global view that the encoder does not see from the tokens of those that it does.

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

    def forward(self, visible_BSD: Tensor, keep_BK: Tensor, hidden_BM: Tensor) -> Tensor:
        """Returns the predicted hidden patches (B, M, P).

        Args:
            visible_BSD: encoder output for CLS and the K kept patches (B, 1 + K, D).
            keep_BK, hidden_BM: the places of kept and hidden patches among the N.
        """
        x_BSE, places_1NE = self.project(visible_BSD), self.positions[:, 1:]
        # Attention does not depend on the order of tokens: the visible ones stay in front.
        visible_BSE = x_BSE + torch.cat((self.positions[:, :1].expand(len(x_BSE), -1, -1), rows_at(places_1NE, keep_BK)), 1)
        hidden_BME = self.mask_token + rows_at(places_1NE, hidden_BM)
        x_BNE = torch.cat((visible_BSE, hidden_BME), 1)
        batch, x_TE = x_BNE.shape[:2], x_BNE.flatten(0, 1)
        for block in self.blocks:
            x_TE, _ = self.run(block, x_TE, [batch])
        predicted_BMP: Tensor = self.predict(x_TE.unflatten(0, batch)[:, visible_BSD.shape[1] :])
        return predicted_BMP

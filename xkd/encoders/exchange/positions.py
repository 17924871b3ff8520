"""Positions of a vision transformer for any length in time, as operations that a graph can hold.

`VisionTransformer.positions_for` calls `interpolate`, whose scale is a constant of a graph; here it follows the length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xkd.models.encoder import Backbone, ModalityShape
from xkd.models.vit import VisionTransformer

CUBIC = -0.75  # of the bicubic kernel, as in torch
REACH = 2  # places that a kernel reaches beyond either end of a table


class AnyLengthTransformer(VisionTransformer):
    """The same network with positions interpolated by a product with a matrix; lengths of other axes stay.

    Args:
        trained: its weights.
        shape, backbone: its sizes.
        time_axis: axis of the grid that has any length.
    """

    tables: Tensor

    def __init__(self, trained: VisionTransformer, shape: ModalityShape, backbone: Backbone, time_axis: int) -> None:
        super().__init__(shape, backbone, self.make_blocks(backbone))
        self.load_state_dict(trained.state_dict())
        self.time_axis = time_axis
        self.kernel = linear if len(shape.grid) == 3 else cubic
        self.register_buffer("tables", self._tables(), persistent=False)

    def positions_for(self, grid: tuple[int, ...]) -> Tensor:
        old = self.grid[self.time_axis]
        place = torch.arange(grid[self.time_axis])
        as_trained = place[-1:] == old - 1
        # The scale that the released weights were trained with, see `VisionTransformer`.
        scale = torch.where(as_trained, 1.0, old / (place[-1:] + 1.1))
        source = (place + 0.5) * scale - 0.5
        weights = self.kernel((source[:, None] - torch.arange(-REACH, old + REACH)).abs())
        table = torch.where(as_trained, self.tables[0], self.tables[1])
        rest = [n for axis, n in enumerate(self.grid) if axis != self.time_axis]
        positions: Tensor = (weights @ table).unflatten(1, (*rest, self.width)).movedim(0, self.time_axis)
        return positions.flatten(0, -2)[None]

    @torch.no_grad()
    def _tables(self) -> Tensor:
        """Returns what positions are computed from at the trained length, and at others: (2, time, the rest)."""
        learned = self.positions[:, 1:].transpose(1, 2).unflatten(2, self.grid)
        other = learned
        if len(self.grid) == 3:  # rows and columns are resampled with time; the mel axis is not
            _, rows, columns = self.grid
            factors = (1.0, (rows + 0.1) / rows, (columns + 0.1) / columns)
            other = F.interpolate(learned, scale_factor=factors, mode="trilinear")
        tables = torch.cat([learned, other]).movedim((2 + self.time_axis, 1), (1, -1)).flatten(2)
        first, last = tables[:, :1].expand(-1, REACH, -1), tables[:, -1:].expand(-1, REACH, -1)
        return torch.cat([first, tables, last], 1)


def linear(away: Tensor) -> Tensor:
    """Returns the weight of values `away` from a sampling point in linear interpolation."""
    return (1 - away).clamp_min(0)


def cubic(away: Tensor) -> Tensor:
    """Returns the weight of values `away` from a sampling point in bicubic interpolation."""
    inner = ((CUBIC + 2) * away - (CUBIC + 3)) * away**2 + 1
    outer = CUBIC * (((away - 5) * away + 8) * away - 4)
    return torch.where(away <= 1, inner, torch.where(away < 2, outer, 0.0))

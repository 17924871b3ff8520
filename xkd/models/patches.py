"""Views as sequences of patch vectors, and back (method: inputs, "tokens").

Shapes: B batch, C channels, T frames, H rows, W columns, M mel bands, F log-mel frames,
N patches, P values of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

VIDEO = "b c (t pt) (h ph) (w pw) -> b (t h w) (pt ph pw c)"
AUDIO = "b 1 (m pm) (f pf) -> b (m f) (pm pf)"


def patchify(x: Tensor, patch: Sequence[int]) -> Tensor:
    """Cuts a view into non-overlapping patches.

    Args:
        x: video (B, C, T, H, W) with a patch of (frames, rows, columns), or audio
            (B, 1, M, F) with a patch of (mel bands, frames).
        patch: size along each axis; must divide the view.

    Returns:
        (B, N, P). Values of a video patch are ordered (t, h, w, channel), of an audio patch (mel, time).
    """
    if len(patch) == 3:
        # With the colours of a pixel side by side, the second copy moves rows of a patch, not single values: a CPU
        # takes a third of the time for both.
        pixels = x.contiguous(memory_format=torch.channels_last_3d)
        return rearrange(pixels, VIDEO, pt=patch[0], ph=patch[1], pw=patch[2])
    return rearrange(x, AUDIO, pm=patch[0], pf=patch[1])


def unpatchify(patches_BNP: Tensor, patch: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Puts patches (B, N, P) together again, the inverse of `patchify`: (B, C, T, H, W) or (B, 1, M, F)."""
    inverse = " -> ".join(reversed((VIDEO if len(patch) == 3 else AUDIO).split(" -> ")))
    if len(patch) == 3:
        (t, h, w), (pt, ph, pw) = grid, patch
        return rearrange(patches_BNP, inverse, t=t, h=h, w=w, pt=pt, ph=ph, pw=pw)
    (m, f), (pm, pf) = grid, patch
    return rearrange(patches_BNP, inverse, m=m, f=f, pm=pm, pf=pf)


def grid_of(shape: Sequence[int], patch: Sequence[int]) -> tuple[int, ...]:
    """Returns the patches along each axis of a view whose last axes are `shape`.

    Raises:
        ValueError: an axis is not a multiple of its patch.
    """
    axes = tuple(shape[-len(patch) :])
    if any(size % step for size, step in zip(axes, patch, strict=True)):
        raise ValueError(f"a view of {axes} cannot be cut into patches of {tuple(patch)}")
    return tuple(size // step for size, step in zip(axes, patch, strict=True))

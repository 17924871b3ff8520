"""Settings of the networks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from xkd import registry
from xkd.settings.base import Depth, Known, Open, Positive, Settings, Size


class Decoder(Settings):
    """The decoders that reconstruct hidden patches."""

    width: Size = 384
    depth: Depth = 4
    heads: Size = 12


class Head(Settings):
    """The projection heads, whose outputs are distilled and aligned."""

    hidden: Positive = 2048
    bottleneck: Positive = 256
    out: Positive = 8192
    input: Literal["patches", "cls", "both"] = Field(
        "patches",
        description="what heads of students and teachers read: the mean patch token (paper), CLS, or the mean of these "
        "two. Refinement weighs patches, so that it changes nothing of heads that read CLS alone. Features stay mean "
        "patch tokens; retrieval ranks these where heads read CLS",
    )


class Model(Open):
    """The networks. Both encoders have the same sizes (paper: base, 768/12/12)."""

    REGISTRY = registry.backbones

    arch: Annotated[str, Known(registry.backbones)] = Field("vit", description="architecture of the encoders")
    width: Size = 768
    depth: Depth = 12
    heads: Size = 12
    video_patch: tuple[Size, Size, Size] = Field((4, 16, 16), description="frames, rows, columns")
    audio_patch: tuple[Size, Size] = Field((4, 16), description="mel bands, time frames")
    positions: Literal["normal", "sincos"] = Field(
        "normal", description="initial positions: N(0, 0.02) (paper) or sine-cosine"
    )
    decoder: Decoder = Decoder()
    head: Head = Head()
    share: Literal["none", "students", "all"] = Field(
        "none", description="XKD, XKD-MAS (one student), XKD-MATS (one student, one teacher)"
    )

    def patch(self, modality: str) -> tuple[int, ...]:
        """Returns the size of a modality's patches along each axis."""
        size: tuple[int, ...] = getattr(self, f"{modality}_patch")
        return size

"""Settings of the training objective."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from xkd import registry
from xkd.settings.base import Epochs, Fraction, Known, Open, Settings, Temperature, Weight


class TermSettings(Settings):
    """Base class of the settings of a plugin's objective term."""

    weight: Weight = Field(1.0, description="of the term in the objective; 0 leaves it out")


class ObjectiveSettings(Open):
    """The training objective (paper section 3; weights 5/1/1). A weight of 0 leaves the term out of training.

    Terms of plugins stand here by their names, e.g. `barlow: {weight: 0.5}`.
    """

    REGISTRY = registry.terms

    reconstruction: Weight = 5.0
    distillation: Weight = 1.0
    alignment: Weight = 1.0
    reconstruct: tuple[Literal["video", "audio"], ...] = ("video", "audio")
    mask_video: float = Field(0.85, gt=0, lt=1)
    mask_audio: float = Field(0.80, gt=0, lt=1)
    refinement: Annotated[str, Known(registry.refinements)] = "mean"
    teacher_view: Literal["global", "local"] = Field("global", description="global: paper; local: released code")
    discrepancy: Annotated[str, Known(registry.discrepancies)] = "mmd"
    student_temperature: Temperature = 0.1
    teacher_temperature_video: tuple[Temperature, Temperature] = Field(
        (0.1, 0.1), description="first, last (linear warm-up)"
    )
    teacher_temperature_audio: tuple[Temperature, Temperature] = Field(
        (0.07, 0.07), description="first, last (linear warm-up)"
    )
    temperature_warmup_epochs: Epochs = 0
    centre_momentum: Fraction = 0.9

    def mask(self, modality: str) -> float:
        """Returns the share of a modality's patches that is hidden from the student."""
        share: float = getattr(self, f"mask_{modality}")
        return share

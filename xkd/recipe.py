"""The effective settings of one pretraining job, and what follows from them."""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import model_validator

from xkd import registry
from xkd.settings.base import MODALITY_NAMES, Name, plugin_files
from xkd.settings.params import Base


class Recipe(Base):
    """The effective settings of one pretraining job: the base with one ablation's changes merged in."""

    ablation: Name

    @property
    def plugins(self) -> set[Path]:
        """The plugin files that this job's settings use."""
        return plugin_files(self)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each term of the objective that the run computes, our own terms first."""
        if self.training.mode == "pretrain":
            return self._weights
        return {"supervised": 1.0} if self.training.mode == "supervised" else {}

    @property
    def _weights(self) -> dict[str, float]:
        objective = self.objective
        weights = {
            "reconstruction": objective.reconstruction if objective.reconstruct else 0.0,
            "distillation": objective.distillation,
            "alignment": objective.alignment,
            **{name: settings.weight for name, settings in objective.plugged.items()},
        }
        return {name: weight for name, weight in weights.items() if weight}

    @property
    def has_teachers(self) -> bool:
        """Says if there are heads, local views and teachers, which distillation and alignment need."""
        return bool(self.weights.keys() & {"distillation", "alignment"}) or self._plugin_needs("needs_teachers")

    def _plugin_needs(self, what: str) -> bool:
        return any(getattr(registry.terms[name], what) for name in self.weights if name in registry.terms.plugged)

    @property
    def modalities(self) -> tuple[str, ...] | None:
        """Modalities that a run has, video first; None where they follow from encoders that it is given.

        Where nothing is distilled or aligned, `objective.reconstruct` names them, for the yardsticks too.
        """
        if self.training.peers.given:
            return tuple(self.training.peers.given)
        if self.training.mode == "none" and self.training.weights:
            return None
        if self.has_teachers:
            return MODALITY_NAMES
        return tuple(m for m in MODALITY_NAMES if m in self.objective.reconstruct) or MODALITY_NAMES

    @property
    def grids(self) -> dict[str, tuple[int, ...]]:
        """Patches of each modality's global view along each axis: frames, rows, columns; mel bands, steps of time."""
        shapes = {m: next(iter(self.views.of(m).values())).shape(self.logmel) for m in MODALITY_NAMES}
        return {
            m: tuple(a // p for a, p in zip(shape, self.model.patch(m), strict=True)) for m, shape in shapes.items()
        }

    @property
    def reconstructed(self) -> tuple[str, ...]:
        """The modalities that get a decoder."""
        reconstructs = "reconstruction" in self.weights or self._plugin_needs("needs_decoders")
        return self.objective.reconstruct if reconstructs else ()

    @model_validator(mode="after")
    def _patches_tile_views(self) -> Recipe:
        for modality in MODALITY_NAMES:
            patch = self.model.patch(modality)
            for name, view in self.views.of(modality).items():
                shape = view.shape(self.logmel)
                if any(size % step for size, step in zip(shape, patch, strict=True)):
                    axes = " x ".join(map(str, shape))
                    raise ValueError(f"views.{name} ({axes}) is not a multiple of model.{modality}_patch")
        for width, heads in (
            (self.model.width, self.model.heads),
            (self.model.decoder.width, self.model.decoder.heads),
        ):
            if width % heads:
                raise ValueError(f"model width {width} is not a multiple of its {heads} heads")
        return self

    @model_validator(mode="after")
    def _some_patches_stay_visible(self) -> Recipe:
        for modality, grid in self.grids.items() if self.training.mode == "pretrain" else ():
            patches = math.prod(grid)
            ratio = self.objective.mask(modality)
            if not 0 < round(patches * (1 - ratio)) < patches:
                left = "hides none" if ratio < 0.5 else "leaves none visible"
                raise ValueError(f"objective.mask_{modality}: {ratio:g} of {patches} patches {left}")
        return self

    @model_validator(mode="after")
    def _something_to_learn(self) -> Recipe:
        objective = self.objective
        if not self._weights:
            raise ValueError("objective: every term is switched off; set training.mode to none for random weights")
        if objective.teacher_view == "local" and not self.views.local_views:
            raise ValueError("objective.teacher_view is local, but views.local_views is 0")
        return self

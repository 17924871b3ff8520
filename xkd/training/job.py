"""A run before it starts: what decides its result, and whether the data suit it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xkd import fingerprint, plugins, runs
from xkd.data import manifest as manifests
from xkd.data.loader import eval_loader
from xkd.errors import UserError
from xkd.files import read_json
from xkd.params import canonical, decisive, flat
from xkd.recipe import Recipe
from xkd.training.samples import SAMPLE_CLIPS


@dataclass(frozen=True)
class PretrainJob:
    """A run: its settings, data and seed, and where it keeps its files."""

    recipe: Recipe
    manifest: Path
    data: manifests.Manifest
    seed: int
    out: Path

    @property
    def name(self) -> str:
        return runs.name_of(self.recipe.dataset, self.recipe.ablation, self.seed)

    @property
    def checkpoints(self) -> Path:
        return runs.CHECKPOINTS / self.name

    @property
    def shown_split(self) -> str:
        """The clips that figures show: held-out ones, or training clips of a data set that is only pretrained on."""
        return "train" if self.data.split("test").rows.empty else "test"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that decides the result: settings, seed, data and code, that of the plugins in use too."""
        code = {"code": fingerprint.stage("pretrain"), "torch": str(torch.__version__)}
        code |= {f"plugin {name}": value for name, value in plugins.code(self.recipe.plugins).items()}
        return {**flat(decisive(self.recipe)), "seed": self.seed, "data": self.data.hash, **code}

    @property
    def digest(self) -> str:
        """Short hash of `identity`."""
        return hashlib.sha256(canonical(self.identity).encode()).hexdigest()[:16]


def check_clips(job: PretrainJob, chosen: tuple[str, ...]) -> None:
    """Refuses data before training that would fail in it, or after it, where held-out clips are looked at."""
    _check_dataset(job)
    for split in ("train", job.shown_split):
        rows = job.data.split(split).rows
        if rows.empty:
            raise UserError(f"{job.manifest}: no usable clip in split '{split}'; look at the reasons in summary.json")
        for modality in chosen:
            lacking = rows["id"][~rows[f"has_{modality}"]]
            if len(lacking):
                raise UserError(
                    f"{job.manifest}: {len(lacking)} of {len(rows)} {split} clips have no {modality}, e.g. "
                    f"{lacking.iloc[0]}, and row {job.recipe.ablation} trains {' and '.join(chosen)}; set "
                    f"datasets.{job.recipe.dataset}.require to leave such clips out, or give the row one modality "
                    "(objective.reconstruct without distillation and alignment)"
                )


def _check_dataset(job: PretrainJob) -> None:
    """Refuses the clips of another data set than the row's, and edited lists, as far as `prepare` tells."""
    manifests.check_as_prepared(job.manifest, job.data.hash)
    row, wanted = job.recipe.ablation, job.recipe.dataset
    try:
        found = read_json(job.manifest.with_name("summary.json"))["dataset"]
    except (OSError, ValueError, KeyError):
        return
    if found != wanted:
        raise UserError(
            f"{job.manifest}: clips of '{found}', but row {row} is pretrained on '{wanted}'; name the manifest of that "
            f"data set, or set ablations.{row}.dataset"
        )


def shown_views(job: PretrainJob, recipe: Recipe, chosen: tuple[str, ...]) -> dict[str, Tensor]:
    """Returns evaluation views of the first clips that figures show, by modality, as these settings make them."""
    batch = next(iter(eval_loader(recipe, job.manifest, job.shown_split, SAMPLE_CLIPS, chosen)))
    return {m: batch.views[m][0] for m in chosen}

"""Stage `plan`: computes what the settings will take, before anything runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from xkd.errors import UserError
from xkd.params import recipe as recipe_of
from xkd.plan.arithmetic import StepFlops, step_flops
from xkd.plan.evaluations import evaluation_flops
from xkd.plan.footprint import clips_at_once, memory, parameters
from xkd.plan.printing import print_plan
from xkd.plan.shapes import kept_count, patch_counts, view_shapes
from xkd.plan.storage import KEPT_CHECKPOINTS, ClipInventory, checkpoint_bytes, clip_inventory, encoder_bytes
from xkd.recipe import Recipe
from xkd.settings import Params


@dataclass(frozen=True)
class Hardware:
    """GPUs (or other processors) that share a run, the peak of one in FLOP/s, and training's share of that peak."""

    gpus: int
    peak: float
    utilisation: float

    def hours(self, flops: float) -> float:
        return flops / (self.gpus * self.peak * self.utilisation) / 3600


def run(
    params: Params,
    ablation: str | None,
    peak_tflops: float,
    utilisation: float,
    gpus: int,
    clips: int | None,
    as_json: bool,
) -> None:
    """Prints one ablation in detail, then every ablation, all seeds and the evaluations in sum.

    Args:
        ablation: the one in detail; by default xkd, or the first.
        peak_tflops: peak of one GPU, in the precision of training.
        utilisation: share of that peak that training achieves.
        gpus: number that share a run.
        clips: number of training clips, instead of those of the manifest or the catalogue.
        as_json: prints JSON, with bytes, operations and hours unrounded.

    Raises:
        UserError: no such ablation, or own files that are not prepared.
    """
    plan = make(params, ablation, Hardware(gpus, peak_tflops * 1e12, utilisation), clips)
    if as_json:
        print(json.dumps(plan, indent=2))
    else:
        print_plan(plan)


def make(params: Params, ablation: str | None, hardware: Hardware, clips: int | None = None) -> dict[str, Any]:
    """Computes the plan as plain values: bytes, operations, hours.

    Raises:
        UserError: as `run`.
    """
    chosen = ablation or ("xkd" if "xkd" in params.ablations else next(iter(params.ablations)))
    detailed = recipe_of(params, chosen)
    used = dict.fromkeys([params.dataset, *(t.dataset for t in params.tasks.values() if t.dataset)])
    counts = {name: clip_inventory(params, name, clips if name == params.dataset else None) for name in used}
    rows = {name: _row(params, recipe_of(params, name), counts, hardware) for name in params.ablations}
    return {
        "dataset": params.dataset,
        "seeds": len(params.seeds),
        "hardware": asdict(hardware),
        "clips": {name: asdict(count) for name, count in counts.items()},
        "ablation": _details(detailed, counts[params.dataset], hardware),
        "ablations": rows,
        "total": _total(rows, counts, len(params.seeds)),
    }


def _details(recipe: Recipe, clips: ClipInventory, hardware: Hardware) -> dict[str, Any]:
    flops, steps = step_flops(recipe), _steps(recipe, clips)
    batch, total = recipe.training.batch_size, flops.total * steps
    return {
        "name": recipe.ablation,
        "mode": recipe.training.mode,
        "precision": recipe.training.precision,
        "parameters": parameters(recipe),
        "tokens": {m: _tokens(recipe, m) for m in view_shapes(recipe)},
        "flops_per_clip": _per_clip(flops, batch),
        "parts_per_clip": _parts(flops, batch),
        "recomputed_per_clip": flops.recomputed / batch,
        "batch_size": batch,
        "clips_at_once": clips_at_once(recipe, hardware.gpus),
        "epochs": recipe.training.epochs if total else 0,
        "steps": steps,
        "flops": total,
        "hours": hardware.hours(total + flops.recomputed * steps),
        "memory": asdict(memory(recipe, hardware.gpus)),
        "storage": {
            "checkpoint": checkpoint_bytes(recipe) if steps else 0,
            "kept_checkpoints": KEPT_CHECKPOINTS,
            "encoders": encoder_bytes(recipe),
        },
    }


def _row(params: Params, recipe: Recipe, counts: dict[str, ClipInventory], hardware: Hardware) -> dict[str, Any]:
    """Computes the row of an ablation, for one seed."""
    flops, steps = step_flops(recipe), _steps(recipe, counts[params.dataset])
    evaluations = evaluation_flops(params, recipe, counts)
    return {
        "trainable": parameters(recipe)["trainable"],
        "steps": steps,
        "flops_per_clip": flops.total / recipe.training.batch_size,
        "flops": flops.total * steps,
        "hours": hardware.hours((flops.total + flops.recomputed) * steps),
        "memory": memory(recipe, hardware.gpus).total,
        "evaluations": evaluations,
        "evaluation_hours": hardware.hours(sum(evaluations.values())),
        "encoders": encoder_bytes(recipe),
    }


def _total(rows: dict[str, dict[str, Any]], counts: dict[str, ClipInventory], seeds: int) -> dict[str, Any]:
    """Sums up all ablations and seeds, run one after the other."""
    return {
        "runs": seeds * len(rows),
        "flops": seeds * sum(row["flops"] + sum(row["evaluations"].values()) for row in rows.values()),
        "hours": seeds * sum(row["hours"] for row in rows.values()),
        "evaluation_hours": seeds * sum(row["evaluation_hours"] for row in rows.values()),
        "clips_bytes": sum(count.prepared + count.packed for count in counts.values()),
        "encoders_bytes": seeds * sum(row["encoders"] for row in rows.values()),
    }


def _steps(recipe: Recipe, clips: ClipInventory) -> int:
    """Counts the optimiser steps of a run; a last batch that is not full is left out, as in training."""
    if recipe.training.mode == "none":
        return 0
    steps = clips.train // recipe.training.batch_size
    if not steps:
        raise UserError(
            f"training.batch_size: {recipe.training.batch_size}, but {recipe.dataset} has {clips.train} training clips "
            f"({clips.source}); lower it"
        )
    return recipe.training.epochs * steps


def _tokens(recipe: Recipe, modality: str) -> dict[str, Any]:
    counts = patch_counts(recipe, modality)
    return {"global": counts[0], "global_visible": kept_count(recipe, modality), "local": counts[1:]}


def _per_clip(flops: StepFlops, batch: int) -> dict[str, float]:
    names = ("forward", "backward", "teachers", "total")
    return {name: getattr(flops, name) / batch for name in names}


def _parts(flops: StepFlops, batch: int) -> dict[str, dict[str, float]]:
    parts: dict[str, dict[str, float]] = {}
    for part in flops.parts:
        values = parts.setdefault(part.name, {"forward": 0.0, "backward": 0.0})
        values["forward"] += part.forward / batch
        values["backward"] += part.backward / batch
    return parts

"""Stage `plan`: computes what the settings will take, before anything runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from xkd.errors import UserError
from xkd.params import datasets_in_use
from xkd.params import recipe as recipe_of
from xkd.plan.arithmetic import StepFlops, step_flops
from xkd.plan.concerns import concerns, grouped, phase_rates
from xkd.plan.evaluations import evaluation_jobs
from xkd.plan.footprint import clips_at_once, parameters
from xkd.plan.hardware import Hardware
from xkd.plan.jobs import pretraining
from xkd.plan.printing import print_plan
from xkd.plan.shapes import kept_count, patch_counts, view_shapes
from xkd.plan.storage import KEPT_CHECKPOINTS, ClipInventory, checkpoint_bytes, clip_inventory, encoder_bytes
from xkd.recipe import Recipe
from xkd.settings import Params


def run(
    params: Params,
    ablation: str | None,
    peak_tflops: float,
    utilisation: float | None,
    gpus: int | None,
    clips: int | None,
    as_json: bool,
    gpu_memory_gb: float | None = None,
    float32_tflops: float | None = None,
    loader_rate: float | None = None,
) -> None:
    """Prints one ablation in detail, then every ablation, all seeds and the evaluations in sum, and warnings.

    Args:
        ablation: the one in detail; by default xkd, or the first.
        peak_tflops: peak of one GPU, in half precision.
        utilisation: share of that peak that jobs achieve, instead of that of the known GPU.
        gpus: number that share pretraining, instead of that in the settings.
        clips: number of training clips, instead of those of the manifest or the catalogue.
        as_json: prints JSON, with bytes, operations and hours unrounded.
        gpu_memory_gb: of one GPU, instead of that of the known GPU with this peak.
        float32_tflops: peak of one GPU in float32, likewise.
        loader_rate: clips per second that one core prepares for pretraining, as measured.

    Raises:
        UserError: no such ablation, or own files that are not prepared.
    """
    full_peak = float32_tflops * 1e12 if float32_tflops else None
    hardware = Hardware.of(peak_tflops * 1e12, utilisation, gpus, gpu_memory_gb, full_peak, loader_rate)
    plan = make(params, ablation, hardware, clips)
    if as_json:
        print(json.dumps(plan, indent=2))
    else:
        print_plan(plan)


def make(params: Params, ablation: str | None, hardware: Hardware, clips: int | None = None) -> dict[str, Any]:
    """Computes the plan as plain values: bytes, operations, hours.

    Raises:
        UserError: as `run`.
    """
    recipes = {name: recipe_of(params, name) for name in params.ablations}
    ours = {name: recipe for name, recipe in recipes.items() if not recipe.training.peers.given}
    chosen = ablation or ("xkd" if "xkd" in ours else next(iter(ours or recipes)))
    recipe_of(params, chosen)
    if chosen not in ours:
        raise UserError(f"{chosen}: a row of encoders that are not ours, which a plan cannot count; name another row")
    counts = {
        name: clip_inventory(params, name, clips if name == params.dataset else None)
        for name in datasets_in_use(params)
    }
    runs = {name: _Run(params, recipe, counts, hardware) for name, recipe in ours.items()}
    sweeps = {point.row: point.sweep for point in params.points if point.added}
    rows = {name: run.row() | {"sweep": sweeps.get(name)} for name, run in runs.items()}
    factor = runs[chosen].loader_factor()
    found = {name: [c for job in run.jobs for c in concerns(job, hardware, factor)] for name, run in runs.items()}
    return {
        "dataset": params.dataset,
        "seeds": len(params.seeds),
        "hardware": asdict(hardware),
        "clips": {name: asdict(count) for name, count in counts.items()},
        "ablation": runs[chosen].details(),
        "jobs": runs[chosen].job_rows(factor),
        "ablations": rows,
        "uncounted": [name for name in recipes if name not in ours],
        "total": _total(rows, counts, len(params.seeds)),
        "warnings": grouped(found),
    }


class _Run:
    """One seed of an ablation."""

    def __init__(self, params: Params, recipe: Recipe, counts: dict[str, ClipInventory], hardware: Hardware) -> None:
        self.recipe, self.hardware = recipe, hardware
        self.steps, self.step = _steps(recipe, counts[recipe.dataset]), step_flops(recipe)
        self.pretraining = pretraining(params, recipe, self.step, self.steps, hardware)
        self.evaluations = evaluation_jobs(params, recipe, counts)
        self.jobs = [self.pretraining, *self.evaluations]

    def loader_factor(self) -> float:
        """Returns how much faster the user's loader is than the estimate."""
        measured, phases = self.hardware.loader_rate, self.pretraining.phases
        return measured * phases[0].load.seconds if measured and phases else 1.0

    def details(self) -> dict[str, Any]:
        """Returns the figures of one run."""
        recipe, flops, batch = self.recipe, self.step, self.recipe.training.batch_size
        return {
            "name": recipe.ablation,
            "dataset": recipe.dataset,
            "mode": recipe.training.mode,
            "precision": recipe.training.precision,
            "gpus": self.pretraining.asked.nodes * self.pretraining.gpus,
            "parameters": parameters(recipe),
            "tokens": {m: _tokens(recipe, m) for m in view_shapes(recipe)},
            "flops_per_clip": _per_clip(flops, batch),
            "parts_per_clip": _parts(flops, batch),
            "recomputed_per_clip": flops.recomputed / batch,
            "batch_size": batch,
            "clips_at_once": clips_at_once(recipe, self.pretraining.asked.all_processes),
            "epochs": recipe.training.epochs if self.steps else 0,
            "steps": self.steps,
            "flops": flops.total * self.steps,
            "hours": self.pretraining.hours(self.hardware),
            "memory": asdict(self.pretraining.memory),
            "storage": {
                "checkpoint": checkpoint_bytes(recipe) if self.steps else 0,
                "kept_checkpoints": KEPT_CHECKPOINTS,
                "encoders": encoder_bytes(recipe),
            },
        }

    def row(self) -> dict[str, Any]:
        """Returns the row of the ablation among all."""
        return {
            "trainable": parameters(self.recipe)["trainable"],
            "steps": self.steps,
            "flops_per_clip": self.step.total / self.recipe.training.batch_size,
            "flops": self.step.total * self.steps,
            "hours": self.pretraining.hours(self.hardware),
            "memory": self.pretraining.memory.total,
            "evaluations": {job.name: job.flops for job in self.evaluations},
            "evaluation_hours": sum(job.hours(self.hardware) for job in self.evaluations),
            "encoders": encoder_bytes(self.recipe),
        }

    def job_rows(self, loader_factor: float) -> list[dict[str, Any]]:
        """Returns what each job asks for and takes."""
        return [
            {
                "job": job.name,
                "gpus": job.asked.nodes * job.gpus,
                "precision": job.precision,
                "hours": job.hours(self.hardware),
                "runtime_hours": job.asked.runtime / 60,
                "memory": job.memory.total,
                "main_memory": job.host_memory(),
                "main_memory_asked": job.asked.memory_gb * 1e9,
                "phases": [phase_rates(job, phase, self.hardware, loader_factor) for phase in job.phases],
            }
            for job in self.jobs
        ]


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

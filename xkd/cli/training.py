"""Verbs of training: what it will take, and the training itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xkd.cli import invocation, options
from xkd.cli.program import cli


@cli.verb("xkd plan", "XKD_PARAMS=workflow/presets/paper.yaml xkd plan --ablation xkd_mas --gpus 8")
@options.params
@click.option("--ablation", help="Entry of `ablations` to show in detail.  [default: xkd, or the first]")
@click.option("--peak-tflops", type=options.POSITIVE, default=312, show_default=True, help=options.PEAK)
@click.option(
    "--utilisation",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the peak that jobs achieve.  [default: H100 0.2, as measured; else 0.4, an assumption]",
)
@click.option("--gpus", type=options.FROM_ONE, help="GPUs that share pretraining, if not those of the settings.")
@click.option("--gpu-memory-gb", type=options.POSITIVE, help=f"Memory of one GPU.{options.OF_GPU}")
@click.option("--float32-tflops", type=options.POSITIVE, help=f"Peak of one GPU in float32.{options.OF_GPU}")
@click.option(
    "--loader-rate",
    type=options.POSITIVE,
    help="Clips/s that one core prepares for pretraining, as you measured it.  [default: by benchmarks.loader_paper]",
)
@click.option("--clips", type=options.FROM_ONE, help="Training clips, if not those of the manifest or catalogue.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: bytes, operations and hours, not rounded.")
def plan_command(settings: Path, **arguments: Any) -> None:
    """Estimate what the settings will take.

    Parameters, FLOPs, memory, storage and hours, before anything runs. Warns about jobs that starve, exceed memory or
    do not fit their time limit.
    """
    invocation.call_with_settings("plan", settings, **arguments)


@cli.verb(
    "xkd pretrain --manifest data/talking_digits/manifest.csv \\",
    "  --ablation xkd --seed 3 --out runs/talking_digits/xkd/seed3",
)
@options.params
@options.manifest
@options.entry_of("ablations", "--ablation")
@click.option("--seed", type=options.SEED, required=True, help="Seed of weights, views and masks.")
@click.option(
    "--out", type=options.PATH, required=True, help="Folder for weights, effective settings, metrics and curves."
)
@options.resume
def pretrain_command(settings: Path, **arguments: Any) -> None:
    """Train one ablation with one seed.

    An interrupted run continues from its last checkpoint. Several GPUs: torchrun --nproc-per-node 8 -m xkd pretrain ...
    """
    invocation.call_with_settings("pretrain", settings, **arguments)

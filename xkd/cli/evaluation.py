"""Verbs of evaluation: features, probes and the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xkd.cli import invocation, options
from xkd.cli.program import cli


@cli.verb(
    "xkd features --manifest data/talking_digits/manifest.csv \\",
    "  --run runs/talking_digits/xkd/seed0 --task linear --out features.json",
)
@options.params
@options.manifest
@options.run
@options.entry_of("tasks", "--task")
@click.option("--out", type=options.PATH, required=True, help="JSON file that says where the features are.")
@options.force
def features_command(settings: Path, **arguments: Any) -> None:
    """Extract the frozen features that a task needs.

    They go to features/, where `evaluate` finds them: a job with a GPU for this, one without for the rest.
    """
    invocation.call_with_settings("features", settings, **arguments)


@cli.verb(
    "xkd evaluate --manifest data/talking_digits/manifest.csv \\",
    "  --run runs/talking_digits/xkd/seed0 --task linear --out linear.json",
)
@options.params
@options.manifest
@options.run
@options.entry_of("tasks", "--task")
@click.option("--out", type=options.PATH, required=True, help="JSON file of results; more files go beside it.")
@options.resume
@options.force
def evaluate_command(settings: Path, **arguments: Any) -> None:
    """Measure a run's encoders on held-out clips.

    An interrupted finetuning continues from its last checkpoint. Several GPUs: torchrun --nproc-per-node 8 -m xkd
    evaluate ...
    """
    invocation.call_with_settings("evaluate", settings, **arguments)


@cli.verb(
    "xkd table --out results",
    "xkd table --out results --strict",
    "XKD_PARAMS=workflow/presets/main_rows.yaml xkd table --out results/main_rows",
)
@options.params
@click.option(
    "--out", type=options.PATH, required=True, help="Folder for table.csv, table.md, report.html and figures."
)
@click.option("--strict", is_flag=True, help="Exit with 3 if a verdict is not the one that the settings record.")
@click.pass_context
def table_command(context: click.Context, settings: Path, out: Path, strict: bool) -> None:
    """Gather all results into the table and its report.

    The settings alone decide which runs and evaluations belong to it.
    """
    changes = invocation.call_with_settings("table", settings, out=out)
    if strict and changes:
        for change in changes:
            click.echo(f"xkd: {change}", err=True)
        context.exit(3)

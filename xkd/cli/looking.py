"""Verbs that show: one clip, or all runs."""

from __future__ import annotations

from typing import Any

import click

from xkd.cli import invocation, options
from xkd.cli.program import cli


@cli.verb(
    "xkd show data/talking_digits/raw/clips/test-00000.mov --encoder runs/talking_digits/xkd/seed0",
    "xkd show my.mp4 --encoder runs/talking_digits/xkd/seed0/encoders/video_student --start 2.5",
    "xkd show my.mp4 --encoder released/video_teacher --encoder released/audio_teacher --video",
)
@click.argument("clip", type=options.PATH)
@click.option(
    "--encoder",
    "encoders",
    type=options.PATH,
    multiple=True,
    required=True,
    help="Folder of an encoder, or of a run: then all its encoders. May be given several times.",
)
@click.option("--out", type=options.PATH, help="PNG file to write.  [default: show-CLIP.png]")
@click.option("--video", is_flag=True, help="Also write an MP4 beside the PNG, with audio.")
@click.option("--start", type=click.FloatRange(min=0), help="Second at which the view begins.  [default: the middle]")
@click.option("--seed", type=options.SEED, default=0, show_default=True, help="Seed that chooses the masked patches.")
@options.plugin
@options.force
def show_command(**arguments: Any) -> None:
    """Draw one media file as a model sees it.

    Frames and log-mel, the masked patches and their reconstruction, and the refinement weights of each modality.
    """
    invocation.call_stage("show", **arguments)


@cli.verb("xkd ui", "xkd ui --port 5001")
@click.option("--port", type=click.IntRange(1, 65534), default=5000, show_default=True, help="Port on this machine.")
def ui_command(port: int) -> None:
    """Browse every run in MLflow.

    Prints the link to the table of runs, grouped by ablation.
    """
    invocation.call_stage("ui", port=port)


@cli.verb("xkd sync")
def sync_command() -> None:
    """Send MLflow what it missed.

    Entries wait in mlflow-unsent/ while a job is young or MLflow does not answer (docs/mlflow.md).
    """
    invocation.call_stage("sync")

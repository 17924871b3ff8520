"""Verbs of trained encoders: their features for any media files, and released weights."""

from __future__ import annotations

from typing import Any

import click

from xkd.cli import invocation, options
from xkd.cli.command import Dimensions
from xkd.cli.program import cli


@cli.verb(
    "xkd embed runs/talking_digits/xkd/seed0/encoders/video_student data/talking_digits/raw/clips \\",
    "  --output video.parquet",
    "xkd embed runs/talking_digits/xkd/seed0/encoders/audio_student one.wav two.mp4 --output audio.parquet",
)
@click.argument("encoder", type=options.PATH)
@click.argument("sources", nargs=-1, required=True, type=options.PATH)
@click.option("--output", type=options.PATH, required=True, help="Parquet file: file, start, end, vector.")
@click.option("--batch-size", type=options.FROM_ONE, default=16, show_default=True, help="Clips per batch.")
@options.plugin
@options.force
def embed_command(**arguments: Any) -> None:
    """Compute features of media files.

    SOURCES are media files, folders of them, or CSV files with a column path. Each file is cut into clips.
    """
    invocation.call_stage("embed", **arguments)


@cli.verb("xkd import-weights video_teacher.pth.tar audio_teacher.pth.tar --output released")
@click.argument("files", nargs=-1, required=True, type=options.PATH)
@click.option("--output", type=options.PATH, required=True, help="Folder that gets one folder per file.")
@click.option("--heads", type=options.FROM_ONE, help="Attention heads; by default one per 64 of the width.")
@click.option("--patch", type=Dimensions(), help="Patch, if not the released 4x16x16 (video) or 4x16 (audio).")
@click.option("--view", type=Dimensions(), help="View trained on, if not the released 32x112x112 or 80x448.")
def import_weights_command(**arguments: Any) -> None:
    """Turn released weights (.pth.tar) into encoder folders."""
    invocation.call_stage("import_weights", **arguments)

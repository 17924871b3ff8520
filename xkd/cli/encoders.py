"""Verbs of trained encoders: their features for any media files, released weights, and their publication."""

from __future__ import annotations

from typing import Any

import click

from xkd.cli import invocation, options
from xkd.cli.command import Dimensions
from xkd.cli.program import cli


@cli.verb(
    "xkd embed runs/talking_digits/xkd/seed0/encoders/audio_student one.wav two.mp4 --output audio.parquet",
    "xkd embed runs/talking_digits/xkd/seed0 data/talking_digits/raw/clips --stride 0.5 --output both.parquet",
)
@click.argument("encoder", type=options.PATH)
@click.argument("sources", nargs=-1, required=True, type=options.PATH)
@click.option("--output", type=options.PATH, required=True, help="Parquet file: file, start, end, and the features.")
@click.option("--also", type=options.PATH, multiple=True, help="A further encoder: a column of its folder's name.")
@click.option("--owner", type=options.OWNER, default="student", show_default=True, help="Which encoders of a run.")
@click.option("--stride", type=click.FloatRange(min=0.01), help="Seconds between starts.  [default: one view]")
@click.option("--tokens", is_flag=True, help="All patch tokens of a clip instead of their mean.")
@click.option("--per-file", is_flag=True, help="One row per file: the mean of its clips.")
@click.option("--half", is_flag=True, help="Store float16 instead of float32.")
@click.option("--fps", type=options.POSITIVE, help="Frames per second to read.  [default: as in training]")
@click.option("--crop", type=options.CROP, default="centre", show_default=True, help="Middle, or whole frames.")
@click.option("--batch-size", type=options.FROM_ONE, default=16, show_default=True, help="Clips per batch.")
@click.option("--workers", type=options.FROM_ONE, help="Processes that decode.  [default: one per core]")
@options.plugin
@options.force
def embed_command(**arguments: Any) -> None:
    """Compute features of media files.

    ENCODER is the folder of an encoder or of a run. SOURCES are media files, folders of them, or CSV files with a
    column path. Each file is cut into clips. An interrupted call continues when it is repeated.
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


@cli.verb(
    "xkd push runs/talking_digits/xkd/seed0/encoders/video_student hf://me/digits-video",
    "xkd push runs/talking_digits/xkd/seed0 hf://me/digits --private --send",
    "xkd push released/video_teacher s3://bucket/encoders/video_teacher --send",
)
@click.argument("source", metavar="ENCODER_OR_RUN", type=options.PATH)
@click.argument("target")
@click.option("--evals", type=options.PATH, help="The run's evaluations.  [default: evals/DATASET/ABLATION/seedN]")
@click.option("--private", is_flag=True, help="A repository that is created on the hub is private.")
@click.option("--send", is_flag=True, help="Send; without this, only print what would be sent.")
@options.force
def push_command(**arguments: Any) -> None:
    """Publish encoders with a model card.

    TARGET is hf://OWNER/NAME for the hub, or a folder here or elsewhere (s3://..., any address of fsspec).
    """
    invocation.call_stage("push", **arguments)

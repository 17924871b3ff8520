"""Verbs of data: from raw files to clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xkd.cli import invocation, options
from xkd.cli.command import names_of
from xkd.cli.program import cli


@cli.verb("xkd download --dataset talking_digits --out data/talking_digits/raw")
@options.params
@options.entry_of("datasets", "--dataset")
@click.option("--out", type=options.PATH, required=True, help="Folder for index.csv and the media files.")
def download_command(settings: Path, **arguments: Any) -> None:
    """Fetch or generate the raw files of a data set."""
    invocation.call_with_settings("download", settings, **arguments)


@cli.verb("xkd prepare --raw data/talking_digits/raw/index.csv --out data/talking_digits")
@options.params
@click.option("--raw", type=options.PATH, required=True, help="index.csv that `download` wrote.")
@click.option("--out", type=options.PATH, required=True, help="Folder for manifest.csv, summary.json and the clips.")
def prepare_command(settings: Path, **arguments: Any) -> None:
    """Turn raw files into training-ready clips.

    Probes and decodes every file, and writes the manifest: one row per clip, with a reason if it is unusable.
    """
    invocation.call_with_settings("prepare", settings, **arguments)


@cli.verb("xkd pack talking_digits", "xkd pack talking_digits --check")
@click.argument("dataset", shell_complete=names_of("datasets"))
@options.params
@click.option("--check", is_flag=True, help="Compare packed clips with their checksums instead.")
def pack_command(settings: Path, **arguments: Any) -> None:
    """Pack prepared clips into shards.

    Large files, which a network file system reads faster; training then reads them instead of single files.
    """
    invocation.call_with_settings("pack", settings, **arguments)


@cli.verb("xkd inspect talking_digits", "xkd inspect talking_digits --clips 20 --out pictures")
@click.argument("dataset", shell_complete=names_of("datasets"))
@options.params
@click.option("--out", type=options.PATH, help="Folder for the images.  [default: data/DATASET/inspect]")
@click.option("--clips", type=options.FROM_ONE, default=10, show_default=True, help="Rows of the contact sheet.")
def inspect_command(settings: Path, **arguments: Any) -> None:
    """Show what a prepared data set holds.

    Prints counts and faults; draws a contact sheet and histograms.
    """
    invocation.call_with_settings("inspect", settings, **arguments)


@cli.verb(
    "xkd doctor talking_digits",
    "xkd doctor my_clips --json doctor.json",
    "xkd doctor my_clips --encoder runs/talking_digits/xkd/seed0/encoders/audio_student",
)
@click.argument("source", metavar="MEDIA_OR_DATASET", shell_complete=names_of("datasets"))
@options.params
@click.option("--encoder", type=options.PATH, help="Folder of an encoder that the clips are for, not the settings.")
@click.option("--json", "out", type=options.PATH, help="JSON file of facts and findings.")
@options.force
@click.pass_context
def doctor_command(context: click.Context, /, settings: Path, **arguments: Any) -> None:
    """Find what is wrong with clips before training.

    MEDIA_OR_DATASET is a media file, a folder of them, a CSV file with a column path, a manifest, or the name of a
    prepared data set. Prints what is in the clips and a line for each finding; exits with 3 if there is one.
    """
    if arguments["encoder"]:
        found = invocation.call_stage("doctor", **arguments)
    else:
        found = invocation.call_with_settings("doctor", settings, **arguments)
    if found:
        context.exit(3)

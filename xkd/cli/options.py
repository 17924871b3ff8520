"""Options, types and help texts that several verbs of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from xkd.cli.command import load_plugins, names_of

POSITIVE = click.FloatRange(min=0, min_open=True)
SEED, FROM_ONE, PATH = click.IntRange(0, 2**32 - 1), click.IntRange(min=1), click.Path(path_type=Path)
OWNER, CROP = click.Choice(["student", "teacher"]), click.Choice(["centre", "whole"])
PEAK = "Peak TFLOP/s of one GPU in bfloat16, dense (RTX 4090 165, A100 312, H100 989)."
OF_GPU = "  [default: of the known GPU with this peak]"
RESUME = "Checkpoint of other settings, data or code: refuse it, continue from it, or put it aside."

resume = click.option(
    "--resume",
    type=click.Choice(["same", "changed", "anew"]),
    default="same",
    envvar="XKD_RESUME",
    show_default=True,
    show_envvar=True,
    help=RESUME,
)
force = click.option("--force", is_flag=True, help="Replace existing output files; an input is never replaced.")
manifest = click.option(
    "--manifest", type=PATH, required=True, help="manifest.csv that `prepare` wrote: one row per clip."
)
params = click.option(
    "--params",
    "settings",
    type=PATH,
    default=Path("params.yaml"),
    envvar="XKD_PARAMS",
    show_default=True,
    show_envvar=True,
    help="Settings file; it may extend another one.",
)
plugin = click.option(
    "--plugin",
    type=PATH,
    multiple=True,
    expose_value=False,
    callback=load_plugins,
    help="Python file that registers the encoder's backbone. May be given several times.",
)
run = click.option("--run", type=PATH, required=True, help="Folder that `pretrain` wrote.")


def entry_of(group: str, name: str) -> Callable[[Any], Any]:
    """Makes an option that takes the name of an entry of a group of the settings."""
    return click.option(
        name, required=True, shell_complete=names_of(group), help=f"Name of an entry of `{group}` in the settings."
    )

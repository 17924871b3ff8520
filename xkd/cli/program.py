"""The program `xkd`, to which each verb adds itself."""

from __future__ import annotations

import click

from xkd import __version__
from xkd.cli.command import Contents, epilog_of


@click.group(
    cls=Contents,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=epilog_of(
        "make table                  every stage in order, for each row of params.yaml",
        "xkd VERB --help             what a verb does, its options and examples",
        "xkd inspect talking_digits  counts and a contact sheet of a data set",
    ),
)
@click.version_option(__version__, prog_name="xkd")
def cli() -> None:
    """XKD: self-supervised audio-visual pretraining, evaluated ablation by ablation."""

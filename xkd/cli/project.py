"""Verbs of the project itself: the schema of its settings, completion in the shell."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from xkd.cli import invocation, options
from xkd.cli.command import SHELLS, completion_of
from xkd.cli.program import cli


@cli.verb("xkd schema --out workflow/schemas/params.schema.json")
@click.option("--out", type=options.PATH, help="File to write instead of standard output.")
@options.force
def schema_command(out: Path | None, force: bool) -> None:
    """Print the JSON schema of the settings.

    Each key with its meaning, type and bounds.
    """
    invocation.call_stage("schema", out=out, force=force)


@cli.verb('eval "$(xkd completion bash)"', "xkd completion fish > ~/.config/fish/completions/xkd.fish")
@click.argument("shell", type=click.Choice(list(SHELLS)))
def completion_command(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print the script of shell completion.

    It completes verbs, options and files, and the names of data sets, ablations and tasks.
    """
    click.echo(completion_of(cli, shell))

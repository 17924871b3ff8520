"""Verbs of the project itself: whether its files are whole, the schema of its settings, completion in the shell."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from xkd.cli import invocation, options
from xkd.cli.command import SHELLS, completion_of, names_of
from xkd.cli.program import cli


@cli.verb("xkd verify", "xkd verify talking_digits runs/talking_digits/xkd/seed0 --json verify.json")
@click.argument("what", nargs=-1, shell_complete=names_of("datasets"))
@options.params
@click.option("--json", "out", type=options.PATH, help="JSON file of what is damaged or missing.")
@options.force
@click.pass_context
def verify_command(context: click.Context, /, settings: Path, **arguments: Any) -> None:
    """Check every file against its recorded hash.

    WHAT are folders, files or names of prepared data sets; by default all that was made for the settings. Exits with 3
    if files are damaged or missing, with 2 if some cannot be checked.
    """
    if arguments["what"]:
        code = invocation.call_stage("verify", **arguments)
    else:
        code = invocation.call_with_settings("verify", settings, **arguments)
    context.exit(code)


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

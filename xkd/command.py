"""How the command line looks: verbs in sections, options that all of them take, examples, names that complete."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from xkd import progress
from xkd.errors import UserError

# Table of contents of `xkd --help`, in the order of use.
SECTIONS = {
    "Data": ("download", "prepare", "inspect"),
    "Training": ("plan", "pretrain"),
    "Evaluation": ("evaluate", "table"),
    "Encoders": ("embed", "import-weights"),
    "Looking": ("show", "ui", "sync"),
    "Project": ("schema", "completion"),
}
DEBUG = "XKD_DEBUG"  # 1: as --debug; defects: only theirs, as the workflow sets it, since its logs are what is reported


def _level_option(level: progress.Level) -> Callable[[click.Context, click.Parameter, bool], None]:
    def chosen(ctx: click.Context, option: click.Parameter, value: bool) -> None:
        if value and ctx.meta.setdefault("xkd.level", level) != level:
            raise click.UsageError("--quiet and --verbose exclude each other", ctx)
        if value:
            progress.set_level(level)

    return chosen


def _debug(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        os.environ[DEBUG] = "1"


def _common_options(hidden: bool) -> list[click.Option]:
    """What may stand before the verb or behind it; help shows it once."""
    common = {"is_flag": True, "expose_value": False, "is_eager": True, "hidden": hidden}
    said = {
        "quiet": "No progress and no remarks: results, warnings and errors only.",
        "verbose": "Times, and files written.",
    }
    return [
        click.Option(["-q", "--quiet"], callback=_level_option("quiet"), help=said["quiet"], **common),
        click.Option(["-v", "--verbose"], callback=_level_option("verbose"), help=said["verbose"], **common),
        click.Option(["--debug"], callback=_debug, help=f"Tracebacks of errors (or {DEBUG}=1).", **common),
    ]


class Verb(click.Command):
    """A command that takes the common options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _common_options(hidden=True)


class Contents(click.Group):
    """Lists verbs by section, in the order of use."""

    command_class = Verb

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _common_options(hidden=False)

    def list_commands(self, ctx: click.Context) -> list[str]:
        listed = [name for names in SECTIONS.values() for name in names if name in self.commands]
        return listed + [name for name in self.commands if name not in listed]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        limit = formatter.width - 6 - width
        for section, names in SECTIONS.items():
            rows = [
                (name.ljust(width), self.commands[name].get_short_help_str(limit))
                for name in names
                if name in self.commands
            ]
            with formatter.section(section):
                formatter.write_dl(rows)


def examples(*lines: str) -> str:
    """The end of a verb's help: commands as they are typed, not wrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def names_of(group: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Completes the names of a group of the settings."""

    def complete(ctx: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
        from xkd import params

        try:
            names = getattr(params.load(ctx.params.get("settings") or Path("params.yaml")), group)
        except UserError:
            return []
        return [name for name in names if name.startswith(incomplete)]

    return complete

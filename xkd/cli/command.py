"""Defines how the command line looks: verbs in sections, options that all verbs take, examples, completion of names."""

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
    "Data": ("download", "prepare", "pack", "inspect", "doctor"),
    "Training": ("plan", "pretrain"),
    "Evaluation": ("features", "evaluate", "table"),
    "Encoders": ("embed", "import-weights", "push"),
    "Looking": ("show", "ui", "sync"),
    "Project": ("verify", "schema", "completion"),
}
SHELLS = {
    "bash": """put  eval "$(xkd completion bash)"  into ~/.bashrc""",
    "zsh": """put  eval "$(xkd completion zsh)"  into ~/.zshrc, after compinit""",
    "fish": "run  xkd completion fish > ~/.config/fish/completions/xkd.fish",
}
DEBUG = "XKD_DEBUG"  # 1: as --debug; defects: for defects only, which the workflow sets, since its logs get reported


class Dimensions(click.ParamType[tuple[int, ...]]):
    """Numbers with x between them, e.g. 4x16x16."""

    name = "NxN[xN]"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        try:
            return value if isinstance(value, tuple) else tuple(int(part) for part in value.split("x"))
        except ValueError:
            self.fail(f"{value} is not of the form 4x16x16", param, ctx)


class Verb(click.Command):
    """A command that takes the common options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _common_options(hidden=True)


class Contents(click.Group):
    """A group that lists its verbs by section, in the order of use."""

    command_class = Verb

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _common_options(hidden=False)

    def verb(self, *examples: str) -> Callable[[Callable[..., None]], click.Command]:
        """Makes a function `<verb>_command` a verb; its help ends with the examples."""
        return self.command(epilog=epilog_of(*examples))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in SECTIONS.values() for name in names]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        limit = formatter.width - 6 - width
        for section, names in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(
                    [(name.ljust(width), self.commands[name].get_short_help_str(limit)) for name in names]
                )


def epilog_of(*examples: str) -> str:
    """Returns the end of a verb's help: commands as they are typed, not wrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples)


def names_of(group: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Returns a function that completes the names of a group of the settings."""

    def complete(ctx: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
        from xkd import params

        try:
            names = getattr(params.load(ctx.params.get("settings") or Path("params.yaml")), group)
        except UserError:
            return []
        return [name for name in names if name.startswith(incomplete)]

    return complete


def _common_options(hidden: bool) -> list[click.Option]:
    """Returns the options that may stand before or after the verb; help shows them once."""
    common = {"is_flag": True, "expose_value": False, "is_eager": True, "hidden": hidden}
    quiet = "No progress and no remarks: results, warnings and errors only."
    verbose = "Print times and the files written."
    return [
        click.Option(["-q", "--quiet"], callback=_level_option("quiet"), help=quiet, **common),
        click.Option(["-v", "--verbose"], callback=_level_option("verbose"), help=verbose, **common),
        click.Option(["--debug"], callback=_debug, help=f"Print tracebacks of errors (or {DEBUG}=1).", **common),
    ]


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


def load_plugins(_context: click.Context, _option: click.Parameter, files: tuple[Path, ...]) -> None:
    """Imports the plugin files of an option, before its verb runs."""
    if files:
        from xkd import plugins

        plugins.load(map(str, files))


def completion_of(program: click.Group, shell: str) -> str:
    """Returns the script that completes a program's command line in a shell, and how to install it."""
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    if script is None:
        raise ValueError(f"no completion for {shell}")
    made = script(program, {}, "xkd", "_XKD_COMPLETE")
    return f"# {SHELLS[shell]}\n{made.source_template % made.source_vars()}"

"""Runs the command line: `main` calls a verb and turns failures into exit codes.

0 done, 1 a defect, 2 something the user can mend (one line says what), 3 something was found: verdicts that differ from
those on record (`table --strict`), clips that do not fit (`doctor`), damaged files (`verify`); 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys

import click

from xkd import launcher, progress
from xkd.cli import data, encoders, evaluation, looking, project, training  # noqa: F401 (each adds its verbs to `cli`)
from xkd.cli.failures import fail
from xkd.cli.program import cli


def main() -> None:
    """Runs a verb and turns failures into exit codes."""
    # SIGTERM unwinds the stack as an exception would: MLflow runs are closed, temporary files removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    launcher.end_with_torchrun()
    # Collecting garbage again and again among the objects of imported modules, which stay, takes a second of each job.
    gc.disable()
    atexit.register(gc.freeze)
    progress.set_level("normal")
    try:
        sys.exit(cli.main(prog_name="xkd", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("xkd: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:  # `xkd schema | head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:  # noqa: BLE001 (anything else is a defect, and reported as one)
        fail(error)

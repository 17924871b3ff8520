"""Turns an exception into one line for the user and an exit code: 1 for a defect, 2 for what the user can mend."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback

import click

from xkd.cli.command import DEBUG
from xkd.errors import UserError

MENDABLE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO),
    *(errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST),
}
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def fail(error: Exception) -> None:
    """Prints one line on what is wrong and what to do, preceded by the traceback with --debug, and exits."""
    mendable = _mendable(error)
    debug = os.environ.get(DEBUG, "0")
    with_traceback = debug != "0" and (debug != "defects" or mendable is None)
    with contextlib.suppress(OSError):  # the log may be on a full disk; the exit code tells anyway
        if with_traceback:
            traceback.print_exception(error)
        click.echo(_last_line(error, mendable, with_traceback), err=True)
    sys.exit(1 if mendable is None else 2)


def _last_line(error: Exception, mendable: str | None, with_traceback: bool) -> str:
    if mendable is None:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        do = "report the lines above" if with_traceback else "run again with --debug and report the output"
        return f"xkd: error: this is a defect in xkd: {what}; {do}"
    return f"xkd: error: {' '.join(mendable.split())}"


def _mendable(error: Exception) -> str | None:
    """Returns what the user can do about an error, or None for a defect."""
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        return f"{error.format_message()} (see `{context.command_path if context else 'xkd'} --help`)"
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return f"{error.filename or 'a file'}: {error.strerror}; free some space and run the same command again"
    if isinstance(error, OSError) and error.errno in MENDABLE:
        return f"{error.filename or 'a file'}: {error.strerror}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory ({error}); lower training.batch_size, evaluate.batch_size or --batch-size"
    return None

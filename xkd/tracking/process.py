"""Which process writes a run, as tags, so that a later one can tell whether it still lives."""

from __future__ import annotations

import getpass
import os
import socket

HOST, PROCESS = "xkd.host", "xkd.process"
SAME_START_SECONDS = 2.0  # start times are counted from the boot, whose time moves when the clock is set


def tags() -> dict[str, str]:
    """Tags that name this process and its user."""
    import psutil

    pid = os.getpid()
    return {"mlflow.user": _user(), HOST: host(), PROCESS: f"{pid} {psutil.Process(pid).create_time():.2f}"}


def host() -> str:
    """This machine, and the container on it: process ids mean nothing outside of both."""
    try:
        return f"{socket.gethostname()}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        return socket.gethostname()


def alive(process: str) -> bool:
    """Whether the process that a PROCESS tag of this host names is running; its id may have gone to another since."""
    import psutil

    try:
        pid, started = process.split()
        found = psutil.Process(int(pid))
        if found.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(found.create_time() - float(started)) < SAME_START_SECONDS
    except (ValueError, psutil.NoSuchProcess):
        return False


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under an id that has no name
        return str(os.getuid())

"""Tags that name the process that writes a run, so that a later process can tell whether it is still alive."""

from __future__ import annotations

import os
import socket

import psutil

HOST, PROCESS = "xkd.host", "xkd.process"
SAME_START_SECONDS = 2.0  # start times count from the boot time, which moves when the clock is set


def tags() -> dict[str, str]:
    """Returns tags that name this process, its machine and its user."""
    this = psutil.Process()
    return {"mlflow.user": this.username(), HOST: host(), PROCESS: f"{this.pid} {this.create_time():.2f}"}


def host() -> str:
    """Returns the name of this machine and, on Linux, of the process namespace in which process ids are valid."""
    try:
        return f"{socket.gethostname()}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        return socket.gethostname()


def alive(process: str) -> bool:
    """Returns True if the process that a PROCESS tag of this host names is running (its id may have been reused)."""
    try:
        pid, started = process.split()
        found = psutil.Process(int(pid))
        same = abs(found.create_time() - float(started)) < SAME_START_SECONDS
        return same and found.status() != psutil.STATUS_ZOMBIE
    except (ValueError, psutil.NoSuchProcess):
        return False

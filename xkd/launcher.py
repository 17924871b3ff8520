"""Ends a process that torchrun started when torchrun is gone.

Otherwise nobody would end the processes, and each would wait for the others forever.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

POLL_SECONDS, GRACE_SECONDS = 1.0, 20.0
STARTED_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"


def end_with_torchrun() -> None:
    """Ends this process soon after torchrun is gone; does nothing if torchrun did not start it.

    SIGTERM comes first, upon which ranks that can still agree save a checkpoint. A rank that waits in a collective
    operation is killed; checkpoints are written whole or not at all.
    """
    if STARTED_BY_TORCHRUN in os.environ:
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent and not _adopted(parent):
        time.sleep(POLL_SECONDS)
    with suppress(OSError):  # the pipe to torchrun may be gone too
        print("xkd: torchrun is gone; this process ends too", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _adopted(parent: int) -> bool:
    """Returns True if torchrun was gone before this process began; in a container, torchrun may be process 1 itself."""
    try:
        return parent == 1 and b"torch" not in Path("/proc/1/cmdline").read_bytes()
    except OSError:
        return False

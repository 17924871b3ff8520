"""torchrun starts a process per rank, and a rank must not outlive it.

Nobody would end the ranks, and each would wait for the others for ever. A process that a shell started goes on without it.
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


def end_with_it() -> None:
    """Ends this process soon after torchrun is gone; without torchrun, does nothing.

    SIGTERM comes first: ranks that can agree save a checkpoint, as for any other SIGTERM. One that waits in a collective
    is killed; a checkpoint is written whole or not at all.
    """
    if STARTED_BY_TORCHRUN in os.environ:
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent and not _adopted(parent):
        time.sleep(POLL_SECONDS)
    with suppress(OSError):  # what torchrun read it with may be gone too
        print("xkd: torchrun is gone; this process ends too", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _adopted(parent: int) -> bool:
    """Whether torchrun was gone before this process had begun: in a container, torchrun may be process 1 itself."""
    try:
        return parent == 1 and b"torch" not in Path("/proc/1/cmdline").read_bytes()
    except OSError:
        return False

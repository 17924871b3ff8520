"""Processes that start in no time: forks of one that has imported torch already."""

import gc
import os
import signal
import sys
import traceback
from pathlib import Path

import torch
from ports import free_port

# At its first use autograd decides whether it needs threads, which a fork would not have. Where a test has made tensors
# that take themselves for CUDA ones by then, it would start some.
torch.ones(1, requires_grad=True).backward()


def fork(function, log: Path, environment: dict | None = None) -> int:
    """Runs `function()` in a child whose output goes to `log`; returns the child's id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        gc.freeze()  # what earlier tests left, a session of onnxruntime say, would wait for threads that a fork lacks
        os.setsid()
        os.environ.update(environment or {})
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        own_streams()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as xkd.cli does
        code = ended(function)
    finally:
        os._exit(code)


def ended(function) -> int:
    """Runs `function()` as the whole of a process; returns the exit code."""
    try:
        function()
    except SystemExit as error:
        return error.code or 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def own_streams() -> None:
    """Lets Python write to what file descriptors 1 and 2 are now; pytest has replaced its streams."""
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w") for number in (1, 2))


def code_of(child: int) -> int:
    """Waits; exit code, or minus the number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def group(function, folder: Path, size: int = 2) -> list[int]:
    """Runs `function()` in processes as torchrun would start them; their ids. Output is in `rank<n>.txt`."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    return [
        fork(function, folder / f"rank{rank}.txt", {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(size)
    ]

"""Stopping on request: SIGTERM (SLURM preempts, an engine gives up) and SIGINT (Ctrl-C)."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)
PATIENCE_SECONDS = 1.0
Handler = Callable[[int, FrameType | None], Any] | int | None  # as `signal.signal` has it


class StopRequests:
    """While entered, signals are remembered instead of obeyed. Only an impatient second Ctrl-C interrupts at once.

    Of SIGTERM, torchrun's agent may send a second one to a process that SLURM has told already.

    Attributes:
        signal: that asked to stop, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._since = 0.0
        self._before: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python handles signals there alone
            self._before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._since = signal.Signals(number), time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._since > PATIENCE_SECONDS:
            raise KeyboardInterrupt


def leave(number: signal.Signals) -> NoReturn:
    """Ends the process as the signal would have.

    Raises:
        KeyboardInterrupt: for SIGINT.
        SystemExit: for SIGTERM, with code 143.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)

"""Runs commands as forks of a process that has imported what jobs need, since each would take four seconds for that.

Snakemake starts the server (Snakefile). `python -m xkd` hands its command over, passes signals on, and
ends as the fork ends. Where there is no server, the command runs in its own process.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from xkd.launcher import STARTED_BY_TORCHRUN

VERBS = ("pretrain", "evaluate")  # Snakemake samples the processes of other jobs, and would see none of a fork
ADDRESS = "XKD_FORKSERVER"  # path of the server's socket; set to nothing, no server is started
PRELOADED = ("xkd.cli", "xkd.stages.pretrain", "xkd.stages.evaluate", "torchaudio", "PIL.Image", "sklearn.linear_model")
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}  # libraries read it when they are imported
LENGTH, CODE, TAKEN = struct.Struct("Q"), struct.Struct("i"), b"+"
POLL_SECONDS, REQUEST_SECONDS = 0.05, 10.0


def start() -> None:
    """Starts a server for the commands that this process starts; it ends with this process.

    Does nothing where the environment names a server already, or none is wanted, or no socket can be made.
    """
    if ADDRESS in os.environ:
        return
    path = Path(tempfile.mkdtemp(prefix="xkd-")) / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(str(path))
        except OSError:  # a path of more than 107 characters, or no sockets on this file system
            return
        listener.listen(1024)
        number = listener.fileno()
        starter, _open_while_this_process_lives = os.pipe()
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(number), str(path)],
            stdin=starter,
            stdout=subprocess.DEVNULL,  # so that nobody who reads our output waits for the server's end
            stderr=subprocess.DEVNULL,
            env={**os.environ, **ENVIRONMENT},
            pass_fds=[number],
            start_new_session=True,  # Ctrl-C reaches commands through those who wait for them
        )
        os.close(starter)
    os.environ[ADDRESS] = str(path)


def hand_over() -> None:
    """Lets the server run this process's command, and ends as the command ends; returns if there is no server."""
    path = os.environ.get(ADDRESS)
    if not path or "".join(sys.argv[1:2]) not in VERBS:
        return
    if STARTED_BY_TORCHRUN in os.environ or ENVIRONMENT.items() - os.environ.items():
        return
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
            _ask(connection)
            taken = connection.recv(1) == TAKEN
        except OSError:
            return
        if taken:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
            code = connection.recv(CODE.size, socket.MSG_WAITALL)
            if len(code) < CODE.size:
                sys.exit("xkd: error: the process that ran this command is gone")
            _end_like(*CODE.unpack(code))


def _ask(connection: socket.socket) -> None:
    umask = os.umask(0)
    os.umask(umask)
    content = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), umask]).encode()
    socket.send_fds(connection, [LENGTH.pack(len(content))], [0, 1, 2])
    connection.sendall(content)


def _end_like(code: int) -> None:
    if code < 0:
        with suppress(OSError):  # of SIGKILL it is the default anyway
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


class _Server:
    """Forks for each command, passes signals on to the forks, and tells their ends.

    Args:
        listener: where commands arrive.
        starter: a pipe, which is closed when the process is gone that wanted the server.
    """

    def __init__(self, listener: socket.socket, starter: int) -> None:
        self.listener, self.starter = listener, starter
        self.running: dict[int, socket.socket] = {}

    def serve(self) -> list[Any] | None:
        """Returns a command in each fork; None in the server, once the starter is gone and all forks have ended."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.starter, selectors.EVENT_READ)
            selector.register(self.listener, selectors.EVENT_READ)
            while self.running or self.listener.fileno() >= 0:
                for key, _ in selector.select(POLL_SECONDS if self.running else None):
                    if key.fileobj == self.starter:
                        selector.unregister(self.starter)
                        selector.unregister(self.listener)
                        self.listener.close()
                    elif key.fileobj != self.listener:
                        self._signal(key.data, selector)
                    elif command := self._fork(selector):
                        return command
                self._tell_ends(selector)
        return None

    def _fork(self, selector: selectors.BaseSelector) -> list[Any] | None:
        connection, _ = self.listener.accept()
        connection.settimeout(REQUEST_SECONDS)
        try:
            header, files, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
            content = connection.recv(LENGTH.unpack(header)[0], socket.MSG_WAITALL)
            connection.sendall(TAKEN)
        except (OSError, struct.error):  # it changed its mind
            connection.close()
            return None
        pid = os.fork()
        if pid:
            self.running[pid] = connection
            selector.register(connection, selectors.EVENT_READ, pid)
        else:
            for number, file in enumerate(files):
                os.dup2(file, number)
            for one in (self.listener, connection, *self.running.values()):
                one.close()
        for file in files:
            os.close(file)
        command: list[Any] | None = None if pid else json.loads(content)
        return command

    def _signal(self, pid: int, selector: selectors.BaseSelector) -> None:
        """Passes a signal on; who asked for a command and is gone has been killed, and so is the command."""
        connection, number = self.running[pid], b""
        with suppress(ConnectionError):
            number = connection.recv(1)
        os.kill(pid, number[0] if number else signal.SIGKILL)
        if not number:
            selector.unregister(connection)

    def _tell_ends(self, selector: selectors.BaseSelector) -> None:
        for pid in list(self.running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                connection = self.running.pop(pid)
                with suppress(OSError):
                    connection.sendall(CODE.pack(os.waitstatus_to_exitcode(status)))
                with suppress(KeyError):
                    selector.unregister(connection)
                connection.close()


def _run(arguments: list[str], environment: dict[str, str], folder: str, umask: int) -> None:
    """Does what `python -m xkd` does."""
    os.environ.clear()
    os.environ.update(environment)
    del os.environ[ADDRESS]
    os.chdir(folder)
    os.umask(umask)
    sys.argv = ["xkd", *arguments]
    runpy.run_module("xkd", run_name="__main__")


def _main() -> None:
    listener, path = socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2])
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    command = _Server(listener, sys.stdin.fileno()).serve()
    if command:
        _run(*command)
    else:
        shutil.rmtree(path.parent, ignore_errors=True)


if __name__ == "__main__":
    _main()

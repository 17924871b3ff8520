"""A `snakemake` on PATH that starts in no time, for engines that call it: forks of a process that has imported it."""

import json
import os
import signal
import socket
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas  # noqa: F401 (once, for all forks)
from forks import code_of, ended, fork, own_streams
from snakemake import cli

CLIENT = Path(__file__).parent / "bin"
LONGEST = 2**20  # bytes of a command with its environment


@contextmanager
def warm_snakemake(path: str):
    """Yields the changes of an environment with this PATH in which `snakemake` is such a fork."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        address = f"{folder}/socket"
        listener.bind(address)
        listener.listen()
        server = fork(partial(_serve, listener), Path(folder, "log"))
        try:
            yield {"PATH": f"{CLIENT}{os.pathsep}{path}", "WARM_SNAKEMAKE": address}
        finally:
            os.kill(server, signal.SIGKILL)
            code_of(server)


def _serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        if not os.fork():
            _run(connection)
        connection.close()


def _run(connection: socket.socket) -> None:
    """Runs a command, tells its exit code and ends this process."""
    code = 1
    try:
        command, files, _, _ = socket.recv_fds(connection, LONGEST, 3)
        words, environment, folder = json.loads(command)
        for number, file in enumerate(files):
            os.dup2(file, number)
        own_streams()
        os.environ.clear()
        os.environ.update(environment)
        code = ended(partial(run_snakemake, words, folder))
    finally:
        connection.sendall(str(code).encode())
        os._exit(0)


def run_snakemake(words: list[str], folder: str | Path) -> None:
    """Runs Snakemake in this process, which nothing else uses then; the project's own code is imported anew."""
    os.chdir(folder)
    sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
    for name in [name for name in sys.modules if name.partition(".")[0] == "xkd"]:
        del sys.modules[name]
    cli.main(words)

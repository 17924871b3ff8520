"""Inputs that were damaged at random, and the command line run on them under guard: what must never happen, is noticed.

A trial copies a small project, changes files in it, and runs commands in forks. Its faults are a traceback, another
exit code than allowed, several lines of error, a hang, a changed input, a file written elsewhere, and a network access.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import resource
import shutil
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from forks import fork

from xkd import cli
from xkd.data import workers
from xkd.stages import (  # noqa: F401 (imported once, so that forks need not)
    doctor,
    download,
    embed,
    evaluate,
    import_weights,
    inspect,
    pack,
    plan,
    prepare,
    pretrain,
    show,
    table,
)

SECONDS = 300.0  # a trial takes a second or two of a processor; a hang takes for ever
MEMORY = 12 << 30  # bytes of address space; what asks for more, has believed a file
ALLOWED_CODES = (0, 2, 3)
# What a command may write besides its output: caches and checkpoints, beside what they are of.
OWN = re.compile(
    r"(out|checkpoints|features|mlflow-unsent)(/|$)|(.*/)?\.{1,2}manifest\.arrow[^/]*$|.*\.lock$|show-.*\.png|.*/lock$"
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.chmod"}
STARTS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen"}
Where = tuple[Path, re.Pattern]  # a project, and what may be written in it
KNOWN_PROGRAMS = {"git", "nvidia-smi", "lscpu"}


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code (minus a signal's number), what it printed, and what it must not do."""

    code: int
    shown: str
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Kind:
    """A kind of bad input.

    Attributes:
        parts: files and folders of the project that a trial needs.
        change: damages the copy in a folder, and returns the command that is to read it. Or several steps: commands one
            after the other, until one fails, and functions that change files between them.
        codes: exit codes that are right.
        inputs: bad inputs of one trial.
        check: returns what is wrong with what the commands wrote, if they ended well.
        complaint: returns what is wrong with what they said, if the last one did not.
        adds: whether commands may add files anywhere in the project, if they leave alone those that were there.
    """

    parts: tuple[str, ...]
    change: Callable[[Path, random.Random], list]
    codes: tuple[int, ...] = (0, 2)
    inputs: int = 1
    check: Callable[[Path], list[str]] = lambda _place: []
    complaint: Callable[[Path, str], list[str]] = lambda _place, _shown: []
    adds: bool = False


def trial(kind: Kind, world: Path, place: Path, number: int) -> Outcome:
    """Damages a copy of the project as the number says, runs the commands, and judges what they did."""
    with copied(world, kind.parts, place):
        steps = kind.change(place, random.Random(number))
        steps = steps if isinstance(steps[0], list) else [steps]
        outcome = _in_turn(steps, place, kind)
        outcome.faults.extend(kind.complaint(place, outcome.shown) if outcome.code else kind.check(place))
        if outcome.faults:
            shutil.rmtree(kept := place.with_name(f"{place.name}-kept"), ignore_errors=True)
            shutil.copytree(place, kept, symlinks=True, ignore=_pipes)
            (kept / "command.txt").write_text(f"{steps}\n{outcome}\n")
        return outcome


def _pipes(folder: str, names: list[str]) -> list[str]:
    return [
        name for name in names if os.path.exists(path := f"{folder}/{name}") and stat.S_ISFIFO(os.stat(path).st_mode)
    ]


def _in_turn(steps: list, place: Path, kind: Kind) -> Outcome:
    """Returns what the last command did that was run."""
    outcome = Outcome(0, "")
    for step in steps:
        if callable(step):
            step()
        elif outcome.code == 0 and not outcome.faults:
            outcome = run(step, place, kind.codes, kind.adds)
    return outcome


def run(arguments: list[str], folder: Path, codes: tuple[int, ...] = ALLOWED_CODES, adds: bool = False) -> Outcome:
    """Runs a command of xkd in a folder, as a fork with guards."""
    log, trespasses = folder.with_suffix(".log"), folder.with_suffix(".guard")
    before = _digests(folder)
    with trespasses.open("w") as guard:

        def command() -> None:
            os.chdir(folder)
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            _stand_guard(folder, guard.fileno(), re.compile("") if adds else OWN)
            sys.argv = ["xkd", *arguments]
            cli.main()

        code, hung = _awaited(fork(command, log), SECONDS)
    shown = log.read_text(errors="replace") if log.exists() else ""
    after = _digests(folder)
    if adds:
        before, after = ({n: d for n, d in found.items() if n in before and "/." not in n} for found in (before, after))
    faults = list(_faults_of(code, hung, shown, codes)) + _changes(before, after)
    faults += sorted(set(trespasses.read_text().splitlines()))
    for path in (log, trespasses):
        path.unlink(missing_ok=True)
    return Outcome(code, shown, faults)


def _awaited(child: int, seconds: float) -> tuple[int, bool]:
    """Returns the exit code, and whether the process had to be killed."""
    end, pause = time.monotonic() + seconds, 0.001
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), False
        time.sleep(pause := min(1.5 * pause, 0.05))
    os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), True


def _faults_of(code: int, hung: bool, shown: str, codes: tuple[int, ...]) -> Iterator[str]:
    if hung:
        yield f"hangs for more than {SECONDS:g} s"
    elif code not in codes:
        yield f"exit code {code}"
    if "Traceback (most" in shown or "a defect in xkd" in shown:
        yield "a traceback"
    lines = [line for line in shown.splitlines() if line.startswith("xkd: error")]
    if code == 2 and (len(lines) != 1 or not shown.rstrip("\n").endswith(lines[0])):
        yield f"{len(lines)} lines of error"
    if any(len(line) > 2000 for line in lines):
        yield "an error line that is too long"


def _digests(folder: Path) -> dict[str, str]:
    names = (path for path in folder.rglob("*") if not OWN.match(path.relative_to(folder).as_posix()))
    return {str(path.relative_to(folder)): _digest(path) for path in names}


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest() if path.is_file() else "folder"


def _changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [f"changed {name}" for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]


def _stand_guard(folder: Path, report: int, own: re.Pattern) -> None:
    """Reports what the process must not do; decoders are forks of it, which the guard holds for, too."""
    context = workers.multiprocessing.get_context("fork")
    context.set_forkserver_preload = lambda _modules: None
    workers.multiprocessing.get_context = lambda _method: context

    def tell(what: str) -> None:
        os.write(report, f"{what}\n".encode(errors="replace"))

    sys.addaudithook(lambda event, arguments: _judge(event, arguments, (folder, own), tell))


def _judge(event: str, arguments: tuple, where: Where, tell: Callable[[str], None]) -> None:
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, str | bytes | os.PathLike) and (set(mode or "") & set("wax+") or (flags or 0) & WRITES):
            _judge_place(event, path, where, tell)
    elif event in CHANGES:
        paths = {"os.rename": arguments[:2], "os.link": arguments[1:2]}.get(event, arguments[:1])
        for path, place in zip(paths, arguments[-len(paths) :], strict=True):
            if isinstance(path, str | bytes | os.PathLike):
                above = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) and place >= 0 else ""
                _judge_place(event, os.path.join(above, os.fsdecode(path)), where, tell)
    elif event in ("os.symlink", "os.truncate"):
        _judge_place(event, arguments[event == "os.symlink"], where, tell)
    elif event in STARTS:
        program = os.path.basename(str(arguments[0]))
        if program not in KNOWN_PROGRAMS:
            tell(f"starts {program}")
    elif event == "socket.getaddrinfo" or (event == "socket.connect" and arguments[0].family != socket.AF_UNIX):
        tell(f"{event} {arguments[1:] if event == 'socket.connect' else arguments[:2]}")


def _judge_place(event: str, path: str | bytes | os.PathLike, where: Where, tell: Callable[[str], None]) -> None:
    folder, own = where
    place = os.path.realpath(os.fsdecode(path))
    inside = os.path.relpath(place, os.path.realpath(folder))
    there = event == "os.mkdir" and os.path.isdir(place)  # which changes nothing
    if not place.startswith("/dev/") and (inside.startswith("../") or not own.match(inside)) and not there:
        tell(f"{event} {place}")


@contextmanager
def copied(world: Path, names: tuple[str, ...], place: Path) -> Iterator[Path]:
    """Copies parts of a project for one trial, and removes them."""
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        if (world / name).is_dir():
            shutil.copytree(world / name, place / name)
        else:
            shutil.copy(world / name, place / name)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)

"""Inputs that were damaged at random, and the command line run on them under guard: what must never happen, is noticed.

A trial copies a small project, changes files in it, and runs one command in a fork. Its faults are a traceback, another
exit code than allowed, several lines of error, a hang, a changed input, a file written elsewhere, and a network access.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import socket
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
ALLOWED_CODES = (0, 2, 3)
# What a command may write besides its output: caches and checkpoints, beside what they are of.
OWN = re.compile(
    r"(out|checkpoints|features|mlflow-unsent)(/|$)|(.*/)?\.{1,2}manifest\.arrow[^/]*$|.*\.lock$|show-.*\.png|.*/lock$"
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.chmod"}
STARTS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen"}
KNOWN_PROGRAMS = {"git", "nvidia-smi", "lscpu"}


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code (minus a signal's number), what it printed, and what it must not do."""

    code: int
    shown: str
    faults: list[str] = field(default_factory=list)


def bytes_changed(content: bytes, draws: random.Random) -> bytes:
    """Returns content with one to eight changes: bits, runs, lengths, pieces that are gone, doubled or swapped."""
    changed = bytearray(content)
    for _ in range(draws.choice((1, 1, 1, 2, 4, 8))):
        draws.choice(_BYTES)(changed, draws)
    return bytes(changed)


def _span(content: bytearray, draws: random.Random, longest: int = 4096) -> tuple[int, int]:
    start = _place(content, draws)
    return start, start + draws.randint(1, min(longest, max(len(content) // 4, 1)))


def _place(content: bytearray, draws: random.Random) -> int:
    """Draws a position; half of them in the first bytes or the last, where headers are."""
    size, near = len(content), min(len(content), 512)
    return draws.choice((draws.randint(0, size), draws.randint(0, size), draws.randint(0, near), size - near // 2))


def _flip(content: bytearray, draws: random.Random) -> None:
    for _ in range(draws.choice((1, 1, 10, 100)) if content else 0):
        content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)


def _cut(content: bytearray, draws: random.Random) -> None:
    del content[_place(content, draws) :]


def _remove(content: bytearray, draws: random.Random) -> None:
    start, end = _span(content, draws)
    del content[start:end]


def _insert(content: bytearray, draws: random.Random) -> None:
    place = _place(content, draws)
    content[place:place] = draws.randbytes(draws.choice((1, 4, 100, 5000)))


def _fill(content: bytearray, draws: random.Random) -> None:
    start, end = _span(content, draws)
    content[start:end] = draws.choice((b"\0", b"\xff", b"\x7f", b"A")) * (end - start)


def _double(content: bytearray, draws: random.Random) -> None:
    start, end = _span(content, draws, 1 << 16)
    content[end:end] = content[start:end] * draws.choice((1, 1, 7))


def _swap(content: bytearray, draws: random.Random) -> None:
    (a, b), (c, d) = sorted((_span(content, draws), _span(content, draws)))
    if b <= c:
        content[a:d] = content[c:d] + content[b:c] + content[a:b]


def _extreme(content: bytearray, draws: random.Random) -> None:
    """Sets what may be a length or a count to an extreme."""
    size = draws.choice((1, 2, 4, 8))
    number = draws.choice((0, 1, -1, 1 << 8 * size - 1, (1 << 8 * size - 1) - 1, len(content), 255))
    place = _place(content, draws)
    packed = (number % (1 << 8 * size)).to_bytes(size, draws.choice(("big", "little")))
    content[place : place + size] = packed


_BYTES = (_flip, _flip, _cut, _remove, _insert, _fill, _double, _swap, _extreme, _extreme)

_ODD = (
    *("", " ", "-1", "0", "1", "1e999", "-1e-999", "nan", "inf", "-.inf", "9" * 40, "1e3", "0x10", "1_000", "true"),
    *("null", "~", "[]", "{}", "[[[]]]", "''", '"', "'", ":", ",", ";", "#", "&a", "*a", "<<: *a", "!!python/name:os"),
    *("\0", "\x1b[31m", "\ufeff", "\u202e", "\ud7ff", "é", "e\u0301", "🎥", "\n", "\t", "\r\n", "---", "...", "|", ">"),
    *("../../x", "/etc/passwd", "a" * 5000, "=1+1", "%s%n", "${HOME}", "2026-01-01", "12:30", "yes", "-", "? x"),
)
_TOKEN = re.compile(r"[\w.+-]+|[^\w\s]")


def text_changed(content: str, draws: random.Random) -> str:
    """Returns text with one to four changes: words, lines, nesting, odd characters and numbers."""
    for _ in range(draws.choice((1, 1, 2, 4))):
        content = draws.choice(_TEXTS)(content, draws)
    return content


def _word(content: str, draws: random.Random) -> str:
    found = list(_TOKEN.finditer(content))
    if not found:
        return draws.choice(_ODD)
    one = draws.choice(found)
    by = draws.choice((draws.choice(_ODD), draws.choice(found).group()))
    return content[: one.start()] + by + content[one.end() :]


def _line(content: str, draws: random.Random) -> str:
    lines = content.splitlines(keepends=True) or [""]
    place, other = draws.randrange(len(lines)), draws.choice(lines)
    change = draws.choice(("drop", "double", "move", "indent", "odd"))
    if change == "drop":
        del lines[place]
    elif change == "indent":
        lines[place] = draws.choice((" ", "  ", "\t", "- ")) + lines[place]
    else:
        lines.insert(place, {"double": lines[place], "move": other}.get(change, draws.choice(_ODD) + "\n"))
    return "".join(lines)


def _character(content: str, draws: random.Random) -> str:
    place = draws.randint(0, len(content))
    return content[:place] + draws.choice(_ODD) + content[place + draws.choice((0, 1, 1, 20)) :]


def _nest(content: str, draws: random.Random) -> str:
    one = draws.choice(list(_TOKEN.finditer(content)) or [re.match("", content)])
    left, right = draws.choice((("[", "]"), ('{"a":', "}"), ("(", ")")))
    depth = draws.choice((1, 30, 3000, 100_000))
    return content[: one.start()] + left * depth + one.group() + right * depth + content[one.end() :]


def _end(content: str, draws: random.Random) -> str:
    return content[: draws.randint(0, len(content))]


_TEXTS = (_word, _word, _word, _word, _line, _line, _character, _nest, _end)


def run(arguments: list[str], folder: Path, codes: tuple[int, ...] = ALLOWED_CODES) -> Outcome:
    """Runs a command of xkd in a folder, as a fork with guards."""
    log, trespasses = folder.with_suffix(".log"), folder.with_suffix(".guard")
    before = _digests(folder)
    with trespasses.open("w") as guard:

        def command() -> None:
            os.chdir(folder)
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
            _stand_guard(folder, guard.fileno())
            sys.argv = ["xkd", *arguments]
            cli.main()

        code, hung = _awaited(fork(command, log), SECONDS)
    shown = log.read_text(errors="replace") if log.exists() else ""
    faults = list(_faults_of(code, hung, shown, codes)) + _changes(before, _digests(folder))
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


def _stand_guard(folder: Path, report: int) -> None:
    """Reports what the process must not do; decoders are forks of it, which the guard holds for, too."""
    context = workers.multiprocessing.get_context("fork")
    context.set_forkserver_preload = lambda _modules: None
    workers.multiprocessing.get_context = lambda _method: context

    def tell(what: str) -> None:
        os.write(report, f"{what}\n".encode(errors="replace"))

    sys.addaudithook(lambda event, arguments: _judge(event, arguments, folder, tell))


def _judge(event: str, arguments: tuple, folder: Path, tell: Callable[[str], None]) -> None:
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, str | bytes | os.PathLike) and (set(mode or "") & set("wax+") or (flags or 0) & WRITES):
            _judge_place(event, path, folder, tell)
    elif event in CHANGES:
        paths = {"os.rename": arguments[:2], "os.link": arguments[1:2]}.get(event, arguments[:1])
        for path, place in zip(paths, arguments[-len(paths) :], strict=True):
            if isinstance(path, str | bytes | os.PathLike):
                above = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) and place >= 0 else ""
                _judge_place(event, os.path.join(above, os.fsdecode(path)), folder, tell)
    elif event in ("os.symlink", "os.truncate"):
        _judge_place(event, arguments[event == "os.symlink"], folder, tell)
    elif event in STARTS:
        program = os.path.basename(str(arguments[0]))
        if program not in KNOWN_PROGRAMS:
            tell(f"starts {program}")
    elif event == "socket.getaddrinfo" or (event == "socket.connect" and arguments[0].family != socket.AF_UNIX):
        tell(f"{event} {arguments[1:] if event == 'socket.connect' else arguments[:2]}")


def _judge_place(event: str, path: str | bytes | os.PathLike, folder: Path, tell: Callable[[str], None]) -> None:
    place = os.path.realpath(os.fsdecode(path))
    inside = os.path.relpath(place, os.path.realpath(folder))
    there = event == "os.mkdir" and os.path.isdir(place)  # which changes nothing
    if not place.startswith("/dev/") and not OWN.match(inside) and not there:
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

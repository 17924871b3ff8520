"""Kills pretraining at random moments, lets it go on, and compares its weights with those of undisturbed runs.

    python -m benchmarks.kills 200

Runs are those of the miniature on a few clips, with a checkpoint at every step. A trial is a SIGKILL and a second
start. It passes if the weights are equal to the last bit, no temporary file or checkpoint is left, and no process of
the first start is alive after a minute. Processes are forks of this one, which has imported torch already. Kinds:

- alone: one process without loader processes.
- workers: one process with two loader processes.
- ranks: one of two processes that torchrun started.
- launcher: torchrun itself.
- export: one process while it writes the files of its run.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import psutil
import yaml
from rich.console import Console
from rich.table import Table
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from xkd import cli, fingerprint
from xkd.params import load
from xkd.stages import download, prepare, pretrain
from xkd.training.loop import Trainer

MINIATURE = Path("workflow/presets/miniature.yaml").resolve()
KINDS = ("alone", "workers", "ranks", "launcher", "export")
BY_TORCHRUN = ("ranks", "launcher")
STEPS = 10
ALIVE_SECONDS = 60.0
PR_SET_PDEATHSIG = 1  # of prctl(2); torch.multiprocessing sets it, torchrun does not
CHECKPOINTS = Path("checkpoints/miniature/xkd/seed0")


def settings(workers: int) -> Path:
    """Writes settings of two epochs of five steps, beside the clips."""
    path = Path(f"workers{workers}.yaml")
    training = {"epochs": 2, "batch_size": 4, "checkpoint_minutes": 1e-6, "workers": workers}
    datasets = {"miniature": {"train_clips": 20, "test_clips": 4}}
    path.write_text(yaml.safe_dump({"extends": str(MINIATURE), "training": training, "datasets": datasets}))
    return path


def train(workers: int, out: str, reached: Path) -> None:
    """Trains in this process as the command does; `reached` grows by a byte for each step and for the export."""
    take, write = Trainer.take_step, pretrain._write

    def noted() -> None:
        with reached.open("ab") as file:
            file.write(b".")

    def take_step(*arguments: object) -> None:
        noted()
        take(*arguments)  # type: ignore[arg-type]

    def write_files(*arguments: object) -> None:
        noted()
        write(*arguments)  # type: ignore[arg-type]

    Trainer.take_step, pretrain._write = take_step, write_files  # type: ignore[method-assign, assignment]
    sys.argv = ["xkd", "pretrain", "--params", f"workers{workers}.yaml", "--manifest", "data/manifest.csv"]
    sys.argv += ["--ablation", "xkd", "--seed", "0", "--out", out]
    try:
        cli.main()
    except SystemExit as error:  # torchrun's functions must return
        if error.code:
            raise


def by_torchrun(out: str, reached: Path) -> None:
    """Trains in two processes, as `torchrun --nproc-per-node 2` starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    logs = DefaultLogsSpecs(log_dir=tempfile.mkdtemp(dir="."), redirects=Std.ALL)
    place = {"rdzv_backend": "c10d", "rdzv_endpoint": endpoint, "local_addr": "127.0.0.1"}
    config = LaunchConfig(1, 1, 2, run_id=out, max_restarts=0, start_method="fork", logs_specs=logs, **place)
    elastic_launch(config, train_alone)(0, out, reached)


def train_alone(workers: int, out: str, reached: Path) -> None:
    """Trains as a process of torchrun's command line does: nothing ends it with its parent but xkd itself.

    Without the parent a step never ends, as one of a large network, so that the end of a short training hides nothing.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0)
    take, parent = Trainer.take_step, os.getppid()

    def take_step(*arguments: object) -> None:
        take(*arguments)  # type: ignore[arg-type]
        while os.getppid() != parent:
            time.sleep(0.1)

    Trainer.take_step = take_step  # type: ignore[method-assign, assignment]
    train(workers, out, reached)


def start(kind: str, out: str, reached: Path) -> int:
    """Starts a run of a kind in a fork; returns its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        handle = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        if kind in BY_TORCHRUN:
            by_torchrun(out, reached)
        else:
            train(2 if kind == "workers" else 0, out, reached)
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os._exit(code)


def code_of(child: int) -> int:
    """Waits for a process; returns its exit code, or minus the number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for(true: Callable[[], bool], seconds: float) -> bool:
    """Waits until a condition holds, at most for that long; returns whether it does."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)
    return true()


def killed(kind: str, out: str, draws: random.Random) -> list[psutil.Process]:
    """Starts a run, kills one of its processes at a random moment, and returns those that were alive then."""
    reached = Path(f"{out}.reached")
    reached.touch()
    ranks = 2 if kind in BY_TORCHRUN else 1
    child = start(kind, out, reached)
    after = ranks * STEPS + 1 if kind == "export" else ranks * draws.randint(1, STEPS)
    wait_for(lambda: reached.stat().st_size >= after or not psutil.pid_exists(child), 300)
    time.sleep(draws.uniform(0, 0.5 if kind == "export" else 0.1))
    processes = [psutil.Process(child), *psutil.Process(child).children(recursive=True)]
    victim = processes[0]
    if kind == "ranks":
        victim = draws.choice(psutil.Process(child).children() or processes[:1])
    victim.kill()
    code_of(child)
    return processes


def trial(kind: str, number: int, draws: random.Random, wanted: dict[str, bytes]) -> tuple[list[str], float]:
    """Returns what is wrong after a kill and a second start, and how long a process of the first one was alive."""
    out = f"{kind}{number}"
    shutil.rmtree(CHECKPOINTS, ignore_errors=True)
    processes, began = killed(kind, out, draws), time.monotonic()
    _, alive = psutil.wait_procs(processes, timeout=ALIVE_SECONDS)
    seconds = time.monotonic() - began
    wrong = [f"alive: {process.pid}" for process in alive]
    for process in alive:
        process.kill()
    if code := code_of(start(kind, out, Path(f"{out}.reached"))):
        wrong.append(f"the second start ended with {code}")
    if weights(out) != wanted:
        wrong.append("other weights")
    wrong += [f"left behind: {path}" for path in left_behind(out)]
    if not wrong:
        shutil.rmtree(out)
    return wrong, seconds


def weights(out: str) -> dict[str, bytes]:
    """Returns the files of a run's weights."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(Path(out).rglob("*.safetensors"))}


def left_behind(out: str) -> Iterator[Path]:
    """Yields temporary files of a run, and checkpoints."""
    for folder in (Path(out), CHECKPOINTS):
        yield from (path for path in folder.rglob("*") if path.suffix in (".part", ".pt"))


@click.command()
@click.argument("kills", type=click.IntRange(min=1))
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, default=KINDS, help="By default, all.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
def main(kills: int, kinds: tuple[str, ...], seed: int) -> None:
    """Kills KILLS runs, as many of each kind, and prints how many ended as if nothing had been."""
    os.environ.update(XKD_TRACKING="off", OMP_NUM_THREADS="1")
    os.environ.pop("XKD_PARAMS", None)
    table = Table("kind", "kills", "passed", "longest alive, s")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        settings(2)
        params = load(settings(0))
        download.run(params, "miniature", Path("data/raw"))
        prepare.run(params, Path("data/raw/index.csv"), Path("data"))
        fingerprint.stage("pretrain")  # once, for all forks
        for kind in kinds:
            assert code_of(start(kind, f"{kind}-peace", Path("reached"))) == 0, Path("log.txt").read_text()[-2000:]
            wanted, draws, longest, passed = weights(f"{kind}-peace"), random.Random(f"{seed} {kind}"), 0.0, 0
            count = kills // len(kinds) + (kinds.index(kind) < kills % len(kinds))
            for number in range(count):
                wrong, seconds = trial(kind, number, draws, wanted)
                passed, longest = passed + (not wrong), max(longest, seconds)
                if wrong:
                    print(f"{kind} {number}: {'; '.join(wrong)}", file=sys.stderr, flush=True)
            table.add_row(kind, str(count), str(passed), f"{longest:.1f}")
            failed += count - passed
        os.chdir("/")
    Console().print(table)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

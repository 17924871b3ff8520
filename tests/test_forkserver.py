"""Commands that a server runs as forks: they end, write and obey as in processes of their own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from xkd import forkserver

ROOT = Path(__file__).parents[1]
STARTER = """\
import os, signal, sys
from xkd import forkserver
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
forkserver.start()
print(os.environ[forkserver.ADDRESS], flush=True)
sys.stdin.read()
"""
PLUGIN = """\
import os, time
from pathlib import Path
print("from the plugin")
Path(os.environ["TOLD"]).write_text(f"{os.getpid()} {os.getppid()} {os.getcwd()}")
time.sleep(float(os.environ["SLEEPS"]))
raise SystemExit(0)
"""
MANIFEST = ("--manifest", "manifest.csv", "--ablation", "xkd", "--seed", "0", "--out", "run")


class Server:
    """A process that has started a server, as Snakemake does."""

    def __init__(self):
        environment = {name: value for name, value in os.environ.items() if name != forkserver.ADDRESS}
        environment["PYTHONPATH"] = str(ROOT)
        self.starter = subprocess.Popen(
            [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.address = Path(self.starter.stdout.readline().strip())
        self.process = psutil.Process(self.starter.pid).children()[0]

    def command(self, folder, *arguments, sleeps=0, threads="1"):
        """Starts a command in a folder with settings whose plugin tells which process runs it."""
        (folder / "plugin.py").write_text(PLUGIN)
        settings = {"extends": str(ROOT / "workflow" / "presets" / "miniature.yaml"), "plugins": ["plugin.py"]}
        (folder / "params.yaml").write_text(yaml.safe_dump(settings))
        own = {"TOLD": str(folder / "told.txt"), "SLEEPS": str(sleeps), "PYTHONPATH": str(ROOT)}
        environment = {**os.environ, forkserver.ADDRESS: str(self.address), "OMP_NUM_THREADS": threads, **own}
        return subprocess.Popen(
            [sys.executable, "-m", "xkd", *(arguments or ("pretrain", "--params", "params.yaml", *MANIFEST))],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self):
        self.starter.communicate("")
        self.process.wait(30)


def told(folder):
    """Waits for what the plugin tells: process, parent, folder."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        words = (folder / "told.txt").read_text().split() if (folder / "told.txt").exists() else []
        if len(words) == 3:
            return int(words[0]), int(words[1]), words[2]
        time.sleep(0.01)
    raise AssertionError("the command did not start")


def gone(pid):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture(scope="module")
def server():
    one = Server()
    yield one
    one.end()


def test_a_command_runs_in_a_fork_with_its_own_folder_environment_and_output(server, tmp_path):
    command = server.command(tmp_path)
    output, errors = command.communicate(timeout=60)
    process, parent, folder = told(tmp_path)
    assert (command.returncode, parent, folder) == (0, server.process.pid, str(tmp_path))
    assert process != command.pid
    assert (output, errors) == ("from the plugin\n", "")


def test_a_mistake_ends_with_one_line_and_its_code(server, tmp_path):
    command = server.command(tmp_path, "pretrain", "--params", "nowhere.yaml", *MANIFEST)
    _, errors = command.communicate(timeout=60)
    assert command.returncode == 2
    assert errors.startswith("xkd: error: nowhere.yaml")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_reach_the_command(server, tmp_path, number, code):
    command = server.command(tmp_path, sleeps=60)
    process, *_ = told(tmp_path)
    command.send_signal(number)
    assert command.wait(20) == code
    assert gone(process)


def test_a_command_is_killed_with_the_process_that_waits_for_it(server, tmp_path):
    command = server.command(tmp_path, sleeps=60)
    process, *_ = told(tmp_path)
    command.kill()
    assert command.wait(20) == -signal.SIGKILL
    assert gone(process)


def test_who_waits_for_a_command_that_is_killed_ends_alike(server, tmp_path):
    command = server.command(tmp_path, sleeps=60)
    process, *_ = told(tmp_path)
    os.kill(process, signal.SIGKILL)
    assert command.wait(20) == -signal.SIGKILL


def test_commands_with_other_threads_run_in_their_own_process(server, tmp_path):
    command = server.command(tmp_path, threads="2")
    command.communicate(timeout=60)
    assert told(tmp_path)[:2] == (command.pid, os.getpid())


def test_verbs_that_snakemake_samples_run_in_their_own_process(server, tmp_path):
    command = server.command(tmp_path, "plan", "--params", "params.yaml")
    command.communicate(timeout=60)
    assert told(tmp_path)[0] == command.pid


def test_commands_run_without_a_server_that_is_gone(tmp_path):
    one = Server()
    command = one.command(tmp_path, sleeps=60)
    process, *_ = told(tmp_path)
    one.process.kill()
    assert command.wait(20) == 1
    os.kill(process, signal.SIGKILL)
    assert command.communicate()[1] == "xkd: error: the process that ran this command is gone\n"
    (tmp_path / "told.txt").unlink()
    command = one.command(tmp_path)
    command.communicate(timeout=60)
    assert (command.returncode, told(tmp_path)[0]) == (0, command.pid)
    one.starter.communicate("")
    shutil.rmtree(one.address.parent)


def test_a_server_ends_with_its_starter_once_its_commands_have_ended(tmp_path):
    one = Server()
    command = one.command(tmp_path, sleeps=1)
    told(tmp_path)
    one.starter.kill()
    command.communicate(timeout=60)
    assert command.returncode == 0
    one.process.wait(20)
    assert not one.address.parent.exists()

"""A copy of the project with the miniature's settings, for running the engines in."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dvc.repo  # noqa: F401 (once, for all forks; so is networkx)
import networkx  # noqa: F401
import yaml
from dvc.cli import main as dvc_main
from forks import code_of, fork, own_streams
from warm_snakemake import run_snakemake, warm_snakemake

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SNAKEMAKE = ("snakemake", "--cores", "2", "--show-failed-logs")
PARTS = ("Snakefile", "workflow", "dvc.yaml", ".dvcignore", "environment.yml", "xkd")


class Project:
    """Args: folder to copy into; `standins`: replace the stages by quick ones that note each job."""

    MINIATURE = ROOT / "workflow" / "presets" / "miniature.yaml"

    def __init__(self, root: Path, standins: bool) -> None:
        self.root = root
        root.mkdir()
        for name in PARTS:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, root / name)
        (root / ".dvc").mkdir()
        shutil.copy(ROOT / ".dvc" / "config", root / ".dvc" / "config")
        self.write(self.settings(self.MINIATURE) | {"results": "results"})
        path = [str(root), *([str(Path(__file__).parent / "standins")] if standins else [])]
        self.env = os.environ | {
            "PYTHONPATH": os.pathsep.join(path),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
        }
        if standins:
            self.env["XKD_FORKSERVER"] = ""  # they load nothing that a server would load for them
        # Compiled files in the package must not look like changed code.
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)

    def settings(self, path: Path | None = None) -> dict:
        return yaml.safe_load((path or self.root / "params.yaml").read_text())

    def write(self, settings: dict) -> None:
        (self.root / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.root / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def call(self, *command: str, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command, cwd=self.root, env=self.env | env, capture_output=True, text=True, timeout=600, check=False
        )

    def snakemake(self, *arguments: str, **env: str) -> subprocess.CompletedProcess:
        """Calls Snakemake in a fork of this process, which has imported it; the project's own code is imported anew."""
        return self._forked(partial(run_snakemake, [*SNAKEMAKE[1:], *arguments], self.root), env)

    def dvc(self, *arguments: str) -> subprocess.CompletedProcess:
        """Calls `dvc repro` in a fork, whose commands call Snakemake in forks."""
        with warm_snakemake(self.env["PATH"]) as env:
            return self._forked(partial(_dvc, ["repro", *arguments], self.root), env)

    def _forked(self, function: Callable[[], None], env: dict[str, str]) -> subprocess.CompletedProcess:
        out, err = (self.root.with_name(f"engine.{stream}") for stream in ("out", "err"))
        for log in (out, err):
            log.write_text("")
        code = code_of(fork(partial(_with_errors, function, err), out, self.env | env))
        return subprocess.CompletedProcess(str(function), code, out.read_text(), err.read_text())

    def planned(self, **env: str) -> list[str]:
        """The jobs that Snakemake would run now, named as the stand-ins note them."""
        done = self.snakemake("--dry-run", **env)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        jobs = set()
        for rule, details in re.findall(r"rule (\w+):\n((?:    .*\n)+)", said):
            found = dict(re.findall(r"\b(ablation|seed|task)=(\w+)", details.partition("wildcards:")[2]))
            if rule == "evaluate":
                found["seed"] = f"seed{found['seed']}"
            jobs.add(" ".join([rule, *(found[key] for key in ("ablation", "seed", "task") if key in found)]))
        return sorted(jobs - {"all"})

    def run(self, engine: str, **env: str) -> list[str]:
        """Runs an engine to the end; returns the jobs that the stand-ins noted, in order of their names."""
        (self.root / "executed.txt").unlink(missing_ok=True)
        done = self.snakemake(**env) if engine == "snakemake" else self.dvc()
        assert done.returncode == 0, done.stdout + done.stderr
        executed = self.root / "executed.txt"
        return sorted(executed.read_text().splitlines()) if executed.exists() else []


def _with_errors(function: Callable[[], None], err: Path) -> None:
    os.dup2(os.open(err, os.O_WRONLY | os.O_APPEND), 2)
    own_streams()
    function()


def _dvc(words: list[str], root: Path) -> None:
    os.chdir(root)
    sys.exit(dvc_main(words))


def one_seed(root: Path) -> Project:
    """The miniature with its real stages and a single seed."""
    project = Project(root, standins=False)
    project.write(project.settings() | {"seeds": [0]})
    return project


def row_of(ablation: str, seeds=(0, 1), finetune: bool = False) -> list[str]:
    """The jobs of one row of the table."""
    protocols = ["linear", "finetune"] if finetune else ["linear"]
    pretrainings = [f"pretrain {ablation} {seed}" for seed in seeds]
    return pretrainings + [f"evaluate {ablation} seed{seed} {protocol}" for seed in seeds for protocol in protocols]

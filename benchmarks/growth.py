r"""How the stages that touch no clip grow: `snakemake -n`, `prepare` without decoding, `table`. Processor seconds.

    OMP_NUM_THREADS=1 python -m benchmarks.growth plan        # 13 x 3, 25 x 5, 50 x 10 rows and seeds
    OMP_NUM_THREADS=1 python -m benchmarks.growth prepare   # 10,000, 20,000, 40,000 clips, none of them decoded
    OMP_NUM_THREADS=1 python -m benchmarks.growth report      # 12, 24, 48 runs, copies of one

Beside each size stands what one job, clip or run more costs: (seconds - those of the size before) / (how many more).
Manifests, first batches and memory: `benchmarks.manifest`. Probes, kNN, retrieval, metrics: `benchmarks.probes`.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import click
import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table

from xkd import params
from xkd.data.transcode import Prepared
from xkd.stages import download, evaluate, prepare, pretrain, table

ROOT = Path(__file__).parents[1]
MINIATURE = ROOT / "workflow" / "presets" / "miniature.yaml"
Line = tuple[str, int, float]  # what was measured, how many of them, seconds


@click.command()
@click.argument("what", type=click.Choice(["plan", "prepare", "report"]))
def main(what: str) -> None:
    """Prints a line for each size."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        lines = list({"plan": plans, "prepare": preparations, "report": reports}[what]())
    shown = Table("size", "n", "s", "ratio", "ms each, more")
    for number, (name, count, seconds) in enumerate(lines):
        _, fewer, before = lines[number - 1] if number else ("", 0, 0.0)
        growth = (
            (f"{seconds / before:.2f}", f"{1000 * (seconds - before) / (count - fewer):.2f}") if number else ("", "")
        )
        shown.add_row(name, f"{count:,}", f"{seconds:.2f}", *growth)
    Console(width=100).print(shown)


def plans() -> Iterator[Line]:
    """Plans all jobs of tables with ever more rows and seeds."""
    for name in ("Snakefile", "workflow", "environment.yml"):
        Path(name).symlink_to(ROOT / name)
    for rows, seeds in ((13, 3), (25, 5), (50, 10)):
        settings = {
            "extends": str(ROOT / "params.yaml"),
            "seeds": list(range(seeds)),
            "ablations": more_rows(rows - 13),
        }
        Path("many.yaml").write_text(yaml.safe_dump(settings))
        said, seconds = measured(plan)
        jobs = next(int(line.split()[1]) for line in said.splitlines() if line.startswith("total"))
        yield f"{rows} rows x {seeds} seeds", jobs, seconds


def plan() -> str:
    """Runs `snakemake -n` as users do."""
    command = [Path(sys.executable).with_name("snakemake"), "--cores", "1", "--dry-run", "--quiet", "rules"]
    environment = os.environ | {"XKD_PARAMS": "many.yaml", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stdout + done.stderr)
    return done.stdout + done.stderr


def more_rows(count: int) -> dict[str, Any]:
    """Returns rows for the settings that differ from all others."""
    changes = [{"objective": {"alignment": 1 + n / 100}} for n in range(1, count + 1)]
    return {f"row{n}": {"hypothesis": "None.", "changes": change} for n, change in enumerate(changes)}


def preparations() -> Iterator[Line]:
    """Prepares lists of ever more clips whose decoding takes no time."""
    prepare.run_guarded = lambda function, tasks, *_: map(made_up, tasks)
    settings = params.load(MINIATURE)
    settings = settings.model_copy(update={"clips": settings.clips.model_copy(update={"pack": False})})
    for clips in (10_000, 20_000, 40_000):
        Path("raw").mkdir(exist_ok=True)
        rows = {"id": [f"clip{n}" for n in range(clips)], "path": [f"{n}.mp4" for n in range(clips)]}
        listed = pd.DataFrame(rows).assign(split="train", label="a")
        listed.to_csv("raw/index.csv", index=False)
        _, seconds = measured(lambda clips=clips: prepare.run(settings, Path("raw/index.csv"), Path(f"out{clips}")))
        yield "clips, first call", clips, seconds


def made_up(task: tuple[Any, ...]) -> Prepared:
    """Returns what is said of a clip, without reading it."""
    name = Path(task[1]).name
    facts = {"status": "ok", "reason": "", "seconds": 1.0, "fps": 8.0, "width": 32, "height": 32, "sample_rate": 16000}
    return Prepared(facts | {"has_video": True, "has_audio": True, "digest": "0" * 16, "path": f"{name}.mp4"})


def reports() -> Iterator[Line]:
    """Makes tables and pages of ever more runs, copies of one that is trained first."""
    settings = yaml.safe_load(MINIATURE.read_text()) | {"seeds": [0], "tasks": {"linear": {"protocol": "linear"}}}
    run, evals = Path("runs/miniature/xkd/seed0"), Path("evals/miniature/xkd/seed0")
    os.environ["XKD_TRACKING"] = "off"
    _train(settings, run, evals)
    for rows, seeds in ((4, 3), (4, 6), (8, 6)):
        names = [f"row{n}" for n in range(rows)]
        for name in names:
            for seed in range(seeds):
                for one in (run, evals):
                    place = one.parent.parent / name / f"seed{seed}"
                    shutil.copytree(one, place, dirs_exist_ok=True)
        changed = {"ablations": dict.fromkeys(names, {"hypothesis": "None."}), "report": {"baseline": names[0]}}
        Path("params.yaml").write_text(yaml.safe_dump(settings | changed | {"seeds": list(range(seeds))}))
        asked = params.load("params.yaml")
        _, seconds = measured(lambda asked=asked: table.run(asked, Path("results")))
        yield f"{rows} rows x {seeds} seeds", rows * seeds, seconds


def _train(settings: dict[str, Any], run: Path, evals: Path) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    asked, data = params.load("params.yaml"), Path("data/miniature")
    download.run(asked, "miniature", data / "raw")
    prepare.run(asked, data / "raw" / "index.csv", data)
    pretrain.run(asked, data / "manifest.csv", "xkd", 0, run)
    evaluate.run(asked, data / "manifest.csv", run, "linear", evals / "linear.json")


def measured(work: Callable[[], Any]) -> tuple[Any, float]:
    """Returns what a call returns, and its processor seconds with those of its children."""
    before = _seconds()
    found = work()
    return found, _seconds() - before


def _seconds() -> float:
    used: Iterable[resource.struct_rusage] = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()

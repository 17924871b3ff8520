"""Where the time of `make table` goes: wall and processor seconds of its parts, from what the jobs recorded.

    python -m benchmarks.table                                     # reads the records of the last `make table`
    python -m benchmarks.table --run                               # calls Snakemake first, and measures all of it
    python -m benchmarks.table --params workflow/presets/miniature.yaml
    python -m benchmarks.table --estimate 16 --estimate 64         # the same jobs on more cores

Trainings and evaluations count their own time (`xkd.spent`). Of the other jobs Snakemake takes samples, at first two a
second, later two a minute, so that their processor time is a lower bound. What Snakemake itself and the shells of its
jobs take is known with `--run` alone. An estimate for other cores schedules the recorded jobs as Snakemake would,
trainings first and evaluations once their run is there; it assumes cores that are as fast, and one for each job.
"""

from __future__ import annotations

import heapq
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click
import pandas as pd
from rich.console import Console
from rich.table import Table

from xkd import params, runs
from xkd.files import read_json
from xkd.runs import evaluations
from xkd.settings import Params

LOGS = Path("logs")


@dataclass(frozen=True)
class Job:
    """What one job of Snakemake took, in seconds.

    Attributes:
        wall: from its start to its end.
        processor: of all its processes; None where nothing says so.
        work: of these, for what the job is for.
    """

    wall: float
    processor: float | None
    work: float | None = None


@click.command()
@click.option("--params", "settings", default=Path("params.yaml"), type=click.Path(path_type=Path), show_default=True)
@click.option("--run", is_flag=True, help="Call `snakemake` first; run it on an empty checkout to measure everything.")
@click.option("--cores", default="all", show_default=True, help="Of Snakemake.")
@click.option("--estimate", "others", type=int, multiple=True, help="Also estimate the wall time on that many cores.")
def main(settings: Path, run: bool, cores: str, others: tuple[int, ...]) -> None:
    """Prints jobs, wall seconds and processor seconds of each part."""
    whole = _run(settings, cores) if run else None
    parts = jobs_of(params.load(settings))
    table = Table("part", "jobs", "wall s", "processor s", title=str(settings))
    for name, jobs in parts.items():
        if name in ("trainings", "evaluations"):
            table.add_row(name, str(len(jobs)), "", _sum(job.work for job in jobs))
        else:
            table.add_row(name, str(len(jobs)), *_taken(jobs))
    started = [*parts["trainings"], *parts["evaluations"]]
    ends = [None if job.work is None else (job.processor or 0) - job.work for job in started]
    table.add_row("start and end of both", str(len(started)), "", _sum(ends))
    table.add_row("both, whole", str(len(started)), *_taken(started))
    every = [job for jobs in parts.values() for job in jobs]
    table.add_row("all jobs", str(len(every)), *_taken(every), end_section=True)
    if whole:
        engine = whole.processor - sum(job.processor or 0 for job in every)
        table.add_row("Snakemake, shells, what samples miss", "", "", f"{engine:.0f}")
        table.add_row("from start to end", "", f"{whole.wall:.0f}", f"{whole.processor:.0f}")
    for count in others:
        before_and_after = sum(job.wall for job in (*parts["data"], *parts["table"]))
        seconds = before_and_after + scheduled(runs_of(params.load(settings)), count)
        table.add_row(f"estimate for {count} cores", "", f"{seconds:.0f}", "")
    Console().print(table)


def runs_of(settings: Params) -> list[tuple[Job, list[Job]]]:
    """Returns each training that was run here, in the order of the settings, and the evaluations of its run."""
    found = []
    for ablation in settings.ablations:
        for seed in settings.seeds:
            trained = _timed(runs.RUNS / runs.name_of(settings.dataset, ablation, seed) / runs.TIMES)
            folder = evaluations.folder_of(settings.dataset, ablation, seed)
            judged = [_timed(folder / f"{task}{evaluations.TIMES}") for task in params.tasks_of(settings, ablation)]
            if trained:
                found.append((trained, [job for job in judged if job]))
    return found


def scheduled(trainings: list[tuple[Job, list[Job]]], cores: int) -> float:
    """Returns the wall seconds of trainings and evaluations, with a core for each job and trainings first."""
    free, ready = [0.0] * cores, []
    for training, judged in trainings:
        end = heapq.heappop(free) + training.wall
        heapq.heappush(free, end)
        ready += [(end, job.wall) for job in judged]
    for since, wall in sorted(ready):
        heapq.heappush(free, max(heapq.heappop(free), since) + wall)
    return max(free)


def jobs_of(settings: Params) -> dict[str, list[Job]]:
    """Returns the jobs of each part of a table, as far as they were run here."""
    done = runs_of(settings)
    trained, judged = [training for training, _ in done], [job for _, jobs in done for job in jobs]
    data = [
        _sampled(LOGS / dataset / f"{stage}.benchmark.tsv")
        for dataset in params.datasets_in_use(settings)
        for stage in ("download", "prepare", "pack")
    ]
    table = [_sampled(LOGS / settings.dataset / "table.benchmark.tsv")]
    known = {name: [job for job in jobs if job] for name, jobs in (("data", data), ("table", table))}
    return {"data": known["data"], "trainings": trained, "evaluations": judged, "table": known["table"]}


def _timed(times: Path) -> Job | None:
    """Reads what a job recorded; None where it was not run, or by a version that did not record it."""
    found = read_json(times) if times.exists() else {}
    names = ("wall_seconds", "processor_seconds", "work_processor_seconds")
    return Job(*(found[name] for name in names)) if set(names) <= set(found) else None


def _sampled(samples: Path) -> Job | None:
    """Reads Snakemake's samples of a job; None where it was not run."""
    if not samples.exists():
        return None
    last = pd.read_csv(samples, sep="\t", na_values=["-"]).iloc[-1]
    return Job(float(last["s"]), None if pd.isna(last["cpu_time"]) else float(last["cpu_time"]))


def _run(settings: Path, cores: str) -> Job:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "snakemake", "--cores", cores, "--quiet", "all"]
    subprocess.run(command, check=True, env=os.environ | {"XKD_PARAMS": str(settings)})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Job(time.monotonic() - started, processor)


def _taken(jobs: list[Job]) -> tuple[str, str]:
    return f"{sum(job.wall for job in jobs):.0f}", _sum(job.processor for job in jobs)


def _sum(seconds: Iterable[float | None]) -> str:
    """Adds seconds, and tells how many are not known."""
    every = list(seconds)
    known = [one for one in every if one is not None]
    return f"{sum(known):.0f}" + (f", {len(every) - len(known)} unknown" if len(known) < len(every) else "")


if __name__ == "__main__":
    main()

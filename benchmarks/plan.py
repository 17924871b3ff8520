"""Compares the predictions of `xkd plan` with measured training steps: time and memory of runs that are new to it.

    python -m benchmarks.plan

Views and tokens are those of the paper, networks smaller. One run (the first) is measured to learn how many FLOP/s this
machine achieves. With that figure alone the plan predicts the time of runs that differ in ablation, batch, sharing,
depth, width and number of views; each is then measured, every run in a process of its own. Times are processor time per
step on one thread, which what else runs on the machine leaves alone; memory is the growth of the process's peak.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from xkd import params
from xkd.params import merge
from xkd.plan.arithmetic import step_flops
from xkd.plan.footprint import memory
from xkd.recipe import Recipe

PAPER, TINY = Path("workflow/presets/paper.yaml"), Path("workflow/presets/miniature.yaml")
SMALL = {"width": 256, "depth": 4, "heads": 4, "decoder": {"width": 128, "depth": 2, "heads": 2}}
# Ablation, batch, and what else differs from SMALL networks in float32.
RUNS: dict[str, tuple[str, int, dict]] = {
    "xkd, batch 4 (the known one)": ("xkd", 4, {}),
    "ae, batch 8": ("ae", 8, {}),
    "XKD-MATS, 8 blocks, batch 3": ("xkd_mats", 3, {"model": {"depth": 8}}),
    "XKD-MAS, 3 local views, batch 4": ("xkd_mas", 4, {}),
    "supervised, batch 4": ("supervised", 4, {}),
    "xkd, width 512, batch 3": ("xkd", 3, {"model": {"width": 512, "heads": 8}}),
}


@click.command()
@click.option("--steps", default=3, show_default=True, help="Measured steps of each run, after one of warming up.")
@click.option("--one", hidden=True, help="Name of a run: measure it in this process.")
def main(steps: int, one: str | None) -> None:
    """Prints predicted and measured seconds and bytes of each run."""
    if one:
        print(json.dumps(_measure(recipe_of(*RUNS[one]), steps)))
        return
    table = Table(
        "run", "GFLOP", "s, plan", "s, measured", "ratio", "MB, plan", "MB, measured", "ratio", title="per step"
    )
    speed = None
    for name, run in RUNS.items():
        command = [sys.executable, "-m", "benchmarks.plan", "--steps", str(steps), "--one", name]
        click.echo(f"measuring {name}", err=True)
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, grown = json.loads(done.stdout.splitlines()[-1])
        recipe = recipe_of(*run)
        flops, planned = step_flops(recipe).total, memory(recipe).total
        speed = speed or flops / seconds
        told = (f"{flops / speed:.2f}", f"{seconds:.2f}", f"{flops / speed / seconds:.2f}")
        room = (f"{planned / 1e6:.0f}", f"{grown / 1e6:.0f}", f"{planned / grown:.2f}")
        click.echo(f"  {', '.join((*told, *room))}", err=True)
        table.add_row(name, f"{flops / 1e9:.0f}", *told, *room)
    Console(width=140).print(table)
    print(f"achieved in the known run: {speed / 1e9:.1f} GFLOP/s")


def recipe_of(ablation: str, batch: int, changes: dict) -> Recipe:
    """The paper's settings of an ablation with smaller networks."""
    recipe = params.recipe(params.load(PAPER), ablation).model_dump()
    training = {"training": {"batch_size": batch, "precision": "float32"}}
    return Recipe.model_validate(merge(merge(merge(recipe, {"model": SMALL}), training), changes))


def _measure(recipe: Recipe, steps: int) -> tuple[float, float]:
    """Median processor seconds of a step, and by how many bytes the process grew at most."""
    import torch

    from benchmarks.step import make_step, random_batch

    torch.set_num_threads(1)
    # Libraries come into memory when they are first used.
    tiny = params.recipe(params.load(TINY), "xkd")
    make_step(tiny)(*random_batch(tiny))
    before = _status("VmRSS")
    step, batch = make_step(recipe), random_batch(recipe)
    seconds = []
    for _ in range(1 + steps):
        started = time.process_time()
        step(*batch)
        seconds.append(time.process_time() - started)
    return float(np.median(seconds[1:])), _status("VmHWM") - before


def _status(key: str) -> int:
    """Bytes, from /proc/self/status."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{key}:")]
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()

"""Says how early training warns of collapse: at which share of the steps of each row and seed, if at all.

    python -m benchmarks.collapse ae_kd xkd --seeds 10 --share 0.2

Prepared clips of the settings' data set must be in data/. Runs are trained as far as `--share` of their steps, and
leave no files.
"""

from __future__ import annotations

from pathlib import Path

import click

from xkd.collapse import Alarm
from xkd.data import manifest as manifests
from xkd.data.loader import train_loader
from xkd.downstream.monitor import alarms_of, total_steps
from xkd.params import load, recipe
from xkd.recipe import Recipe
from xkd.training.build import build_networks, modalities
from xkd.training.pretraining import pretrainer


class Far(Exception):
    """The share of the steps was trained."""


@click.command()
@click.argument("rows", nargs=-1, required=True)
@click.option("--params", default="params.yaml", show_default=True, type=click.Path(path_type=Path))
@click.option("--seeds", default=10, show_default=True, help="Number of seeds, from --first on.")
@click.option("--first", default=0, show_default=True)
@click.option("--share", default=0.2, show_default=True, help="Share of a run's steps to train.")
def main(rows: tuple[str, ...], params: Path, seeds: int, first: int, share: float) -> None:
    """Trains rows of the table for a while and prints their alarms."""
    for row in rows:
        chosen = recipe(load(params), row)
        for seed in range(first, first + seeds):
            found, steps = trained(chosen, seed, share)
            said = "; ".join(f"step {alarm.step} ({alarm.step / steps:.1%}): {alarm}" for alarm in found)
            click.echo(f"{row} seed {seed}: {said or 'no alarm'}")


def trained(chosen: Recipe, seed: int, share: float) -> tuple[list[Alarm], int]:
    """Trains a share of a run; returns its alarms and the number of steps of the whole run."""
    manifest = manifests.read_manifest(Path("data") / chosen.dataset / "manifest.csv")
    loader = train_loader(chosen, manifest.path, seed, modalities(chosen), local_views=chosen.has_teachers)
    trainer = pretrainer(chosen, build_networks(chosen, seed), loader, seed)

    def stop(_steps: int) -> None:
        if trainer.step >= share * total_steps(trainer):
            raise Far

    trainer.on_step = stop
    try:
        for _ in trainer.epochs():
            pass
    except Far:
        pass
    return alarms_of(trainer), total_steps(trainer)


if __name__ == "__main__":
    main()

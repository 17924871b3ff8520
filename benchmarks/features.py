"""Extraction of features with four encoders of the embedded size against what their matrix products alone would take.

    OMP_NUM_THREADS=1 python -m benchmarks.features

Clips are generated and prepared first, in a temporary folder; only extraction is timed, in processor seconds. Beside
it, in the same run: a large matrix product, whose rate says what the products of the encoders would take, the encoders
alone on a batch, and the whole call again, which finds its features on disk.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click
import torch

from xkd import params, runs
from xkd.data import manifest as manifests
from xkd.downstream.job import EvaluationJob
from xkd.models.networks import Networks
from xkd.params import merge, protocol, recipe
from xkd.plan.counting import operations
from xkd.plan.shapes import encoder_run, view_shapes
from xkd.recipe import Recipe
from xkd.settings import Params
from xkd.stages import download, prepare
from xkd.training.build import build_networks
from xkd.training.export import load_encoders, load_heads, save_encoders, weights_files


@click.command()
@click.option("--params", "settings", default="params.yaml", show_default=True, type=click.Path(path_type=Path))
@click.option("--clips", default=5600, show_default=True)
@click.option("--seconds", default=1.0, show_default=True, help="length of a clip")
@click.option("--packed/--decoded", default=True, show_default=True, help="read packed arrays, or decode media files")
def main(settings: Path, clips: int, seconds: float, packed: bool) -> None:
    """Prints seconds, clips per second, and the ratio to the products."""
    changes = {
        "dataset": "timed",
        "datasets": {"timed": {"kind": "talking_digits", "train_clips": clips, "test_clips": 10}},
        "clips": {"seconds": seconds, "pack": packed},
    }
    chosen = Params.model_validate(merge(params.load(settings).model_dump(), changes))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        download.run(chosen, "timed", root / "raw")
        prepare.run(chosen, root / "raw" / "index.csv", root)
        settings_of_run = recipe(chosen, "xkd")
        networks = build_networks(settings_of_run, 0).eval()
        with runs.reserved(root / "run", "timed") as folder, folder.writing() as out:
            save_encoders(networks, settings_of_run, 0, out)
        runs.FEATURES = root / "features"
        job = EvaluationJob(
            encoders=load_encoders(root / "run"),
            heads=load_heads(root / "run"),
            weights=weights_files(root / "run"),
            recipe=settings_of_run,
            seed=0,
            manifest=manifests.read_manifest(root / "manifest.csv"),
            path=root / "manifest.csv",
            dataset="timed",
            task=chosen.tasks["linear"],
            settings=protocol(chosen, "linear").model_copy(update={"encoders": ("student", "teacher")}),
            batch_size=chosen.evaluate.batch_size,
        )
        rates, seconds = [_rate()], {}
        for what, extract in {
            "encoders alone": lambda: _encode(networks, settings_of_run, clips),
            "extracted": lambda: job.features("train"),
            "found on disk": lambda: job.features("train"),
        }.items():
            started = time.process_time()
            extract()
            seconds[what] = time.process_time() - started
            rates.append(_rate())
    products = clips * _operations(settings_of_run) / statistics.median(rates)
    click.echo(f"{clips} clips of {chosen.clips.seconds:g} s, products alone: {products:.2f} s")
    for what, took in seconds.items():
        click.echo(f"{what}: {took:.2f} s, {clips / took:.0f} clips/s, ratio to products {took / products:.2f}")


@torch.inference_mode()
def _encode(networks: Networks, recipe: Recipe, clips: int) -> None:
    size = recipe.training.batch_size
    views = {m: torch.randn(size, *shapes[0]) for m, shapes in view_shapes(recipe).items()}
    for _ in range(clips // size):
        for encoders in (networks.students, networks.teachers):
            for modality, view in views.items():
                encoders[modality].features(view)


def _operations(recipe: Recipe) -> float:
    """Operations of the students and teachers of both modalities for a clip."""
    runs_of = [encoder_run(recipe, modality, 0, masked=False) for modality in view_shapes(recipe)]
    return 2 * sum(operations(run, trained=False)[0] for run in runs_of)


def _rate(size: int = 1024, times: int = 20) -> float:
    """Operations per second of a large product."""
    one, other = torch.randn(2, size, size)
    started = time.process_time()
    for _ in range(times):
        one @ other
    return times * 2 * size**3 / (time.process_time() - started)


if __name__ == "__main__":
    main()

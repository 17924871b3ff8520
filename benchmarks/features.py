"""Seconds to extract features of 1,000 two-second clips with the embedded model, both modalities, student and teacher.

    python -m benchmarks.features

Clips are generated and prepared first, in a temporary folder; only extraction is timed. Beside it, in the same run: the
same call again, which finds its features on disk.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click

from xkd import params, runs
from xkd.data import manifest as manifests
from xkd.downstream.job import EvaluationJob
from xkd.params import merge, protocol, recipe
from xkd.settings import Params
from xkd.stages import download, prepare
from xkd.training.build import build_networks
from xkd.training.export import load_encoders, load_heads, save_encoders, weights_files


@click.command()
@click.option("--params", "settings", default="params.yaml", show_default=True, type=click.Path(path_type=Path))
@click.option("--clips", default=1000, show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="length of a clip")
@click.option("--packed/--decoded", default=True, show_default=True, help="read packed arrays, or decode media files")
def main(settings: Path, clips: int, seconds: float, packed: bool) -> None:
    """Prints seconds and clips per second."""
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
        save_encoders(build_networks(settings_of_run, 0), settings_of_run, 0, root / "run")
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
            settings=protocol(chosen, "linear"),
            batch_size=chosen.evaluate.batch_size,
        )
        for what in ("extracted", "found on disk"):
            started = time.perf_counter()
            job.features("train")
            took = time.perf_counter() - started
            click.echo(f"{clips} clips of {seconds:g} s, {what}: {took:.2f} s, {clips / took:.0f} clips/s")


if __name__ == "__main__":
    main()

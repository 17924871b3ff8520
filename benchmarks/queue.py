"""What lies in shared memory while batches wait, without a bound and with one.

    python -m benchmarks.queue --queue-gb 0.25

Clips are constants; batches are those of a video view of 224 pixels. The loader is given time to fill its queue.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.manifest import made_up
from xkd import params
from xkd.data import manifest
from xkd.data.clips import ClipStore
from xkd.data.loader import train_loader
from xkd.data.queue import SHARED_MEMORY
from xkd.recipe import Recipe

BATCH, SIZE, UNBOUNDED = 8, 224, 1e6


@click.command()
@click.option("--workers", multiple=True, type=int, default=(2, 4, 8), show_default=True)
@click.option("--queue-gb", default=0.25, show_default=True)
def main(workers: tuple[int, ...], queue_gb: float) -> None:
    """Prints the most MB in shared memory, and how many batches that is."""
    frames = torch.zeros(8, 3, SIZE, SIZE, dtype=torch.uint8)
    ClipStore.video = lambda *_, **__: frames  # type: ignore[method-assign]
    table = Table("workers", "without a bound", f"queue_gb {queue_gb:g}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.csv"
        manifest.write_manifest(path, made_up(1000).assign(seconds=1.0))
        for count in workers:
            table.add_row(f"{count}", *(_most(_recipe(count, bound), path) for bound in (UNBOUNDED, queue_gb)))
    Console().print(table)


def _recipe(workers: int, queue_gb: float) -> Recipe:
    recipe = params.recipe(params.load(Path("params.yaml")), "xkd")
    training = recipe.training.model_copy(update={"workers": workers, "batch_size": BATCH, "queue_gb": queue_gb})
    view = recipe.views.video_global.model_copy(update={"size": SIZE})
    views = recipe.views.model_copy(update={"video_global": view})
    clips = recipe.clips.model_copy(update={"size": SIZE})
    return recipe.model_copy(update={"training": training, "views": views, "clips": clips})


def _most(recipe: Recipe, path: Path) -> str:
    before, most = shutil.disk_usage(SHARED_MEMORY).used, 0
    loader = train_loader(recipe, path, seed=0, modalities=("video",), local_views=False)
    batches = iter(loader)
    for _ in range(3):
        batch = next(batches)
        for _ in range(50):
            time.sleep(0.1)
            most = max(most, shutil.disk_usage(SHARED_MEMORY).used - before)
    return f"{most / 1e6:.0f} MB, {most / batch.views['video'][0].nbytes:.1f} batches"


if __name__ == "__main__":
    main()

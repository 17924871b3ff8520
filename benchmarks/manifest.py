"""Manifests of many clips: time to read one, time to a first batch, private memory of loader processes and its growth.

    python -m benchmarks.manifest --clips 240000 --clips 480000 --clips 960000 --clips 1920000

Manifests are made up (names as AudioSet has them, two labels for every other clip); reading a clip is replaced by a
constant, so that what is left is the cost of the manifest. Each line is measured in processes of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import psutil
import torch
from rich.console import Console
from rich.table import Table

from xkd import params
from xkd.data import manifest
from xkd.data.clips import ClipStore
from xkd.data.loader import Loader, train_loader

WORKERS = 2
COLUMNS = (
    "clips", "CSV MB", "written s", "read first s", "read again s", "first batch s", "private MB", "growth MB",
)  # fmt: skip


@click.command()
@click.option("--clips", multiple=True, type=int, default=(60_000, 120_000, 240_000), show_default=True)
@click.option("--seen", default=50_000, show_default=True, help="clips over which the growth of memory is measured")
def main(clips: tuple[int, ...], seen: int) -> None:
    """Prints a line for each number of clips; seconds are of the wall clock and, in brackets, of the processor."""
    table = Table(*COLUMNS)
    for count in clips:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "manifest.csv"
            written = alone(write, path, count)
            first, again = alone(read, path), alone(read, path)
            batch, private, growth = alone(load, path, seen)
            size = f"{path.stat().st_size / 1e6:.0f}"
            table.add_row(f"{count:,}", size, written, first, again, batch, f"{private:.0f}", f"{growth:.1f}")
    Console(width=140).print(table)


def alone(function: Callable[..., Any], *arguments: object) -> Any:
    """Calls a function in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def write(path: Path, count: int) -> str:
    table = made_up(count)
    return timed(lambda: manifest.write_manifest(path, table))


def read(path: Path) -> str:
    return timed(lambda: manifest.read_manifest(path))


def timed(call: Callable[[], object]) -> str:
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return f"{time.perf_counter() - wall:.2f} ({time.process_time() - processor:.2f})"


def load(path: Path, seen: int) -> tuple[str, float, float]:
    """Measures the first batch, then private memory of a loader process, and its growth over so many clips."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # a process of `alone` hands on how it was started itself
    frames = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    ClipStore.video = lambda *_, **__: frames  # type: ignore[method-assign]
    recipe = params.recipe(params.load(Path("params.yaml")), "xkd")
    training = recipe.training.model_copy(update={"workers": WORKERS, "batch_size": 50})
    recipe = recipe.model_copy(update={"training": training})
    loaders: list[Loader] = []
    batches = None

    def first() -> None:
        nonlocal batches
        loaders.append(train_loader(recipe, path, seed=0, modalities=("video",), local_views=False))
        batches = iter(loaders[0])
        next(batches)

    time_to_batch = timed(first)
    for _ in islice(batches, 40):  # buffers have their size by then
        pass
    before = private_mb()
    for _ in islice(batches, seen // 50):
        pass
    return time_to_batch, before, private_mb() - before


def private_mb() -> float:
    """Returns the private memory of the largest loader process; pages of files that it maps can be dropped."""
    workers = psutil.Process(os.getpid()).children()
    return max(sum(part.private_dirty for part in worker.memory_maps()) for worker in workers) / 1e6


def made_up(count: int) -> pd.DataFrame:
    """Makes a manifest of clips, one in 50 of them missing."""
    random = np.random.default_rng(0)
    numbers, digests = np.arange(count), [f"{number:016x}" for number in random.integers(0, 2**63, count)]
    names = [f"class {number:03d}" for number in range(527)]
    pairs = zip(*random.integers(0, len(names), (2, count)), strict=True)
    ids = [f"Y{digest[:11]}_{30 * (number % 9)}" for number, digest in enumerate(digests)]
    table = pd.DataFrame({name: "" for name in manifest.MANIFEST_COLUMNS}, index=numbers)
    table = table.assign(
        id=ids,
        path=[f"clips/0f3a9c21/{name}-{digest[:8]}-{digest}.mp4" for name, digest in zip(ids, digests, strict=True)],
        split=np.where(numbers % 20 == 0, "test", "train"),
        label=[names[a] if number % 2 else f"{names[a]};{names[b]}" for number, (a, b) in enumerate(pairs)],
        video_source=[name[:12] for name in ids],
        digest=digests,
        status="ok",
        **{"seconds": 10.0, "fps": 8.0, "width": 170, "height": 128, "sample_rate": 16000},
        **{"has_video": True, "has_audio": True},
    )
    table["audio_source"] = table["video_source"]
    missing = numbers % 50 == 7
    table.loc[missing, ["status", "reason", "digest"]] = ["unusable", "missing", ""]
    table.loc[missing, ["seconds", "fps", "width", "height", "sample_rate"]] = np.nan
    table.loc[missing, ["has_video", "has_audio"]] = False
    return table


if __name__ == "__main__":
    main()

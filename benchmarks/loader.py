"""Clips per second of the loader, as ratios to a plain baseline measured in the same run.

    python -m benchmarks.loader --manifest data/talking_digits/manifest.csv

The baseline decodes each media file and does nothing else. A loader that falls below the clips
per second of a training step (column `clips_per_second` of history.csv) holds training up. Without loader processes,
the processor time of a batch adds to that of a step.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from xkd import params
from xkd.data.clips import open_clips
from xkd.data.loader import eval_loader, train_loader
from xkd.recipe import Recipe


@click.command()
@click.option("--params", "settings", default="params.yaml", show_default=True, type=click.Path(path_type=Path))
@click.option("--manifest", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--ablation", default="xkd", show_default=True)
@click.option("--clips", default=1024, show_default=True, help="clips per measurement")
def main(settings: Path, manifest: Path, ablation: str, clips: int) -> None:
    """Prints clips per second of decoding, of packed arrays and of the whole loader."""
    recipe = params.recipe(params.load(settings), ablation)
    with tempfile.TemporaryDirectory() as folder:
        media_only = _without_packed(manifest.resolve(), Path(folder))
        cases: dict[str, Callable[[], Iterable[int]]] = {
            "decode media files (baseline)": lambda: _read(media_only, clips),
            "read as prepared": lambda: _read(manifest, clips),
            "loader on media files, 0 workers": lambda: _batches(recipe, media_only, 0),
            "loader on media files, 2 workers": lambda: _batches(recipe, media_only, 2),
            "loader as prepared, 0 workers": lambda: _batches(recipe, manifest, 0),
            "  second epoch": lambda: _batches(recipe, manifest, 0, epoch=1),
            "  evaluation": lambda: map(len, eval_loader(recipe, manifest, None, recipe.training.batch_size)),
            "loader as prepared, 2 workers": lambda: _batches(recipe, manifest, 2),
            "  video only": lambda: _batches(recipe, manifest, 0, modalities=("video",)),
            "  audio only": lambda: _batches(recipe, manifest, 0, modalities=("audio",)),
            "  without local views": lambda: _batches(recipe, manifest, 0, local_views=False),
        }
        rates = {name: _rate(case(), clips) for name, case in cases.items()}
    _show(rates, recipe.training.batch_size)


def _without_packed(manifest: Path, folder: Path) -> Path:
    """The same data set seen through a folder that lacks the packed arrays."""
    for entry in manifest.parent.iterdir():
        if entry.name != "packed":
            (folder / entry.name).symlink_to(entry)
    return folder / manifest.name


def _read(manifest: Path, clips: int) -> Iterable[int]:
    store = open_clips(manifest, "train")
    for index in range(min(clips + 1, len(store))):
        store.video(index)
        store.audio(index)
        yield 1


def _batches(recipe: Recipe, manifest: Path, workers: int, epoch: int = 0, **choice) -> Iterable[int]:
    training = recipe.training.model_copy(update={"workers": workers})
    loader = train_loader(recipe.model_copy(update={"training": training}), manifest, seed=0, **choice)
    for number in range(epoch):
        loader.set_epoch(number)
        for _ in loader:
            pass
    loader.set_epoch(epoch)
    for batch in loader:
        yield len(batch)


def _rate(counts: Iterable[int], clips: int) -> tuple[float, float]:
    """Clips per second, and of processor time of this process.

    The first item does not count, since it also pays for opening files, starting workers and earlier epochs.
    """
    counts = iter(counts)
    next(counts)
    start, processor, done = time.perf_counter(), time.process_time(), 0
    for count in counts:
        done += count
        if done >= clips:
            break
    return done / (time.perf_counter() - start), done / (time.process_time() - processor)


def _show(rates: dict[str, tuple[float, float]], batch: int) -> None:
    baseline, _ = next(iter(rates.values()))
    table = Table("", "clips/s", "ratio", f"ms of this process for {batch} clips")
    for name, (rate, own) in rates.items():
        table.add_row(name, f"{rate:.0f}", f"{rate / baseline:.2f}", f"{1e3 * batch / own:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()

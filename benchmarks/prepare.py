"""Measures what `prepare` costs and what it saves, as ratios in one run on one core.

    python -m benchmarks.prepare film.mp4 other.mp4

Cost: clips per second of `prepare` (probe, decode, transcode, decode the result) against ffmpeg's own transcode of the
same files to the same size and rates. Saving: random cuts of a training view's length read from prepared clips against
the same cuts read from the originals with decord and PyAV. ffmpeg must be installed; it is only measured against.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torchvision.transforms.v2 import functional as tv

from xkd.data import decode, encode
from xkd.data.clips import ClipStore, open_clips
from xkd.data.decode import Video
from xkd.data.transcode import prepare_clip
from xkd.made import Made
from xkd.settings import Clips, Dataset
from xkd.stages import prepare

CLIPS = Clips()


class Settings:
    """As much of the settings as `prepare` reads."""

    dataset, clips = "own", CLIPS
    datasets = {"own": Dataset(kind="manifest", require="both")}  # noqa: RUF012 - never changed


@click.command()
@click.argument("films", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--copies", default=8, show_default=True, help="Each film this many times.")
@click.option("--rounds", default=3, show_default=True, help="Measurements of each; the medians are compared.")
@click.option("--cuts", default=40, show_default=True, help="Random cuts read per measurement.")
def main(films: tuple[Path, ...], copies: int, rounds: int, cuts: int) -> None:
    """Compares `prepare` with ffmpeg, and prepared clips with the originals."""
    if not shutil.which("ffmpeg"):
        raise click.ClickException("ffmpeg is not installed (Debian, Ubuntu: apt install ffmpeg)")
    with tempfile.TemporaryDirectory() as folder:
        raw, work = Path(folder) / "raw", Path(folder) / "work"
        raw.mkdir()
        paths = [raw / f"{number}-{film.name}" for number in range(copies) for film in films]
        for path in paths:
            shutil.copy(films[paths.index(path) % len(films)], path)
        (raw / "index.csv").write_text("path\n" + "".join(f"{path.name}\n" for path in paths))
        times = _alternate(
            {
                "ffmpeg's transcode": lambda: [_ffmpeg(path, _fresh(work) / "out.mp4") for path in paths],
                "prepare": lambda: _prepare(paths, _fresh(work)),
            },
            rounds,
        )
        _show("clips per second and core", {name: len(paths) / seconds for name, seconds in times.items()})
        prepare.run(Settings(), raw / "index.csv", Path(folder) / "prepared", processes=1)
        store = open_clips(Path(folder) / "prepared" / "manifest.csv")
        draws = np.random.default_rng(0).random((cuts, 2))
        times = _alternate(
            {
                "originals": lambda: [_cut_original(paths[int(a * len(paths))], b) for a, b in draws],
                "prepared clips": lambda: [_cut_prepared(store, int(a * len(paths)), b) for a, b in draws],
            },
            rounds,
        )
        _show(f"cuts of {CLIPS.seconds:g} s per second", {name: cuts / seconds for name, seconds in times.items()})


def _alternate(cases: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Median seconds of each, taken in turns so that a slow minute of the machine meets all."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            started = time.perf_counter()
            case()
            seconds[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def _prepare(paths: list[Path], folder: Path) -> None:
    """In this process: what starting others costs is paid once a call, not per clip."""
    for path in paths:
        result = prepare_clip(str(path), str(folder / path.stem), Made(folder, "prepare"), CLIPS, "both", False)
        assert result.facts["status"] == "ok", result.facts["reason"]


def _ffmpeg(source: Path, target: Path) -> None:
    options = encode.FOR_TRAINING
    video = [
        "-vf",
        f"fps={CLIPS.fps},scale={CLIPS.size}:{CLIPS.size}:force_original_aspect_ratio=increase:force_divisible_by=2",
    ]
    video += [
        "-c:v",
        "libx264",
        "-preset",
        options["preset"],
        "-tune",
        options["tune"],
        "-crf",
        options["crf"],
        "-g",
        options["g"],
        "-bf",
        "0",
    ]
    audio = ["-c:a", "aac", "-ac", "1", "-ar", str(CLIPS.sample_rate), "-b:a", str(encode.AUDIO_BIT_RATE)]
    command = ["ffmpeg", "-v", "error", "-y", "-threads", "1", "-i", str(source), *video, *audio, "-threads", "1"]
    subprocess.run([*command, "-filter_threads", "1", str(target)], check=True)


def _cut_original(path: Path, draw: float) -> tuple[torch.Tensor, np.ndarray]:
    video = Video(path)
    numbers = video.at_rate(CLIPS.fps)
    first = int(draw * max(len(numbers) - round(CLIPS.seconds * CLIPS.fps), 0))
    pictures = torch.from_numpy(video.frames(numbers[first : first + round(CLIPS.seconds * CLIPS.fps)]))
    sound = decode.read_audio(path, CLIPS.sample_rate)
    begin = round(first / CLIPS.fps * CLIPS.sample_rate)
    small = tv.resize(pictures.permute(0, 3, 1, 2), [CLIPS.size], antialias=True)
    return small, sound[begin : begin + round(CLIPS.seconds * CLIPS.sample_rate)]


def _cut_prepared(store: ClipStore, number: int, draw: float) -> tuple[torch.Tensor, torch.Tensor]:
    start = draw * max(store.seconds(number) - CLIPS.seconds, 0)
    return store.video(number, start, CLIPS.seconds), store.audio(number, start, CLIPS.seconds)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _show(title: str, rates: dict[str, float]) -> None:
    baseline = next(iter(rates.values()))
    table = Table("", title, "ratio")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.2f}", f"{rate / baseline:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()

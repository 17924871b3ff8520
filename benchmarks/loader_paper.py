"""Clips per second that one core prepares for training at the paper's sizes, against the plain way in the same run.

    python -m benchmarks.loader_paper

Needs no data: it makes films of 10 s and 480 x 270 pixels and prepares them as `xkd prepare` does. The process keeps to
one core and counts its own CPU seconds, so that other work on the machine disturbs little; the cases take turns, and a
ratio is the median over pairs of neighbours. The plain way decodes the films themselves with decord and PyAV for each
view, and applies torchvision's and torchaudio's operations one after the other to float tensors, with the same draws.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import chdir, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.utils.data import default_collate
from torchaudio.transforms import MelSpectrogram
from torchvision.transforms.v2 import functional as tv

from benchmarks.film import write_film
from xkd import params
from xkd.data import decode, manifest
from xkd.data.allocator import keep_freed_memory
from xkd.data.clips import ClipStore, open_clips
from xkd.data.decode import Video
from xkd.data.views import Cuts, TrainViews
from xkd.files import sha256
from xkd.modalities import audio, colours, video
from xkd.modalities.audio import AudioCutter
from xkd.modalities.base import Draw, clip_generator, draw_table
from xkd.modalities.logmel import LogMelSpectrogram
from xkd.recipe import Recipe
from xkd.settings import Dataset, ShardSettings, VideoView
from xkd.stages import pack, prepare

BATCH = 8
KEPT = {
    "prepared files": "files",
    "shards of prepared files": "encoded",
    "shards of decoded clips": "decoded",
    "packed arrays": "packed",
}
COLOURS = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)


@click.command()
@click.option("--films", default=2, show_default=True, help="Different films; each is prepared eight times.")
@click.option("--clips", default=32, show_default=True, help="Clips per measurement.")
@click.option("--rounds", default=5, show_default=True, help="Measurements of each case.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Empty folder, to keep films and clips for another run."
)
def main(films: int, clips: int, rounds: int, folder: Path | None) -> None:
    """Prints clips per second and core, ratios to the plain way, and where the time goes."""
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    keep_freed_memory()
    settings = params.load(Path("workflow/presets/paper.yaml"))
    recipe = params.recipe(settings, "xkd")
    with nullcontext(folder) if folder else tempfile.TemporaryDirectory() as place:
        if not (Path(place) / "data" / "decoded" / "shards" / "index.json").exists():
            _prepare(settings, Path(place), films)
        stores = {form: open_clips(Path(place) / "data" / form / "manifest.csv") for form in KEPT.values()}
        raw = {path.stem: path for path in (Path(place) / "raw").glob("*-*.mp4")}
        views, plain = TrainViews(recipe), Plain(recipe, [raw[Path(name).stem] for name in stores["files"].ids])
        cut = partial(_cut, views)

        def made(*batch: Any) -> object:
            return views.finish(*cut(*batch))

        cases: dict[str, Callable[[], None]] = {
            "the plain way, from the videos": lambda: _batches(plain, stores["files"], clips),
        }
        for name, form in KEPT.items():
            cases[name] = partial(_batches, made, stores[form], clips)
            cases[f"{name}, training.augment: device"] = partial(_batches, cut, stores[form], clips)
        seconds = _alternate(cases, rounds)
        _show(seconds, clips)
        for title, make, form in (("prepared files", made, "files"), ("decoded shards, device", cut, "decoded")):
            spent = _parts(partial(_batches, make, stores[form], 2 * clips))
            _show_parts(title, spent, 2 * clips)


class Plain:
    """Views of the films themselves, with the draws of `TrainViews`."""

    def __init__(self, recipe: Recipe, paths: list[Path]):
        self.recipe, self.paths, self.views = recipe, paths, TrainViews(recipe)
        mel, rate = recipe.logmel, recipe.clips.sample_rate
        self.mel = MelSpectrogram(
            rate, mel.n_fft, hop_length=mel.hop, n_mels=mel.n_mels, f_max=mel.f_max, norm="slaney", mel_scale="slaney"
        )

    def __call__(self, store: ClipStore, indices: Iterable[int], generators: Iterable[torch.Generator]) -> object:
        return default_collate([self._clip(*clip) for clip in zip(indices, generators, strict=True)])

    def _clip(self, index: int, generator: torch.Generator) -> dict[str, list[Tensor]]:
        rows, path = draw_table(2, generator).tolist(), self.paths[index]
        together = Draw.split(rows[0][0]).time
        views = {}
        for place, (modality, make) in enumerate((("video", self._video), ("audio", self._audio))):
            draws = [Draw.split(row[place]) for row in rows]
            views[modality] = [
                make(path, view, draw, draw.time if number else together)
                for number, (view, draw) in enumerate(zip(self.views.settings[modality], draws, strict=True))
            ]
        return views

    def _video(self, path: Path, view: VideoView, draw: Draw, place: float) -> Tensor:
        whole = Video(path)
        shown = whole.at_rate(self.recipe.clips.fps)
        first = int(place * (len(shown) - view.frames))
        frames = torch.from_numpy(whole.frames(shown[first : first + view.frames])).permute(0, 3, 1, 2).contiguous()
        picture = video.crop(frames, view, draw).float() / 255
        for kind in sorted(range(4), key=draw.order.__getitem__):
            shift = view.jitter[kind] * (2 * draw.jitter[kind] - 1)
            picture = COLOURS[kind](picture, shift if kind == 3 else 1 + shift)
        if draw.grey < view.grey:
            picture = tv.rgb_to_grayscale(picture, num_output_channels=3)
        if draw.blur < view.blur:
            sigma = 0.1 + 1.9 * draw.sigma
            picture = tv.gaussian_blur(picture, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma] * 2)
        return tv.normalize(picture, video.IMAGENET_MEAN, video.IMAGENET_STD).transpose(0, 1).contiguous()

    def _audio(self, path: Path, view, draw: Draw, place: float) -> Tensor:
        settings = self.recipe.logmel
        sound = torch.from_numpy(decode.read_audio(path, self.recipe.clips.sample_rate))
        samples = min(view.frames * settings.hop, round(self.recipe.clips.seconds * self.recipe.clips.sample_rate))
        first = int(place * (len(sound) - samples))
        power = self.mel(sound[None, first : first + samples] * audio.volume_gain(view, draw))[..., : view.frames]
        logmel = ((power + settings.floor).log() - settings.mean) / settings.std
        box = torch.tensor([[draw.height, draw.width, draw.row, draw.column]], dtype=torch.float64)
        return audio.resized_crop_logmel(logmel[None], box)[0] if view.resized_crop else logmel


def _prepare(settings: params.Params, folder: Path, films: int) -> None:
    """Makes films, and clips of them in each form in which they may be kept."""
    raw = folder / "raw"
    raw.mkdir()
    for seed in track(range(films), "making films", transient=True):
        write_film(raw / f"{seed}.mp4", seed)
    names = [f"{copy}-{seed}.mp4" for copy in range(8) for seed in range(films)]
    for name in names:
        shutil.copy(raw / name.split("-")[1], raw / name)
    (raw / "index.csv").write_text("path\n" + "".join(f"{name}\n" for name in names))
    own = _own(settings, clips=settings.clips.model_copy(update={"pack": True}))
    prepare.run(own, raw / "index.csv", folder / "data" / "packed", processes=1)
    for form in ("files", "encoded", "decoded"):
        shutil.copytree(folder / "data" / "packed", folder / "data" / form, ignore=shutil.ignore_patterns("packed"))
        _make_different(folder / "data" / form / "manifest.csv")
        if form != "files":
            with chdir(folder):
                pack.run(_own(settings, form, shards=ShardSettings(form=form)), form, processes=1)


def _own(settings: params.Params, name: str = "own", shards: ShardSettings | None = None, **groups) -> params.Params:
    dataset = Dataset(kind="manifest", require="both", shards=shards)
    return settings.model_copy(update={"dataset": name, "datasets": {name: dataset}, **groups})


def _make_different(path: Path) -> None:
    """Appends a box that no decoder reads to each clip, so that copies of a film are different files."""
    table = manifest.read_manifest(path).all_rows.copy()
    for number, clip in enumerate(path.parent / name for name in table["path"]):
        clip.write_bytes(clip.read_bytes() + b"\0\0\0\x0cfree" + number.to_bytes(4, "big"))
        table.loc[number, "digest"] = sha256(clip)[:16]
    manifest.write_manifest(path, table)


def _batches(make: Callable[..., object], store: ClipStore, clips: int) -> None:
    """Does the work of a worker of the loader."""
    for first in range(0, clips, BATCH):
        numbers = range(first, first + BATCH)
        indices = [number % len(store) for number in numbers]
        make(store, indices, [clip_generator(0, n, store.ids[i]) for n, i in zip(numbers, indices, strict=True)])


def _cut(views: TrainViews, store: ClipStore, indices: list[int], generators: Iterable[torch.Generator]) -> Cuts:
    return views.cut(views.open(store, indices), generators)


def _alternate(cases: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each case, the cases taking turns after one turn that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in track(range(rounds + 1), "measuring", transient=True):
        for name, case in cases.items():
            started = time.process_time()
            case()
            if number:
                seconds[name].append(time.process_time() - started)
    return seconds


def _parts(case: Callable[[], None]) -> dict[str, float]:
    """CPU seconds of the parts of a case."""
    spent: dict[str, float] = {}

    def timed(name: str, function: Callable) -> Callable:
        def wrapper(*args, **kwargs):
            started = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] = spent.get(name, 0.0) + time.process_time() - started

        return wrapper

    watched = [(ClipStore, "video", "read video"), (ClipStore, "audio", "read sound")]
    watched += [(video, "crop", "crop, resize, flip"), (video, "normalised", "to float, colours, normalise")]
    watched += [(colours, "_blend", "  brightness, contrast, saturation"), (colours, "hue", "  hue")]
    watched += [(colours, "convolve", "  blur")]
    watched += [(AudioCutter, "finish", "volume, logarithm, resized crop of log-mel")]
    watched.append((LogMelSpectrogram, "power", "mel power"))
    originals = [(where, name, getattr(where, name)) for where, name, _ in watched]
    try:
        for where, name, title in watched:
            setattr(where, name, timed(title, getattr(where, name)))
        started = time.process_time()
        case()
        spent["all"] = time.process_time() - started
    finally:
        for where, name, original in originals:
            setattr(where, name, original)
    return spent


def _show(seconds: dict[str, list[float]], clips: int) -> None:
    baseline = next(iter(seconds.values()))
    table = Table("", "clips/s and core", "ratio")
    for name, times in seconds.items():
        ratios = [plain / own for plain, own in zip(baseline, times, strict=True)]
        table.add_row(name, f"{clips / np.median(times):.1f}", f"{np.median(ratios):.2f}")
    Console().print(table)


def _show_parts(title: str, spent: dict[str, float], clips: int) -> None:
    table = Table(f"a clip from {title}", "ms")
    for name, seconds in spent.items():
        table.add_row(name, f"{1e3 * seconds / clips:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()

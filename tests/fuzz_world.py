"""A small project for trials: media of many formats, a prepared data set, a run with its evaluation, a checkpoint."""

from __future__ import annotations

import argparse
import json
import os
import tarfile
import tempfile
import zipfile
from contextlib import chdir
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from archives import write_rar
from media_files import write_media

from xkd import params
from xkd.stages import evaluate, features, prepare, pretrain
from xkd.training import checkpoint

SETTINGS = """\
dataset: clips
results: out
seeds: [0]
datasets:
  clips: &own {kind: folder, source: raw/clips}
  listed: {kind: manifest, source: raw/list.csv}
  packed: {<<: *own, source: archive.zip}
  esc50: {kind: esc50, source: esc50}
  shards: {kind: manifest, source: raw/list.csv, shards: {form: encoded}}
clips: {seconds: 0.5, fps: 8, size: 16, sample_rate: 8000, pack: true}
limits: {}
plugins: []
logmel: {n_fft: 256, hop: 80, n_mels: 16, f_min: 40, f_max: 3900, floor: 0.0001, mean: -3.0, std: 3.0}
views:
  video_global: {frames: 4, size: 16, crop_area: [0, 0], flip: 0, jitter: [0.2, 0.2, 0, 0]}
  video_local: {frames: 2, size: 8, crop_area: [0, 0], flip: 0, jitter: [0.2, 0.2, 0, 0], grey: 0, blur: 0}
  audio_global: {frames: 48}
  audio_local: {frames: 16, resized_crop: false}
model:
  width: 8
  depth: 1
  heads: 2
  video_patch: [2, 8, 8]
  audio_patch: [8, 8]
  decoder: {width: 8, depth: 1, heads: 1}
  head: {hidden: 8, bottleneck: 4, out: 8}
objective: {}
training: {epochs: 1, batch_size: 4, learning_rate: 0.001, warmup_epochs: 0, checkpoint_epochs: 1, workers: 0}
evaluate:
  linear: {C: [1.0], neighbours: 2}
tasks:
  linear: {protocol: linear}
  retrieval: {protocol: retrieval}
report: {baseline: xkd}
sweeps: {}
ablations:
  xkd:
    hypothesis: All terms.
    changes: {}
"""
RUN = "runs/clips/xkd/seed0"
EVALUATION = "evals/clips/xkd/seed0/linear.json"
FORMATS = {
    "film.mp4": {}, "film.mkv": {}, "film.avi": {"codec": "mpeg4"}, "film.mov": {"audio": False},
    "film.webm": {"codec": "libvpx", "audio": False}, "tone.wav": {"codec": None}, "tone.m4a": {"codec": None},
}  # fmt: skip
ENCODED = {"tone.flac": "flac", "tone.mp3": "libmp3lame", "tone.ogg": "libopus"}


def make(world: Path) -> None:
    """Writes the project."""
    world.mkdir()
    (world / "params.yaml").write_text(SETTINGS)
    _write_clips(world / "raw")
    _write_media(world / "media")
    _write_archives(world)
    with chdir(world):
        settings = params.load(Path("params.yaml"))
        manifest = Path("data/clips/manifest.csv")
        prepare.run(settings, Path("raw/index.csv"), Path("data/clips"), processes=1)
        _pretrain(settings, manifest)
        evaluate.run(settings, manifest, Path(RUN), "linear", Path(EVALUATION))
        features.run(settings, manifest, Path(RUN), "linear", Path("features.json"))


def _pretrain(settings: params.Params, manifest: Path) -> None:
    """Trains the run, and keeps its checkpoint as if it had been stopped at its end."""
    removed, checkpoint.remove = checkpoint.remove, lambda _folder: None
    try:
        pretrain.run(settings, manifest, "xkd", 0, Path(RUN))
    finally:
        checkpoint.remove = removed


def _write_clips(raw: Path) -> None:
    lines = ["id,path,split,label,fold,video_source,audio_source"]
    for number in range(12):
        label, split = ("high", "low")[number % 2], "test" if number % 3 == 2 else "train"
        path = raw / "clips" / split / label / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_media(path, 0.5, 8, (32, 24), pitch=400 + 300 * (number % 2), brightest=100 + 9 * number)
        lines.append(f"{number},clips/{split}/{label}/{number}.mp4,{split},{label},,v{number},a{number}")
    (raw / "index.csv").write_text("\n".join(lines) + "\n")
    (raw / "list.csv").write_text("\n".join(line.replace(",,", ",1,") for line in lines) + "\n")


def _write_media(media: Path) -> None:
    media.mkdir()
    for name, options in FORMATS.items():
        write_media(media / name, 0.6, 8, (32, 24), **options)
    for name, codec in ENCODED.items():
        with av.open(str(media / name), "w") as container:
            rate = 48000 if codec == "libopus" else 44100
            stream = container.add_stream(codec, rate=rate, layout="mono")
            tone = 0.3 * np.sin(np.arange(rate // 2) / 20)
            frame = av.AudioFrame.from_ndarray((tone * 32767).astype(np.int16)[None], format="s16", layout="mono")
            frame.sample_rate = rate
            resampler = av.AudioResampler(stream.format, "mono", rate, stream.frame_size or 1024)
            for piece in (*resampler.resample(frame), *resampler.resample(None)):
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
    picture = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 90, np.uint8), format="rgb24")
    coder = av.CodecContext.create("png", "w")
    coder.width, coder.height, coder.pix_fmt, coder.time_base = 32, 24, "rgb24", Fraction(1, 8)
    (media / "picture.png").write_bytes(b"".join(bytes(packet) for packet in coder.encode(picture)))


def _write_archives(world: Path) -> None:
    """Writes ESC-50 as it is packed, and archives of the folder of clips."""
    esc = world / "esc50"
    esc.mkdir()
    tone = (world / "media" / "tone.wav").read_bytes()
    takes = [(fold, take) for fold in range(1, 6) for take in (0, 1)]
    rows = [f"{fold}-{take}-A-{take}.wav,{fold},{take},dog{take},False,{take},A" for fold, take in takes]
    table = "\n".join(["filename,fold,target,category,esc10,src_file,take", *rows]) + "\n"
    members = {"ESC-50-master/meta/esc50.csv": table.encode()}
    members |= {f"ESC-50-master/audio/{row.split(',')[0]}": tone for row in rows}
    with zipfile.ZipFile(esc / "ESC-50-master.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    clips = [path for path in sorted((world / "raw" / "clips").rglob("*.mp4")) if path.stem in ("0", "1", "2", "5")]
    for suffix, mode in ((".tar", "w"), (".tar.gz", "w:gz")):
        with tarfile.open(world / f"archive{suffix}", mode) as archive:
            for path in clips:
                archive.add(path, path.relative_to(world / "raw" / "clips"))
    with zipfile.ZipFile(world / "archive.zip", "w") as archive:
        for path in clips:
            archive.write(path, path.relative_to(world / "raw" / "clips"))
    write_rar(world / "archive.rar", {str(p.relative_to(world / "raw" / "clips")): p.read_bytes() for p in clips})


def reseal(run: Path) -> None:
    """Lists a run's files with the hashes that they have now, so that changed ones are read, not refused."""
    from xkd.files import sha256

    index = json.loads((run / "files.json").read_text())
    there = {path.relative_to(run).as_posix(): path for path in run.rglob("*") if path.is_file()}
    index["files"] = {name: sha256(there[name]) for name in index["files"] if name in there}
    (run / "files.json").write_text(json.dumps(index))


def asked(names: list[str]) -> tuple[range, list[str], Path, Path]:
    """Reads the command line of a script: numbers of inputs, kinds, a new folder for trials, and the project's.

    FUZZ_WORLD may name the project.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("inputs", type=int)
    parser.add_argument("names", nargs="*", default=names)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_intermixed_args()
    os.environ["XKD_TRACKING"] = "off"
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    world = Path(os.environ.get("FUZZ_WORLD") or folder / "world")
    if not world.exists():
        make(world)
    return range(given.first, given.first + given.inputs), given.names, folder, world

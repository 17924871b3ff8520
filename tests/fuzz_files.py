"""Kinds of inputs that are whole, but odd: places where commands write, raw files that change, odd media."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
from fuzz_world import RUN
from fuzzing import Kind

from xkd.data.manifest import read_manifest
from xkd.files import sha256

FILM = "media/film.mp4"
ENCODER = f"{RUN}/encoders/video_student"
MINE = (
    *("clips/holiday.mp4", "clips/train/high/0.mp4", "clips/a.txt", "packed/video.npy", "packed/notes.txt"),
    *(
        "manifest.csv",
        "summary.json",
        "index.csv",
        "files/a.mp4",
        "inspect/samples.png",
        "table.csv",
        "model.safetensors",
    ),
)
AT_ONCE = 4  # odd media of a trial
Command = Callable[[random.Random], list[str]]
Writer = Callable[[Path, int, random.Random], None]


# Where a command writes


def _places(place: Path, draws: random.Random) -> list:
    """Puts files of the user into a folder, and lets a command write there, or over what it reads."""
    folder = place / draws.choice(("mine", "mine", "raw", "media", "."))
    for name in draws.sample(MINE, draws.choice((1, 3, len(MINE)))):
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(place / FILM, path)
    inside = folder.relative_to(place).as_posix()
    return draws.choice((_shown, _prepared_there, _downloaded_there, _embedded_there))(place, inside, draws)


def _shown(place: Path, inside: str, draws: random.Random) -> list:
    film = draws.choice((FILM, f"{inside}/clips/holiday.mp4"))
    (place / film).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(place / "media" / "film.mkv", place / film)
    out = draws.choice((f"{film[:-4]}.png", f"{inside}/samples.png", "media/picture.png"))
    return ["show", film, "--encoder", ENCODER, "--out", out, *draws.choice(([], ["--video"]))]


def _prepared_there(place: Path, inside: str, draws: random.Random) -> list:
    """The list of the recordings may lie in the output, and the recordings where clips go."""
    found = sorted(path.relative_to(place / inside).as_posix() for path in (place / inside).rglob("*.mp4"))[:4]
    name = draws.choice(("list.csv", "mine.csv", "other/list.csv"))
    path = place / inside / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["path", *(os.path.relpath(place / inside / one, path.parent) for one in found)]) + "\n")
    return ["prepare", "--raw", f"{inside}/{name}", "--out", draws.choice((inside, inside, f"{inside}/clips", "mine"))]


def _downloaded_there(place: Path, inside: str, draws: random.Random) -> list:
    settings = place / "params.yaml"
    generated = "  digits: {kind: talking_digits, train_clips: 2, test_clips: 2}\n"
    settings.write_text(settings.read_text().replace("datasets:\n", f"datasets:\n{generated}", 1))
    return ["download", "--dataset", draws.choice(("digits", "clips", "listed", "packed")), "--out", inside]


def _embedded_there(place: Path, inside: str, draws: random.Random) -> list:
    out = draws.choice((FILM, f"{inside}/index.csv", f"{inside}/clips/a.txt", "params.yaml", "raw/index.csv"))
    return ["embed", ENCODER, draws.choice((FILM, "media", "raw/index.csv")), "--output", out]


def _folders(place: Path, draws: random.Random) -> list:
    """Takes a data set from a folder that may be that of the stages' files, around it or in it, twice."""
    source = draws.choice(("data/own/clips", "data/own", "data/own/raw", "data/own/files", "own"))
    raw, out = draws.choice(("data/own/raw", "data/own", source)), draws.choice(("data/own", source, "data/own/clips"))
    (place / source).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(place / "raw" / "clips", place / source)
    if draws.random() < 0.5:  # classes, which `download` divides itself
        for path in sorted((place / source).rglob("*.mp4")):
            (place / source / path.parent.name).mkdir(exist_ok=True)
            path.rename(place / source / path.parent.name / path.name)
        for split in ("train", "test"):
            shutil.rmtree(place / source / split)
    shutil.rmtree(place / "raw")
    settings = place / "params.yaml"
    settings.write_text(settings.read_text().replace("source: raw/clips", f"source: {source}"))
    download = ["download", "--dataset", "clips", "--out", raw]
    prepare = ["prepare", "--raw", f"{raw}/index.csv", "--out", out]
    return [download, partial(_note, place, raw), prepare, partial(_count, place, source), download]


def _note(place: Path, raw: str) -> None:
    if (place / raw / "index.csv").exists():
        shutil.copy(place / raw / "index.csv", place / "first.csv")


def _count(place: Path, source: str) -> None:
    """Notes how many clips of the user are left, before a stage replaces what it wrote itself."""
    left = [path for path in (place / source).rglob("?*.mp4") if path.parent.name in ("high", "low")]
    (place / "left.txt").write_text(str(len(left)))


def _same_clips(place: Path) -> list[str]:
    faults = [] if (place / "left.txt").read_text() == "12" else ["clips of the user are gone"]
    first, second = (place / "first.csv").read_text(), [path.read_text() for path in place.rglob("index.csv")]
    return faults + ([] if [first] == second else ["the second download found other clips"])


# Raw files that change


def _changing(place: Path, draws: random.Random) -> list:
    """Replaces raw files between two calls of `prepare`, and after the last one."""
    raw = place / "ready"  # clips as training reads them: they may be taken as they are
    raw.mkdir()
    clips = sorted((place / "data" / "clips" / "clips").rglob("*.mp4"))[:4]
    for number, clip in enumerate(clips):
        shutil.copy(clip if draws.random() < 0.7 else place / FILM, raw / f"{number}.mp4")
    (raw / "list.csv").write_text("path,split\n0.mp4,train\n1.mp4,train\n2.mp4,test\n")
    prepare = ["prepare", "--raw", "ready/list.csv", "--out", "out/data"]
    changes = [partial(_replace, raw, draws.choice((0, 1, 2)), draws.random(), draws.random()) for _ in range(2)]
    return [prepare, changes[0], prepare, ["prepare", "--raw", "ready/list.csv", "--out", "out/fresh"], changes[1]]


def _replace(raw: Path, number: int, in_place: float, same_time: float) -> None:
    path, times = raw / f"{number}.mp4", os.stat(raw / f"{number}.mp4")
    content = (raw / "3.mp4").read_bytes()
    if in_place < 0.5:
        path.write_bytes(content)
    else:
        path.unlink()
        path.write_bytes(content)
    if same_time < 0.5:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _follows(place: Path) -> list[str]:
    """Clips are those of a call that found nothing to keep, and are as the manifest says, whatever came after."""
    here, fresh = (read_manifest(place / "out" / name / "manifest.csv").table for name in ("data", "fresh"))
    faults = [] if list(here["digest"]) == list(fresh["digest"]) else ["a clip of an earlier raw file was kept"]
    for name, digest in zip(here["path"], here["digest"], strict=True):
        if digest and not sha256(place / "out" / "data" / name).startswith(digest):
            faults.append("a prepared clip is not what the manifest says")
    return faults


# Odd media


def _odd_media(command: Command, writers: tuple[Writer, ...]) -> Callable[[Path, random.Random], list]:
    """Returns a change that writes a good film beside odd files, and then calls a command on them."""

    def change(place: Path, draws: random.Random) -> list:
        good = (place / FILM).read_bytes()
        shutil.rmtree(place / "media")
        (place / "media").mkdir()
        (place / "media" / "good.mp4").write_bytes(good)
        for number in range(AT_ONCE):
            draws.choice(writers)(place / "media", number, draws)
        names = "\n".join(path.name for path in sorted((place / "media").iterdir()))
        (place / "media" / "list.csv").write_text(f"path\n{names}\n")
        settings = place / "params.yaml"
        settings.write_text(settings.read_text().replace("source: raw/clips}", "source: raw/clips, require: any}"))
        return command(draws)

    return change


def _script(media: Path, number: int, draws: random.Random) -> None:
    """Writes a text that decoders follow to other files."""
    name = draws.choice(("good.mp4", "./good.mp4", str(media / "good.mp4"), "/etc/passwd"))
    text = draws.choice(
        (f"ffconcat version 1.0\nfile {name}\n", f"ffconcat version 1.0\nfile 'file:{name}'\nduration 1\n",
         f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{name}\n#EXT-X-ENDLIST\n", f"file {name}\n",
         "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n")
    )  # fmt: skip
    (media / f"script{number}{draws.choice(('.mp4', '.mkv', '.wav', '.avi', '.m3u8'))}").write_text(text)


def _samples(media: Path, number: int, draws: random.Random) -> None:
    """Writes floating-point sound with odd values, at an odd rate."""
    rate = round(10 ** draws.uniform(2, 5.3))
    samples = 0.3 * np.sin(np.arange(max(rate // 2, 1)) / 20)
    samples[:: draws.choice((1, 7, len(samples)))] = draws.choice((np.nan, np.inf, 1e30, 1e-30, -1.0))
    with av.open(str(media / f"sound{number}.wav"), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="flt", layout="mono")
        frame.sample_rate = rate
        container.mux([*stream.encode(frame), *stream.encode(None)])


def _frames(media: Path, number: int, draws: random.Random) -> None:
    """Writes a film of an odd shape, with frames far apart or sound that starts late."""
    wide = draws.choice((32, 32, 2, 4, 1000, 4000))
    size = draws.choice(((wide, 24), (24, wide), (wide, 4), (4, wide)))
    gap, late = draws.choice((1, 1, 10, 3000, 25_000)), draws.choice((0, 0, 1, 100, 10**6))
    path = media / f"film{number}{draws.choice(('.mkv', '.mkv', '.mp4'))}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        packets = []
        for count in range(draws.choice((1, 3, 15))):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 90, np.uint8), format="rgb24")
            frame.pts, frame.time_base = count * gap, Fraction(1, 25)
            packets += stream.encode(frame.reformat(format="yuv420p"))
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 8192), np.float32), format="fltp", layout="mono")
        tone.sample_rate, tone.pts, tone.time_base = 16000, late * 16000, Fraction(1, 16000)
        packets += [*stream.encode(None), *sound.encode(tone), *sound.encode(None)]
        for packet in packets:
            container.mux(packet)


def _clips_of_all(place: Path) -> list[str]:
    table = read_manifest(place / "out" / "data" / "manifest.csv").table
    used = set(table.loc[table["status"] == "ok", "source" if "source" in table else "id"])
    faults = [] if len(table) == AT_ONCE + 1 and any("good" in name for name in used) else ["rows are missing"]
    return faults + [f"{name} was read" for name in sorted(used) if "script" in name]


def _vectors_of_all(place: Path) -> list[str]:
    table = pq.read_table(place / "out" / "vectors.parquet").to_pandas()
    faults = [] if all(np.isfinite(vector).all() for vector in table["vector"]) else ["features that are not finite"]
    faults += [] if any(name.endswith("good.mp4") for name in table["file"]) else ["the good file is left out"]
    return faults + [f"{name} was read" for name in sorted(set(table["file"])) if "script" in name]


_ALL, _MEDIA = ("params.yaml", "raw", "media", "runs", "archive.zip"), ("params.yaml", "media", "runs")
_ODD = (_script, _samples, _frames, _frames)


def _prepare(_draws: random.Random) -> list[str]:
    return ["prepare", "--raw", "media/list.csv", "--out", "out/data"]


def _embed(draws: random.Random) -> list[str]:
    encoder = draws.choice((ENCODER, f"{RUN}/encoders/audio_teacher"))
    return ["embed", encoder, "media/list.csv", "--output", "out/vectors.parquet"]


KINDS = {
    "places of the user": Kind(_ALL, _places, adds=True),
    "folders in folders": Kind(("params.yaml", "raw"), _folders, check=_same_clips, adds=True),
    "raw files that change": Kind(("params.yaml", "media", "data"), _changing, (0,), 1, _follows),
    "odd media, prepare": Kind(_MEDIA, _odd_media(_prepare, _ODD), (0,), AT_ONCE, _clips_of_all),
    "odd media, embed": Kind(_MEDIA, _odd_media(_embed, _ODD), (0,), AT_ONCE, _vectors_of_all),
    "scripts, prepare": Kind(_MEDIA, _odd_media(_prepare, (_script,)), (0,), AT_ONCE, _clips_of_all),
    "scripts, embed": Kind(_MEDIA, _odd_media(_embed, (_script,)), (0,), AT_ONCE, _vectors_of_all),
}

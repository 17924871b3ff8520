"""Damages one file of a project, each kind in ways of its own: text, archives, checkpoints, weights."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import tarfile
import zipfile
from functools import cache
from pathlib import Path

import torch
from fuzz_changes import bytes_changed, text_changed
from fuzz_world import RUN

RELEASED = Path(__file__).parent / "reference" / "released"
MEMBERS = (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)


def edit(path: Path, draws: random.Random) -> None:
    """Damages a file as text or as bytes, as fits its name."""
    if path.suffix in (".json", ".yaml", ".csv", ".jsonl", ".txt") and draws.random() < 0.8:
        path.write_text(text_changed(path.read_text(), draws), errors="surrogateescape")
    else:
        path.write_bytes(bytes_changed(path.read_bytes(), draws))


def damage_archive(path: Path, draws: random.Random) -> None:
    """Damages the bytes of an archive, or adds a hostile member."""
    if draws.random() < 0.35:
        _hostile(path, draws)
    else:
        path.write_bytes(bytes_changed(path.read_bytes(), draws))


def _hostile(path: Path, draws: random.Random) -> None:
    """Adds a member that would leave the folder, be a link or a device, clash, or have an odd name."""
    name = draws.choice(
        ("../evil.mp4", "/tmp/fuzz-evil.mp4", "a/../../evil.mp4", "C:\\evil.mp4", "..\\evil.mp4", "train/high/0.mp4",
         "TRAIN/high/0.MP4", "train", "a\nb.mp4", "é.mp4", "x" * 300 + ".mp4", "a/" * 60 + "b.mp4", "", ".", "a\0b.mp4")
    )  # fmt: skip
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "a") as archive:
            info = zipfile.ZipInfo("x")
            info.filename, info.external_attr = name, draws.choice((0o100644, 0o120777, 0o10644)) << 16
            archive.writestr(info, draws.choice((b"", b"/etc/passwd", b"\0" * 100_000)), zipfile.ZIP_DEFLATED)
    elif path.suffix in (".tar", ".gz"):
        with tarfile.open(path) as archive:
            old = [(member, archive.extractfile(member).read()) for member in archive if member.isfile()]
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
            info = tarfile.TarInfo(name)
            info.type = draws.choice(MEMBERS)
            info.linkname = draws.choice(("/etc/passwd", "../..", "train/high/0.mp4"))
            for member, content in draws.sample([*old, (info, b"")], len(old) + 1):
                archive.addfile(member, io.BytesIO(content))


@cache
def _zeros(mebibytes: int, name: str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(name, bytes(mebibytes << 20))
    return written.getvalue()


def nest_archives(path: Path, draws: random.Random) -> None:
    """Packs archives of zeros into an archive, side by side and within each other."""
    for number in range(draws.choice((1, 2, 3, 3))):
        content = _zeros(draws.choice((1, 600, 700)), f"zeros{number}.mp4")
        for _ in range(draws.choice((0, 0, 0, 1, 4))):
            with zipfile.ZipFile(outer := io.BytesIO(), "w") as archive:
                archive.writestr("inner.zip", content)
            content = outer.getvalue()
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"more{number}.zip", content)


def copy_encoder(place: Path, draws: random.Random) -> Path:
    """Copies an encoder out of its run, most often without the hashes of its files, as earlier versions wrote it."""
    name = draws.choice(("video_student", "audio_student", "audio_teacher"))
    folder = shutil.copytree(place / RUN / "encoders" / name, place / "encoder")
    config = json.loads((folder / "config.json").read_text())
    if draws.random() < 0.7:
        config["sha256"] = {}
        (folder / "config.json").write_text(json.dumps(config, indent=1))
    return folder


def damage_checkpoint(place: Path, draws: random.Random) -> None:
    """Damages the bytes of a checkpoint, or its pickle with a right checksum, or the state in it."""
    path = next((place / "checkpoints").rglob("last.pt"))
    draws.choice((_bytes_of, _pickle_of, _state_of))(path, draws)


def damage_weights(place: Path, draws: random.Random) -> Path:
    """Damages released weights likewise."""
    path = place / "XKD_student.pth.tar"
    place.mkdir(exist_ok=True)
    shutil.copy(draws.choice(sorted(RELEASED.glob("*aud*.pth.tar"))), path)
    draws.choice((_bytes_of, _pickle_of, _state_of))(path, draws)
    return path


def _bytes_of(path: Path, draws: random.Random) -> None:
    path.write_bytes(bytes_changed(path.read_bytes(), draws))


def _pickle_of(path: Path, draws: random.Random) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draws.choice([*(name for name in members if name.endswith("data.pkl")), *members])
    members[name] = bytes_changed(members[name], draws)
    if draws.random() < 0.2:
        members[name] = pickle.dumps(_Command())
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


class _Command:
    """Pickled, it asks the reader to run a program."""

    def __reduce__(self) -> tuple:
        return os.system, ("true",)


def _state_of(path: Path, draws: random.Random) -> None:
    """Replaces one value in the nested mappings of a file of torch's."""
    held = torch.load(path, weights_only=True)
    inner, key = held, draws.choice(list(held))
    while isinstance(inner[key], dict | list) and len(inner[key]) and draws.random() < 0.8:
        inner = inner[key]
        key = draws.choice(list(inner)) if isinstance(inner, dict) else draws.randrange(len(inner))
    old = inner[key]
    odd = [None, -1, 10**30, float("nan"), "x", [], {}, torch.zeros(0), torch.full((3,), float("nan")), [[[]]]]
    if isinstance(old, torch.Tensor):
        odd += [
            old.half(),
            old[:0] if old.dim() else old.new_zeros(0),
            old.flatten(),
            old * float("nan"),
            old.to(torch.int64),
            old.to_sparse(),
        ]
    if isinstance(inner, dict) and draws.random() < 0.25:
        del inner[key]
        if draws.random() < 0.5:
            inner[draws.choice((0, "x", None))] = old
    else:
        inner[key] = draws.choice(odd)
    torch.save(held, path)

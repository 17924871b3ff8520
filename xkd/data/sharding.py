"""Decides which clips go into which shard, and writes shards; the format is that of `xkd.data.shards`."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xkd import sums
from xkd.data.opening import MediaError
from xkd.data.reader import ClipReader
from xkd.data.shards import DECODED, places_of, row_type
from xkd.errors import UserError
from xkd.made import Made
from xkd.settings import ShardSettings

FACTS = ("id", "label", "split", "digest", "seconds", "fps", "sample_rate", "has_video", "has_audio")


@dataclass(frozen=True)
class Plan:
    """Holds what goes into one shard.

    Attributes:
        name: of the shard; holds a hash of all that follows but `bytes`.
        form: ENCODED or DECODED.
        clips: the file of each clip, and what `<key>.json` says of it.
        bytes: how large the shard will be, about.
    """

    name: str
    form: str
    clips: list[tuple[Path, dict[str, Any]]]
    bytes: float


def plan_shards(rows: pd.DataFrame, folder: Path, wanted: ShardSettings) -> list[Plan]:
    """Spreads clips over shards, those of each split apart.

    The digest of a clip decides its shard, so that classes are mixed, and a few more clips change few shards.

    Args:
        rows: usable clips of a manifest.
        folder: where their paths begin.

    Raises:
        UserError: a clip is not there.
    """
    sizes = _decoded_bytes(rows) if wanted.form == DECODED else _file_bytes(rows, folder)
    rows = rows.assign(bytes=sizes, place=places_of(rows["digest"].tolist())).sort_values(["place", "id"])
    plans = []
    for split, some in rows.groupby("split", sort=True):
        shards = np.uint64(max(round(some["bytes"].sum() / (wanted.gb * 1e9)), 1))
        numbers = ((some["place"].to_numpy(np.uint64) >> np.uint64(32)) * shards) >> np.uint64(32)
        for number in np.unique(numbers).tolist():
            clips = some[numbers == number]
            facts = json.loads(clips[list(FACTS)].to_json(orient="records"))
            name = f"{split}-{number:06d}-{_hash([wanted.form, facts])}.tar"
            files = [folder / path for path in clips["path"]]
            plans.append(Plan(name, wanted.form, list(zip(files, facts, strict=True)), float(clips["bytes"].sum())))
    return plans


def write_shard(plan: Plan, target: Path, files: Made) -> tuple[int, np.ndarray, np.ndarray]:
    """Writes a shard unless it is there; returns its size, its rows, see `shards.row_type`, and sums of its blocks.

    Raises:
        UserError: a clip is missing or cannot be read.
    """
    if not files.has(target):
        with files.writing(target) as temporary, tarfile.open(temporary, "w:", format=tarfile.GNU_FORMAT) as tar:
            for path, facts in plan.clips:
                _add_clip(tar, plan.form, path, facts)
    return target.stat().st_size, rows_of(target, plan.form), sums.of_file(target)


def rows_of(shard: Path, form: str) -> np.ndarray:
    """Lists the clips of a shard as rows; `shard` of each is 0."""
    rows: list[np.ndarray] = []
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            name = member.name.partition(".")[2]
            if name == "json":
                about = json.loads(_content(tar, member))
                row = np.zeros((), row_type(form))
                row["digest"] = places_of([about["digest"]])[0]
                for length, value in about["lengths"].items():
                    row[length] = value
                rows.append(row)
            else:
                rows[-1][name] = member.offset_data, member.size, about["crc32"][name]
    return np.stack(rows)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""


def _add_clip(tar: tarfile.TarFile, form: str, path: Path, facts: dict[str, Any]) -> None:
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", facts["id"])[-60:]
    key = f"{readable}-{hashlib.sha256(facts['id'].encode()).hexdigest()[:16]}"
    try:
        lengths, members = _decoded(path, facts) if form == DECODED else ({}, {"mp4": path.read_bytes()})
    except (OSError, MediaError) as error:
        raise UserError(f"clip {facts['id']}: {path} cannot be read ({error}); run prepare again") from None
    checks = {name: zlib.crc32(content) for name, content in members.items()}
    about = json.dumps({**facts, "lengths": lengths, "crc32": checks}).encode()
    for name, content in {"json": about, **members}.items():
        entry = tarfile.TarInfo(f"{key}.{name}")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))


def _decoded(path: Path, facts: dict[str, Any]) -> tuple[dict[str, int], dict[str, bytes]]:
    """Decodes a clip exactly as training would: the lengths of its arrays, and these as .npy files."""
    reader, arrays = ClipReader(path), dict[str, np.ndarray]()
    frames = samples = np.empty((0, 0, 0, 0), np.uint8)
    if facts["has_video"]:
        frames = arrays["video.npy"] = reader.frames()
    if facts["has_audio"]:
        samples = arrays["audio.npy"] = reader.samples(0, round(facts["seconds"] * facts["sample_rate"]))
    lengths = {"frames": len(frames), "height": frames.shape[1], "width": frames.shape[2], "samples": len(samples)}
    return lengths, {name: _npy(array) for name, array in arrays.items()}


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array))
    return buffer.getvalue()


def _decoded_bytes(rows: pd.DataFrame) -> pd.Series:
    pixels = (rows["width"] * rows["height"]).fillna(0).astype(float)
    video = 3 * pixels * (rows["seconds"] * rows["fps"].fillna(0)).astype(float)
    return video + 2 * (rows["seconds"] * rows["sample_rate"].fillna(0)).astype(float)


def _file_bytes(rows: pd.DataFrame, folder: Path) -> list[int]:
    try:
        return [(folder / path).stat().st_size for path in rows["path"]]
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; run prepare again") from None


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

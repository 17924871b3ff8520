"""Counts the clips of data sets, and the bytes of clips, checkpoints and encoders on disk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import nn

from xkd.data import catalogue, manifest
from xkd.data.encode import AUDIO_BIT_RATE
from xkd.errors import UserError
from xkd.modalities import MODALITIES
from xkd.plan.footprint import FLOAT, networks_without_memory, parameters
from xkd.recipe import Recipe
from xkd.settings import Clips, Dataset, Params

# Where the clips are not there yet. Frames as wide as most videos. Bits of a pixel at the settings of `prepare`: a
# rough figure.
OTHER_SECONDS = 10.0
WIDTH_TO_HEIGHT = 16 / 9
BITS_PER_PIXEL = 0.3
KEPT_CHECKPOINTS = 2  # the last one, and the good one before it


@dataclass(frozen=True)
class ClipInventory:
    """Clips of a data set by split, the origin of these numbers, and bytes after `prepare` and of packed copies."""

    splits: dict[str, int]
    source: str
    streams: tuple[str, ...]
    prepared: float
    packed: float

    @property
    def train(self) -> int:
        return self.splits.get("train", 0)

    @property
    def all(self) -> int:
        return sum(self.splits.values())


def clip_inventory(params: Params, name: str, train: int | None = None) -> ClipInventory:
    """Counts the clips of data/<name>/manifest.csv if it is there, else of the catalogue or the settings.

    Args:
        train: the number of training clips, if it is known.

    Raises:
        UserError: own files that are not prepared yet, so that their number is unknown.
    """
    entry, clips, path = (
        catalogue.entry(params, name),
        catalogue.clips(params, name),
        Path("data") / name / "manifest.csv",
    )
    required = catalogue.required(entry)
    streams = (required,) if required in MODALITIES else tuple(MODALITIES)
    if train is None and path.exists():
        return _from_manifest(path, entry, clips, streams)
    splits, source = ({"train": train}, "--clips") if train is not None else _expected(entry, name)
    known = catalogue.known_datasets().get(entry.kind)
    seconds = known.seconds if known else OTHER_SECONDS
    generated = known is not None and known.generated
    pixels = math.ceil(seconds * clips.fps) * clips.size**2 * (1 if generated else WIDTH_TO_HEIGHT)
    decoded = 3 * pixels, seconds * clips.sample_rate * 2
    encoded = decoded if generated else (pixels * BITS_PER_PIXEL / 8, seconds * AUDIO_BIT_RATE / 8)
    of_frames, of_samples = zip(encoded, decoded, strict=True)
    sizes = dict(zip(MODALITIES, (of_frames, of_samples), strict=True))
    prepared, packed = (sum(splits.values()) * sum(sizes[stream][kind] for stream in streams) for kind in (0, 1))
    return ClipInventory(splits, source, streams, prepared, _copies(entry, clips, prepared, packed))


def checkpoint_bytes(recipe: Recipe) -> float:
    """Counts the bytes of a checkpoint: weights of all networks, and two values of AdamW for each that is trained."""
    counts = parameters(recipe)
    return FLOAT * (3 * counts["trainable"] + counts["teachers"])


def encoder_bytes(recipe: Recipe) -> float:
    """Counts the bytes of the encoders that a run writes, with heads and decoders; each stores the shared blocks."""
    networks = networks_without_memory(recipe)
    encoders = [*networks.students.values(), *networks.teachers.values()]
    beside: list[nn.Module] = [networks.student_heads, networks.teacher_heads, networks.decoders]
    return FLOAT * sum(p.numel() for module in (*encoders, *beside) for p in module.parameters())


def _expected(entry: Dataset, name: str) -> tuple[dict[str, int], str]:
    known = catalogue.known_datasets().get(entry.kind)
    if known and known.generated:
        return {"train": entry.train_clips, "test": entry.test_clips}, "settings"
    if known is None:
        raise UserError(
            f"datasets.{name}: own files, and data/{name}/manifest.csv is not there yet; run `python -m xkd prepare` "
            "first, or say how many training clips there are with --clips"
        )
    if entry.limit is None:
        return dict(known.expected), "catalogue"
    most = entry.limit * known.labels
    return {split: min(count, most) for split, count in known.expected.items()}, "catalogue and limit"


def _copies(entry: Dataset, clips: Clips, prepared: float, decoded: float) -> float:
    """Counts the bytes of packed arrays and of shards."""
    shards = {"encoded": prepared, "decoded": decoded}[entry.shards.form] if entry.shards else 0.0
    return shards + (decoded if clips.pack else 0.0)


def _from_manifest(path: Path, entry: Dataset, clips: Clips, streams: tuple[str, ...]) -> ClipInventory:
    rows = manifest.read_manifest(path).rows
    prepared = sum(file.stat().st_size for file in map(path.parent.joinpath, rows["path"]) if file.exists())
    packed = _copies(entry, clips, prepared, _decoded_bytes(rows, clips))
    splits = {str(split): count for split, count in rows["split"].value_counts().to_dict().items()}
    return ClipInventory(splits, str(path), streams, prepared, packed)


def _decoded_bytes(rows: pd.DataFrame, clips: Clips) -> float:
    seconds, pixels = rows["seconds"].astype(float), (rows["width"] * rows["height"]).fillna(0).astype(float)
    video = (3 * pixels * (seconds * clips.fps).round() * rows["has_video"]).sum()
    return float(video + (2 * seconds * clips.sample_rate * rows["has_audio"]).sum())

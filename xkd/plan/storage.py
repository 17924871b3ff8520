"""How many clips a data set has, and the room that clips, checkpoints and encoders take."""

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
from xkd.plan.memory import FULL, networks_without_memory, parameters
from xkd.recipe import Recipe
from xkd.settings import Clips, Dataset, Params

# Where the clips are not there yet. Mean length of a data set's clips in seconds, from their descriptions; embedded clips
# last one second. Frames as wide as those of most videos. Bits of a pixel at the settings of `prepare`: a rough figure.
TYPICAL_SECONDS = {"ucf101": 7.2, "hmdb51": 3.1, "esc50": 5.0, "fsd50k": 7.6}
OTHER_SECONDS = 10.0
FRAME_ASPECT = 16 / 9
BITS_PER_PIXEL = 0.3
KEPT_CHECKPOINTS = 2  # the last one, and the good one before it


@dataclass(frozen=True)
class ClipCounts:
    """Clips of a data set by split, where the numbers are from, and bytes after `prepare` (packed: decoded arrays)."""

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


def clip_counts(params: Params, name: str, train: int | None = None) -> ClipCounts:
    """From data/<name>/manifest.csv if it is there, else from the catalogue or the settings.

    Args:
        train: the number of training clips, to be believed instead.

    Raises:
        UserError: own files that are not prepared yet; nobody knows how many they are.
    """
    entry, clips, path = (
        catalogue.entry(params, name),
        catalogue.clips(params, name),
        Path("data") / name / "manifest.csv",
    )
    required = catalogue.required(entry)
    streams = (required,) if required in MODALITIES else tuple(MODALITIES)
    if train is None and path.exists():
        return _from_manifest(path, clips, streams)
    splits, source = ({"train": train}, "--clips") if train is not None else _expected(entry, name)
    seconds = clips.seconds if entry.kind in catalogue.EMBEDDED else TYPICAL_SECONDS.get(entry.kind, OTHER_SECONDS)
    wide = 1 if entry.kind in catalogue.EMBEDDED else FRAME_ASPECT
    pixels = math.ceil(seconds * clips.fps) * clips.size**2 * wide
    sizes = ((pixels * BITS_PER_PIXEL / 8, 3 * pixels), (seconds * AUDIO_BIT_RATE / 8, seconds * clips.sample_rate * 2))
    of_streams = [size for modality, size in zip(MODALITIES, sizes, strict=True) if modality in streams]
    prepared, packed = (sum(splits.values()) * sum(parts) for parts in zip(*of_streams, strict=True))
    return ClipCounts(splits, source, streams, prepared, packed if clips.pack else 0.0)


def checkpoint_bytes(recipe: Recipe) -> float:
    """Of one checkpoint: weights of all networks, and two values of AdamW for each that is trained."""
    counts = parameters(recipe)
    return FULL * (3 * counts["trainable"] + counts["teachers"])


def encoder_bytes(recipe: Recipe) -> float:
    """Of the encoders that a run leaves, with their heads and decoders; blocks that a variant shares are stored in each."""
    networks = networks_without_memory(recipe)
    encoders = [*networks.students.values(), *networks.teachers.values()]
    beside: list[nn.Module] = [networks.student_heads, networks.teacher_heads, networks.decoders]
    return FULL * sum(p.numel() for module in (*encoders, *beside) for p in module.parameters())


def _expected(entry: Dataset, name: str) -> tuple[dict[str, int], str]:
    known = catalogue.facts().get(entry.kind)
    if entry.kind in catalogue.EMBEDDED:
        return {"train": entry.train_clips, "test": entry.test_clips}, "settings"
    if known is None:
        raise UserError(
            f"datasets.{name}: own files, and data/{name}/manifest.csv is not there yet; run `python -m xkd prepare` first, "
            "or say how many training clips there are with --clips"
        )
    if entry.limit is None:
        return dict(known.expected), "catalogue"
    most = entry.limit * known.labels
    return {split: min(count, most) for split, count in known.expected.items()}, "catalogue and limit"


def _from_manifest(path: Path, clips: Clips, streams: tuple[str, ...]) -> ClipCounts:
    rows = manifest.read(path).rows
    prepared = sum(file.stat().st_size for file in map(path.parent.joinpath, rows["path"]) if file.exists())
    packed = _decoded_bytes(rows, clips) if clips.pack else 0.0
    splits = {str(split): count for split, count in rows["split"].value_counts().to_dict().items()}
    return ClipCounts(splits, str(path), streams, prepared, packed)


def _decoded_bytes(rows: pd.DataFrame, clips: Clips) -> float:
    seconds, pixels = rows["seconds"].astype(float), (rows["width"] * rows["height"]).fillna(0).astype(float)
    video = (3 * pixels * (seconds * clips.fps).round() * rows["has_video"]).sum()
    return float(video + (2 * seconds * clips.sample_rate * rows["has_audio"]).sum())

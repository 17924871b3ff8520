"""Estimates what loading a clip takes: processor time, and the bytes of what waits for the GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xkd.data import catalogue
from xkd.modalities import MODALITIES
from xkd.recipe import Recipe
from xkd.settings import AudioView, Params, VideoView

FLOAT = 4
WIDTH_TO_HEIGHT = 16 / 9
# Milliseconds of one core (AMD EPYC, Zen 4) for a clip at the paper's sizes, by benchmarks.loader_paper: video, audio.
# In all, 35 clips/s from files and 54 where the device augments; 67 and 175 from decoded arrays.
READ = {"encoded": (10.8, 3.3), "decoded": (1.1, 0.3)}
CUT = (1.8, 2.5)  # crop and resize; samples and mel power
AUGMENT = (8.7, 0.8)  # colours, blur, normalisation; the logarithm
# The paper's sizes: frames of a clip and their shorter side, seconds of audio, values of all views of a modality.
FRAMES, SIDE, SECONDS = 32, 128, 4.0
VALUES = (32 * 112**2 + 8 * 96**2, 80 * (448 + 112))


@dataclass(frozen=True)
class Stored:
    """How the clips of a data set lie on disk.

    Attributes:
        decoded: as arrays, packed or in shards; else as encoded files.
        size: shorter side of the frames.
        seconds: of a clip.
    """

    decoded: bool
    size: int
    seconds: float


@dataclass(frozen=True)
class Load:
    """What one clip costs before it reaches the GPU.

    Attributes:
        seconds: of one core.
        bytes: of its views in the queue.
        augments: the loader augments them, too.
        encoded: it reads encoded files.
    """

    seconds: float
    bytes: float
    augments: bool
    encoded: bool


def stored(params: Params, dataset: str | None) -> Stored:
    """Returns how the clips of a data set, by default that of the table, lie on disk."""
    name = dataset or params.dataset
    clips, shards = catalogue.clips(params, name), catalogue.entry(params, name).shards
    return Stored(clips.pack or bool(shards and shards.form == "decoded"), clips.size, clips.seconds)


def training_load(recipe: Recipe, stored: Stored, seen: Sequence[str], local_views: int = 0) -> Load:
    """Returns the load of a clip with the global view of each modality, and so many local ones."""
    views = {m: [of[0], *[of[1]] * local_views] for m in seen for of in [list(recipe.views.of(m).values())]}
    return _load(recipe, stored, views, recipe.training.augment)


def test_load(recipe: Recipe, stored: Stored, passes: dict[str, int]) -> Load:
    """Returns the load of a clip with so many test views of each modality, which are cut but not augmented."""
    views = {m: [next(iter(recipe.views.of(m).values()))] * count for m, count in passes.items()}
    return _load(recipe, stored, views, None)


def _load(recipe: Recipe, stored: Stored, views: dict[str, list[VideoView | AudioView]], augment: str | None) -> Load:
    seconds = size = 0.0
    for modality, of in views.items():
        kind = list(MODALITIES).index(modality)
        values = [math.prod(view.shape(recipe.logmel)) for view in of]
        read = READ["decoded" if stored.decoded else "encoded"][kind]
        if modality == "video":
            read *= max(view.frames for view in of) / FRAMES * (stored.size / SIDE) ** 2
        else:
            read *= stored.seconds / SECONDS
        work = CUT[kind] + (AUGMENT[kind] if augment == "cpu" else 0.0)
        seconds += (read + work * sum(values) / VALUES[kind]) / 1000
        waits_as_bytes = augment == "device" and modality == "video"
        size += MODALITIES[modality].channels * sum(values) * (1 if waits_as_bytes else FLOAT)
    return Load(seconds, size, augment == "cpu", not stored.decoded)

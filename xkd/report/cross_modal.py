"""Retrieves audio by video and video by audio, by the logits of the projection heads."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from xkd.downstream.ranking import places, unit_vectors
from xkd.modalities import MODALITIES, OTHER
from xkd.report.arrays import Arrays, shown_run
from xkd.report.collect import Results, Run
from xkd.report.previews import Previews
from xkd.report.text import EMPTY, TextTable
from xkd.runs.records import read_arrays

QUERIES, NEIGHBOURS = 4, 4  # examples per direction, clips shown for each
DIRECTIONS = tuple(OTHER.items())
TOP = 10
LOCAL = re.compile(r"[\\/~]|\.\.[\\/]|[A-Za-z]:[\\/]|file:")  # how paths begin that tell where files lie on a machine


@dataclass(frozen=True)
class Shown:
    """A clip of one modality; without prepared clips at hand, words alone.

    Attributes:
        id: as `shown_ids` gives it.
        image, sound: data URIs; `words` says what the image shows.
    """

    id: str
    label: str
    modality: str
    words: str
    image: str | None = None
    sound: str | None = None


@dataclass(frozen=True)
class Neighbour:
    """A clip of the other modality, nearest first; `is_pair`: it is the query's own other half."""

    clip: Shown
    similarity: float
    same_label: bool
    is_pair: bool


@dataclass(frozen=True)
class Example:
    """A query and its nearest neighbours; `rank` is that of its own other half among all, from 1."""

    query: Shown
    neighbours: list[Neighbour]
    rank: int


@dataclass(frozen=True)
class Examples:
    """Queries and neighbours of one run, among `clips` held-out clips."""

    run: Run
    clips: int
    found: list[Example]


def retrieved(results: Results, media: Previews | None) -> Examples | None:
    """Retrieves for evenly picked queries of both directions, none chosen by eye; None if no run has such heads."""
    shown = shown_run(results, "embeddings.npz", [f"{modality}_after" for modality in MODALITIES])
    if shown is None:
        return None
    run, arrays = shown
    media = None if results.elsewhere(run.ablation) else media
    arrays = arrays | {"shown": np.array(shown_ids([str(name) for name in arrays["ids"]]))}
    clips = len(arrays["ids"])
    found = []
    for turn, (source, target) in enumerate(DIRECTIONS):
        similarity_NN = similarities(arrays[f"{source}_after"], arrays[f"{target}_after"])
        ranks = ranks_of_pairs(similarity_NN)
        for i in _queries(clips, turn):
            neighbours = _neighbours(arrays, media, target, i, similarity_NN[i])
            found.append(Example(_shown(arrays, media, source, i), neighbours, int(ranks[i])))
    return Examples(run, clips, found)


def shared_space_table(results: Results) -> TextTable | None:
    """Tabulates `rates` per ablation that has heads, over both directions and all seeds, before and after training.

    Rows that are pretrained on other data are left out: their clips are others.
    """
    rows = []
    for name, runs in results.runs.items():
        if results.elsewhere(name):
            continue
        parts = [read_arrays(run.folder / "embeddings.npz") for run in runs]
        if all(f"{m}_after" in part for part in parts for m in MODALITIES):
            cells = [np.mean([rates(part, moment) for part in parts], axis=0) for moment in ("before", "after")]
            rows.append([name, *(f"{value:.1f}" for pair in zip(*cells, strict=True) for value in pair)])
    measures = ("own other half nearest", f"own other half among {TOP}", "nearest has the same label")
    header = ["ablation", *(f"{measure}, {moment}" for measure in measures for moment in ("before", "after"))]
    return TextTable(header, rows) if rows else None


def rates(arrays: Arrays, moment: str) -> tuple[float, float, float]:
    """Computes percentages of queries: own other half nearest, among the `TOP` nearest, nearest has the same label."""
    labels, found = arrays["labels"], []
    for source, target in DIRECTIONS:
        similarity_NN = similarities(arrays[f"{source}_{moment}"], arrays[f"{target}_{moment}"])
        ranks = ranks_of_pairs(similarity_NN)
        same = labels[similarity_NN.argmax(1)] == labels
        found.append((np.mean(ranks == 1), np.mean(ranks <= TOP), same.mean()))
    return tuple(100 * np.mean(found, axis=0))


def random_rates(arrays: Arrays) -> tuple[float, float, float]:
    """Computes what `rates` would be if neighbours were drawn at random."""
    clips = len(arrays["ids"])
    _, counts = np.unique(arrays["labels"], return_counts=True)
    return 100 / clips, 100 * min(TOP, clips) / clips, 100 * float(((counts / clips) ** 2).sum())


def similarities(queries_ND: np.ndarray, gallery_MD: np.ndarray) -> np.ndarray:
    """Computes the cosine of every query and every clip of the gallery, (N, M), seen from each side's own mean."""
    sides = (part.astype(np.float64) for part in (queries_ND, gallery_MD))
    queries, gallery = (unit_vectors(side, side.mean(0)) for side in sides)
    cosines: np.ndarray = queries @ gallery.T
    return cosines


def ranks_of_pairs(similarity_NN: np.ndarray) -> np.ndarray:
    """Computes the rank (N,) of clip i among all for query i, from 1; ties count against it."""
    return places(similarity_NN, np.eye(len(similarity_NN), dtype=bool))


def shown_ids(ids: list[str]) -> list[str]:
    """Returns ids as a page shows them: of a path on this machine only the last parts, as many as tell it apart."""
    parts = {name: tuple(word for word in re.split(r"[\\/]+", name) if word) for name in ids}
    ends = {name: [words[-count:] for count in range(1, len(words) + 1)] for name, words in parts.items()}
    shared = Counter(end for of_one in ends.values() for end in of_one)
    return [
        "/".join(next((end for end in ends[name] if shared[end] == 1), parts[name])) if LOCAL.match(name) else name
        for name in ids
    ]


def _queries(clips: int, turn: int) -> list[int]:
    """Picks queries, evenly spread; the second direction asks for other clips than the first."""
    count = min(QUERIES, clips)
    return [(2 * number + turn) * clips // (2 * count) for number in range(count)]


def _neighbours(
    arrays: Arrays, media: Previews | None, modality: str, i: int, similarity_N: np.ndarray
) -> list[Neighbour]:
    return [
        Neighbour(
            clip=_shown(arrays, media, modality, j),
            similarity=float(similarity_N[j]),
            same_label=bool(arrays["labels"][j] == arrays["labels"][i]),
            is_pair=bool(j == i),
        )
        for j in np.argsort(-similarity_N, kind="stable")[:NEIGHBOURS]
    ]


def _shown(arrays: Arrays, media: Previews | None, modality: str, i: int) -> Shown:
    clip, label = str(arrays["ids"][i]), str(arrays["labels"][i])
    shown = Shown(str(arrays["shown"][i]), label or EMPTY, modality, MODALITIES[modality].words)
    return shown if media is None else replace(shown, **media.of(modality, clip))

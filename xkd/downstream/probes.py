"""Probes of frozen features: what a classifier is fitted on, and how its scores become those of clips."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
from sklearn.preprocessing import normalize

from xkd.data.labels import several
from xkd.downstream.features import ClipOutputs, Key
from xkd.downstream.job import EvaluationJob
from xkd.downstream.scores import Judged, Scores
from xkd.progress import track
from xkd.protocols import Column
from xkd.settings import MODALITY_NAMES

Examples = TypeVar("Examples")


@dataclass(frozen=True)
class ProbeInput:
    """Frozen features of one encoder, or of both of an owner side by side, with the labels to learn.

    Each view of a training clip is an example; the score of a test clip is the mean over its views.

    Attributes:
        owner, modality: whose features these are; modality "both" where they are of both.
        train: (examples, D) features.
        labels: (examples,) labels; several of one clip are joined.
        items: per factor that features vary with (see `ClipOutputs.items_of`), (examples,) names.
        test: (test clips * views, D) features.
        test_labels: (test clips * views,) labels, which nothing is fitted on.
        clips: number of test clips.
        repeats: examples of each training clip, one after the other.
    """

    owner: str
    modality: str
    train: np.ndarray
    labels: np.ndarray
    items: list[np.ndarray]
    test: np.ndarray
    test_labels: np.ndarray
    clips: int
    repeats: int = 1

    def column(self, method: str) -> Column:
        """Returns the name of a method's figures."""
        return Column(self.owner, self.modality, method)

    def scores(self, method: str, values: np.ndarray, classes: np.ndarray, **about: Any) -> Scores:
        """Returns the scores of the test clips.

        Args:
            method: one of the protocol's methods.
            values: (test clips * views, classes), higher is better.
            classes: (classes,) names.
            about: `chosen` and `notes` of `Scores`.
        """
        means = values.reshape(self.clips, -1, values.shape[-1]).mean(1)
        return clip_scores(self.column(method), means, classes, self.labels, **about)


def probed(job: EvaluationJob[Any], *fits: Callable[[ProbeInput], Iterable[Scores]]) -> Iterator[Judged]:
    """Fits probes on frozen features of each encoder, and of both modalities of an owner together; see `judged_by`."""
    return judged_by(job, _examples, *fits)


def judged_by(
    job: EvaluationJob[Any],
    examples_of: Callable[[str, str, list[Key], ClipOutputs, ClipOutputs], Examples],
    *fits: Callable[[Examples], Iterable[Scores]],
) -> Iterator[Judged]:
    """Fits probes on what frozen encoders give for training clips.

    What is fitted is kept until the evaluation is written, so that a stopped job goes on after the last finished fit.

    Args:
        examples_of: takes owner, modality, networks, and the outputs for training and for test clips.
        fits: each returns the scores of one or more classifiers that it has fitted on the training examples.

    Yields:
        The scores of each fold.
    """
    for fold, train, test in job.frozen_folds():
        found: list[Scores] = []
        for owner, modality, keys in track(_example_sets(train.outputs), f"{job.task.protocol} probes"):
            examples = cache(partial(examples_of, owner, modality, keys, train, test))
            for number, fit in enumerate(fits):
                name = f"{fold}.{owner}.{modality}.{number}"
                found += job.fits.kept(name, lambda fit=fit, examples=examples: fit(examples()))  # type: ignore[misc]
        yield Judged(fold, test, found)


def clip_scores(column: Column, values: np.ndarray, classes: np.ndarray, labels: np.ndarray, **about: Any) -> Scores:
    """Returns the scores (clips, classes) of a classifier of these training labels.

    Where mean average precision is all that counts they have the precision of the score file, so that the file gives
    the same figures.
    """
    joined = several(labels)
    return Scores(column, values.astype(np.float32) if joined else values, classes, joined, **about)


def concatenate(video: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """Returns features of both modalities side by side, each L2-normalised: (clips, D_v + D_a)."""
    return np.concatenate([normalize(video), normalize(audio)], axis=1)


def _example_sets(outputs: Collection[Key]) -> list[tuple[str, str, list[Key]]]:
    """Returns owner, modality and networks of the features of each encoder, then of both of an owner."""
    sets = []
    for owner in sorted({owner for owner, _ in outputs}):
        keys = [(owner, modality) for modality in MODALITY_NAMES if (owner, modality) in outputs]
        sets += [(owner, modality, [(owner, modality)]) for _, modality in keys]
        if len(keys) == 2:
            sets.append((owner, "both", keys))
    return sets


def _examples(owner: str, modality: str, keys: list[Key], train: ClipOutputs, test: ClipOutputs) -> ProbeInput:
    features, test_features = (_joined([part.outputs[key] for key in keys]) for part in (train, test))
    (clips, views, width), repeats = test_features.shape, features.shape[1]
    return ProbeInput(
        owner,
        modality,
        train=features.reshape(-1, width),
        labels=np.repeat(train.labels, repeats),
        items=[np.repeat(names, repeats) for names in train.items_of(modality)],
        test=test_features.reshape(-1, width),
        test_labels=np.repeat(test.labels, views),
        clips=clips,
        repeats=repeats,
    )


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Returns features (clips, views, D) of one modality, or of both side by side; a moment's crops share its audio."""
    if len(parts) == 1:
        return parts[0]
    video, audio = parts
    audio = np.repeat(audio, video.shape[1] // audio.shape[1], axis=1)
    flat = concatenate(*(part.reshape(-1, part.shape[-1]) for part in (video, audio)))
    return flat.reshape(*video.shape[:2], -1)

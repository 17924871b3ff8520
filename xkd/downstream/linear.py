"""Protocols `linear` and `svm`: logistic regression, and the SVM of the paper (section 4, tables 3 and 4)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from xkd.data.labels import several
from xkd.downstream import knn, notes
from xkd.downstream.classifiers import Part, scored
from xkd.downstream.job import EvaluationJob
from xkd.downstream.labels import targets
from xkd.downstream.probes import ProbeInput, probed
from xkd.downstream.scores import Judged, Scores, hits, mean_average_precision
from xkd.errors import UserError
from xkd.protocols import LinearProbe, SvmProbe
from xkd.settings import Linear, Svm


@LinearProbe.runs
def probe_linear(job: EvaluationJob[Linear]) -> Iterator[Judged]:
    """Probes frozen features by logistic regression, and by their nearest neighbours."""
    neighbours = job.settings.neighbours

    def vote(examples: ProbeInput) -> list[Scores]:
        votes = knn.classify(examples.train, examples.labels, examples.test, neighbours)
        remarks = notes.of_neighbours(str(examples.column("knn")), neighbours, len(examples.train))
        return [examples.scores("knn", *votes, notes=tuple(remarks))]

    return probed(job, lambda examples: [_probed(examples, job.settings, "linear", "evaluate.linear.C")], vote)


@SvmProbe.runs
def probe_svm(job: EvaluationJob[Svm]) -> Iterator[Judged]:
    """Probes frozen features by a linear support vector machine."""
    return probed(job, lambda examples: [_probed(examples, job.settings, "svm", "evaluate.svm.max_iter")])


def _probed(examples: ProbeInput, settings: Linear | Svm, method: str, patience: str) -> Scores:
    """Returns the scores of one classifier; `patience` is the setting that lets its solver converge."""
    name = str(examples.column(method))
    with notes.of_solver(name, patience) as unfinished:
        values, classes, c = fit_and_score(examples, settings)
    return examples.scores(method, values, classes, chosen={f"{name}.C": c}, notes=tuple(unfinished))


def hold_out(
    labels: np.ndarray, items: Sequence[np.ndarray], share: float, key: str = "evaluate.linear.C"
) -> tuple[np.ndarray, np.ndarray]:
    """Splits training clips into those that fit the candidates for C and those that choose among them.

    Test clips come from scans and recordings that training has never shown. C must be chosen under the same
    condition: with clips of one scan on both sides, the least regularised probe, which memorises scans, would
    win. So whole items are held out, evenly over the labels; a clip made of two items is held out when both are,
    and fits when neither is.

    Args:
        labels: (clips,).
        items: one (clips,) array of item names per modality that the probe sees.
        share: part of the clips to hold out.
        key: the setting that asks for it.

    Returns:
        Two boolean arrays (clips,): fit, held out. With two factors some clips are in neither.

    Raises:
        UserError: there are too few items to hold any out.
    """
    generator = np.random.default_rng(0)
    inside = [_chosen_items(labels, names, share ** (1 / len(items)), generator) for names in items]
    held, fit = np.all(inside, axis=0), ~np.any(inside, axis=0)
    if not held.any() or len(np.unique(labels[fit])) < 2:
        sources = min(len(np.unique(names)) for names in items)
        raise UserError(
            f"{key}: {len(labels)} training clips of {sources} sources are too few to choose C on a held-out part; "
            "use more clips or give a single C"
        )
    return fit, held


def choose_c(features: np.ndarray, labels: np.ndarray, items: Sequence[np.ndarray], settings: Linear | Svm) -> float:
    """Returns the C with the best held-out top-1 (mAP if clips have several labels), the smallest of equally good ones.

    Args:
        features: (clips, D) of training clips only.
        labels: (clips,).
        items: as for `hold_out`.
        settings: candidates and the part to hold out.
    """
    if len(settings.C) == 1:
        return settings.C[0]
    fit, held = hold_out(labels, items, settings.holdout, f"evaluate.{type(settings).__name__.lower()}.C")
    return _best_c(settings, *(Part(features, labels, np.flatnonzero(chosen)) for chosen in (fit, held)))


def fit_and_score(examples: ProbeInput, settings: Linear | Svm) -> tuple[np.ndarray, np.ndarray, float]:
    """Fits on the training examples, with C chosen among them, and scores the test clips.

    One classifier over all classes, or one per class where clips have several labels.

    Args:
        examples: features, labels and items; labels of test clips choose C with `select_on: test`, and do nothing else.
        settings: which classifier, candidates for C and the part to hold out.

    Returns:
        Scores (test clips, classes), class names (classes,), the chosen C.

    Raises:
        UserError: fewer than two classes, or too few clips to choose C.
    """
    labels = examples.labels
    if len(np.unique(labels)) < 2:
        raise UserError(
            "a linear probe needs training clips of two labels or more; see the column label of the manifest"
        )
    train, test = Part.whole(examples.train, labels), Part.whole(examples.test, examples.test_labels)
    if isinstance(settings, Svm) and settings.select_on == "test":
        c = _best_c(settings, train, test)
    else:
        c = choose_c(examples.train, labels, examples.items, settings)
    classes, (scores,) = scored(settings, [c], train, test)
    return scores, classes, c


def _best_c(settings: Linear | Svm, fit: Part, held: Part) -> float:
    """Fits every candidate on `fit` and returns the one that scores best on `held`."""
    candidates = sorted(settings.C)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough to choose by
        classes, found = scored(settings, candidates, fit, held)
        quality = [_quality(scores, classes, fit.names, held.names) for scores in found]
    return candidates[int(np.argmax(quality))]


def _quality(scores: np.ndarray, classes: np.ndarray, trained: np.ndarray, labels: np.ndarray) -> float:
    """Computes the top-1 (mAP if training clips have several labels)."""
    if several(trained):
        return mean_average_precision(scores, targets(labels, classes))
    return float(hits(scores, classes, labels).mean())


def _chosen_items(labels: np.ndarray, names: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Marks the clips of `share` of the items: every n-th of a list sorted by label, so that every label has some."""
    unique, first, index = np.unique(names, return_index=True, return_inverse=True)
    shuffled = generator.permutation(len(unique))
    by_label = shuffled[np.argsort(labels[first][shuffled], kind="stable")]
    count = min(max(round(share * len(unique)), 1), len(unique) - 1)
    positions = np.arange(count) + generator.random()
    chosen = np.zeros(len(unique), dtype=bool)
    chosen[by_label[(positions * len(unique) / max(count, 1)).astype(int)]] = True
    return chosen[index]

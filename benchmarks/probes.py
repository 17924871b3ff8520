"""Growth of the probes with the number of clips: solvers, kNN, retrieval, metrics. Ratios of processor time in one run.

    OMP_NUM_THREADS=1 python -m benchmarks.probes

Features are random numbers around a centre for each class, so that classes overlap. The solvers are compared on growing
parts of UCF101 with 25 augmented clips per training clip (238,425 examples, 768 features, 101 classes). The line
"extrapolated" says what a fit of the whole takes if the time goes on growing as it did last.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

import click
import numpy as np

from xkd.downstream import knn, ranking
from xkd.downstream.classifiers import Part, scored
from xkd.downstream.features import ClipOutputs
from xkd.downstream.metrics import summarise
from xkd.downstream.scores import Scores
from xkd.protocols import Column
from xkd.settings import Linear, Svm

EXAMPLES, WIDTH, CLASSES = 9_537 * 25, 768, 101  # UCF101, fold 1
C = 0.01


def features(clips: int, width: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns features (clips, width) and labels (clips,) that they tell in part."""
    generator = np.random.default_rng(0)
    number = generator.integers(0, classes, clips)
    spectrum = np.geomspace(1, 0.03, width)  # features of encoders are correlated
    mixing = generator.normal(size=(width, width)) * spectrum[:, None]
    centres = generator.normal(size=(classes, width))
    x = (0.3 * centres[number] + generator.normal(size=(clips, width))) @ mixing
    return x.astype(np.float32), np.array([f"class {i:03d}" for i in range(classes)])[number]


def seconds(work: Callable[[], object]) -> float:
    """Returns the processor time of a call, of all threads."""
    started = time.process_time()
    work()
    return time.process_time() - started


def solvers(size: int) -> Iterator[str]:
    """Compares the solvers on `size`, twice and four times as many examples."""
    yield "| objective | examples | scikit-learn, s | torch, s | ratio |"
    yield "| --- | --- | --- | --- | --- |"
    for settings in (Svm(), Linear()):
        taken: dict[str, list[float]] = {"sklearn": [], "torch": []}
        for examples in (size, 2 * size, 4 * size):
            whole = Part.whole(*features(examples, WIDTH, CLASSES))
            for solver, times in taken.items():
                times.append(seconds(partial(fit, settings, solver, whole)))
            yield _row(settings, f"{examples:,}", *(times[-1] for times in taken.values()))
        whole_set = [t[-1] * (t[-1] / t[-2]) ** np.log2(EXAMPLES / (4 * size)) for t in taken.values()]
        yield _row(settings, f"{EXAMPLES:,} (extrapolated)", *whole_set)


def fit(settings: Linear | Svm, solver: str, whole: Part) -> None:
    """Fits and scores the examples."""
    list(scored(settings.model_copy(update={"solver": solver}), [C], whole, whole)[1])


def _row(settings: Linear | Svm, examples: str, theirs: float, ours: float) -> str:
    return f"| {type(settings).__name__} | {examples} | {theirs:.1f} | {ours:.1f} | {theirs / ours:.1f} |"


def growth(size: int) -> Iterator[str]:
    """Times what follows the fit, for `size`, twice and four times as many test clips, and 400 classes."""
    yield "| clips | metrics of a classifier, s | kNN, s | retrieval, s |"
    yield "| --- | --- | --- | --- |"
    for clips in (size, 2 * size, 4 * size):
        x, labels = features(clips, 256, 400)
        classes = np.array([f"class {i:03d}" for i in range(400)])
        ids = np.array([f"clip{i:06d}" for i in range(clips)])
        test = ClipOutputs(ids, labels, dict.fromkeys(("video", "audio"), ids), {})
        values = np.random.default_rng(0).random((clips, 400))
        judged = [Scores(Column("student", "video", "linear"), values, classes)]
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        works: list[Callable[[], object]] = [
            lambda judged=judged, test=test: summarise(judged, test),
            lambda x=x, labels=labels: knn.classify(x, labels, x, 20),
            lambda unit=unit, ids=ids, labels=labels: ranking.retrieve(
                unit, unit, ranking.relevant_clips(ids, labels, "clip")
            ),
        ]
        yield f"| {clips:,} | " + " | ".join(f"{seconds(work):.1f}" for work in works) + " |"


@click.command()
@click.option("--examples", default=1_000, show_default=True, help="fewest examples for the solvers")
@click.option("--clips", default=2_500, show_default=True, help="fewest test clips")
def main(examples: int, clips: int) -> None:
    """Prints two tables."""
    warnings.simplefilter("ignore")
    for line in chain(solvers(examples), [""], growth(clips)):
        click.echo(line)


if __name__ == "__main__":
    main()

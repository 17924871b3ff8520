"""Protocol `few_shot`: logistic regression on frozen features of k clips of each class, over several draws of these."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd

from xkd.data.labels import several
from xkd.downstream import notes
from xkd.downstream.classifiers import Part, scored
from xkd.downstream.job import EvaluationJob
from xkd.downstream.labels import targets
from xkd.downstream.probes import ProbeInput, probed
from xkd.downstream.scores import Judged, Scores
from xkd.errors import UserError
from xkd.protocols import FewShotProbe
from xkd.settings import FewShot, Linear


@FewShotProbe.runs
def probe_few_shot(job: EvaluationJob[FewShot]) -> Iterator[Judged]:
    """Probes frozen features by logistic regression on few clips of each class.

    Raises:
        UserError: clips have several labels, so that there is no number of clips of a class.
    """
    if several(job.rows(None)["label"]):
        raise UserError(
            "protocol few_shot draws clips of one label each, but clips of this data set have several; use protocol "
            "linear, layer or attentive"
        )
    return probed(job, *(partial(_fitted, job.settings, shots) for shots in dict.fromkeys(job.settings.shots)))


def drawn(labels: np.ndarray, shots: int, number: int) -> np.ndarray:
    """Draws clips of each class without replacement, all of a class that has fewer.

    A draw depends on its number and on the list of clips alone, so that all rows and seeds see the same clips. The
    clips of fewer shots are among those of more.

    Args:
        labels: (clips,) of the training clips.
        shots: clips of each class.
        number: of the draw.

    Returns:
        Numbers of the clips (n,), sorted.
    """
    order = np.random.default_rng(number).permutation(len(labels))
    place = pd.Series(order).groupby(labels[order]).cumcount().to_numpy()
    return np.sort(order[place < shots])


def _fitted(settings: FewShot, shots: int, examples: ProbeInput) -> list[Scores]:
    """Returns the votes of the classifiers that are fitted on each draw, and the top-1 of each."""
    labels, tested = examples.labels[:: examples.repeats], examples.test_labels.reshape(examples.clips, -1)[:, 0]
    method, linear = f"{shots}_shot", Linear(C=(settings.C,))
    votes, rates = [], []
    with notes.of_solver(str(examples.column(method)), "evaluate.few_shot.C") as unfinished:
        for number in range(settings.draws):
            rows = drawn(labels, shots, number)[:, None] * examples.repeats + np.arange(examples.repeats)
            train = Part(examples.train, examples.labels, rows.ravel())
            classes, (values,) = scored(linear, [settings.C], train, Part.whole(examples.test, examples.test_labels))
            one = examples.scores(method, values, classes)
            votes.append(targets(one.predicted, classes))
            rates.append(100 * float(one.recognised(tested).mean()))
    remarks = (*notes.of_shots(shots, labels), *unfinished)
    return [examples.scores(method, np.mean(votes, axis=0), classes, notes=remarks, draws=tuple(rates))]

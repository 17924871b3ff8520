"""What holds for the figures of all scores, against scikit-learn. XKD_FUZZ as in `test_properties`."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays
from sklearn.metrics import accuracy_score, average_precision_score

from xkd.downstream.metrics import average_precisions, intervals
from xkd.downstream.scores import class_average_precisions, hits

MANY = int(os.environ.get("XKD_FUZZ", "0"))
ALL = settings(max_examples=MANY or 25, derandomize=not MANY, deadline=None, database=None)
SCORED = some.tuples(some.integers(1, 30), some.integers(2, 7), some.integers(0, 2**32 - 1), some.booleans())


def _drawn(case):
    """Draws scores (clips, classes), with ties or without, and true classes (clips,)."""
    clips, classes, seed, ties = case
    draws = np.random.default_rng(seed)
    scores = draws.integers(0, 3, (clips, classes)).astype(float) if ties else draws.normal(size=(clips, classes))
    return scores, draws.integers(0, classes, clips), draws


@ALL
@given(SCORED, some.integers(1, 5))
def test_hits_are_those_of_scikit_learn_and_of_sorting(case, k):
    scores, true, draws = _drawn((*case[:3], False))
    names = np.array([f"c{n}" for n in draws.permutation(scores.shape[1])])
    found = hits(scores, names, names[true], k)
    assert found.tolist() == [label in np.argsort(-row)[:k] for label, row in zip(true, scores, strict=True)]
    if k == 1:
        assert found.mean() == pytest.approx(accuracy_score(true, scores.argmax(1)))


@ALL
@given(SCORED)
def test_average_precisions_are_those_of_scikit_learn(case):
    scores, _, draws = _drawn(case)
    truth = draws.random(scores.shape) < draws.random()
    found = class_average_precisions(scores, truth)
    repeats = draws.integers(0, 4, (len(scores), 1))
    weighted = average_precisions(scores, truth, repeats)[0]
    for column in range(scores.shape[1]):
        if not truth[:, column].any():
            assert np.isnan(found[column])
            continue
        assert found[column] == pytest.approx(average_precision_score(truth[:, column], scores[:, column]))
        often = np.repeat(np.arange(len(scores)), repeats[:, 0])
        if truth[often, column].any():
            assert weighted[column] == pytest.approx(
                average_precision_score(truth[often, column], scores[often, column])
            )
        else:
            assert np.isnan(weighted[column])


@ALL
@given(
    arrays.arrays(bool, some.tuples(some.integers(1, 25), some.integers(1, 3))),
    some.integers(1, 6),
    some.integers(1, 6),
)
def test_intervals_lie_in_0_to_100_and_are_points_where_all_clips_agree(right, first, second):
    items = [np.arange(len(right)) % first, np.arange(len(right)) % second]
    low, high = intervals(right.astype(float), items).T
    assert ((low >= 0) & (low <= high) & (high <= 100)).all()
    same = right.all(axis=0) | ~right.any(axis=0)
    assert (low[same] == high[same]).all()
    assert (low[same] == 100 * right.all(axis=0)[same]).all()

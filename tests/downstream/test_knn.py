from collections import Counter

import numpy as np
import pytest
from downstream_fakes import clips_of_several_labels

from xkd.downstream import knn


@pytest.mark.parametrize(("large", "at_once"), [(0, 2**26), (0, 100), (10**9, 100)])
def test_votes_equal_a_brute_force_search(large, at_once, monkeypatch):
    monkeypatch.setattr(knn, "LARGE", large)
    monkeypatch.setattr(knn, "SIMILARITIES", at_once)
    generator = np.random.default_rng(0)
    train, test = generator.normal(size=(60, 5)), generator.normal(size=(20, 5))
    labels = np.array(list("abc"))[generator.integers(0, 3, 60)]
    scores, classes = knn.classify(train, labels, test, 7)
    assert classes.tolist() == ["a", "b", "c"]
    for row, x in zip(scores, test, strict=True):
        cosine = [x @ y / np.sqrt((x @ x) * (y @ y)) for y in train]
        nearest = sorted(range(60), key=lambda i: -cosine[i])[:7]
        votes = Counter(labels[i] for i in nearest)
        np.testing.assert_allclose(row, [votes[c] / 7 for c in classes])


def test_length_of_a_feature_does_not_matter():
    train, test = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[100.0, 1.0], [0.001, 0.1]])
    scores, classes = knn.classify(train, np.array(["x", "y"]), test, 1)
    assert classes[scores.argmax(1)].tolist() == ["x", "y"]


@pytest.mark.parametrize("neighbours", [2, 20])
def test_more_neighbours_than_clips_let_all_vote(neighbours):
    scores, _ = knn.classify(np.eye(2), np.array(["x", "y"]), np.eye(2), neighbours)
    np.testing.assert_allclose(scores, 0.5)


def test_votes_for_several_labels_of_a_clip_are_those_of_scikit_learn(monkeypatch):
    features, labels, _ = clips_of_several_labels()
    shares, classes = knn.classify(features[:200], labels[:200], features[200:], 5)
    monkeypatch.setattr(knn, "LARGE", 0)
    found, same = knn.classify(features[:200], labels[:200], features[200:], 5)
    assert same.tolist() == classes.tolist() == ["x", "y", "z"]
    np.testing.assert_allclose(found, shares)

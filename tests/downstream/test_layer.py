"""The linear layer trained by gradient descent."""

import numpy as np
import pytest
from downstream_fakes import clips_of_several_labels
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from xkd.downstream.layer import train_layer
from xkd.errors import UserError
from xkd.settings import Layer

SETTINGS = Layer(epochs=60, batch_size=50, learning_rate=0.05)


def data(clips: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three overlapping clouds."""
    generator, number = np.random.default_rng(seed), np.arange(clips) % 3
    centres = np.random.default_rng(9).normal(size=(3, 6))
    return centres[number] + 1.2 * generator.normal(size=(clips, 6)), np.array(["cat", "dog", "owl"])[number]


def test_reaches_the_loss_of_an_unregularised_logistic_regression():
    (x, labels), (test, expected) = data(600, 0), data(300, 1)
    logits, classes = train_layer(x, labels, x, SETTINGS, 0)
    scaled = StandardScaler().fit_transform(x)
    best = LogisticRegression(C=1e6, max_iter=1000).fit(scaled, labels)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert log_loss(labels, probabilities, labels=classes) <= 1.01 * log_loss(labels, best.predict_proba(scaled))
    scores, _ = train_layer(x, labels, test, SETTINGS, 0)
    assert (classes[scores.argmax(1)] == expected).mean() > 0.7


@pytest.mark.parametrize("changes", [{}, {"schedule": "fixed"}, {"dropout": 0.3, "weight_decay": 1e-5}])
def test_repeats_and_depends_on_its_seed(changes):
    (x, labels), (test, _) = data(100, 0), data(20, 1)
    settings = SETTINGS.model_copy(update={"epochs": 3, **changes})
    one, two, other = (train_layer(x, labels, test, settings, seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(one, two)
    assert not np.allclose(one, other)


def test_several_labels_are_answered_one_by_one():
    x, labels, have = clips_of_several_labels()
    logits, classes = train_layer(x[:200], labels[:200], x[200:], SETTINGS, 0)
    assert classes.tolist() == ["x", "y", "z"]
    assert ((logits > 0) == have[200:]).mean() > 0.98


def test_what_cannot_be_trained_is_explained():
    x, labels = data(30, 0)
    with pytest.raises(UserError, match="two labels or more"):
        train_layer(x, np.full(30, "cat"), x, SETTINGS, 0)
    with pytest.raises(UserError, match="lower evaluate.layer.learning_rate"):
        train_layer(np.where(x > 0, np.inf, x), labels, x, SETTINGS, 0)

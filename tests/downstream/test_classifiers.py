"""The torch solver has the optimum of scikit-learn's."""

import numpy as np
import pytest
from downstream_fakes import clips_of_several_labels
from sklearn.preprocessing import StandardScaler

from xkd.data.labels import classes_of, several
from xkd.downstream import classifiers, linear, newton
from xkd.downstream.classifiers import Part, scored
from xkd.downstream.labels import targets
from xkd.downstream.probes import ProbeInput
from xkd.settings import Linear, Svm

CS = (1e-3, 0.1, 3.0)


def overlapping(classes: int, clips: int = 400, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Features far from 0 whose columns are correlated and of different scales, with labels that they tell in part."""
    generator, number = np.random.default_rng(classes), np.arange(clips) % classes
    mixed = generator.normal(size=(classes, width))[number] + generator.normal(size=(clips, width))
    x = mixed @ generator.normal(size=(width, width)) * np.geomspace(0.01, 10, width) + 5
    return x.astype(np.float32), np.array([f"label{n}" for n in number])


def several_labels() -> tuple[np.ndarray, np.ndarray]:
    features, labels, _ = clips_of_several_labels()
    noise = np.random.default_rng(1).normal(size=features.shape)
    return (features + noise).astype(np.float32), labels


def solved(settings, data, monkeypatch):
    """Scores by the two solvers on the examples that they are fitted on, per candidate for C, and the objectives."""
    whole, objectives = Part.whole(*data), []
    minimise = classifiers.minimise

    def spied(*arguments):
        objectives.append(minimise(*arguments))
        return objectives[-1]

    monkeypatch.setattr(classifiers, "minimise", spied)
    scores = []
    for solver in ("torch", "sklearn"):
        classes, found = scored(settings.model_copy(update={"solver": solver}), sorted(settings.C), whole, whole)
        scores.append(list(found))
    return classes, *scores, [float(one.objective.sum()) for one in objectives]


def objective(settings, c, data, classes):
    """The smallest value of the formula, found by scikit-learn's solver at full accuracy."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    x, labels = StandardScaler().fit_transform(data[0].astype(float)), data[1]
    one_by_one = several(labels) or isinstance(settings, Svm)
    truth = targets(labels, classes)
    truth = truth[:, 1:] if len(classes) == 2 else truth
    total = 0.0
    for target in truth.T if one_by_one else [labels]:
        if isinstance(settings, Svm):
            model = LinearSVC(C=c, tol=1e-10, max_iter=100_000, dual=False).fit(x, target)
            losses = np.clip(1 - (2 * target - 1) * model.decision_function(x), 0, None) ** 2
            total += (model.intercept_**2).sum() / 2
        else:
            model = LogisticRegression(C=c, tol=1e-10, max_iter=100_000).fit(x, target)
            chances = model.predict_proba(x)
            losses = -np.log(chances[np.arange(len(x)), np.searchsorted(model.classes_, target)])
        total += (model.coef_**2).sum() / 2 + c * losses.sum()
    return total


@pytest.mark.parametrize("settings", [Linear(C=CS), Svm(C=CS)])
@pytest.mark.parametrize("data", [overlapping(2), overlapping(7), several_labels()], ids=["two", "seven", "several"])
@pytest.mark.filterwarnings("ignore:Liblinear failed")
def test_the_torch_solver_reaches_the_optimum_of_scikit_learn(settings, data, monkeypatch):
    monkeypatch.setattr(newton, "BLOCK", 1000)  # several blocks
    monkeypatch.setattr(classifiers, "ROWS", 150)
    classes, ours, theirs, objectives = solved(settings, data, monkeypatch)
    assert classes.tolist() == classes_of(data[1]).tolist()
    for c, value in zip(CS, objectives, strict=True):
        assert value == pytest.approx(objective(settings, c, data, classes), rel=1e-6)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        np.testing.assert_allclose(mine, other, atol=2e-2 * np.abs(other).max())  # theirs stops at its own tolerance


def test_many_examples_go_to_torch_and_few_to_scikit_learn(monkeypatch):
    features, labels = overlapping(3)
    used = []
    for name in ("_by_newton", "_by_scikit_learn"):
        monkeypatch.setattr(classifiers, name, lambda *_, name=name: used.append(name))
    for settings, large in ((Linear(), 10**8), (Linear(), 400 * 12 * 3 - 1), (Svm(solver="torch"), 10**8)):
        monkeypatch.setattr(classifiers, "LARGE", large)
        scored(settings, [1.0], Part.whole(features, labels), Part.whole(features, labels))
    assert used == ["_by_scikit_learn", "_by_newton", "_by_newton"]


@pytest.mark.parametrize("settings", [Linear(), Svm(), Svm(select_on="test")])
def test_both_solvers_choose_the_same_c(settings):
    features, labels = overlapping(5, clips=600)
    items = [np.array([f"scan{i % 60}" for i in range(450)])]
    chosen = []
    for solver in ("torch", "sklearn"):
        examples = ProbeInput(
            "student", "video", features[:450], labels[:450], items, features[450:], labels[450:], 150
        )
        chosen.append(linear.fit_and_score(examples, settings.model_copy(update={"solver": solver})))
    (scores, classes, c), (theirs, _, theirs_c) = chosen
    assert c == theirs_c
    assert (scores.argmax(1) == theirs.argmax(1)).mean() > 0.98


def test_a_solver_that_stops_early_warns(monkeypatch):
    from sklearn.exceptions import ConvergenceWarning

    whole = Part.whole(*overlapping(5))
    with pytest.warns(ConvergenceWarning):
        list(scored(Svm(max_iter=1, solver="torch"), [1.0], whole, whole)[1])


def test_separable_labels_and_a_label_that_all_clips_have_are_solved():
    features, labels, have = clips_of_several_labels()
    everywhere = np.array([f"{label};a" for label in labels])
    whole = Part.whole(features.astype(np.float32), everywhere)
    for settings in (Linear(solver="torch"), Svm(solver="torch")):
        classes, (scores,) = scored(settings, [100.0], whole, whole)
        border = 0.5 if isinstance(settings, Linear) else 0.0
        assert classes.tolist() == ["a", "x", "y", "z"]
        assert ((scores > border) == np.concatenate([np.ones((300, 1), bool), have], 1)).all()

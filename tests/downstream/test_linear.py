import numpy as np
import pytest
from downstream_fakes import clips_of_several_labels

from xkd.downstream import linear, probes
from xkd.errors import UserError
from xkd.settings import Linear, Svm

LETTERS = np.array(list("abcde"))


def clusters(clips: int, spread: float, seed: int = 0, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Clips around one point per label."""
    generator = np.random.default_rng(seed)
    labels = LETTERS[np.arange(clips) % 5]
    centres = np.random.default_rng(99).normal(size=(5, width))
    return centres[np.arange(clips) % 5] + spread * generator.normal(size=(clips, width)), labels


def ids(labels: np.ndarray) -> list[np.ndarray]:
    return [np.arange(len(labels)).astype(str)]


def probe(train, labels, items, test, settings, test_labels=None):
    """Scores of the test clips, class names and C of a classifier fitted on the training clips."""
    test_labels = np.array([""] * len(test)) if test_labels is None else test_labels
    examples = probes.ProbeInput("student", "video", train, labels, items, test, test_labels, len(test))
    return linear.fit_and_score(examples, settings)


def accuracy(scores: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> float:
    return (classes[scores.argmax(1)] == labels).mean()


def test_features_that_hold_the_label_are_read_without_error():
    labels = LETTERS[np.arange(200) % 5]
    features = (labels[:, None] == LETTERS).astype(np.float32)
    scores, classes, _ = probe(features[:100], labels[:100], ids(labels[:100]), features[100:], Linear())
    assert accuracy(scores, classes, labels[100:]) == 1


def test_features_without_the_label_give_chance():
    features, labels = np.random.default_rng(0).normal(size=(2000, 8)), LETTERS[np.arange(2000) % 5]
    train, test = slice(0, 1000), slice(1000, 2000)
    scores, classes, _ = probe(features[train], labels[train], ids(labels[train]), features[test], Linear())
    # Four standard errors around one in five.
    assert accuracy(scores, classes, labels[test]) == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / 1000))


def test_scale_of_a_feature_does_not_matter():
    features, labels = clusters(300, 1.0)
    scales = np.geomspace(1e-3, 1e3, features.shape[1])
    settings = Linear(C=(0.1,))
    plain, *_ = probe(features, labels, ids(labels), features, settings)
    scaled, *_ = probe(scales * features + 5, labels, ids(labels), scales * features + 5, settings)
    np.testing.assert_allclose(plain, scaled, atol=1e-3)


def test_probe_minimises_the_regularised_log_loss():
    from scipy.optimize import minimize

    features, labels = clusters(100, 1.5, width=3)
    x = (features - features.mean(0)) / features.std(0)
    target = labels[:, None] == LETTERS

    def objective(flat):
        weights, bias = flat[:15].reshape(3, 5), flat[15:]
        logits = x @ weights + bias
        log_probability = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -0.5 * log_probability[target].sum() + (weights**2).sum() / 2

    flat = minimize(objective, np.zeros(20), tol=1e-10).x
    logits = x @ flat[:15].reshape(3, 5) + flat[15:]
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores, classes, c = probe(features, labels, ids(labels), features, Linear(C=(0.5,)))
    assert c == 0.5
    assert classes.tolist() == LETTERS.tolist()
    np.testing.assert_allclose(scores, expected, atol=2e-3)


def test_items_stand_on_one_side_only():
    labels = LETTERS[np.arange(400) % 5]
    scans = np.array([f"{label}{i % 7}" for i, label in enumerate(labels)])
    fit, held = linear.hold_out(labels, [scans], 0.2)
    assert not set(scans[fit]) & set(scans[held])
    assert (fit ^ held).all()
    assert set(labels[held]) == set(labels[fit]) == set(LETTERS)
    assert held.mean() == pytest.approx(0.2, abs=0.08)


def test_speakers_who_say_every_label_are_held_out_whole():
    generator = np.random.default_rng(0)
    labels, speakers = LETTERS[generator.integers(0, 5, 2000)], generator.integers(0, 30, 2000).astype(str)
    fit, held = linear.hold_out(labels, [speakers], 0.2)
    assert len(set(speakers[held])) == 6
    assert not set(speakers[fit]) & set(speakers[held])


def test_clips_of_two_items_are_held_out_by_both():
    generator = np.random.default_rng(0)
    digits = generator.integers(0, 5, 3000)
    labels = LETTERS[digits]
    scans = np.array([f"{d}s{i}" for d, i in zip(digits, generator.integers(0, 40, 3000), strict=True)])
    recordings = np.array([f"{d}r{i}" for d, i in zip(digits, generator.integers(0, 40, 3000), strict=True)])
    fit, held = linear.hold_out(labels, [scans, recordings], 0.2)
    for names in (scans, recordings):
        assert not set(names[fit]) & set(names[held])
    assert held.mean() == pytest.approx(0.2, abs=0.03)
    assert fit.sum() > held.sum()


def test_c_does_not_reward_knowing_the_scans_by_heart():
    """Many noisy clips of few scans: the probe must generalise to other scans, which takes a small C."""
    generator = np.random.default_rng(3)
    scans = np.repeat(np.arange(60), 20)
    labels = LETTERS[scans % 5]
    of_scan = 0.35 * np.random.default_rng(99).normal(size=(5, 60))[np.arange(60) % 5] + generator.normal(size=(60, 60))
    features = of_scan[scans] + 0.1 * generator.normal(size=(1200, 60))
    settings = Linear(C=(0.0001, 100.0))
    assert linear.choose_c(features, labels, [scans.astype(str)], settings) == 0.0001
    assert linear.choose_c(features, labels, ids(labels), settings) == 100.0


def test_c_depends_on_training_clips_only():
    features, labels = clusters(400, 2.0)
    settings = Linear(C=(1e-4, 1e-2, 1.0, 100.0))
    generator = np.random.default_rng(5)
    chosen = {
        probe(features, labels, ids(labels), test, settings)[2]
        for test in (clusters(200, 2.0, seed=1)[0], generator.normal(size=(200, 8)), 1e3 + np.zeros((3, 8)))
    }
    assert len(chosen) == 1
    # Nor can the choice be trivial: with labels that mean nothing it is another one.
    assert linear.choose_c(features, generator.permutation(labels), ids(labels), settings) not in chosen


def test_both_modalities_weigh_the_same():
    video, audio = np.array([[3.0, 4.0]]), np.array([[0.0, 100.0, 0.0]])
    np.testing.assert_allclose(probes.concatenate(video, audio), [[0.6, 0.8, 0, 1, 0]])


def test_too_few_clips_to_choose_c_is_explained():
    labels = np.array(["a", "b"])
    with pytest.raises(UserError, match="too few to choose C"):
        linear.choose_c(np.eye(2), labels, ids(labels), Linear())
    assert linear.choose_c(np.eye(2), labels, ids(labels), Linear(C=(3.0,))) == 3.0


def test_one_label_is_explained():
    labels = np.array(["a", "a"])
    with pytest.raises(UserError, match="two labels"):
        probe(np.eye(2), labels, ids(labels), np.eye(2), Linear())


def test_svm_separates_with_the_widest_margin():
    """Two points, one on each side: the border lies in the middle, whatever C."""
    features = np.array([[1.0, 0.0], [3.0, 0.0]] * 10)
    labels = np.array(["low", "high"] * 10)
    test = np.array([[1.8, 5.0], [2.2, -5.0]])
    scores, classes, _ = probe(features, labels, ids(labels), test, Svm(C=(1.0,)))
    assert classes[scores.argmax(1)].tolist() == ["low", "high"]
    np.testing.assert_allclose(scores[0], -scores[1][::1][[0, 1]], atol=1e-2)


def test_svm_scores_are_those_of_scikit_learn():
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    features, labels = clusters(200, 1.0)
    test, _ = clusters(50, 1.0, seed=1)
    scores, classes, c = probe(features, labels, ids(labels), test, Svm(C=(0.01,)))
    scaler = StandardScaler().fit(features)
    model = LinearSVC(C=c, max_iter=1000, random_state=0).fit(scaler.transform(features), labels)
    np.testing.assert_allclose(scores, model.decision_function(scaler.transform(test)), atol=1e-6)
    assert classes.tolist() == model.classes_.tolist()


def test_c_is_chosen_on_test_clips_only_when_asked():
    """Test labels that are noise change the C of `select_on: test`, and never that of the default."""
    features, labels = clusters(200, 1.5)
    test, _ = clusters(100, 1.5, seed=1)
    chosen = {"train": set(), "test": set()}
    for select_on, found in chosen.items():
        settings = Svm(C=(1e-5, 1e-3, 0.1), select_on=select_on)
        for seed in range(6):
            noise = np.random.default_rng(seed).permutation(LETTERS[np.arange(100) % 5])
            found.add(probe(features, labels, ids(labels), test, settings, noise)[2])
    assert len(chosen["train"]) == 1
    assert len(chosen["test"]) > 1


def test_several_labels_are_probed_one_by_one():
    features, labels, have = clips_of_several_labels()
    for settings in (Linear(C=(0.1, 1.0)), Svm(C=(0.01, 0.1))):
        scores, classes, _ = probe(features[:200], labels[:200], ids(labels[:200]), features[200:], settings)
        assert classes.tolist() == ["x", "y", "z"]
        border = 0.5 if isinstance(settings, Linear) else 0.0
        assert ((scores > border) == have[200:]).mean() > 0.98


def test_a_video_and_its_sound_are_held_out_together():
    """With two independent draws half of the clips would be on neither side."""
    from xkd.downstream.features import ClipOutputs

    videos = np.array([f"video{i // 4}" for i in range(400)])
    labels = LETTERS[np.arange(400) // 4 % 5]
    clips = ClipOutputs(np.arange(400).astype(str), labels, {"video": videos, "audio": videos}, {})
    fit, held = linear.hold_out(labels, clips.items_of("both"), 0.2)
    assert not set(videos[fit]) & set(videos[held])
    assert (fit | held).all()
    assert held.sum() == 80

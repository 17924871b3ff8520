"""Logistic regression on few clips of each class."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from xkd.downstream.features import of_rows
from xkd.downstream.few_shot import drawn, probe_few_shot
from xkd.downstream.kept import KeptFits
from xkd.errors import UserError
from xkd.settings import FewShot

LABELS = np.array(["cat", "dog", "owl"])


def outputs(clips: int, seed: int, views: int = 1):
    """Features of both modalities of overlapping clouds, one for each label."""
    generator, number = np.random.default_rng(seed), np.arange(clips) % 3
    centres = np.random.default_rng(9).normal(size=(2, 3, 1, 6))
    ids = [f"{seed}-{number}" for number in range(clips)]
    rows = pd.DataFrame({"id": ids, "label": LABELS[number], "video_source": "", "audio_source": ""})
    noise = 2 * generator.normal(size=(2, clips, views, 6))
    video, audio = (centre[number] + one for centre, one in zip(centres, noise, strict=True))
    return of_rows(rows, {("student", "video"): video, ("student", "audio"): audio})


def features(part, modality, view):
    """Returns what the linear protocol sees of one view of each clip."""
    video, audio = (part.outputs["student", m][:, view] for m in ("video", "audio"))
    return np.concatenate([normalize(video), normalize(audio)], 1) if modality == "both" else audio


def probe(train, test, tmp_path, **settings):
    """Returns the scores of each column."""
    labels = pd.DataFrame({"label": train.labels})
    job = SimpleNamespace(
        settings=FewShot(**settings),
        task=SimpleNamespace(protocol="few_shot"),
        fits=KeptFits(tmp_path / "fits"),
        rows=lambda split: labels,
        frozen_folds=lambda: [(None, train, test)],
    )
    (judged,) = probe_few_shot(job)
    return {str(one.column): one for one in judged.scores}


def test_draws_hold_so_many_clips_of_each_class_and_fewer_shots_are_among_more():
    labels = np.array(["cat"] * 30 + ["dog"] * 30 + ["owl"] * 2)
    one, three = (drawn(labels, shots, 7) for shots in (1, 3))
    assert pd.Series(labels[one]).value_counts().to_dict() == {"cat": 1, "dog": 1, "owl": 1}
    assert pd.Series(labels[three]).value_counts().to_dict() == {"cat": 3, "dog": 3, "owl": 2}
    assert len(set(three)) == 8
    assert set(one) < set(three)
    assert np.array_equal(three, drawn(labels, 3, 7))
    firsts = np.array([drawn(labels, 1, number)[0] for number in range(600)])
    assert np.bincount(firsts, minlength=30).min() > 0, "every clip of a class is drawn now and then"


@pytest.mark.parametrize("views", [1, 2])
def test_figures_are_those_of_scikit_learn_on_the_same_clips(views, tmp_path):
    train, test = outputs(60, 0, views), outputs(90, 1, views)
    found = probe(train, test, tmp_path, shots=(2, 5), draws=4, C=0.5)
    assert list(found) == [f"student.{m}.{k}_shot" for m in ("video", "audio", "both") for k in (2, 5)]
    for modality, shots in [("audio", 2), ("both", 5)]:
        x = [features(part, modality, view) for part in (train, test) for view in range(views)]
        expected = []
        for number in range(4):
            rows = drawn(train.labels, shots, number)
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000))
            model.fit(np.concatenate([part[rows] for part in x[:views]]), np.tile(train.labels[rows], views))
            guess = LABELS[np.mean([model.predict_proba(part) for part in x[views:]], axis=0).argmax(1)]
            expected.append(100 * (guess == test.labels).mean())
        scores = found[f"student.{modality}.{shots}_shot"]
        assert scores.draws == pytest.approx(expected, abs=1.2), "one clip may fall on the other side"
        assert scores.overall(test.labels) == {"top1": pytest.approx(np.mean(expected), abs=0.6)}
        assert 40 < np.mean(expected) < 100
        assert np.ptp(expected) > 2


def test_classes_with_fewer_clips_give_all_of_theirs_and_a_note(tmp_path):
    found = probe(outputs(7, 0), outputs(30, 1), tmp_path, shots=(1, 3), draws=2)
    assert found["student.video.1_shot"].notes == ()
    (note,) = found["student.video.3_shot"].notes
    assert note == "3_shot: 2 of 3 labels have fewer than 3 training clips (dog, owl); all of theirs are used"


def test_clips_of_several_labels_are_refused(tmp_path):
    train = outputs(6, 0)
    train = replace(train, labels=np.array(["cat;dog", *train.labels[1:]]))
    with pytest.raises(UserError, match="use protocol linear, layer or attentive"):
        probe(train, outputs(6, 1), tmp_path)

import numpy as np
import pytest

from xkd.downstream import metrics
from xkd.downstream.features import ClipOutputs
from xkd.downstream.metrics import average_precisions, chance_rates, intervals, per_class, ranking_intervals, summarise
from xkd.downstream.scores import Retrieved, Scores, class_average_precisions, hits, mean_average_precision
from xkd.protocols import Column

CLASSES = np.array(["a", "b", "c"])


def clips_of(labels, items):
    return ClipOutputs(np.arange(len(labels)).astype(str), np.array(labels), items, {})


def test_hits_count_the_best_k_guesses():
    scores = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    assert hits(scores, CLASSES, np.array(["a", "b", "c"]), 1).tolist() == [True, False, False]
    assert hits(scores, CLASSES, np.array(["a", "b", "c"]), 2).tolist() == [True, True, False]


def test_label_unknown_to_training_is_never_hit():
    assert not hits(np.eye(3), CLASSES, np.array(["d", "d", "d"]), 3).any()


def test_of_equal_scores_the_first_column_is_the_guess():
    scores = np.array([[0.1, 0.4, 0.4, 0.1]] * 4)
    names = np.array(["d", "b", "a", "c"])  # in any order
    found = [hits(scores, names, names, k).tolist() for k in (1, 2, 3)]
    assert found == [[False, True, False, False], [False, True, True, False], [True, True, True, False]]


def test_average_precisions_are_those_of_scikit_learn_with_ties_too():
    from sklearn.metrics import average_precision_score

    generator = np.random.default_rng(0)
    for values in (generator.random((300, 5)), generator.integers(0, 4, (300, 5)).astype(float), np.zeros((300, 5))):
        true = generator.random((300, 5)) < 0.2
        np.testing.assert_allclose(
            class_average_precisions(values, true), average_precision_score(true, values, average=None), rtol=1e-12
        )


def test_resamples_in_small_parts_give_the_same_intervals(monkeypatch):
    generator = np.random.default_rng(0)
    correct, scans = generator.random((200, 2)) < 0.5, generator.integers(0, 20, 200).astype(str)
    recordings = generator.integers(0, 9, 200).astype(str)
    whole = [intervals(correct, items) for items in ([scans], [scans, recordings])]
    monkeypatch.setattr(metrics, "WEIGHTS", 500)
    for items, expected in zip(([scans], [scans, recordings]), whole, strict=True):
        np.testing.assert_array_equal(intervals(correct, items), expected)


def test_mean_average_precision_by_hand():
    # Class a is ranked true, false, true, false: (1/1 + 2/3) / 2. Class b: false, true, false, false: 1/2.
    targets = np.array([[1, 0], [0, 1], [1, 0], [0, 0]], dtype=bool)
    scores = np.array([[0.9, 0.5], [0.8, 0.4], [0.7, 0.3], [0.6, 0.2]])
    assert mean_average_precision(scores, targets) == pytest.approx(100 * ((1 + 2 / 3) / 2 + 1 / 2) / 2)


def test_mean_average_precision_leaves_out_classes_without_clips():
    targets = np.array([[1, 0], [0, 0]], dtype=bool)
    assert mean_average_precision(np.array([[0.9, 0.1], [0.2, 0.8]]), targets) == pytest.approx(100)


def test_all_clips_of_an_item_move_together():
    generator = np.random.default_rng(0)
    items = np.repeat(np.arange(40), 25).astype(str)
    by_item = np.repeat(generator.random(40) < 0.5, 25)[:, None]
    clips = np.arange(1000).astype(str)
    low, high = intervals(by_item, [items])[0]
    naive_low, naive_high = intervals(by_item, [clips])[0]
    # 25 equal clips per item carry the information of one: the interval is sqrt(25) times as wide.
    assert (high - low) / (naive_high - naive_low) == pytest.approx(5, rel=0.1)
    p = by_item.mean()
    assert high - low == pytest.approx(100 * 2 * 1.96 * np.sqrt(p * (1 - p) / 40), rel=0.1)


def test_interval_is_wider_with_fewer_items():
    correct = (np.arange(1000) // 2 % 2 == 0)[:, None]
    many, few = (np.arange(1000) % 500).astype(str), (np.arange(1000) % 20).astype(str)
    assert np.ptp(intervals(correct, [few])) > 2 * np.ptp(intervals(correct, [many]))


def test_clip_of_two_items_varies_with_both():
    generator = np.random.default_rng(1)
    scans, recordings = generator.integers(0, 30, 2000), generator.integers(0, 30, 2000)
    scan_effect, recording_effect = generator.random(30) < 0.5, generator.random(30) < 0.5
    correct = (scan_effect[scans] & recording_effect[recordings])[:, None]
    wide = np.ptp(intervals(correct, [scans.astype(str), recordings.astype(str)]))
    assert wide > np.ptp(intervals(correct, [scans.astype(str)]))
    assert wide > np.ptp(intervals(correct, [recordings.astype(str)]))


def test_intervals_repeat_and_hold_the_rate():
    correct = (np.random.default_rng(2).random((300, 2)) < [0.3, 0.8]).astype(bool)
    items = [np.arange(300).astype(str)]
    first = intervals(correct, items)
    np.testing.assert_array_equal(first, intervals(correct, items))
    rates = 100 * correct.mean(axis=0)
    assert (first[:, 0] < rates).all()
    assert (rates < first[:, 1]).all()


def test_summary_names_metrics_after_the_classifier():
    items = {"video": np.array(["1", "2", "3"]), "audio": np.array(["1", "1", "1"])}
    scores = [Scores(Column.parse(f"student.{modality}.linear"), np.eye(3), CLASSES) for modality in ("video", "audio")]
    values, spans = summarise(scores, clips_of(["a", "b", "a"], items))
    assert values["student.video.linear.top1"] == pytest.approx(200 / 3, abs=1e-4)
    # With three classes a top-5 says nothing.
    assert values.keys() == {f"student.{m}.linear.{metric}" for m in ("video", "audio") for metric in ("top1", "map")}
    assert spans.keys() == {"student.video.linear.top1"}  # of the sound there is one recording: nothing to resample
    assert np.ptp(spans["student.video.linear.top1"]) > 0
    assert scores[0].predicted.tolist() == ["a", "b", "c"]


def test_top5_is_reported_where_there_are_more_classes():
    classes = np.array(list("abcdefg"))
    scores = Scores(Column.parse("student.video.knn"), np.tile(np.linspace(1, 0, 7), (2, 1)), classes)
    items = {"video": np.array(["1", "2"]), "audio": np.array(["1", "2"])}
    values, spans = summarise([scores], clips_of(["e", "f"], items))
    assert values["student.video.knn.top5"] == 50
    assert values["student.video.knn.top1"] == 0
    assert spans["student.video.knn.top5"] == [0, 100]


def test_chance_is_that_of_the_test_clips_and_of_the_metric():
    noise = np.random.default_rng(3)
    one = np.array(["a", "b", "d", "a"] * 100)  # d was never trained on: no guess finds it
    some = np.array(["a;b", "b", "c", "b"] * 100)
    for labels, metric in ((one, "top1"), (some, "map")):
        clips = clips_of(labels, {"audio": np.arange(400).astype(str)})
        guesses = [Scores(Column.parse("student.audio.layer"), noise.random((400, 3)), CLASSES) for _ in range(60)]
        scored = [summarise([guess], clips)[0][f"student.audio.layer.{metric}"] for guess in guesses]
        assert chance_rates(guesses[:1], clips) == {"student.audio.layer": pytest.approx(np.mean(scored), abs=1)}
    found = Retrieved(Column.parse("student.audio.retrieval"), np.ones(400), np.ones(400), 0.125)
    assert chance_rates([found], clips) == {"student.audio.retrieval": 12.5}


def test_weighted_average_precisions_are_those_of_scikit_learn():
    from sklearn.metrics import average_precision_score

    generator = np.random.default_rng(0)
    scores, true = generator.integers(0, 5, (200, 4)).astype(float), generator.random((200, 4)) < 0.1
    weights = generator.integers(0, 3, (200, 6)).astype(np.float32)
    weights[true[:, 3], 5] = 0  # a resample without a clip of the class
    for (resample, column), value in np.ndenumerate(average_precisions(scores, true, weights)):
        if (resample, column) == (5, 3):
            assert np.isnan(value)
        else:
            of = {"sample_weight": weights[:, resample]}
            assert value == pytest.approx(average_precision_score(true[:, column], scores[:, column], **of), abs=1e-6)


def test_classes_that_training_never_showed_count_in_map():
    """Class d scores nothing: its average precision is that of a constant, its share of the clips."""
    labels, generator = np.array(["a;d", "b", "a", "c;b", "d", "b"]), np.random.default_rng(0)
    clips = clips_of(labels, dict.fromkeys(("video", "audio"), np.arange(6).astype(str)))
    values = generator.random((6, 3))
    one = Scores(Column.parse("student.video.layer"), values, CLASSES, joined=True)
    found = per_class([one], clips)["student.video.layer"]
    assert found.keys() == set("abcd")
    assert found["d"] == pytest.approx(100 * 2 / 6, abs=1e-3)
    (value,) = summarise([one], clips)[0].values()
    assert value == pytest.approx(np.mean(list(found.values())), abs=1e-3)
    of_map, of_classes = ranking_intervals([one], clips)
    low, high = of_map["student.video.layer.map"]
    assert low < value < high
    assert of_classes["student.video.layer"].keys() == found.keys()


def test_sources_that_go_together_are_one_factor():
    """A video brings its frames and its audio: as two crossed factors its clips would be drawn twice by chance."""
    videos, clips = np.repeat([f"video{i}" for i in range(20)], 5), np.arange(100).astype(str)
    for audio in (videos, clips):
        found = clips_of(["a"] * 100, {"video": videos, "audio": audio}).items_of("both")
        assert len(found) == 1
        assert found[0].tolist() == videos.tolist()
    scans, speakers = np.arange(100) // 5, np.arange(100) % 7
    found = clips_of(["a"] * 100, {"video": scans.astype(str), "audio": speakers.astype(str)}).items_of("both")
    assert len(found) == 2

import numpy as np
import pytest

from xkd.downstream import ranking
from xkd.downstream.scores import Retrieved
from xkd.protocols import Column

IDS = np.array([f"clip{i}" for i in range(40)])
LABELS = np.array(["a", "b", "c;a", "d"] * 10)


@pytest.mark.parametrize("relevant", ["clip", "label"])
@pytest.mark.parametrize("similarities_at_once", [7 * 40, 2**25])
@pytest.mark.parametrize("labels", [LABELS, np.array(["a", "b", "c", "d"] * 10)], ids=["several", "one"])
def test_ranks_are_those_of_a_sorted_list(relevant, similarities_at_once, labels, monkeypatch):
    monkeypatch.setattr(ranking, "SIMILARITIES", similarities_at_once)
    generator = np.random.default_rng(0)
    video, audio = (generator.normal(size=(40, 5)) for _ in range(2))
    video, audio = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (video, audio))
    ranks, nearest = ranking.retrieve(video, audio, ranking.relevant_clips(IDS, labels, relevant))
    for query in range(40):
        order = sorted(range(40), key=lambda i: -float(video[query] @ audio[i]))
        wanted = set(labels[query].split(";"))
        good = [i == query if relevant == "clip" else bool(wanted & set(labels[i].split(";"))) for i in order]
        assert ranks[query] == 1 + good.index(True)
        assert nearest[query] == order[0]


def test_outputs_that_are_all_alike_find_nothing():
    same = np.ones((40, 5)) / np.sqrt(5)
    ranks, _ = ranking.retrieve(same, same, ranking.relevant_clips(IDS, LABELS, "clip"))
    assert (ranks == 40).all()


def test_an_offset_between_modalities_does_not_matter():
    generator = np.random.default_rng(1)
    train, test = generator.normal(size=(50, 2, 6)), generator.normal(size=(20, 2, 6))
    plain = ranking.embeddings([train], [test])
    np.testing.assert_allclose(plain, ranking.embeddings([train[:30] + 5, train[30:] + 5], [test + 5]), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1)


def test_recalls_count_the_first_places():
    found = Retrieved(Column("student", "video", "retrieval"), np.array([1, 2, 5, 6, 11]), np.array(list("abcde")), 0.2)
    rates = {name: flags.mean() for name, flags in found.right(np.array(list("abcde"))).items()}
    assert rates == pytest.approx({"recall1": 0.2, "recall5": 0.6, "recall10": 0.8})
    assert found.overall(np.array(list("abcde"))) == {"median_rank": 5}

import numpy as np
import pytest
from downstream_fakes import LABELS, Loader, rows

from xkd.downstream.features import extract
from xkd.errors import UserError

NETWORKS = {
    ("student", "video"): lambda x: x,
    ("student", "audio"): lambda x: 2 * x,
    ("teacher", "video"): lambda x: -x,
}


def test_every_network_sees_every_clip_in_one_pass():
    table = rows(10)
    shuffled = Loader(table.sample(frac=1, random_state=0))
    passes = []
    clips = extract(NETWORKS, (passes.append(batch.ids) or batch for batch in shuffled), table)
    assert len(passes) == 3
    assert clips.ids.tolist() == table["id"].tolist()
    one_hot = (clips.labels[:, None] == LABELS).astype(np.float32)
    for key, factor in zip(NETWORKS, (1, 2, -1), strict=True):
        np.testing.assert_array_equal(clips.outputs[key][:, 0], factor * one_hot)


def test_known_provenance_is_kept_and_unknown_makes_an_item_of_each_clip():
    clips = extract(NETWORKS, Loader(rows(6, scans=2)), rows(6, scans=2))
    assert clips.items["video"].tolist() == ["scan0", "scan1"] * 3
    assert clips.items["audio"].tolist() == clips.ids.tolist()
    assert [len(clips.items_of(m)) for m in ("video", "audio", "both")] == [1, 1, 1]
    assert clips.items_of("audio")[0] is clips.items["audio"]
    assert clips.items_of("both")[0] is clips.items["video"], "each sound lies within one scan"


def test_missing_clip_is_an_error():
    with pytest.raises(UserError, match="5 of 6 clips, not clip0005"):
        extract(NETWORKS, Loader(rows(5)), rows(6))


def test_clip_that_comes_twice_is_an_error():
    table = rows(6)
    with pytest.raises(UserError, match="7 of 6 clips"):
        extract(NETWORKS, Loader(table.iloc[[0, 1, 2, 3, 4, 5, 5]]), table)

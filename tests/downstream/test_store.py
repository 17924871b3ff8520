"""Features on disk: extracted once, gone on with after a stop, and never taken for those of something else."""

import numpy as np
import pytest
from downstream_fakes import Loader, rows

from xkd.downstream.features import extract
from xkd.downstream.store import stored
from xkd.errors import UserError

NETWORKS = {("student", "video"): lambda x: x, ("teacher", "audio"): lambda x: 2 * x}
TABLE = rows(10)


class Batches:
    """Counts the clips that were asked for; stops, as a killed process would, after `stop` batches."""

    def __init__(self, stop=None, table=TABLE):
        self.stop, self.table, self.seen = stop, table, []

    def __call__(self, first, keys):
        for number, batch in enumerate(Loader(self.table)):
            if self.stop is not None and number >= self.stop:
                raise KeyboardInterrupt
            if number * 4 >= first:
                self.seen += batch.ids
                yield batch


def features(folder, batches, networks=NETWORKS, origin="weights"):
    origins = {key: {"weights": origin} for key in networks}
    return stored(folder, networks, origins, TABLE, batches).outputs


def expected():
    return extract(NETWORKS, Loader(TABLE), TABLE).outputs


def assert_same(ours):
    for key, values in expected().items():
        np.testing.assert_array_equal(ours[key], values)


def test_features_are_extracted_once(tmp_path):
    assert_same(features(tmp_path, Batches()))
    again = Batches()
    assert_same(features(tmp_path, again))
    assert again.seen == []


def test_a_stopped_extraction_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        features(tmp_path, Batches(stop=2))
    rest = Batches()
    assert_same(features(tmp_path, rest))
    assert rest.seen == TABLE["id"].tolist()[8:]


def test_half_a_clip_at_the_end_of_a_file_is_written_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        features(tmp_path, Batches(stop=1))
    with (tmp_path / "student_video.f32").open("ab") as handle:
        handle.write(b"torn!")
    assert_same(features(tmp_path, Batches()))


def test_a_network_that_comes_later_is_extracted_alone(tmp_path):
    one = {("student", "video"): NETWORKS["student", "video"]}
    features(tmp_path, Batches(), one)
    written = (tmp_path / "student_video.f32").stat().st_mtime_ns
    assert_same(features(tmp_path, Batches()))
    assert (tmp_path / "student_video.f32").stat().st_mtime_ns == written


def test_features_of_something_else_are_replaced(tmp_path):
    features(tmp_path, Batches(), {key: lambda x: x + 1 for key in NETWORKS}, origin="other weights")
    assert_same(features(tmp_path, Batches()))


@pytest.mark.parametrize("table", [TABLE[:5], TABLE[::-1]])
def test_clips_that_do_not_come_are_an_error(tmp_path, table):
    with pytest.raises(UserError, match="of .* clips"):
        features(tmp_path, Batches(table=table))

"""Features on disk: extracted once, gone on with after a stop, and never taken for those of something else."""

import numpy as np
import pytest
import torch
from downstream_fakes import Loader, rows

from xkd.downstream.features import outputs_of
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


def features(folder, batches, networks=NETWORKS, origin="weights", precision="float32"):
    origins = {key: {"weights": origin, "precision": precision} for key in networks}
    return stored(folder, networks, origins, TABLE, batches, precision).outputs


def expected():
    parts = [outputs for _, outputs in outputs_of(NETWORKS, Loader(TABLE))]
    return {key: np.concatenate([part[key] for part in parts]) for key in NETWORKS}


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


def test_half_precision_is_kept_and_goes_on_after_a_stop_too(tmp_path):
    networks = {("student", "video"): torch.nn.Linear(3, 5)}
    with pytest.raises(KeyboardInterrupt):
        features(tmp_path, Batches(stop=2), networks, precision="bfloat16")
    found = features(tmp_path, Batches(), networks, precision="bfloat16")["student", "video"]
    expected = [part["student", "video"] for _, part in outputs_of(networks, Loader(TABLE), "bfloat16")]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.concatenate(expected).astype(np.float16))


def test_outputs_too_large_for_half_precision_are_an_error(tmp_path):
    with pytest.raises(UserError, match="student video: outputs that are not finite"):
        features(tmp_path, Batches(), {("student", "video"): lambda x: 1e5 * x}, precision="float16")


def test_some_clips_of_several_passes_lie_side_by_side(tmp_path):
    passes = [
        stored(
            tmp_path / str(i),
            {k: lambda x, i=i: x + i for k in NETWORKS},
            dict.fromkeys(NETWORKS, {}),
            TABLE,
            Batches(),
        )
        for i in range(3)
    ]
    ids = ["clip0007", "clip0002"]
    taken = passes[0].take(ids, *passes[1:])
    assert taken.ids.tolist() == ids
    for key, values in taken.outputs.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, np.concatenate([part.outputs[key][[7, 2]] for part in passes], axis=1))
    with pytest.raises(KeyError):
        passes[0].take(["clip0099"])

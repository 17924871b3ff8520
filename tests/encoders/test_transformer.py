"""Media files in a pipeline of scikit-learn."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from encoder_folders import write_encoders
from media_files import write_media
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from xkd import XKDFeatures
from xkd.errors import UserError
from xkd.stages import embed


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoders(tmp_path_factory.mktemp("run")) / "encoders" / "audio_student"


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Names of eight files: four low tones, then four high ones."""
    root = tmp_path_factory.mktemp("tones")
    pitches = [200, 230, 260, 290, 2000, 2300, 2600, 2900]
    return [str(write_media(root / f"{p}.wav", seconds=1.5, codec=None, pitch=p)) for p in pitches]


def test_a_classifier_of_files_in_three_lines(encoder, tones):
    pipeline = make_pipeline(XKDFeatures(encoder=encoder), LogisticRegression())
    pipeline.fit([tones[i] for i in (0, 2, 3, 4, 5, 7)], ["low"] * 3 + ["high"] * 3)
    assert pipeline.predict([tones[1], tones[6]]).tolist() == ["low", "high"]


def test_rows_are_means_of_those_that_embed_writes(encoder, tones, tmp_path):
    embed.run(encoder, tuple(map(Path, tones[:3])), tmp_path / "rows.parquet", 16)
    table = pd.read_parquet(tmp_path / "rows.parquet")
    assert len(table) == 6  # 1.5 s in clips of 0.96 s
    expected = [np.stack(table[table["file"] == name]["vector"]).mean(0) for name in tones[:3]]
    asked = [Path(tones[2]), tones[0], tones[1], tones[0]]
    found = XKDFeatures(encoder, batch_size=5).fit_transform(asked)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [expected[i] for i in (2, 0, 1, 0)], atol=1e-5)


def test_it_is_an_estimator_as_others(encoder):
    features = XKDFeatures(encoder=encoder, batch_size=3)
    assert clone(features).get_params() == {"encoder": encoder, "batch_size": 3} == features.get_params()
    assert features.set_params(batch_size=4).batch_size == 4
    assert "XKDFeatures(batch_size=4" in repr(features)


def test_a_file_that_cannot_be_read_is_named(encoder, tones, tmp_path):
    broken, silent = tmp_path / "broken.wav", write_media(tmp_path / "silent.mp4", audio=False)
    broken.write_bytes(b"nothing")
    for files, message in (
        ([tones[0], broken], r"broken\.wav: unreadable.*; leave it out"),
        ([silent, broken], r"silent\.mp4: no audio \(and 1 more\); leave it out"),
        ([tmp_path / "absent.wav"], r"absent\.wav: "),
        ([], "at least one"),
        (tones[0], "a list of paths"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            XKDFeatures(encoder).transform(files)
        assert "\n" not in str(caught.value)

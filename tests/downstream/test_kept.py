"""Fits that are kept while an evaluation goes on."""

import numpy as np
import pytest

from xkd.downstream.kept import KeptFits
from xkd.downstream.scores import Scores
from xkd.protocols import Column


def fitted(seed: int) -> list[Scores]:
    values = np.random.default_rng(seed).random((4, 2))
    about = {
        "joined": True,
        "chosen": {"student.video.svm.C": 0.1},
        "notes": ("the solver stopped",),
        "draws": (100 / 3, 50.0),
    }
    return [
        Scores(Column("student", "video", name), values, np.array(["cat", "dog"]), **about) for name in ("svm", "knn")
    ]


def assert_equal(found: list[Scores], expected: list[Scores]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.classes, other.classes)
        for name in ("column", "joined", "chosen", "notes", "draws"):
            assert getattr(one, name) == getattr(other, name)


def test_a_fit_is_done_once_and_again_after_it_was_removed(tmp_path):
    fits = KeptFits(tmp_path / "fits")
    assert_equal(fits.kept("fold/1.video", lambda: fitted(0)), fitted(0))
    assert_equal(fits.kept("fold/1.video", lambda: fitted(1)), fitted(0))
    assert_equal(fits.kept("fold/2.video", lambda: fitted(1)), fitted(1))
    fits.remove()
    assert not fits.folder.exists()
    assert_equal(fits.kept("fold/1.video", lambda: fitted(1)), fitted(1))


def test_a_damaged_file_is_fitted_again(tmp_path):
    fits = KeptFits(tmp_path)
    fits.kept("one", lambda: fitted(0))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert_equal(fits.kept("one", lambda: fitted(1)), fitted(1))


def test_a_fit_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        KeptFits(tmp_path).kept("one", interrupted)
    assert list(tmp_path.iterdir()) == []


def interrupted():
    raise KeyboardInterrupt

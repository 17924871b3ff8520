"""What holds for all inputs, against independent computations. XKD_FUZZ=2000 tries that many inputs instead of 25."""

import csv
import io
import json
import os
import re
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as some

from xkd import csv_files, params, settings_file
from xkd.data import listing, windows
from xkd.data.manifest import Manifest
from xkd.data.order import Order, among_all, among_windows
from xkd.data.tracks import Cut
from xkd.errors import UserError
from xkd.modalities import MODALITIES
from xkd.modalities.logmel import LogMelSpectrogram
from xkd.modalities.video import frames_between
from xkd.settings import LogMel

MANY = int(os.environ.get("XKD_FUZZ", "0"))
ALL = settings(max_examples=MANY or 25, derandomize=not MANY, deadline=None, database=None)
MINIATURE = Path(__file__).parents[1] / "workflow" / "presets" / "miniature.yaml"

TEXTS = some.text(some.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=12)
FORMULAS = some.tuples(some.text("'=+-@;\t 1.e", max_size=6), TEXTS).map("".join)
NAMES = some.text("abcdefgh_", min_size=1, max_size=4)
NUMBERS = some.integers(-(10**17), 10**17) | some.floats(allow_nan=False, allow_infinity=False)
BRANCHES = some.recursive(
    some.none() | some.booleans() | NUMBERS | NAMES,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
FOLDS = ["1", "2", "3", "1:train 2:test", "2:unused 3:train", ""]
TREES = some.dictionaries(NAMES, BRANCHES, min_size=1, max_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("properties")


# Settings


@ALL
@given(TREES)
def test_what_is_dumped_is_read_back(folder, tree):
    for text in (yaml.safe_dump(tree), json.dumps(tree)):
        (folder / "a.yaml").write_text(text)
        assert settings_file.read_settings(folder / "a.yaml") == tree


@ALL
@given(TREES, TREES, TREES)
def test_a_file_that_extends_others_is_merged_key_by_key(folder, first, second, third):
    files = {
        "first": first,
        "second": {"extends": "first.yaml", **second},
        "third": {"extends": "second.yaml", **third},
    }
    for name, tree in files.items():
        (folder / f"{name}.yaml").write_text(json.dumps(tree))
    expected: dict = {}
    for tree in files.values():
        expected = _without_nulls(_over(expected, tree))
    assert params._read(folder / "third.yaml") == expected


def _over(below, above):
    """Merges with a loop over all paths, the oracle of a recursion over keys."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    keys = [*below, *(key for key in above if key not in below)]
    return {key: _over(below.get(key), above[key]) if key in above else below[key] for key in keys}


def _without_nulls(tree):
    return {k: _without_nulls(v) if isinstance(v, dict) else v for k, v in tree.items() if v is not None}


@settings(ALL, max_examples=MANY or 8)  # each loads two whole files of settings
@given(some.integers(1, 100), some.floats(1e-6, 1.0), some.sampled_from(["hold", "loop"]), some.floats(0, 1e3))
def test_settings_come_back_from_what_is_written_of_them(folder, epochs, rate, pad, seconds):
    changes = {"training": {"epochs": epochs, "learning_rate": rate}, "clips": {"pad": pad, "shortest": seconds}}
    (folder / "b.yaml").write_text(json.dumps({"extends": str(MINIATURE), **changes}))
    loaded = params.load(folder / "b.yaml")
    assert (loaded.training.epochs, loaded.training.learning_rate) == (epochs, rate)
    (folder / "c.yaml").write_text(yaml.safe_dump(json.loads(loaded.model_dump_json(exclude_unset=True))))
    assert params.load(folder / "c.yaml") == loaded


# Cells


@ALL
@given(some.lists(some.tuples(FORMULAS, FORMULAS | TEXTS), min_size=1, max_size=5))
def test_every_cell_comes_back_and_none_is_a_formula(folder, cells):
    table = pd.DataFrame(cells, columns=["one", "two"])
    csv_files.write_csv(folder / "cells.csv", table)
    pd.testing.assert_frame_equal(csv_files.read_csv(folder / "cells.csv"), table, check_dtype=False)
    for row in csv.reader(io.StringIO((folder / "cells.csv").read_text())):
        for part in (part.strip() for cell in row for part in cell.split(";")):
            assert not part or part[0] not in "=+-@" or _is_number(part), part


def _is_number(text):
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


@ALL
@given(some.lists(some.tuples(NAMES, some.sampled_from(listing.SPLIT_NAMES), TEXTS), min_size=1, max_size=4))
def test_a_list_is_read_as_written_or_refused(folder, rows):
    table = pd.DataFrame(rows, columns=["path", "split", "label"]).reindex(
        columns=listing.LISTING_COLUMNS, fill_value=""
    )
    listing.write_listing(folder / "list.csv", table)
    try:
        found = listing.read_listing(folder / "list.csv")
    except UserError:
        assert any(re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]|^;|;;|;$", label.strip()) for *_, label in rows)
        return
    assert found[["path", "split"]].to_numpy().tolist() == table[["path", "split"]].to_numpy().tolist()
    assert found["label"].tolist() == listing.completed(table)["label"].tolist()


# Clips


@ALL
@given(some.integers(0, 60), some.integers(1, 20), some.integers(1, 70))
def test_frames_between_are_those_of_a_slice_and_at_least_the_last(first, count, length):
    assert list(frames_between(first, count, length)) == (list(range(length))[first : first + count] or [length - 1])


@ALL
@given(
    some.sampled_from(sorted(MODALITIES)),
    some.integers(1, 50),
    some.integers(1, 12),
    some.sampled_from(["hold", "loop"]),
    some.integers(1, 5),
)
def test_windows_cut_a_file_into_all_its_clips(modality, length, size, pad, at_once):
    track = np.arange(1, length + 1, dtype=np.float32).reshape(-1, *((1, 1, 1) if modality == "video" else ()))
    window = windows.Window(modality, size, 1.0, pad)
    cutting = windows.Cutting((window,))
    with _tracks_of(track):
        survey = windows.survey("film", cutting)
        groups = [range(n, min(n + at_once, survey.clips)) for n in range(0, survey.clips, at_once)]
        cuts = [windows.read_clips("film", (window,), cutting.begins(window, some, 0.0)) for some in groups]
    clips = np.stack([window.of(cut, n).reshape(size) for cut in cuts for n in range(len(cut.begins))])
    # The oracle writes out the stream without end that the padding describes.
    rest = {"loop": None, "hold": [length if modality == "video" else 0] * size}
    starts = range(0, length, size)
    whole = [list(track.ravel()[start : start + size]) for start in starts]
    kept = whole[:-1] if len(whole) > 1 and len(whole[-1]) * 2 < size else whole
    expected = [(clip + (rest[pad] or clip * size))[:size] for clip in kept]
    assert clips.tolist() == expected
    assert (survey.clips, survey.seconds) == (len(kept), length)


class _tracks_of:
    """Replaces all tracks of files by an array."""

    def __init__(self, track):
        class Track:
            def __init__(self, *_): ...

            def __len__(self):
                return len(track)

            def cut(self, begins, length, scales):
                return Cut({scale: track for scale in scales}, begins)

        self._patches = [
            mock.patch.dict(windows.TRACKS, dict.fromkeys(windows.TRACKS, Track)),
            mock.patch.object(windows.decode, "probe_file", return_value=None),
        ]

    def __enter__(self):
        for patch in self._patches:
            patch.start()

    def __exit__(self, *_):
        for patch in self._patches:
            patch.stop()


@ALL
@given(
    some.integers(1, 4),
    some.integers(1, 4),
    some.integers(1, 60),
    some.integers(0, 3),
    some.booleans(),
    some.integers(1, 70),
)
def test_an_epoch_has_each_clip_once_for_any_number_of_ranks(ranks, share, clips, epoch, windowed, window):
    batch = ranks * share
    places = np.random.default_rng(clips).permutation(clips)
    shuffled = among_windows(places, window) if windowed else among_all(clips)
    keys = [_keys(Order(clips, batch, 7, shuffled, (rank, ranks)), epoch) for rank in range(ranks)]
    assert [len(of_rank) for of_rank in keys] == [clips // batch] * ranks
    together = [sum(parts, []) for parts in zip(*keys, strict=True)]
    assert together == _keys(Order(clips, batch, 7, shuffled), epoch), "all ranks read the batches of one"
    flat = sum(together, [])
    assert len(set(flat)) == len(flat) == clips // batch * batch
    every = [_keys(Order(clips, batch, rank=(rank, ranks)), epoch) for rank in range(ranks)]
    assert sorted(key for of_rank in every for part in of_rank for key in part) == list(range(clips))


def _keys(order, epoch):
    order.epoch = epoch
    return [[index for _, index in part] for part in order]


@ALL
@given(some.integers(1, 3000), some.integers(1, 150).map(lambda half: 2 * half), some.integers(1, 200))
def test_a_log_mel_has_a_column_for_each_hop(samples, n_fft, hop):
    made = LogMelSpectrogram(LogMel(n_fft=n_fft, hop=hop, n_mels=4, f_max=4000), 8000)
    found = made(torch.zeros(2, samples))
    assert found.shape[:3] == (2, 1, 4)
    assert torch.isfinite(found).all()
    if samples > n_fft // 2:  # else silence stands in for what a window lacks
        starts = range(-(n_fft // 2), samples + n_fft // 2 - n_fft + 1, hop)
        assert found.shape[-1] == made.frames(samples) == len(starts)


@ALL
@given(some.lists(some.sampled_from(FOLDS), min_size=1, max_size=12), some.sampled_from("123"))
def test_every_clip_has_one_role_in_a_fold(cells, fold):
    table = pd.DataFrame({"fold": cells, "split": "train", "status": "ok"})
    manifest = Manifest(Path("m"), table, "")
    roles = [_role(cell, fold) for cell in cells]
    if "test" not in roles:
        with pytest.raises(UserError, match="no clip is tested"):
            manifest.split("test", fold)
        return
    for split in ("train", "test", "unused"):
        assert manifest.split(split, fold).numbers.tolist() == [n for n, role in enumerate(roles) if role == split]


def _role(cell, fold):
    if ":" not in cell:
        return "test" if cell == fold else "train"
    return dict(word.split(":") for word in cell.split()).get(fold, "unused")

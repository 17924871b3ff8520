"""Lists, manifests and notes of xkd's own that are damaged or odd: one line, no hang, nothing misread."""

import json
import os

import numpy as np
import pandas as pd
import pytest

from xkd import made
from xkd.data import encode, listing, manifest
from xkd.data.reader import ClipReader
from xkd.data.sources import fetch
from xkd.data.sources.acquire import roots_of
from xkd.errors import UserError
from xkd.files import read_json

ROWS = (
    "id,path,split,fold,label,seconds,fps,width,height,sample_rate,has_video,has_audio,"
    "video_source,audio_source,digest,status,reason\n"
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\na.mp4,dog,\nb.mp4,cat,\n", "more cells than its header"),
        ("path,label\n.,dog\n", "line 2: '.' is not the path of a file"),
        ("path,label\na.mp4,dog\n..,dog\n", "line 3"),
    ],
)
def test_lists_are_never_misread(tmp_path, text, words):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        listing.read_listing(tmp_path / "list.csv")


def test_a_pipe_in_the_place_of_a_list_or_manifest_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for read in (listing.read_listing, manifest.read_manifest):
        with pytest.raises(UserError, match="not a regular file"):
            read(tmp_path / "pipe.csv")


def test_a_manifest_that_was_edited_is_read_right_or_refused(tmp_path):
    path, row = tmp_path / "manifest.csv", "a,a.mp4,train,,x,{},8,32,32,16000,{},{},,,0,ok,\n"
    path.write_text(ROWS + row.format("1.0", "TRUE", "FALSE"))
    rows = manifest.read_manifest(path).rows
    assert rows["has_video"].tolist() == [True]
    assert rows["has_audio"].tolist() == [False]
    for seconds, has_video in (("one", "True"), ("1.0", "yes")):
        path.write_text(ROWS + row.format(seconds, has_video, "True"))
        with pytest.raises(UserError, match="run `python -m xkd prepare` again"):
            manifest.read_manifest(path)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"', "[" * 100_000, "\ufeff{", "{"])
def test_notes_that_are_no_objects_are_no_notes(tmp_path, text):
    (tmp_path / "raw").mkdir()
    for name in ("source.json", "archives.lock.json"):
        (tmp_path / "raw" / name).write_text(text)
    with pytest.raises(ValueError, match="."):
        read_json(tmp_path / "raw" / "source.json")
    assert roots_of(tmp_path / "raw") == [tmp_path / "raw"]
    with pytest.raises(UserError, match="not readable"):
        fetch.Lock(tmp_path / "raw" / "archives.lock.json")


def test_entries_of_another_kind_in_the_lock_are_refused(tmp_path):
    (tmp_path / "lock.json").write_text(json.dumps({"a.zip": 3}))
    with pytest.raises(UserError, match="lacks size"):
        fetch.Lock(tmp_path / "lock.json")


def test_a_journal_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".xkd-prepare.jsonl").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(UserError, match="is a link"), made.opened(tmp_path / "out", "prepare"):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("samples", [800, 16001, 24000])
def test_sound_alone_lasts_as_long_as_what_was_encoded(tmp_path, samples):
    """To a millisecond, the unit of the container; blocks of the encoder are 64 times as long."""
    clip = tmp_path / "clip.mp4"
    encode.write_clip(clip, None, 8, (0, 0), np.full(samples, 0.1, np.float32), 16000, encode.FOR_TRAINING)
    assert 0 <= ClipReader(clip).declared_samples() - samples <= 16


def test_columns_of_a_list_keep_their_cells(tmp_path):
    pd.DataFrame({"path": ["a.mp4"], "label": ["x"]}).to_csv(tmp_path / "list.csv", index=False)
    assert listing.read_listing(tmp_path / "list.csv")["label"].tolist() == ["x"]

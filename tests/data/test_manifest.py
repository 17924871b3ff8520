"""A manifest and the columns beside it."""

import errno
import hashlib
import os

import pandas as pd
import pytest

from xkd import csv_files
from xkd.data import columns, manifest
from xkd.errors import UserError
from xkd.files import write_json

ODD = ["plain", "Speech, male", 'so "called"', "two\nlines", "line\u2028break", "naïve", "'=quoted", "a;b", ""]


@pytest.fixture
def path(tmp_path):
    """A manifest of clips with odd labels, one of them unusable."""
    table = pd.DataFrame({name: "" for name in manifest.MANIFEST_COLUMNS}, index=range(len(ODD)))
    table = table.assign(id=[f"{n}" for n in range(len(ODD))], path="clips/a.mp4", label=ODD, split="train", fps=8.0)
    table["status"] = ["ok"] * 5 + ["unusable"] + ["ok"] * 3
    table["has_video"], table["seconds"] = table["status"] == "ok", [1.5, *[None] * 8]
    manifest.write_manifest(tmp_path / "manifest.csv", table)
    return tmp_path / "manifest.csv"


def test_the_hash_is_that_of_the_sorted_lines(path):
    texts = csv_files.read_csv(path)
    lines = texts.drop(columns="path").to_csv(index=False, lineterminator="\n").splitlines()
    assert manifest.content_hash(texts) == hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]


def test_the_csv_file_is_read_once(path, monkeypatch):
    first = manifest.read_manifest(path)
    monkeypatch.setattr(csv_files, "read_csv", lambda *_: pytest.fail("the CSV file was read again"))
    again = manifest.read_manifest(path)
    assert again.hash == first.hash
    pd.testing.assert_frame_equal(again.all_rows, first.all_rows)
    assert again.labels == list(again.column("label")) == [label for n, label in enumerate(ODD) if n != 5]
    assert again.column("label")[2:4] == ODD[2:4]
    assert again.values("has_video").all()


def test_an_edit_is_noticed_even_if_size_and_time_stay(path):
    before, times = manifest.read_manifest(path), path.stat()
    path.write_text(path.read_text().replace("plain", "PLAIN"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = manifest.read_manifest(path)
    assert after.labels[0] == "PLAIN"
    assert after.hash != before.hash


@pytest.mark.parametrize("content", [b"", b"ARROW1 but cut off", None])
def test_damaged_columns_are_made_again(path, content):
    labels = manifest.read_manifest(path).labels
    (kept,) = path.parent.glob(".*.arrow")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert manifest.read_manifest(path).labels == labels
    assert kept.read_bytes() == whole


def test_a_folder_that_cannot_be_written_to_is_read(path, monkeypatch):
    def refused(_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(columns, "replacing", refused)
    assert manifest.read_manifest(path).labels[0] == "plain"
    assert [file.name for file in path.parent.iterdir()] == ["manifest.csv"]


def test_a_changed_table_leaves_other_readers_alone(path):
    one, other = manifest.read_manifest(path), manifest.read_manifest(path)
    one.all_rows.loc[0, "label"] = "changed"
    assert other.labels[0] == one.split("train").labels[0] == "plain"


def test_an_edited_list_of_prepared_clips_is_refused_and_one_of_others_is_not(path):
    """`prepare` notes the hash of what it wrote; paths and the order of rows are no part of it."""
    summary = path.with_name("summary.json")
    held = manifest.read_manifest(path)
    manifest.check_as_prepared(path, held.hash)
    write_json(summary, {"hash": held.hash}, sealed=True)
    manifest.check_as_prepared(path, held.hash)
    path.write_text(path.read_text().replace("train", "test", 1))
    with pytest.raises(
        UserError, match=r"edited or damaged since it was prepared .* run `python -m xkd prepare` again"
    ):
        manifest.check_as_prepared(path, manifest.read_manifest(path).hash)
    summary.write_text(summary.read_text().replace(held.hash, "0" * 12))
    with pytest.raises(UserError, match=r"summary.json: damaged or edited"):
        manifest.check_as_prepared(path, held.hash)

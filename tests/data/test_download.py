"""Stage download: generated files, reuse, archives, users' own lists."""

import os

import pytest

from xkd.data import generate, listing, synthetic
from xkd.errors import UserError
from xkd.made import Made
from xkd.settings import Dataset
from xkd.stages import download


class Settings:
    """As much of Params as the stage reads."""

    def __init__(self, **datasets):
        self.datasets = {name: Dataset(**values) for name, values in datasets.items()}


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.mov"))}


def test_same_files_for_any_number_of_processes(tmp_path):
    entry = Dataset(kind="talking_digits", train_clips=6, test_clips=3, seed=1)
    one = generate.generate(entry, Made(tmp_path / "one", "download"), processes=1)
    two = generate.generate(entry, Made(tmp_path / "two", "download"), processes=2)
    assert one.equals(two)
    assert len(one) == 9
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert one["label"].tolist() == ["zero", "one", "two", "three", "four", "five", "zero", "one", "two"]


def test_second_call_keeps_what_is_there_and_other_settings_do_not(tmp_path):
    settings = Settings(digits={"kind": "talking_digits", "train_clips": 3, "test_clips": 1, "seed": 1})
    download.run(settings, "digits", tmp_path)
    before, index = contents(tmp_path), (tmp_path / "index.csv").read_text()
    assert len(before) == 4
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mov")}
    (tmp_path / "index.csv").unlink()
    lost = tmp_path / "clips" / "train-00001.mov"
    lost.unlink()
    download.run(settings, "digits", tmp_path)
    assert contents(tmp_path) == before
    assert (tmp_path / "index.csv").read_text() == index
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if path != lost)
    other = Settings(digits={"kind": "talking_digits", "train_clips": 3, "test_clips": 1, "seed": 2})
    download.run(other, "digits", tmp_path)
    assert all(before[name] != content for name, content in contents(tmp_path).items())


def test_clips_that_this_machine_would_render_otherwise_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "DIGEST", "0" * 12)
    with pytest.raises(UserError, match="renders the embedded data set otherwise"):
        download.run(Settings(digits={"kind": "talking_digits", "train_clips": 1, "test_clips": 1}), "digits", tmp_path)
    assert not list(tmp_path.rglob("*.mov"))


def test_own_list_points_to_the_files_where_they_are(tmp_path):
    mine = tmp_path / "mine"
    (mine / "films").mkdir(parents=True)
    (mine / "films" / "a.mp4").write_bytes(b"")
    (mine / "list.csv").write_text("path,label\nfilms/a.mp4,dog\n/else/b.mp4,cat\n")
    download.run(Settings(own={"kind": "manifest", "source": str(mine / "list.csv")}), "own", tmp_path / "raw")
    table = listing.read_listing(tmp_path / "raw" / "index.csv")
    assert table["id"].tolist() == ["films/a", "/else/b"]
    assert (tmp_path / "raw" / table["path"][0]).samefile(mine / "films" / "a.mp4")
    assert os.path.normpath(tmp_path / "raw" / table["path"][1]) == "/else/b.mp4"
    assert table["split"].tolist() == ["train", "train"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("file\na.mp4\n", "no column 'path'"),
        ("path,lable\na.mp4,dog\n", "unknown column 'lable'"),
        ("path\n", "lists no clips"),
        ("path,split\na.mp4,validation\n", "line 2: split 'validation'"),
        ("path,label\na.mp4,dog\n,cat\n", "line 3 has no path"),
        ("", "not a readable CSV"),
    ],
)
def test_bad_lists_are_refused_and_leave_the_index(tmp_path, text, complaint):
    (tmp_path / "list.csv").write_text(text)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "index.csv").write_text("earlier")
    with pytest.raises(UserError, match=complaint):
        download.run(Settings(own={"kind": "manifest", "source": str(tmp_path / "list.csv")}), "own", tmp_path / "raw")
    assert (tmp_path / "raw" / "index.csv").read_text() == "earlier"


def test_unknown_data_set_and_missing_source(tmp_path):
    with pytest.raises(UserError, match="did you mean 'talking_digits'"):
        download.run(Settings(talking_digits={"kind": "talking_digits"}), "talking_digit", tmp_path)
    with pytest.raises(UserError, match="datasets.own.source"):
        download.run(Settings(own={"kind": "manifest"}), "own", tmp_path)

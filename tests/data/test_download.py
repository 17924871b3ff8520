"""Stage download: generated files, reuse, archives, users' own lists."""

import os
import shutil
import zipfile

import pytest
from file_server import serving

from xkd.data import catalogue, generate, listing
from xkd.data.generate import SPOKEN_DIGITS_VARIABLE, archive_of_recordings
from xkd.data.sources import fetch
from xkd.errors import UserError
from xkd.made import Made
from xkd.settings import Dataset
from xkd.stages import download


class Settings:
    """As much of Params as the stage reads."""

    def __init__(self, **datasets):
        self.datasets = {name: Dataset(**values) for name, values in datasets.items()}


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.mp4"))}


def test_same_files_for_any_number_of_processes(tmp_path):
    entry = Dataset(kind="talking_digits", train_clips=6, test_clips=3, seed=1)
    one = generate.generate(entry, Made(tmp_path / "one", "download"), None, processes=1)
    two = generate.generate(entry, Made(tmp_path / "two", "download"), None, processes=2)
    assert one.equals(two)
    assert len(one) == 9
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert one["label"].tolist() == ["zero", "one", "two", "three", "four", "five", "zero", "one", "two"]


def test_second_call_keeps_what_is_there_and_other_settings_do_not(tmp_path):
    settings = Settings(digits={"kind": "talking_digits", "train_clips": 3, "test_clips": 1, "seed": 1})
    download.run(settings, "digits", tmp_path)
    before, index = contents(tmp_path), (tmp_path / "index.csv").read_text()
    assert len(before) == 4
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    (tmp_path / "index.csv").unlink()
    lost = tmp_path / "clips" / "train-00001.mp4"
    lost.unlink()
    download.run(settings, "digits", tmp_path)
    assert contents(tmp_path) == before
    assert (tmp_path / "index.csv").read_text() == index
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if path != lost)
    other = Settings(digits={"kind": "talking_digits", "train_clips": 3, "test_clips": 1, "seed": 2})
    download.run(other, "digits", tmp_path)
    assert all(before[name] != content for name, content in contents(tmp_path).items())


def test_spoken_digits_from_a_local_archive(tmp_path, spoken_digits_zip, monkeypatch):
    monkeypatch.setenv(SPOKEN_DIGITS_VARIABLE, str(spoken_digits_zip))
    download.run(Settings(spoken={"kind": "spoken_digits", "train_clips": 2, "test_clips": 2}), "spoken", tmp_path)
    table = listing.read_listing(tmp_path / "index.csv")
    assert table["split"].tolist() == ["train", "train", "test", "test"]
    assert all(int(name.split("_")[2]) < 5 for name in table["audio_source"][2:])


def test_another_archive_makes_other_clips(tmp_path, spoken_digits_zip):
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(spoken_digits_zip) as old, zipfile.ZipFile(other, "w") as new:
        silence = b"\0" * 3200
        for info in old.infolist():
            content = old.read(info)
            new.writestr(info.filename, content[:44] + silence if info.filename.endswith(".wav") else content)
    found = []
    for archive in (spoken_digits_zip, other):
        spoken = {"kind": "spoken_digits", "train_clips": 1, "test_clips": 1, "source": str(archive)}
        download.run(Settings(spoken=spoken), "spoken", tmp_path / "raw")
        found.append(contents(tmp_path / "raw"))
    assert all(found[0][name] != content for name, content in found[1].items())
    assert len(found[1]) == 2


def test_archives_that_are_not_the_data_set(tmp_path, monkeypatch):
    monkeypatch.delenv(SPOKEN_DIGITS_VARIABLE, raising=False)
    with pytest.raises(UserError, match="no such file"):
        archive_of_recordings("spoken_digits", str(tmp_path / "gone.zip"), tmp_path)
    (tmp_path / "bad.zip").write_bytes(b"not a zip")
    with pytest.raises(UserError, match="not a readable zip"):
        archive_of_recordings("spoken_digits", str(tmp_path / "bad.zip"), tmp_path)
    with zipfile.ZipFile(tmp_path / "small.zip", "w") as archive:
        archive.writestr("x/recordings/0_ann_0.wav", b"")
    with pytest.raises(UserError, match="holds 1 files"):
        archive_of_recordings("spoken_digits", str(tmp_path / "small.zip"), tmp_path)


def test_fetches_once_and_says_what_to_do_without_a_network(tmp_path, spoken_digits_zip, monkeypatch):
    monkeypatch.delenv(SPOKEN_DIGITS_VARIABLE, raising=False)
    monkeypatch.setattr(fetch, "FIRST_PAUSE", 0.001)
    (known,) = catalogue.known_datasets()["spoken_digits"].archives
    (tmp_path / "site").mkdir()
    with serving(tmp_path / "site") as (address, faults):
        with pytest.raises(UserError, match=rf"404.*source.*{SPOKEN_DIGITS_VARIABLE}"):
            archive_of_recordings("spoken_digits", address, tmp_path)
        (tmp_path / "site" / known.file).write_text("<html>Please log in to the network</html>")
        with pytest.raises(UserError, match=r"not a readable zip.*kept as .*\.wrong"):
            archive_of_recordings("spoken_digits", address, tmp_path)
        shutil.copy(spoken_digits_zip, tmp_path / "site" / known.file)
        fetched = archive_of_recordings("spoken_digits", address, tmp_path)
        assert fetched.read_bytes() == spoken_digits_zip.read_bytes()
        asked = len(faults.asked)
        assert archive_of_recordings("spoken_digits", address, tmp_path) == fetched
        assert len(faults.asked) == asked
    with pytest.raises(UserError, match=rf"Connection refused.*{SPOKEN_DIGITS_VARIABLE}"):
        archive_of_recordings("spoken_digits", address, tmp_path / "elsewhere")


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

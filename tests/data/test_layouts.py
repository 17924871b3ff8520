"""Layouts of one's own: a registered function is all that a kind of data set needs."""

import shutil
import zipfile

import pandas as pd
import pytest
from media_files import write_media

from xkd import registry
from xkd.data import catalogue, listing, manifest
from xkd.data.sources import layouts  # noqa: F401 (registers ours)
from xkd.errors import UserError
from xkd.settings import Clips, Dataset, Limits
from xkd.stages import download, inspect, prepare

CLIPS = Clips(seconds=1, fps=8, size=32, sample_rate=16000)


class Settings:
    """As much of Params as the stages read."""

    dataset = "mine"

    def __init__(self, **values):
        self.datasets = {"mine": Dataset(**{"kind": "speeches"} | values)}
        self.clips, self.limits = CLIPS, Limits()


@pytest.fixture
def speeches(monkeypatch):
    """Registers a layout: a table of speakers, and clips named after them, one of which was lost."""
    monkeypatch.setattr(registry.layouts, "_entries", dict(registry.layouts._entries))

    @registry.layouts.register("speeches")
    def listed(tree):
        (path,) = tree.named("speakers.csv")
        table = pd.read_csv(path, dtype=str)
        found = [tree.clip(name) or tree.roots[0] / f"{name}.mp4" for name in table["name"]]
        return pd.DataFrame(
            {"path": [str(path) for path in found], "label": table["speaker"], "split": table["part"]}
        ).assign(id=table["name"])


@pytest.fixture
def source(tmp_path):
    """A folder with the table and all clips but one."""
    folder = tmp_path / "speeches" / "videos"
    folder.mkdir(parents=True)
    for name in ("a", "b", "c"):
        write_media(folder / f"{name}.mp4")
    lines = ["name,speaker,part", "a,ann,train", "b,bob,train", "c,ann,test", "d,bob,test"]
    (folder.parent / "speakers.csv").write_text("\n".join(lines) + "\n")
    return folder.parent


def test_every_kind_that_is_not_generated_has_a_layout():
    kinds = {kind for kind, known in catalogue.known_datasets().items() if not known.generated}
    assert set(registry.layouts) == kinds | {"folder", "manifest"}
    assert all(catalogue.is_own(kind) == (kind not in kinds) for kind in registry.layouts)


@pytest.mark.parametrize("form", ["folder", "archive", "archive of the files"])
def test_a_registered_layout_works_through_download_prepare_and_inspect(
    speeches, source, tmp_path, monkeypatch, capsys, form
):
    monkeypatch.chdir(tmp_path)
    given = source
    if form != "folder":
        top = source.parent if form == "archive" else source
        shutil.make_archive(str(tmp_path / "given"), "zip", top, *(["speeches"] if form == "archive" else []))
        given = tmp_path / "given.zip"
        shutil.rmtree(source)
    settings = Settings(source=str(given), require="video")
    download.run(settings, "mine", tmp_path / "data/mine/raw")
    assert "mine in " in (said := capsys.readouterr().err)
    assert "test 1 of 2, train 2 of 2" in said
    prepare.run(settings, tmp_path / "data/mine/raw/index.csv", tmp_path / "data/mine")
    rows = manifest.read_manifest(tmp_path / "data/mine/manifest.csv").all_rows.set_index("id")
    assert rows["label"].to_dict() == {"a": "ann", "b": "bob", "c": "ann", "d": "bob"}
    assert rows["reason"].to_dict() == {"a": "", "b": "", "c": "", "d": "missing"}
    settings.logmel = None
    monkeypatch.setattr(inspect, "draw_contact_sheet", lambda *arguments: arguments[-1].touch())
    monkeypatch.setattr(inspect, "LogMelSpectrogram", lambda *_: None)
    inspect.run(settings, "mine", None, 2)
    assert capsys.readouterr().out.startswith("mine: speeches\n")


def test_a_layout_may_leave_out_columns_and_return_other_types(speeches, source, tmp_path):
    def returned(table):
        registry.layouts._entries["speeches"] = lambda tree: table(tree.media())
        download.run(Settings(source=str(source)), "mine", tmp_path / "raw")
        return listing.read_listing(tmp_path / "raw" / "index.csv")

    found = returned(lambda paths: pd.DataFrame({"path": paths, "id": range(3), "label": [7, None, 9]}, dtype=object))
    assert found["id"].tolist() == ["0", "1", "2"]
    assert found["label"].tolist() == ["7", "", "9"]
    assert set(found["split"]) == {"train"}
    with pytest.raises(UserError, match=r"datasets\.mine: the layout 'speeches' returns no column 'id'"):
        returned(lambda paths: pd.DataFrame({"path": paths}))


def test_what_is_wrong_with_a_source_of_ones_own_is_one_line(speeches, source, tmp_path):
    for values, message in (
        ({"source": None}, r"datasets\.mine\.source: give the folder"),
        ({"source": str(tmp_path / "gone")}, "gone: no such file or folder"),
        ({"source": str(source / "videos")}, "the lists of mine are damaged or have another format"),
        ({"source": str(source / "speakers.csv"), "kind": "folder"}, "not a folder; a CSV needs kind: manifest"),
    ):
        with pytest.raises(UserError, match=message):
            download.run(Settings(**values), "mine", tmp_path / "raw")
    with pytest.raises(UserError, match="lie one in the other"):
        download.run(Settings(source=str(source)), "mine", source / "raw")
    assert not (source / "raw").exists()


def test_an_archive_of_a_folder_of_classes_is_taken_as_that_folder(source, tmp_path):
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        archive.write(source / "videos" / "a.mp4", "own/dog/a.mp4")
        archive.write(source / "videos" / "b.mp4", "own/cat/b.mp4")
        archive.writestr("__MACOSX/own/dog/._a.mp4", b"")
    download.run(Settings(kind="folder", source=str(tmp_path / "own.zip")), "mine", tmp_path / "raw")
    table = listing.read_listing(tmp_path / "raw" / "index.csv")
    assert table[["id", "label"]].to_numpy().tolist() == [["cat/b", "cat"], ["dog/a", "dog"]]
    assert all((tmp_path / "raw" / path).is_file() for path in table["path"])

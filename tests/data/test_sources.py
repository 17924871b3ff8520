"""Each data set of the paper in miniature, from a server through download, prepare and evaluate."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import official
import pandas as pd
import pytest
import yaml
from file_server import serving
from media_files import write_media
from run_folders import seal

from xkd.data import catalogue, listing, manifest
from xkd.data.sources.acquire import limited
from xkd.errors import UserError
from xkd.params import merge
from xkd.params import recipe as recipe_of
from xkd.settings import Params
from xkd.stages import download, evaluate, inspect, prepare
from xkd.training.build import build_networks
from xkd.training.export import save_encoders

SETS = ("ucf101", "hmdb51", "kinetics400", "kinetics_sound", "esc50", "fsd50k", "audioset")
CHANGES = {
    "clips": {"fps": 8, "size": 32, "pack": False},
    "evaluate": {"linear": {"C": [1.0], "encoders": ["student"], "neighbours": 3}},
}
USABLE = {  # of the miniature: splits, and what is missing
    "ucf101": ({"train": 18, "test": 6}, 0),
    "hmdb51": ({"train": 9, "test": 6, "unused": 6}, 0),
    "kinetics400": ({"train": 11, "test": 12}, 1),
    "kinetics_sound": ({"train": 7, "test": 8}, 1),
    "esc50": ({"train": 24, "test": 6}, 0),
    "fsd50k": ({"train": 20, "val": 4, "test": 8}, 0),
    "audioset": ({"train": 11, "test": 6}, 1),
}


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    return official.Media(tmp_path_factory.mktemp("media"), write_media)


@pytest.fixture(scope="module")
def sites(tmp_path_factory, media):
    """Folders laid out as the official servers, and how many clips each lists."""
    folders = {}
    for kind in SETS:
        folder = tmp_path_factory.mktemp(kind)
        folders[kind] = (folder, getattr(official, kind)(folder, media))
    return folders


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of random encoders."""
    folder = tmp_path_factory.mktemp("run")
    recipe = recipe_of(settings(), "xkd")
    save_encoders(build_networks(recipe, 0), recipe, 0, folder)
    seal(folder)
    return folder


@pytest.fixture(autouse=True)
def no_published_checksums(monkeypatch):
    official.without_checksums(monkeypatch)


def settings(**datasets) -> Params:
    base = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    return Params.model_validate(merge(base, CHANGES | {"datasets": datasets}))


def prepared(params, name, folder):
    download.run(params, name, folder / "raw")
    prepare.run(params, folder / "raw" / "index.csv", folder)
    return manifest.read_manifest(folder / "manifest.csv"), json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("kind", SETS)
def test_from_the_server_to_an_evaluation(kind, sites, run, tmp_path, monkeypatch):
    site, count = sites[kind]
    own_clips = catalogue.known_datasets()[kind].own_clips
    with serving(site) as (address, faults):
        if own_clips:
            _addresses_on(monkeypatch, kind, address)
        params = settings(**{kind: {"kind": kind, "source": str(site / "clips") if own_clips else address}})
        found, summary = prepared(params, kind, tmp_path)
        asked = len(faults.asked)
        before = (tmp_path / "raw" / "index.csv").read_text()
        download.run(params, kind, tmp_path / "raw")
        archives = [name for name, _ in faults.asked[asked:]]
    assert not archives
    assert (tmp_path / "raw" / "index.csv").read_text() == before
    splits, missing = USABLE[kind]
    assert summary["expected"] == count
    assert summary["found"] == count - missing
    assert {split: n for split, n in summary["splits"].items() if n} == splits
    assert summary["reasons"] == ({"missing": missing} if missing else {})
    assert sum(row["expected"] for row in summary["classes"].values()) >= count
    evaluate.run(params, tmp_path / "manifest.csv", run, "linear", tmp_path / "linear.json")
    results = json.loads((tmp_path / "linear.json").read_text())
    assert all(results["clips"][split] == splits[split] for split in ("train", "test"))
    assert results["manifest"] == found.hash
    modalities = {name.split(".")[1] for name in results["metrics"]}
    assert (
        modalities
        == {"video": {"video"}, "audio": {"audio"}, "both": {"video", "audio", "both"}}[
            catalogue.known_datasets()[kind].require
        ]
    )
    measured = {name.rsplit(".", 1)[1] for name in results["metrics"]}
    assert ("top1" in measured) != (kind in ("fsd50k", "audioset"))
    assert "map" in measured


def test_folds_and_labels_of_ucf101(sites, tmp_path):
    table = _index(sites, "ucf101", tmp_path)
    assert table["fold"].value_counts().to_dict() == {"1": 6, "2": 6, "3": 6, "": 6}
    assert set(table.loc[table["split"] == "test", "fold"]) == {"1"}
    assert table.loc[table["id"] == "v_HandstandPushups_g02_c01", "label"].item() == "HandstandPushups"


def test_roles_of_hmdb51(sites, tmp_path):
    table = _index(sites, "hmdb51", tmp_path)
    roles = table["fold"].str.extractall(r"(?P<fold>\d):(?P<role>\w+)").groupby(["fold", "role"]).size()
    assert all(roles[fold, "train"] == 9 and roles[fold, "test"] == 6 for fold in "123")
    assert table["label"].value_counts().to_dict() == {"brush_hair": 7, "fall_floor": 7, "wave": 7}


def test_replaced_videos_and_vanished_ones_of_kinetics(sites, tmp_path):
    table = _index(sites, "kinetics400", tmp_path).set_index("id")
    replaced = table.loc["blowing-t01_000003_000013", "path"]
    assert "replacement" in replaced
    assert (tmp_path / replaced).is_file()
    assert not (tmp_path / table.loc["blowing-t00_000000_000010", "path"]).exists()
    sound = settings(ks={"kind": "kinetics_sound", "source": str(tmp_path)})
    download.run(sound, "ks", tmp_path / "ks")
    assert set(listing.read_listing(tmp_path / "ks" / "index.csv")["label"]) == {"blowing nose", "tap dancing"}


def test_several_labels_of_fsd50k_and_audioset(sites, tmp_path, monkeypatch):
    table = _index(sites, "fsd50k", tmp_path / "fsd")
    assert table["label"].value_counts().to_dict() == {"Bark;Dog": 8, "Rain": 8, "Rain;Thunder": 8, "Guitar;Music": 8}
    site, _ = sites["audioset"]
    with serving(site) as (address, _):
        _addresses_on(monkeypatch, "audioset", address)
        params = settings(audioset={"kind": "audioset", "source": str(site / "clips")})
        download.run(params, "audioset", tmp_path / "as")
    rows = listing.read_listing(tmp_path / "as" / "index.csv")
    assert rows["label"][0] == "Sound, of kind 0;Male singing"
    assert rows["id"][0] == "-vid0000000_30"
    assert rows["split"].tolist() == ["train"] * 12 + ["test"] * 6


def test_a_local_copy_is_used_packed_or_unpacked(sites, tmp_path):
    site, count = sites["esc50"]
    packed = settings(esc50={"kind": "esc50", "source": str(site)})
    download.run(packed, "esc50", tmp_path / "a")
    unpacked = settings(esc50={"kind": "esc50", "source": str(tmp_path / "a" / "files")})
    download.run(unpacked, "esc50", tmp_path / "b")
    one, two = (listing.read_listing(tmp_path / name / "index.csv") for name in "ab")
    assert len(one) == count
    assert one.drop(columns="path").equals(two.drop(columns="path"))
    assert all((tmp_path / "b" / path).resolve().is_file() for path in two["path"])
    assert not (tmp_path / "b" / "files").exists()


def test_what_is_wrong_with_a_source_is_said(sites, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for kind, source, message in (
        ("ucf101", str(tmp_path / "gone"), "no such folder"),
        ("ucf101", str(empty), "no classInd.txt in there"),
        ("audioset", None, r"give the folder of the clips that you have.*pip install 'xkd\[youtube\]'"),
        ("folder", None, "give the folder of the clips"),
        ("folder", str(empty), "no media files in folders named after their class"),
    ):
        with pytest.raises(UserError, match=message):
            download.run(settings(x={"kind": kind, "source": source}), "x", tmp_path / "raw")
    incomplete = tmp_path / "incomplete"
    shutil.copytree(sites["fsd50k"][0], incomplete)
    (incomplete / "FSD50K.dev_audio.z03").unlink()
    with pytest.raises(UserError, match=r"is the last of 6 parts, and FSD50K\.dev_audio\.z03 is missing"):
        download.run(settings(x={"kind": "fsd50k", "source": str(incomplete)}), "x", tmp_path / "raw")


def test_segments_are_fetched_from_youtube_where_no_clips_are_given(sites, media, tmp_path, monkeypatch, capsys):
    fetched = []

    class Session:
        def __init__(self, options):
            self.options = options

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def download(self, addresses):
            fetched.append((addresses[0], self.options["download_ranges"]))
            if "vid0" in addresses[0]:
                raise OSError("ERROR: Video unavailable")
            Path(self.options["outtmpl"]["default"]).write_bytes(media.mp4[0])

    utils = SimpleNamespace(DownloadError=RuntimeError, download_range_func=lambda _, ranges: ranges)
    monkeypatch.setitem(sys.modules, "yt_dlp", SimpleNamespace(YoutubeDL=Session, utils=utils))
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/ffmpeg")
    site, _ = sites["audioset"]
    with serving(site) as (address, _):
        _addresses_on(monkeypatch, "audioset", address)
        params = settings(audioset={"kind": "audioset", "limit": 1})
        found, summary = prepared(params, "audioset", tmp_path)
        times = len(fetched)
        assert times == len(found.all_rows) < 18
        assert summary["usable"] < summary["expected"]
        assert all(len(ranges) == 1 and ranges[0][1] - ranges[0][0] == 10 for _, ranges in fetched)
        assert "could not be fetched: Video unavailable" in capsys.readouterr().err
        download.run(params, "audioset", tmp_path / "raw")
    assert len(fetched) - times == summary["expected"] - summary["usable"]  # what is there is not fetched again


def test_own_clips_in_a_folder_per_class(media, tmp_path):
    for place in ("train/dog/a.mp4", "train/cat/b.mp4", "test/dog/c.mp4", "test/a cat/deep/d.mp4"):
        path = tmp_path / "mine" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(media.mp4[0])
    (tmp_path / "mine" / "notes.txt").write_text("no clip")
    found, _ = prepared(settings(mine={"kind": "folder", "source": str(tmp_path / "mine")}), "mine", tmp_path / "out")
    assert found.rows[["id", "split", "label"]].to_numpy().tolist() == [
        ["test/a cat/deep/d", "test", "a cat"],
        ["test/dog/c", "test", "dog"],
        ["train/cat/b", "train", "cat"],
        ["train/dog/a", "train", "dog"],
    ]


def test_limit_takes_the_same_clips_whatever_else_is_listed(sites, tmp_path):
    site, _ = sites["ucf101"]
    for number in (1, 2):
        params = settings(ucf={"kind": "ucf101", "source": str(site), "limit": number})
        download.run(params, "ucf", tmp_path / str(number))
    one, two = (listing.read_listing(tmp_path / name / "index.csv") for name in "12")
    assert set(one["id"]) < set(two["id"])
    assert one.groupby(["label", "split", "fold"]).size().unique().tolist() == [1]
    rows = pd.DataFrame({"id": list("abcdef"), "split": "train", "label": ["x;y", "x", "y", "x;y", "x", "z"]})
    kept = limited(rows, 1)
    assert {label for labels in kept["label"] for label in labels.split(";")} == {"x", "y", "z"}
    assert kept["id"].tolist() == [id for id in limited(rows.iloc[::-1], 1)["id"]][::-1]


def test_limit_counts_each_of_a_clips_labels():
    """The rare labels all come with "speech"; taking clips of speech alone first would add three clips for nothing."""
    alone, rare = [f"speech{i}" for i in range(9)], [f"rare{i}" for i in range(3)]
    labels = [*["speech"] * 9, *(f"speech;{name}" for name in rare)]
    rows = pd.DataFrame({"id": [*alone, *rare], "split": "train", "label": labels})
    assert limited(rows, 3)["id"].tolist() == rare
    assert len(limited(rows, 5)) == 5


def test_inspect_shows_counts_faults_and_pictures(sites, tmp_path, monkeypatch, capsys):
    site, _ = sites["kinetics400"]
    params = settings(kinetics400={"kind": "kinetics400", "source": str(site)})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such manifest; run `python -m xkd prepare` first"):
        inspect.run(params, "kinetics400", None, 4)
    prepared(params, "kinetics400", tmp_path / "data" / "kinetics400")
    capsys.readouterr()
    inspect.run(params, "kinetics400", None, 4)
    said = capsys.readouterr().out
    assert "24 expected, 23 found, 23 usable" in said
    assert "1 missing, e.g. blowing-t00_000000_000010" in said
    assert "licence" in said
    assert "classes   3, with 7 to 8 usable clips each" in said
    for name in ("contact-sheet.png", "histograms.png"):
        assert (tmp_path / "data/kinetics400/inspect" / name).stat().st_size > 5000
    path = tmp_path / "data/kinetics400/manifest.csv"
    table = manifest.read_manifest(path).all_rows
    reasons = [
        "too short: 1.98 s of 4 s",
        "too short: 0.30 s of 4 s",
        "codec h264 is not supported",
        "too short: 1 s of 4 s",
    ]
    table.loc[table.index[-4:], ["status", "reason"]] = [["unusable", reason] for reason in reasons]
    manifest.write_manifest(path, table)
    inspect.run(params, "kinetics400", None, 4)
    left_out = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    first = f"  left out  3 too short: 0.30 to 1.98 s of 4 s, e.g. {table['id'].iloc[-4]}, "
    assert left_out[0].startswith(first)
    assert len(left_out) == 3
    assert left_out[2].startswith("  left out  1 codec h264 is not supported, e.g. ")
    table.loc[table.index[1:16], ["status", "reason"]] = [["unusable", f"unreadable: {c}"] for c in "abcdefghijklmno"]
    manifest.write_manifest(path, table)
    inspect.run(params, "kinetics400", None, 4)
    left_out = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert sum(int(line.split()[2]) for line in left_out) == (table["status"] != "ok").sum()
    assert left_out[-1].endswith("other reasons; see the column reason of manifest.csv")


def test_catalogue_counts_are_those_published():
    facts = catalogue.known_datasets()
    totals = {"ucf101": 13320, "hmdb51": 6766, "kinetics400": 260139, "kinetics_sound": 24306, "esc50": 2000}
    totals |= {"fsd50k": 51197}
    assert {kind: sum(facts[kind].expected.values()) for kind in totals} == totals
    assert facts["kinetics_sound"].archives == facts["kinetics400"].archives


def _index(sites, kind, out):
    download.run(settings(x={"kind": kind, "source": str(sites[kind][0])}), "x", out)
    return listing.read_listing(out / "index.csv")


def _addresses_on(monkeypatch, kind, address):
    """The official addresses of a set, on a server of this machine."""
    known = catalogue.known_datasets()
    moved = tuple(a.model_copy(update={"url": f"{address}/{a.file}"}) for a in known[kind].archives)
    changed = known | {kind: known[kind].model_copy(update={"archives": moved})}
    monkeypatch.setattr(catalogue, "known_datasets", lambda: changed)

"""What `download` and `prepare` do to files that they did not make: nothing. And which content ends up in a clip."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from media_files import write_media

from xkd import made
from xkd.data import listing, manifest
from xkd.data.clips import open_clips
from xkd.errors import UserError
from xkd.files import sha256
from xkd.settings import Clips, Dataset, Limits
from xkd.stages import download, prepare

CLIPS = Clips(seconds=1, fps=8, size=32, sample_rate=16000, pack=True)
PROJECT = Path(__file__).parents[2]
GENERATED = {"kind": "talking_digits", "train_clips": 2, "test_clips": 1}


class Settings:
    """As much of Params as the stages read."""

    dataset = "own"

    def __init__(self, clips=CLIPS, **dataset):
        self.datasets, self.clips = {"own": Dataset(**({"kind": "manifest"} | dataset))}, clips
        self.limits = Limits()


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Two clips: one to transcode, and one that is what training reads already."""
    folder = tmp_path_factory.mktemp("media")
    write_media(folder / "a.mp4")
    write_media(folder / "ready.mp4", fps=8, size=(32, 32), audio=False)
    return folder


@pytest.fixture
def raw(tmp_path, media):
    """An index of one clip, my/index.csv."""
    (tmp_path / "my").mkdir()
    shutil.copyfile(media / "a.mp4", tmp_path / "my" / "a.mp4")
    (tmp_path / "my" / "index.csv").write_text("path\na.mp4\n")
    return tmp_path / "my" / "index.csv"


def tree(folder):
    """Content of each file below a folder; None for a link."""
    return {path: None if path.is_symlink() else path.read_bytes() for path in folder.rglob("*") if not path.is_dir()}


def clip_of(out, name="a"):
    rows = manifest.read_manifest(out / "manifest.csv").rows.set_index("id")
    return out / rows["path"][name]


@pytest.mark.parametrize("folder", ["clips", "clips/deep", "packed"])
@pytest.mark.parametrize("linked", [False, True])
def test_raw_files_among_the_prepared_are_refused_and_stay(tmp_path, media, folder, linked):
    my = tmp_path / "my"
    shutil.copytree(media, my / folder)
    (my / "index.csv").write_text(f"path\n{folder}/a.mp4\n")
    if linked:
        (my / "link.mp4").symlink_to(my / folder / "a.mp4")
        (my / "index.csv").write_text("path\nlink.mp4\n")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"index.csv: lists .*mp4, which lies in .*/my/(clips|packed), .*another --out"):
        prepare.run(Settings(), my / "index.csv", my)
    assert tree(tmp_path) == before


def test_prepare_next_to_the_raw_files_leaves_everything_else(raw, tmp_path, capsys):
    my = raw.parent
    for name in ("clips/films/b.mp4", "clips/notes.txt", "packed/notes.txt", ".packed.part/notes.txt", "notes.txt"):
        (my / name).parent.mkdir(parents=True, exist_ok=True)
        (my / name).write_text(name)
    (my / "clips" / "empty").mkdir()
    before = tree(my)
    for size in (32, 48):  # the second call removes the clips of the first
        prepare.run(Settings(CLIPS.model_copy(update={"size": size})), raw, my)
        assert "left where they are" in capsys.readouterr().err
    prepare.run(Settings(CLIPS.model_copy(update={"pack": False})), raw, my)
    after = tree(my)
    assert {path: after.get(path) for path in before} == before
    assert (my / "clips" / "empty").is_dir()
    assert len(list(my.glob("clips/*/*/*-*.mp4"))) == 1
    assert not (my / "packed" / "index.npz").exists()
    assert open_clips(my / "manifest.csv").video(0).shape == (8, 3, 32, 48)


@pytest.mark.parametrize(
    "name", ["manifest.csv", "summary.json", "packed/index.npz", "packed/video.bin", "packed", "clips"]
)
def test_prepare_replaces_no_file_that_it_did_not_make(raw, tmp_path, name):
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name}: .*move"):
        prepare.run(Settings(), raw, tmp_path / "out")
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_a_file_in_the_place_of_a_clip_is_not_replaced(raw, tmp_path):
    out = tmp_path / "out"
    prepare.run(Settings(), raw, out)
    name = clip_of(out).relative_to(out)
    (tmp_path / "other" / name).parent.mkdir(parents=True)
    (tmp_path / "other" / name).write_text("mine")
    with pytest.raises(UserError, match="not known to be a file of `xkd prepare`"):
        prepare.run(Settings(), raw, tmp_path / "other")
    assert (tmp_path / "other" / name).read_text() == "mine"


def test_a_prepared_clip_or_manifest_that_was_changed_is_made_again_and_kept_aside(raw, tmp_path):
    out = tmp_path / "out"
    prepare.run(Settings(), raw, out)
    right = tree(out)
    names = [clip_of(out), out / "manifest.csv", out / "packed" / "video.bin"]
    for path in names:
        path.write_bytes(path.read_bytes()[:-7] + b"changed")
    prepare.run(Settings(), raw, out)
    for path in names:
        assert path.read_bytes() == right[path]
        assert path.with_name(f"{path.name}.set-aside-1").read_bytes() == right[path][:-7] + b"changed"


def test_content_decides_which_clips_are_made_again_not_time(raw, tmp_path, media):
    film, out = raw.parent / "a.mp4", tmp_path / "out"
    prepare.run(Settings(), raw, out)
    old, stamp = clip_of(out), film.stat().st_mtime_ns
    made_at = old.stat().st_ino
    os.utime(film, ns=(stamp + 10**12,) * 2)
    prepare.run(Settings(), raw, out)
    assert clip_of(out).stat().st_ino == made_at
    write_media(film, seconds=2)
    os.utime(film, ns=(stamp, stamp))
    prepare.run(Settings(), raw, out)
    assert manifest.read_manifest(out / "manifest.csv").rows["seconds"].tolist() == [2]
    assert not old.exists()
    assert len(open_clips(out / "manifest.csv").video(0)) == 16


def test_until_the_new_manifest_is_written_the_old_one_keeps_its_clips(raw, tmp_path, monkeypatch):
    out = tmp_path / "out"
    prepare.run(Settings(), raw, out)
    before = tree(out)
    write_media(raw.parent / "a.mp4", seconds=2)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "_publish", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare.run(Settings(), raw, out)
    after = tree(out)
    assert {path: after.get(path) for path in before if path.suffix != ".jsonl"} == {
        path: content for path, content in before.items() if path.suffix != ".jsonl"
    }


def test_an_edit_of_a_raw_file_does_not_reach_the_prepared_clip(raw, tmp_path, media):
    ready, out = raw.parent / "ready.mp4", tmp_path / "out"
    shutil.copyfile(media / "ready.mp4", ready)
    raw.write_text("path\nready.mp4\n")
    prepare.run(Settings(require="video"), raw, out)
    clip = clip_of(out, "ready")
    assert clip.read_bytes() == ready.read_bytes()
    with ready.open("r+b") as file:
        file.write(b"edited")
    digest = manifest.read_manifest(out / "manifest.csv").rows["digest"][0]
    assert sha256(clip).startswith(digest)
    assert clip.read_bytes() == (media / "ready.mp4").read_bytes()


def test_what_an_earlier_version_prepared_is_replaced_as_far_as_its_manifest_proves_it(raw, tmp_path):
    """It kept no journal, and Snakemake may have removed the manifest before the stage begins."""
    out = tmp_path / "out"
    prepare.run(Settings(), raw, out)
    (out / ".xkd-prepare.jsonl").unlink()
    (out / "clips" / "mine.txt").write_text("mine")
    prepare.run(Settings(CLIPS.model_copy(update={"size": 48})), raw, out)
    assert len(list(out.glob("clips/*/*/*.mp4"))) == 1
    assert (out / "clips" / "mine.txt").read_text() == "mine"
    for name in (".xkd-prepare.jsonl", "manifest.csv", "summary.json"):
        (out / name).unlink()
    prepare.run(Settings(CLIPS.model_copy(update={"size": 48})), raw, out)
    assert len(open_clips(out / "manifest.csv")) == 1


@pytest.mark.parametrize("place", ["my", "my/raw", "."])
def test_download_refuses_a_folder_of_clips_in_its_output_or_around_it(raw, tmp_path, place):
    shutil.copytree(raw.parent, tmp_path / "my" / "films" / "dog")
    before = tree(tmp_path)
    with pytest.raises(
        UserError, match=r"datasets.own.source: .* lie one in the other; move the clips or give another"
    ):
        download.run(Settings(kind="folder", source=str(tmp_path / "my")), "own", tmp_path / place)
    (tmp_path / "link").symlink_to(tmp_path / "my")
    with pytest.raises(UserError, match="lie one in the other"):
        download.run(Settings(kind="folder", source=str(tmp_path / "link")), "own", tmp_path / place)
    (tmp_path / "link").unlink()
    assert tree(tmp_path) == before


def test_a_second_download_of_a_folder_does_not_take_the_prepared_clips(tmp_path, media, capsys):
    my, out = tmp_path / "my", tmp_path / "raw"
    shutil.copytree(media, my / "dog")
    settings = Settings(kind="folder", source=str(my))
    download.run(settings, "own", out)
    first = listing.read_listing(out / "index.csv")
    prepare.run(settings, out / "index.csv", my)
    download.run(settings, "own", out)
    assert listing.read_listing(out / "index.csv").equals(first)
    assert set(first["label"]) == {"dog"}
    assert "1 clips that `xkd prepare` made are left out" in capsys.readouterr().err
    with pytest.raises(UserError, match="holds clips that `xkd prepare` made; give the folder of the original ones"):
        download.run(Settings(kind="folder", source=str(my / "clips")), "own", tmp_path / "other")


def test_download_leaves_other_files_in_its_folder(tmp_path):
    mine = tmp_path / "mine"
    (mine / "clips").mkdir(parents=True)
    (mine / "clips" / "holiday.mp4").write_text("mine")
    for seed in (1, 2):
        download.run(Settings(seed=seed, **GENERATED), "own", mine)
    assert (mine / "clips" / "holiday.mp4").read_text() == "mine"
    assert len(listing.read_listing(mine / "index.csv")) == 3
    assert len(list((mine / "clips").iterdir())) == 4
    prepare.run(Settings(seed=2, **GENERATED), mine / "index.csv", tmp_path / "out")


@pytest.mark.parametrize("name", ["index.csv", "source.json", "clips/train-00000.mov", "clips"])
@pytest.mark.parametrize("generated", [True, False])
def test_download_replaces_no_file_that_it_did_not_make(tmp_path, media, name, generated):
    if "clips" in name and not generated:
        pytest.skip("only generated clips are written there")
    (tmp_path / "mine" / name).parent.mkdir(parents=True)
    mine = f"path\n{media / 'a.mp4'}\n"
    (tmp_path / "mine" / name).write_text(mine)
    source = tmp_path / "mine" / name if name == "index.csv" else media / "list.csv"
    (media / "list.csv").write_text("path\na.mp4\n")
    settings = Settings(**GENERATED) if generated else Settings(source=str(source))
    with pytest.raises(UserError, match=f"{name}: .*move"):
        download.run(settings, "own", tmp_path / "mine")
    assert (tmp_path / "mine" / name).read_text() == mine
    assert not (tmp_path / "mine" / "source.json").exists() or name == "source.json" or "clips" in name


def test_a_generated_clip_that_was_changed_is_made_again_and_kept_aside(tmp_path):
    settings = Settings(**GENERATED)
    download.run(settings, "own", tmp_path)
    clip = tmp_path / "clips" / "train-00000.mov"
    right = clip.read_bytes()
    clip.write_bytes(b"edited")
    download.run(settings, "own", tmp_path)
    assert clip.read_bytes() == right
    assert clip.with_name(f"{clip.name}.set-aside-1").read_bytes() == b"edited"


def test_generated_clips_of_an_earlier_version_are_kept(tmp_path):
    settings = Settings(**GENERATED)
    download.run(settings, "own", tmp_path)
    before = tree(tmp_path)
    (tmp_path / ".xkd-download.jsonl").unlink()
    (tmp_path / "index.csv").unlink()  # as Snakemake does
    download.run(settings, "own", tmp_path)
    download.run(settings, "own", tmp_path)
    assert {path: content for path, content in tree(tmp_path).items() if path.suffix != ".jsonl"} == {
        path: content for path, content in before.items() if path.suffix != ".jsonl"
    }


@pytest.mark.parametrize("verb", ["download", "prepare"])
def test_a_second_process_in_the_folder_ends_with_one_line_and_harms_nothing(raw, tmp_path, verb):
    settings = {"dataset": "own", "datasets": {"own": {"kind": "manifest", "source": str(raw)}}}
    (tmp_path / "params.yaml").write_text(json.dumps({"extends": str(PROJECT / "params.yaml"), **settings}))
    arguments = ["--dataset", "own"] if verb == "download" else ["--raw", str(raw)]
    command = [sys.executable, "-m", "xkd", verb, *arguments, "--out", "out"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "XKD_PARAMS": "params.yaml"}
    with made.opened(tmp_path / "out", verb):
        before = tree(tmp_path)
        second = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert second.returncode == 2
        assert second.stderr == (f"xkd: error: out: another `xkd {verb}` is at work here; wait for it or stop it\n")
        assert tree(tmp_path) == before

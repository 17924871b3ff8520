"""Shards: the same clips as from single files, in tar files that other tools read; checked, copied and packed again."""

import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_fakes import recipe
from media_files import write_media

from xkd.data import staging
from xkd.data.clips import open_clips
from xkd.data.loader import train_loader
from xkd.data.staging import stage
from xkd.errors import UserError
from xkd.settings import Clips, Dataset, Limits, ShardSettings, Training
from xkd.stages import pack, prepare

MANIFEST = Path("data/own/manifest.csv")
CLIPS, SHARDS = MANIFEST.parent / "clips", MANIFEST.parent / "shards"
CUTS = ((), (0.5, 0.25), (1.0, 5.0), (9.0, 0.5))


class Settings:
    """As much of Params as the stages read."""

    dataset, limits = "own", Limits()
    clips = Clips(seconds=1, fps=8, size=32, sample_rate=16000)

    def __init__(self, form="decoded", gb=1.0):
        self.datasets = {"own": Dataset(kind="manifest", require="any", shards=ShardSettings(form=form, gb=gb))}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A project with clips of every kind: long, without video or audio, as they came, encoded by others."""
    folder = tmp_path_factory.mktemp("project")
    raw = folder / "data" / "own" / "raw"
    raw.mkdir(parents=True)
    write_media(raw / "long.mkv", seconds=3, fps=30, size=(64, 96))
    write_media(raw / "ready.mp4", fps=8, size=(32, 32), audio=False)
    write_media(raw / "sound.wav", codec=None)
    write_media(raw / "good.mp4")
    write_media(raw / "held-out.mp4", seconds=1.5)
    rows = "a.b/long,long.mkv,train,x\nready,ready.mp4,train,y\nsound,sound.wav,train,x\ngood,good.mp4,train,y\n"
    (raw / "index.csv").write_text("id,path,split,label\n" + rows + "held-out,held-out.mp4,test,x\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prepare, "run_guarded", in_this_process)
        prepare.run(Settings(), raw / "index.csv", folder / "data" / "own")
    return folder


def in_this_process(work, tasks, *_):
    return (work(*task) for task in tasks)


@pytest.fixture
def project(prepared, tmp_path, monkeypatch):
    """A copy of the project as the working folder; packing starts no processes."""
    shutil.copytree(prepared, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(pack, "run_guarded", in_this_process)


@pytest.fixture
def two_shards(project):
    """Shards of the split train and of the split test."""
    pack.run(Settings(), "own")
    test, train = sorted(SHARDS.glob("*.tar"))
    return train, test


def read(store) -> dict[str, list[torch.Tensor]]:
    """All of each clip, and cuts, from the last to the first."""
    return {
        store.ids[i]: [getattr(store, m)(i, *cut) for cut in CUTS for m in ("video", "audio") if store.has(m, i)]
        for i in reversed(range(len(store)))
    }


def assert_equal(one: dict[str, list[torch.Tensor]], other: dict[str, list[torch.Tensor]]) -> None:
    assert one.keys() == other.keys()
    for clip in one:
        for a, b in zip(one[clip], other[clip], strict=True):
            assert torch.equal(a, b), clip


@pytest.mark.parametrize("form", ["encoded", "decoded"])
def test_clips_are_those_of_files_bit_for_bit(project, form):
    files = read(open_clips(MANIFEST))
    pack.run(Settings(form, gb=1e-5), "own")
    assert len(list(SHARDS.glob("train-*.tar"))) > 1
    shutil.rmtree(CLIPS)
    packed = open_clips(MANIFEST)
    assert_equal(read(packed), files)
    assert_equal(read(pickle.loads(pickle.dumps(packed))), files)
    only_test = open_clips(MANIFEST, "test")
    assert [only_test.shards.shards.names[shard] for shard in only_test.shards.needed()] == [
        path.name for path in SHARDS.glob("test-*.tar")
    ]


def test_another_process_packs_what_this_one_does(prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    pack.run(Settings(), "own", processes=1)
    with_processes = {path.name: path.read_bytes() for path in SHARDS.glob("[!.]*")}
    shutil.rmtree(SHARDS)
    monkeypatch.setattr(pack, "run_guarded", in_this_process)
    pack.run(Settings(), "own")
    assert {path.name: path.read_bytes() for path in SHARDS.glob("[!.]*")} == with_processes


def test_other_tools_read_the_members(two_shards):
    """By their names alone, as WebDataset does: what precedes the first dot is the clip, the rest says what it is."""
    store, samples = open_clips(MANIFEST), {}
    for shard in two_shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, kind = member.name.partition(".")
                samples.setdefault(key, {})[kind] = tar.extractfile(member).read()
                assert "/" not in key
    about = {key: json.loads(sample["json"]) for key, sample in samples.items()}
    assert {facts["id"]: facts["label"] for facts in about.values()} == dict(zip(store.ids, store.labels, strict=True))
    for key, facts in about.items():
        i = store.ids.index(facts["id"])
        assert ("video.npy" in samples[key], "audio.npy" in samples[key]) == (facts["has_video"], facts["has_audio"])
        if facts["has_video"]:
            frames = np.load(io.BytesIO(samples[key]["video.npy"]))
            assert torch.equal(torch.from_numpy(frames).permute(0, 3, 1, 2), store.video(i))
        if facts["has_audio"]:
            heard = np.load(io.BytesIO(samples[key]["audio.npy"]))
            np.testing.assert_allclose(heard / 32767, store.audio(i), atol=1e-7)


def test_packing_again_writes_only_what_changed(two_shards):
    train, test = two_shards
    before = train.stat().st_mtime_ns
    MANIFEST.write_text(MANIFEST.read_text().replace("test,,x", "test,,y"))
    pack.run(Settings(), "own")
    (new,) = SHARDS.glob("test-*.tar")
    assert new.name != test.name
    assert train.stat().st_mtime_ns == before
    assert read(open_clips(MANIFEST))


def test_files_of_others_stay(project):
    SHARDS.mkdir()
    mine, index = SHARDS / "train-000000-mine.tar", SHARDS / "index.json"
    mine.write_text("mine")
    index.write_text("mine")
    with pytest.raises(UserError, match="is not known to be a file of `xkd pack`"):
        pack.run(Settings(), "own")
    assert (mine.read_text(), index.read_text()) == ("mine", "mine")
    index.unlink()
    pack.run(Settings(), "own")
    pack.run(Settings("encoded"), "own")
    assert mine.read_text() == "mine"
    assert len(list(SHARDS.glob("*.tar"))) == 3, "shards of the other form are gone"


def test_an_interrupted_call_goes_on(project, monkeypatch):
    def interrupted(work, tasks, *_):
        yield work(*tasks[0])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pack, "run_guarded", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack.run(Settings(), "own")
    (first,) = SHARDS.glob("*.tar")
    assert open_clips(MANIFEST).shards is None, "an index appears when all is there"
    before = first.stat().st_mtime_ns
    pack.run(Settings(), "own")
    assert len(list(SHARDS.glob("*.tar"))) == 2
    assert first.stat().st_mtime_ns == before
    assert open_clips(MANIFEST).shards


def test_damage_names_the_shard_and_the_clip_and_is_mended_by_packing_again(two_shards, capsys):
    train, _ = two_shards
    pack.run(Settings(), "own", check=True)
    assert "5 clips, all as they were packed" in capsys.readouterr().out
    whole = train.read_bytes()
    with tarfile.open(train) as tar:
        member = next(member for member in tar if member.name.startswith("good-") and "video" in member.name)
    place = member.offset_data + member.size - 5
    train.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    with pytest.raises(UserError, match=rf"clip good: damaged in {train}; run `xkd pack` again"):
        pack.run(Settings(), "own", check=True)
    pack.run(Settings(), "own")
    pack.run(Settings(), "own", check=True)
    assert train.read_bytes() == whole


def test_a_shard_that_is_cut_off_names_itself_and_the_clip(two_shards):
    train, _ = two_shards
    store = open_clips(MANIFEST)
    train.write_bytes(train.read_bytes()[:1000])
    with pytest.raises(UserError, match=rf"clip \S+: {train} ends too early; run `xkd pack` again"):
        read(store)
    train.unlink()
    with pytest.raises(UserError, match=rf"clip \S+: {train}: No such file"):
        read(open_clips(MANIFEST))


def test_shards_of_other_clips_are_refused(two_shards):
    rows = MANIFEST.read_text().splitlines(keepends=True)
    digest = next(part for part in rows[1].split(",") if len(part) == 16 and set(part) <= set("0123456789abcdef"))
    MANIFEST.write_text("".join(rows).replace(digest, "0123456789abcdef"))
    with pytest.raises(UserError, match=rf"{SHARDS}: does not hold clip a.b/long of {MANIFEST}; run `xkd pack` again"):
        open_clips(MANIFEST)


def test_a_clip_that_is_gone_ends_packing_in_one_line(project):
    missing = next(CLIPS.rglob("good-*.mp4"))
    missing.unlink()
    with pytest.raises(UserError, match="clip good: .*cannot be read"):
        pack.run(Settings(), "own")
    with pytest.raises(UserError, match=rf"{missing}: No such file"):
        pack.run(Settings("encoded"), "own")


def test_a_job_reads_the_copies_on_its_disk(two_shards, tmp_path, monkeypatch):
    train, test = two_shards
    monkeypatch.setenv("DISK", str(tmp_path))
    copied, expected = [], read(open_clips(MANIFEST, "train"))
    copy = shutil.copyfile
    monkeypatch.setattr(staging.shutil, "copyfile", lambda a, b: copied.append(Path(a).name) or copy(a, b))
    for _ in range(2):  # the second time, by another process of the machine
        store = open_clips(MANIFEST, "train")
        stage(store.shards, "$DISK/xkd")
    assert copied == [train.name], "only what training needs, once"
    aside = train.rename(train.with_suffix(".away"))
    assert_equal(read(store), expected)
    shutil.rmtree(tmp_path / "xkd")
    aside.rename(train)
    assert_equal(read(pickle.loads(pickle.dumps(store))), expected)
    assert test.exists()


@pytest.mark.parametrize("form", ["encoded", "decoded"])
def test_the_loader_makes_the_same_views_from_copies_of_shards(project, form):
    def views(**training):
        small = recipe({"crop_area": (0.2, 1)}, training=Training(batch_size=1, **training))
        (batch,) = train_loader(small, MANIFEST, seed=0, split="test")
        return batch.views

    expected = views()
    pack.run(Settings(form), "own")
    assert_equal(views(stage_to="disk", shuffle_window=1), expected)
    assert [path.name for path in Path("disk").glob("*.tar")] == [path.name for path in SHARDS.glob("test-*.tar")]


@pytest.mark.parametrize(
    ("folder", "free", "words"),
    [
        ("$NOT_SET/xkd", 10**9, "names a variable that is not set"),
        ("disk", 10, "has 0.0 GB free, and the shards take 0.0 GB"),
        ("params.yaml/xkd", 10**9, "Not a directory"),
    ],
)
def test_a_disk_that_cannot_be_used_is_a_line_and_the_shards_are_read_where_they_are(
    two_shards, monkeypatch, capsys, folder, free, words
):
    Path("params.yaml").touch()
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, free))
    store = open_clips(MANIFEST, "train")
    capsys.readouterr()
    stage(store.shards, folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert line.endswith(f"shards are read from {SHARDS}")
    assert read(store)


def test_clips_without_shards_have_nothing_to_copy(project, capsys):
    stage(open_clips(MANIFEST).shards, "disk")
    assert "not packed into shards" in capsys.readouterr().err

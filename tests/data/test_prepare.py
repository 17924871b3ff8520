"""Stage prepare and the clip store, on good and on awkward files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from media_files import crash_hang_or_double, damage, rotate, truncate, write_media

from xkd.data import encode, manifest
from xkd.data.clips import open_clips
from xkd.data.transcode import prepare_clip
from xkd.data.workers import Failure, run_guarded
from xkd.errors import UserError
from xkd.made import Made
from xkd.settings import Clips, Dataset, Limits
from xkd.stages import prepare

CLIPS = Clips(seconds=1, fps=8, size=32, sample_rate=16000, pack=True)


class Settings:
    """As much of Params as the stage reads."""

    dataset = "own"

    def __init__(self, require="both", clips=CLIPS, size=None):
        self.datasets, self.clips = {"own": Dataset(kind="manifest", require=require, size=size)}, clips
        self.limits = Limits()


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """An index of files of every kind."""
    folder = tmp_path_factory.mktemp("raw")
    write_media(folder / "good.mp4")
    write_media(folder / "long.mkv", seconds=3, fps=30, size=(64, 96))
    write_media(folder / "ready.mp4", fps=8, size=(32, 32), audio=False)
    write_media(folder / "silent.mp4", audio=False)
    write_media(folder / "sound.wav", codec=None)
    write_media(folder / "ten_bit.mp4", pixels="yuv420p10le")
    write_media(folder / "short.mp4", seconds=0.2)
    rotate(write_media(folder / "rotated.mp4"))
    damage(write_media(folder / "damaged.mp4"))
    truncate(write_media(folder / "truncated.mp4"), 0.5)
    write_media(folder / "av1.mkv", codec="libsvtav1", size=(96, 96))
    (folder / "text.mp4").write_text("not a film")
    names = [path.name for path in sorted(folder.iterdir())] + ["gone.mp4"]
    rows = [f"{name.split('.')[0]},{name},{'test' if i % 2 else 'train'},{i % 3}" for i, name in enumerate(names)]
    (folder / "index.csv").write_text("\n".join(["id,path,split,label", *rows]) + "\n")
    return folder / "index.csv"


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    """Manifest path for each policy."""
    folders = {}
    for require in ("both", "video", "audio", "any"):
        out = tmp_path_factory.mktemp(require)
        prepare.run(Settings(require), raw, out)
        folders[require] = out / "manifest.csv"
    return folders


def reasons(path):
    return manifest.read_manifest(path).all_rows.set_index("id")["reason"].to_dict()


def test_each_awkward_file_has_its_reason(prepared):
    found = reasons(prepared["any"])
    assert found["gone"] == "missing"
    assert found["av1"] == "codec av1 is not supported"
    for name in ("damaged", "truncated", "text"):
        assert found[name].startswith("unreadable"), (name, found[name])
    for name in ("good", "long", "ready", "silent", "sound", "ten_bit", "rotated", "short"):
        assert found[name] == ""


def test_policy_decides_what_is_usable(prepared):
    usable = {require: set(manifest.read_manifest(path).ids) for require, path in prepared.items()}
    both = {"good", "long", "ten_bit", "rotated", "short"}
    assert usable["both"] == both
    assert usable["video"] == both | {"silent", "ready"}
    assert usable["audio"] == both | {"sound"}
    assert usable["any"] == both | {"silent", "ready", "sound"}
    assert reasons(prepared["both"])["silent"] == "no audio"
    assert reasons(prepared["both"])["sound"] == "no video"


def test_summary_counts_everything(prepared):
    path = prepared["both"]
    summary = json.loads((path.parent / "summary.json").read_text())
    assert (summary["expected"], summary["found"], summary["usable"]) == (13, 12, 5)
    assert sum(summary["splits"].values()) == 5
    assert sum(summary["reasons"].values()) == 8
    assert summary["hash"] == manifest.read_manifest(path).hash
    assert summary["reasons"]["missing"] == 1


def test_clips_have_the_rate_size_and_length_of_the_settings(prepared):
    rows = manifest.read_manifest(prepared["both"]).rows.set_index("id")
    sizes = {name: (rows["width"][name], rows["height"][name]) for name in rows.index}
    assert sizes == {"good": (48, 32), "ten_bit": (48, 32), "long": (32, 48), "rotated": (32, 48), "short": (48, 32)}
    assert rows["seconds"]["long"] == 3
    assert rows["seconds"]["good"] == 1
    assert rows["seconds"]["short"] == 0.25
    clips = open_clips(prepared["both"])
    for i, name in enumerate(clips.ids):
        assert clips.video(i).shape == (round(8 * clips.seconds(i)), 3, sizes[name][1], sizes[name][0])
        assert clips.audio(i).shape == (round(16000 * clips.seconds(i)),)


def test_pictures_are_those_on_show_at_their_time(prepared):
    clips = open_clips(prepared["both"])
    for name, seconds in (("good", 1), ("long", 3)):
        shown = clips.video(clips.ids.index(name)).float().mean(dim=(1, 2, 3)).numpy()
        times = np.arange(8 * seconds) / 8
        assert np.abs(shown - (40 + 160 * times / seconds)).max() < 8


def test_sound_keeps_its_pitch_and_level(prepared):
    clips = open_clips(prepared["both"])
    sound = clips.audio(clips.ids.index("good")).numpy()
    spectrum = np.abs(np.fft.rfft(sound))
    assert np.argmax(spectrum) == 500
    assert np.sqrt(np.mean(sound[2000:-2000] ** 2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.05)


def test_packed_and_decoded_clips_are_identical(prepared, tmp_path):
    shutil.copytree(prepared["any"].parent, tmp_path / "any")
    shutil.rmtree(tmp_path / "any" / "packed")
    packed, decoded = open_clips(prepared["any"]), open_clips(tmp_path / "any" / "manifest.csv")
    assert list(packed.ids) == list(decoded.ids)
    for i, name in enumerate(packed.ids):
        for cut in ((), (0.25, 0.5)):
            if name != "sound":
                assert torch.equal(packed.video(i, *cut), decoded.video(i, *cut))
            if name not in ("silent", "ready"):
                assert torch.equal(packed.audio(i, *cut), decoded.audio(i, *cut))
    i = packed.ids.index("long")
    assert torch.equal(packed.video(i, 1.5, 0.5), packed.video(i)[12:16])
    assert torch.equal(packed.audio(i, 1.5, 0.5), packed.audio(i)[24000:32000])
    with pytest.raises(UserError, match="sound has no video"):
        decoded.video(decoded.ids.index("sound"))


def test_file_that_is_ready_is_used_as_it_is(raw, prepared):
    rows = manifest.read_manifest(prepared["video"]).rows.set_index("id")
    clip = prepared["video"].parent / rows["path"]["ready"]
    assert clip.read_bytes() == (raw.parent / "ready.mp4").read_bytes()
    assert (rows["width"]["ready"], rows["height"]["ready"], rows["fps"]["ready"]) == (32, 32, 8)


def test_narrow_pictures_that_decord_pads_are_read_right(tmp_path):
    write_media(tmp_path / "narrow.mp4", fps=8, size=(48, 48))
    (tmp_path / "index.csv").write_text("path\nnarrow.mp4\n")
    prepare.run(Settings(clips=CLIPS.model_copy(update={"size": 48})), tmp_path / "index.csv", tmp_path / "out")
    video = open_clips(tmp_path / "out" / "manifest.csv").video(0).float()
    assert video.shape == (8, 3, 48, 48)
    assert torch.allclose(video.mean(dim=(1, 2, 3)), 40 + 160 * torch.arange(8) / 8, atol=3)
    assert video.std(dim=(2, 3)).max() < 3


def test_a_data_set_can_have_larger_clips_than_the_others(raw, tmp_path):
    prepare.run(Settings(size=48), raw, tmp_path)
    good = open_clips(tmp_path / "manifest.csv").video(0)
    assert min(good.shape[-2:]) == 48
    assert json.loads((tmp_path / "summary.json").read_text())["clips"]["size"] == 48


def test_same_manifest_and_clips_for_any_number_of_processes(raw, prepared, tmp_path):
    prepare.run(Settings(), raw, tmp_path, processes=1)
    assert manifest.read_manifest(tmp_path / "manifest.csv").hash == manifest.read_manifest(prepared["both"]).hash
    prepare.run(Settings(), raw, tmp_path, processes=3)
    assert manifest.read_manifest(tmp_path / "manifest.csv").hash == manifest.read_manifest(prepared["both"]).hash
    assert len(list((tmp_path / "clips").iterdir())) == 1


def test_nothing_usable_leaves_earlier_results(raw, tmp_path):
    prepare.run(Settings(), raw, tmp_path)
    before = results(tmp_path)
    empty, useless = raw.parent / "empty.csv", raw.parent / "useless.csv"
    empty.write_text("id,path\n")
    useless.write_text("id,path\na,gone.mp4\nb,text.mp4\n")
    with pytest.raises(UserError, match="lists no clips"):
        prepare.run(Settings(), empty, tmp_path)
    with pytest.raises(UserError, match="none of 2 clips is usable.*1 missing"):
        prepare.run(Settings(), useless, tmp_path)
    with pytest.raises(UserError, match="no such file"):
        prepare.run(Settings(), raw.parent / "gone.csv", tmp_path)
    assert results(tmp_path) == before


def test_clip_lost_after_prepare_is_named(raw, tmp_path):
    prepare.run(Settings(clips=CLIPS.model_copy(update={"pack": False})), raw, tmp_path)
    clips = open_clips(tmp_path / "manifest.csv")
    path = tmp_path / manifest.read_manifest(tmp_path / "manifest.csv").rows["path"][0]
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match=f"clip {clips.ids[0]}: .* cannot be read"):
        clips.video(0)
    path.unlink()
    with pytest.raises(UserError, match=f"clip {clips.ids[0]}: .* is missing"):
        clips.audio(0)


def test_packed_clips_of_another_manifest_are_refused(prepared, tmp_path):
    shutil.copytree(prepared["both"].parent, tmp_path / "both")
    path = tmp_path / "both" / "manifest.csv"
    rows = manifest.read_manifest(path).all_rows
    rows.loc[rows["id"] == "good", "digest"] = "0" * 16
    manifest.write_manifest(path, rows)
    with pytest.raises(UserError, match="does not hold clip good"):
        open_clips(path)


def test_hash_ignores_the_order_of_rows_and_sees_every_value(prepared, tmp_path):
    rows = manifest.read_manifest(prepared["both"]).all_rows

    def written(table):
        manifest.write_manifest(tmp_path / "manifest.csv", table)
        return manifest.read_manifest(tmp_path / "manifest.csv").hash

    digest = manifest.read_manifest(prepared["both"]).hash
    assert written(rows) == written(rows.iloc[::-1]) == digest
    assert written(rows.replace({"label": {"0": "9"}})) != digest
    assert written(rows.assign(path="elsewhere/" + rows["path"])) == digest


def test_split_keeps_order_and_hash(prepared):
    whole = manifest.read_manifest(prepared["any"])
    parts = {name: whole.split(name) for name in ("train", "test")}
    assert sorted(parts["train"].ids + parts["test"].ids) == sorted(whole.ids)
    assert parts["train"].hash == whole.hash
    assert list(open_clips(prepared["any"], "test").ids) == parts["test"].ids
    assert list(open_clips(prepared["any"], "test").labels) == parts["test"].labels


def test_processes_that_crash_or_hang_cost_one_task_each():
    tasks = [(number,) for number in range(5)]
    results = list(run_guarded(crash_hang_or_double, tasks, lambda _: 5.0, processes=2))
    assert [results[i] for i in (0, 3, 4)] == [0, 6, 8]
    assert results[1:3] == [Failure("decoder crashed"), Failure("decoder hung")]


def test_only_new_and_changed_files_are_made_again(tmp_path):
    for name in ("a", "b", "c"):
        write_media(tmp_path / f"{name}.mp4")
    index = tmp_path / "index.csv"
    index.write_text("path\na.mp4\nb.mp4\nc.mp4\n")
    prepare.run(Settings(), index, tmp_path / "out")
    made = clip_files(tmp_path / "out")
    older = (tmp_path / "b.mp4").stat().st_mtime_ns - 10**12
    write_media(tmp_path / "b.mp4", seconds=2)
    os.utime(tmp_path / "b.mp4", ns=(older, older))  # as a copy of an older file would be
    write_media(tmp_path / "d.mp4")
    index.write_text("path\na.mp4\nb.mp4\nd.mp4\n")
    prepare.run(Settings(), index, tmp_path / "out")
    again = clip_files(tmp_path / "out")
    assert again["a"] == made["a"]
    assert again["b"] != made["b"]
    assert set(again) == {"a", "b", "d"}
    assert manifest.read_manifest(tmp_path / "out" / "manifest.csv").rows["seconds"].tolist() == [1, 2, 1]


def test_clips_of_one_id_and_of_one_name_stay_apart(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    write_media(tmp_path / "x" / "a.mp4")
    write_media(tmp_path / "y" / "a.mp4", seconds=2)
    index = tmp_path / "index.csv"
    index.write_text("id,path\na,x/a.mp4\na,y/a.mp4\na!,y/a.mp4\na?,x/a.mp4\n")
    prepare.run(Settings(), index, tmp_path / "out")
    rows = manifest.read_manifest(tmp_path / "out" / "manifest.csv").all_rows
    assert rows["reason"].tolist() == ["", "duplicate id", "", ""]
    assert rows["seconds"].dropna().tolist() == [1, 2, 1]
    index.write_text("id,path\na,y/a.mp4\n")
    prepare.run(Settings(), index, tmp_path / "out")
    assert manifest.read_manifest(tmp_path / "out" / "manifest.csv").rows["seconds"].tolist() == [2]


def test_killed_and_called_again_gives_the_manifest_of_an_undisturbed_call(tmp_path):
    for number in range(10):
        write_media(tmp_path / f"{number}.mp4", seconds=2, size=(320, 240))
    index = tmp_path / "index.csv"
    index.write_text("path\n" + "".join(f"{number}.mp4\n" for number in range(10)))
    changes = {"dataset": "own", "datasets": {"own": {"kind": "manifest"}}, "clips": CLIPS.model_dump()}
    project = Path(__file__).parents[2]
    (tmp_path / "params.yaml").write_text(json.dumps({"extends": str(project / "params.yaml"), **changes}))
    command = [sys.executable, "-m", "xkd", "prepare", "--params", "params.yaml", "--raw", "index.csv", "--out", "out"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(project)},
    )
    while process.poll() is None and len(clip_files(tmp_path / "out")) < 2:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "out" / "manifest.csv").exists()
    survivors = clip_files(tmp_path / "out")
    prepare.run(Settings(), index, tmp_path / "out")
    prepare.run(Settings(), index, tmp_path / "undisturbed")
    assert (tmp_path / "out" / "manifest.csv").read_bytes() == (tmp_path / "undisturbed" / "manifest.csv").read_bytes()
    kept = clip_files(tmp_path / "out")
    assert sum(kept[name] == file for name, file in survivors.items()) >= 1
    assert not list((tmp_path / "out" / "clips").rglob("*.part"))


def test_a_full_disk_is_no_fault_of_a_clip(raw, tmp_path, monkeypatch):
    prepare.run(Settings(), raw, tmp_path)
    before = results(tmp_path)

    def full(*_):
        raise av.error.OSError(28, "No space left on device", "out.mp4")

    monkeypatch.setattr(encode, "write_clip", full)
    monkeypatch.setattr(prepare, "run_guarded", lambda function, tasks, *_: (function(*task) for task in tasks))
    other = CLIPS.model_copy(update={"size": 48})
    with pytest.raises(UserError, match="no space left on the disk.*finished clips are kept"):
        prepare.run(Settings(clips=other), raw, tmp_path)
    assert results(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.wav", None), ("a.webm", "libvpx-vp9")]
)
def test_files_that_end_early_are_recorded_though_decoders_play_them(tmp_path, name, codec):
    film = write_media(tmp_path / name, seconds=4, codec=codec, size=(320, 240), audio="webm" not in name)
    whole = prepare_clip(str(film), str(tmp_path / "whole"), Made(tmp_path, "prepare"), CLIPS, "any", False)
    assert whole.facts["status"] == "ok"
    assert whole.facts["seconds"] == pytest.approx(4, abs=0.1)
    cut = prepare_clip(str(truncate(film, 0.5)), str(tmp_path / "cut"), Made(tmp_path, "prepare"), CLIPS, "any", False)
    assert cut.facts["status"] == "unusable"
    assert cut.facts["reason"].startswith("truncated: ")


def test_classes_are_counted(raw, prepared):
    counts = json.loads((prepared["both"].parent / "summary.json").read_text())["classes"]
    rows = manifest.read_manifest(prepared["both"]).all_rows
    for label, group in rows.groupby("label"):
        usable, missing = (group["status"] == "ok").sum(), (group["reason"] == "missing").sum()
        assert counts[label] == {"expected": len(group), "found": len(group) - missing, "usable": usable}


def test_clips_lie_in_small_folders_except_where_an_earlier_version_put_them(raw, tmp_path):
    prepare.run(Settings(), raw, tmp_path)
    (path,) = (tmp_path / "clips").glob("*/*/good-*.mp4")
    assert path.parent.name == path.name.split("-")[1][-2:]
    assert (path.parent.parent.name, len(path.parent.name)) == (prepare._key(CLIPS), 2)
    made = path.stat().st_ino
    flat = path.rename(path.parent.parent / path.name)
    for name in ("manifest.csv", ".xkd-prepare.jsonl"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace(str(path.relative_to(tmp_path)), str(flat.relative_to(tmp_path))))
    before = manifest.read_manifest(tmp_path / "manifest.csv")
    prepare.run(Settings(), raw, tmp_path)
    after = manifest.read_manifest(tmp_path / "manifest.csv")
    assert after.rows["path"].tolist() == before.rows["path"].tolist()
    assert after.hash == before.hash
    assert flat.stat().st_ino == made


def clip_files(out):
    """Name -> inode of the clips written so far: another inode is another writing."""
    return {
        path.name.rsplit("-", 2)[0]: path.stat().st_ino for path in out.glob("clips/*/*/*.mp4") if path.name[0] != "."
    }


def results(folder):
    """Content of each file but the journal, which only grows."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".jsonl"}

"""Whichever bit of a file flips, the reader of the file finds it, or reads what was written all the same.

XKD_TEST_FLIPS=1000 tries more of them; each kind prints how many were found.
"""

import json
import os
import random
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from xkd import runs
from xkd.data import manifest as manifests
from xkd.data.clips import open_clips
from xkd.data.manifest import MANIFEST_COLUMNS, read_manifest, write_manifest
from xkd.data.opening import MediaError
from xkd.data.packed import Pack, PackWriter
from xkd.downstream.kept import KeptFits
from xkd.downstream.scores import Scores
from xkd.downstream.store import stored
from xkd.encoders import folder
from xkd.encoders.config import EncoderConfig, VideoInput
from xkd.errors import UserError
from xkd.files import sha256, write_json
from xkd.models.head import ProjectionHead
from xkd.protocols import Column
from xkd.runs import evaluations
from xkd.settings import Clips, Dataset, Limits, ShardSettings
from xkd.stages import pack
from xkd.training import checkpoint

FLIPS = int(os.environ.get("XKD_TEST_FLIPS", "40"))
RANDOM = np.random.default_rng(0)
NUMBERS = {"seconds": 1.0, "fps": 8.0, "width": 32, "height": 32, "sample_rate": 16000}


@contextmanager
def flipped(path: Path, draws: random.Random):
    """Flips a random bit of a file in the block."""
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[draws.randrange(len(whole))] ^= 1 << draws.randrange(8)
    path.write_bytes(changed)
    try:
        yield
    finally:
        path.write_bytes(whole)


def found(path: Path, read) -> int:
    """Counts the flips after which `read` raises a UserError of one line, or returns False."""
    assert read() is not False, "the file as it was written is good"
    draws, count = random.Random(path.name), 0
    for _ in range(FLIPS):
        with flipped(path, draws):
            try:
                count += read() is False
            except (UserError, MediaError) as error:  # a MediaError becomes one that names the clip
                count += "\n" not in str(error)
    print(f"{path.name}: {count} of {FLIPS} flips found")
    return count


def rows_of(ids, digests, paths):
    given = {"id": ids, "path": paths, "split": "train", "label": "cat", "digest": digests, "status": "ok", **NUMBERS}
    table = pd.DataFrame({name: given.get(name, "") for name in MANIFEST_COLUMNS}, index=range(len(ids)))
    return table.assign(has_video=True, has_audio=True)


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """A data set of three files that nobody decodes here."""
    monkeypatch.chdir(tmp_path)
    home = Path("data/own")
    (home / "clips").mkdir(parents=True)
    paths = [f"clips/{name}.mp4" for name in "abc"]
    for path in paths:
        (home / path).write_bytes(RANDOM.bytes(20_001))
    write_manifest(home / "manifest.csv", rows_of(list("abc"), [sha256(home / path)[:16] for path in paths], paths))
    summary = {"dataset": "own", "hash": read_manifest(home / "manifest.csv").hash}
    write_json(home / "summary.json", summary, sealed=True)
    return home


def write_encoder(place: Path) -> None:
    fed = VideoInput(frames=4, fps=8, short_side=16, size=16)
    about = {"modality": "video", "owner": "student", "origin": "a test", "licence": "MIT", "input": fed}
    config = EncoderConfig(**about, patch=(2, 8, 8), grid=(2, 2, 2), width=16, depth=1, heads=2)
    folder.save(folder.build(config), config, place, ProjectionHead(width=16, hidden=8, bottleneck=4, out=5))


@pytest.mark.parametrize("name", ["model.safetensors", "head.safetensors"])
def test_weights(tmp_path, name):
    place = tmp_path / "video_student"
    write_encoder(place)
    assert found(place / name, lambda: (folder.load(place), folder.load_head(place))) == FLIPS


@pytest.mark.parametrize("name", ["config.json", "encoders/video_student/model.safetensors", runs.INDEX])
def test_files_of_a_run(tmp_path, name):
    run = tmp_path
    write_encoder(run / "encoders" / "video_student")
    write_json(run / runs.CONFIG, {"seed": 0, "recipe": {"dataset": "digits"}})
    files = {path.relative_to(run).as_posix(): sha256(path) for path in run.rglob("*.*") if path.is_file()}
    write_json(run / runs.INDEX, {"run": "digits/xkd/seed0", "files": files, "complete": True}, sealed=True)
    assert found(run / name, lambda: runs.check(run)) == FLIPS


@pytest.mark.parametrize("name", ["video.bin", "audio.bin", "index.npz"])
def test_packed_clips(tmp_path, name):
    writer = PackWriter(tmp_path / "packed")
    for number in range(5):
        video = RANDOM.integers(0, 256, (3 + number, 3, 32, 32), np.uint8) if number != 2 else None
        writer.add(f"clip{number}", f"{number}", video, RANDOM.integers(-9, 9, 9_001 + number, np.int16))
    writer.close()

    def read():
        held = Pack(writer.folder)
        for number in range(5):
            held.audio(number, 0, 4_000)
            held.audio(number, 4_000, 99_000)
            if number != 2:
                held.video(number, 0, 2)
                held.video(number, 2, None)

    assert found(writer.folder / name, read) == FLIPS


@pytest.mark.parametrize("name", ["*.tar", "clips.npy", "sums.bin", "index.json"])
def test_shards(clips, monkeypatch, name):
    class Settings:
        dataset, limits, clips = "own", Limits(), Clips()
        datasets = {"own": Dataset(kind="manifest", shards=ShardSettings(form="encoded"))}

    monkeypatch.setattr(pack, "run_guarded", lambda work, tasks, *_: (work(*task) for task in tasks))
    pack.run(Settings(), "own")
    expected = [path.read_bytes() for path in sorted((clips / "clips").iterdir())]

    def read():
        store = open_clips(clips / "manifest.csv")
        assert [store.shards.content(i) for i in range(3)] == expected

    (path,) = (clips / "shards").glob(name)
    assert found(path, read) == FLIPS


def test_single_clips(clips):
    def read():
        store = open_clips(clips / "manifest.csv")
        with pytest.raises(UserError) as caught:  # its bytes are random: whole, it is opened, and no clip
            store.video(1)
        return "not the file that the manifest lists" not in str(caught.value)

    assert found(clips / "clips" / "b.mp4", read) == FLIPS


def test_manifest_and_summary(clips):
    """A flip in a path names no file, which whoever opens the clip says."""

    def read():
        held = read_manifest(clips / "manifest.csv")
        manifests.check_as_prepared(held.path, held.hash)
        return all((clips / path).is_file() for path in held.rows["path"])

    assert found(clips / "manifest.csv", read) == FLIPS
    held = read_manifest(clips / "manifest.csv")
    assert found(clips / "summary.json", lambda: manifests.check_as_prepared(held.path, held.hash)) == FLIPS


def test_columns_beside_a_manifest_are_made_again(clips):
    columns = clips / ".manifest.arrow"
    expected, written = read_manifest(clips / "manifest.csv").table, columns.read_bytes()

    def read():
        pd.testing.assert_frame_equal(read_manifest(clips / "manifest.csv").table, expected)
        return columns.read_bytes() == written

    draws = random.Random(0)
    for _ in range(FLIPS // 4):
        with flipped(columns, draws):
            assert read()


@pytest.mark.parametrize("name", ["student_video.f32", "student_video.sums", "student_video.json"])
def test_features_are_extracted_again(tmp_path, name, capsys):
    table = pd.DataFrame({name: [f"{name}{i}" for i in range(9)] for name in ("id", "label")})
    table = table.assign(video_source="", audio_source="")
    values = torch.rand(9, 31, generator=torch.Generator().manual_seed(0))

    class Batch:
        ids, views = table["id"].tolist(), {"video": [values]}

    def batches(first, keys):
        asked.append(first)
        batch = Batch()
        batch.ids, batch.views = Batch.ids[first:], {"video": [values[first:]]}
        yield batch

    def read():
        asked.clear()
        key = ("student", "video")
        outputs = stored(tmp_path, {key: lambda x: x}, {key: {"weights": "w"}}, table, batches).outputs
        np.testing.assert_array_equal(outputs[key][:, 0], values)
        return not asked

    asked: list[int] = []
    read()
    assert found(tmp_path / name, read) == FLIPS
    assert f"{tmp_path / 'student_video'}" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".json", ".predictions.csv", ".confusion.csv", ".scores.parquet"])
def test_evaluations(tmp_path, suffix):
    results = {
        **{"dataset": "digits", "ablation": "xkd", "seed": 0, "task": "linear", "protocol": "linear"},
        **{"manifest": "abc", "encoders": runs.encoders_hash(tmp_path), "items": {"video": 3}},
        "clips": {"train": 3, "test": 2, "left_out": {"train": {}}},
        "metrics": {"student.video.linear.top1": 51.25, "loss": 1e-05},
    }
    table, out = pd.DataFrame({"id": ["a", "b"], "label": ["cat", "dog"]}), tmp_path / "linear.json"
    evaluations.write_files(out, results, table, table, lambda path: table.to_parquet(path))
    assert found(out.with_suffix(suffix), lambda: evaluations.read_results(out, tmp_path, "evaluate")) == FLIPS


def test_an_evaluation_of_an_earlier_version_is_read(tmp_path):
    out = tmp_path / "linear.json"
    facts = {"dataset": "d", "task": "t", "protocol": "p", "manifest": "m", "clips": {"train": 1, "test": 1}}
    results = {**facts, "items": {}, "metrics": {}, "encoders": runs.encoders_hash(tmp_path), "files": {}}
    out.write_text(json.dumps(results, indent=2) + "\n")
    assert evaluations.read_results(out, tmp_path, "evaluate").task == "t"


def test_kept_fits_are_fitted_again(tmp_path):
    scores = Scores(Column("student", "video", "svm"), RANDOM.random((4, 2)), np.array(["cat", "dog"]))
    fits, (name, fitted) = KeptFits(tmp_path), ("svm", [])

    def read():
        fitted.clear()
        fits.kept(name, lambda: fitted.append(1) or [scores])
        return not fitted

    read()
    assert found(tmp_path / "svm.npz", read) == FLIPS


def test_checkpoints_are_refused_or_read_as_they_were(tmp_path):
    """A zip archive has bytes that mean nothing, such as the time of its members."""
    state = {"weights": torch.rand(300, generator=torch.Generator().manual_seed(0)), "step": 7, "names": ["a", "b"]}
    checkpoint.keep(tmp_path, {"seed": 0}, {}, state)
    draws, refused = random.Random(0), 0
    for _ in range(FLIPS):
        with flipped(tmp_path / checkpoint.NEWEST, draws):
            try:
                held = checkpoint.content(tmp_path / checkpoint.NEWEST)
            except ValueError:
                refused += 1
                continue
            assert torch.equal(held["weights"], state["weights"])
            assert {**held, "weights": 0} == {
                "format": checkpoint.FORMAT, "identity": {"seed": 0}, "settings": {}, **state, "weights": 0,
            }  # fmt: skip
    print(f"{checkpoint.NEWEST}: {refused} of {FLIPS} flips found, the others change nothing that is read")
    assert refused > FLIPS / 4

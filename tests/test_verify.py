"""`xkd verify`: finds each file that is damaged or missing, says what makes it again, and changes nothing."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from run_folders import seal

from xkd import made, params, runs
from xkd.cli import cli
from xkd.data.manifest import MANIFEST_COLUMNS, read_manifest, write_manifest
from xkd.data.packed import PackWriter
from xkd.errors import UserError
from xkd.files import files_in, sha256, write_json
from xkd.runs import evaluations
from xkd.stages import verify

RUN, EVALUATION = Path("runs/own/xkd/seed0"), Path("evals/own/xkd/seed0/linear.json")
HOME = Path("data/own")
NUMBERS = {"seconds": 1.0, "fps": 8.0, "width": 32, "height": 32, "sample_rate": 16000}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A data set, a run, an evaluation and a table, each of a few bytes and with the records that stages write."""
    monkeypatch.chdir(tmp_path)
    with made.opened(HOME, "prepare") as files:
        for name in ("clips/a.mp4", "clips/b.mp4"):
            with files.writing(HOME / name) as temporary:
                temporary.write_bytes(name.encode() * 99)
        digests = {path.name: sha256(path)[:16] for path in (HOME / "clips").iterdir()}
        paths = [f"clips/{name}" for name in sorted(digests)]
        given = {"id": paths, "path": paths, "split": "train", "status": "ok", **NUMBERS}
        given["digest"] = [digests[name] for name in sorted(digests)]
        table = pd.DataFrame({name: given.get(name, "") for name in MANIFEST_COLUMNS}, index=range(2))
        with files.writing(HOME / "manifest.csv") as temporary:
            write_manifest(temporary, table.assign(has_video=True, has_audio=True))
        with files.writing(HOME / "summary.json") as temporary:
            write_json(temporary, {"hash": read_manifest(HOME / "manifest.csv").hash}, sealed=True)
    (RUN / "encoders" / "audio_student").mkdir(parents=True)
    (RUN / "encoders" / "audio_student" / "model.safetensors").write_bytes(b"weights")
    write_json(RUN / runs.CONFIG, {"seed": 0})
    seal(RUN)
    EVALUATION.parent.mkdir(parents=True)
    identity = {"dataset": "own", "ablation": "xkd", "seed": 0, "task": "linear", "protocol": "linear", "manifest": "a"}
    results = {**identity, "metrics": {"top1": 50.0}}
    evaluations.write_files(EVALUATION, results, table, table, lambda path: path.write_bytes(b"scores"))
    with made.opened(Path("results"), "table") as files, files.writing(Path("results/table.csv")) as temporary:
        temporary.write_text("row,top1\n")


def checked(*what):
    """Returns the exit code of the command, and what it prints."""
    result = CliRunner().invoke(cli, ["verify", *map(str, what)])
    return result.exit_code, result.stdout


def test_nothing_is_wrong_with_files_as_they_were_written_and_none_is_changed(project):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files_in(Path())}
    assert checked("own", "runs", "evals", "results") == (0, "12 files checked: all as they were written\n")
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files_in(Path())} == before


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (HOME / "clips" / "a.mp4", "run `xkd prepare` again"),
        (HOME / "manifest.csv", "run `xkd prepare` again"),
        (HOME / "summary.json", "run `xkd prepare` again"),
        (RUN / "config.json", "make it with: xkd pretrain ... --out runs/own/xkd/seed0"),
        (RUN / "encoders/audio_student/model.safetensors", "make it with: xkd pretrain ... --out runs/own/xkd/seed0"),
        (EVALUATION, "make it with: xkd evaluate ... --out evals/own/xkd/seed0/linear.json"),
        (EVALUATION.with_suffix(".scores.parquet"), "make it with: xkd evaluate ... --out evals/own"),
        (Path("results/table.csv"), "run `xkd table` again"),
    ],
)
def test_a_file_that_changed_is_named_with_what_makes_it_again(project, path, words):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    code, said = checked("data", "runs", "evals", "results")
    assert code == 3
    assert any(line.startswith(f"{path}: ") and words in line for line in said.splitlines()), said


@pytest.mark.parametrize(
    "path", [HOME / "clips" / "b.mp4", RUN / "config.json", EVALUATION.with_suffix(".confusion.csv")]
)
def test_a_file_that_is_missing_is_named(project, path):
    path.unlink()
    code, said = checked("data", "runs", "evals", "results")
    assert (code, said.count("\n")) == (3, 2)
    assert said.startswith(f"{path}: missing; ")


def test_clips_may_be_absent_where_packed_ones_stand_for_them(project):
    writer = PackWriter(HOME / "packed")
    writer.add("a", "0", np.zeros((2, 3, 4, 4), np.uint8), None)
    writer.close()
    (HOME / "clips" / "b.mp4").unlink()
    assert checked("own")[0] == 0
    with (HOME / "packed" / "video.bin").open("r+b") as file:
        file.write(b"1")
    code, said = checked("own")
    assert (code, said.split(": ")[0]) == (3, "data/own/packed/video.bin")


def test_the_settings_name_what_is_checked(project, tmp_path):
    """All that was made of it: what is not there yet is no fault."""
    Path("params.yaml").write_text("dataset: own\nseeds: [0]\n")
    Path("runs/own/other/seed0").mkdir(parents=True)

    class Settings:
        dataset, seeds, results, tasks = "own", [0], "results", {}
        ablations = {"xkd": type("Row", (), {"dataset": None})}

    assert verify.run(Settings()) == 0
    (RUN / "config.json").write_text("{}")
    assert verify.run(Settings(), out=tmp_path / "found.json") == 3
    (fault,) = json.loads((tmp_path / "found.json").read_text())["faults"]
    assert (fault["path"], fault["problem"]) == (str(RUN / "config.json"), "not the file that this run wrote")


def test_what_cannot_be_checked_is_no_success(project, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(verify, "sha256", refused)
    assert verify.run(what=["own"]) == 2
    for what, words in (("none", "no such file or folder"), (".", "nothing there that xkd has recorded")):
        with pytest.raises(UserError, match=words):
            verify.run(what=[what] if what != "." else [str(params.__file__)])

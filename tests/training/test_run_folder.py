"""A run's folder holds one whole run, or no reader takes it; what xkd did not write is never touched."""

import errno
import os
import resource
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from forks import code_of, fork

from xkd import cli, fingerprint, params, runs
from xkd.encoders import folder as encoder_folder
from xkd.errors import UserError
from xkd.show.models import gather
from xkd.stages import evaluate
from xkd.stages import pretrain as stage

MINIATURE = Path(__file__).parents[2] / "workflow" / "presets" / "miniature.yaml"
NAME = "set/row/seed0"
ENCODERS = ("video_student", "audio_student")
WEIGHTS = [f"encoders/{name}/{file}" for name in ENCODERS for file in ("config.json", "model.safetensors")]


def write(run: Path, word: str, name: str = NAME, encoders: tuple[str, ...] = ENCODERS) -> None:
    with runs.reserved(run, name) as folder, folder.writing() as out:
        for file in runs.FILES:
            (out / file).write_text(f"{word} {file}")
        for encoder in encoders:
            (out / "encoders" / encoder).mkdir(parents=True)
            for file in ("config.json", "model.safetensors"):
                (out / "encoders" / encoder / file).write_text(f"{word} {encoder} {file}")


def words(run: Path) -> set[str]:
    """The first word of each file of a complete run."""
    return {(run / name).read_text().split()[0] for name in runs.check(run)}


@pytest.fixture
def run(tmp_path):
    write(tmp_path / "run", "old")
    return tmp_path / "run"


def killed_before(operation: int, run: Path) -> int:
    """Writes the run in a child that is gone before its n-th opening, renaming or removal of a file; its exit code."""

    def function():
        done = 0

        def count(event, _arguments):
            nonlocal done
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"):
                done += 1
                if done == operation:
                    os._exit(9)

        sys.addaudithook(count)
        write(run, "new", encoders=("video_student", "video_teacher"))

    return code_of(fork(function, run.with_name("log.txt")))


def test_a_kill_at_any_moment_leaves_one_run_or_none(run):
    """Before every fifth operation on files, each time over what the kill before has left."""
    (run / "notes.txt").write_text("mine")
    seen, operation, code = [], -4, 9
    while code == 9:
        operation += 5
        code = killed_before(operation, run)
        try:
            seen.append(words(run))
            continue
        except UserError as error:
            said = str(error)
        assert "interrupted" in said
        assert said.count("\n") == 0
        seen.append(set())
        if len(seen) % 7 == 0:  # also over a whole run
            write(run, "old")
    assert code == 0, run.with_name("log.txt").read_text()
    assert operation > 100
    assert {"new"} == seen[-1]
    assert [one for one in seen if one not in ({"old"}, {"new"}, set())] == []
    assert {frozenset(one) for one in seen} == {frozenset(), frozenset({"old"}), frozenset({"new"})}
    assert not list(run.rglob("*.part"))
    assert (run / "notes.txt").read_text() == "mine"
    assert not (run / "encoders" / "audio_student" / "config.json").exists(), "of the earlier run"


@pytest.mark.parametrize("name", [*runs.FILES, *WEIGHTS])
def test_a_file_that_is_missing_or_another_is_named(run, name):
    (run / name).write_text("edited")
    with pytest.raises(UserError, match=f"{name}: not the file that this run wrote .*pretrain"):
        runs.check(run)
    (run / name).unlink()
    with pytest.raises(UserError, match=f"{name}: missing; make it with: python -m xkd pretrain"):
        runs.check(run)


@pytest.mark.parametrize(
    "content", [None, "", "{", '{"files": {}}', '{"run": "", "complete": true, "files": {"../x": ""}}']
)
def test_a_run_without_its_index_is_none(run, content):
    (run / runs.INDEX).unlink()
    if content is not None:
        (run / runs.INDEX).write_text(content)
    for read in (runs.check, runs.encoder_folders):
        with pytest.raises(UserError, match="missing or damaged: the run is incomplete or of an earlier version"):
            read(run)


def test_encoders_that_were_swapped_are_refused_one_by_one_too(run):
    one, other = (run / "encoders" / name / "model.safetensors" for name in ENCODERS)
    kept = one.read_text()
    one.write_text(other.read_text())
    other.write_text(kept)
    for name in ENCODERS:
        with pytest.raises(UserError, match=f"{name}/model.safetensors: not the file"):
            encoder_folder.load(run / "encoders" / name)
    with pytest.raises(UserError, match="not the file that this run wrote"):
        gather((run,))


def test_a_run_may_be_copied_moved_and_linked(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "link").symlink_to(run)
    (tmp_path / "encoder").symlink_to(run / "encoders" / "video_student")
    shutil.copytree(run / "encoders" / "audio_student", tmp_path / "audio_student")
    assert words(tmp_path / "copy") == words(tmp_path / "link") == {"old"}
    for place in ("encoder", "audio_student", "copy/encoders/video_student", "link/encoders/video_student"):
        runs.check_encoder(tmp_path / place)
    write(tmp_path / "copy", "new")
    write(tmp_path / "link", "new")
    assert words(tmp_path / "copy") == words(run) == {"new"}


@pytest.mark.parametrize("name", ["metrics.json", "files.json", "encoders/video_student/model.safetensors"])
def test_a_folder_with_files_of_somebody_else_is_refused_and_left_alone(tmp_path, name):
    mine = tmp_path / "mine" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match=f"{name}: .*move it away, or give another --out"):
        write(tmp_path / "mine", "new")
    assert mine.read_text() == "mine"


def test_another_run_in_the_folder_is_kept(run):
    with pytest.raises(UserError, match="holds the run set/row/seed0; give another --out for set/other/seed0"):
        write(run, "new", "set/other/seed0")
    with runs.reserved(run, NAME), pytest.raises(UserError, match="another `xkd pretrain` is at work here"):
        write(run, "new")
    assert words(run) == {"old"}


@pytest.fixture(scope="module")
def project(tmp_path_factory, miniature):
    """Prepared clips and a short run of the miniature in `run`."""
    root = tmp_path_factory.mktemp("project")
    settings = {"extends": str(MINIATURE), "training": {"epochs": 1}}
    (root / "params.yaml").write_text(yaml.safe_dump(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        shutil.copytree(miniature, "data")
        fingerprint.stage("pretrain")  # once, for all forks
        assert code_of(fork(pretrain(), root / "first.txt")) == 0, (root / "first.txt").read_text()
    return root


def pretrain(before_writing=lambda: None):
    """What a fork does."""

    def function():
        write_files = stage._write
        stage._write = lambda *arguments: (before_writing(), write_files(*arguments))
        sys.argv = [
            *["xkd", "pretrain", "--manifest", "data/manifest.csv", "--ablation", "xkd", "--seed", "0", "--out", "run"]
        ]
        cli.main()

    return function


@pytest.mark.parametrize("largest", [0, 300, 5_000, 20_000])
def test_a_full_disk_while_a_run_is_written_costs_nothing(project, monkeypatch, largest):
    """The largest file that can be written stands for the room that is left: curves fail, then arrays, then weights."""
    monkeypatch.chdir(project)
    before = {name: (project / "run" / name).read_bytes() for name in runs.check(Path("run"))}
    log, limit = Path(f"{largest}.txt"), resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    reading, writing = os.pipe()  # what is said must not need room
    fill = pretrain(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limit)))
    child = fork(fill, Path(f"/dev/fd/{writing}"))
    os.close(writing)
    assert code_of(child) == 2
    with open(reading) as file:
        (line,) = [line for line in file if line.startswith("xkd: error:")]
    assert os.strerror(errno.EFBIG) in line
    assert "the checkpoint in checkpoints/miniature/xkd/seed0 is kept" in line
    assert {name: (project / "run" / name).read_bytes() for name in runs.check(Path("run"))} == before
    assert code_of(fork(pretrain(), log)) == 0, log.read_text()
    assert "continuing at step 3 " in log.read_text()
    assert "epoch 0" not in log.read_text(), "nothing is trained again"
    for name, content in before.items():
        if name.endswith("model.safetensors"):
            assert (project / "run" / name).read_bytes() == content
    assert not list(Path("checkpoints").rglob("*.pt"))
    assert not list(Path("run").rglob("*.part"))


def test_an_edited_run_is_evaluated_by_nobody(project, monkeypatch):
    monkeypatch.chdir(project)
    shutil.copytree("run", "edited")
    (project / "edited" / "config.json").write_text((project / "run" / "config.json").read_text().replace("0.9", "0.8"))
    with pytest.raises(UserError, match="edited/config.json: not the file that this run wrote"):
        evaluate.run(
            params.load(Path("params.yaml")), Path("data/manifest.csv"), Path("edited"), "linear", Path("x.json")
        )
    assert not Path("x.json").exists()

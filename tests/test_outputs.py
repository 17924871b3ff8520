"""No command writes over what it reads, or over a file that it did not make."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from xkd import cli, made
from xkd.errors import UserError
from xkd.files import check_output


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Calls a command that must end with one line and code 2, with every file as it was; gives that line."""
    monkeypatch.chdir(tmp_path)

    def call(line: str) -> str:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        monkeypatch.setattr(sys, "argv", ["xkd", *line.split()])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr().err
        assert stopped.value.code == 2, said
        assert len(said.splitlines()) == 1, said
        after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert {path: after.get(path) for path in before} == before
        return said

    (tmp_path / "my.mp4").write_bytes(b"the only copy")
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "encoder" / "config.json").write_text("{}")
    (tmp_path / "list.csv").write_text("path\nmy.mp4\n")
    return call


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("show my.mp4 --encoder encoder --video --out my.png", "my.mp4"),
        ("show my.mp4 --encoder encoder --out soft.png", "soft.png"),
        ("show my.mp4 --encoder encoder --out hard.png", "hard.png"),
        ("embed encoder my.mp4 --output my.mp4", "my.mp4"),
        ("embed encoder . --output ./my.mp4", "my.mp4"),
        ("embed encoder list.csv --output list.csv", "list.csv"),
        ("embed encoder list.csv --output hard.png", "hard.png"),
        ("embed encoder my.mp4 --output encoder/model.safetensors", "model.safetensors"),
    ],
)
@pytest.mark.parametrize("force", ["", " --force"])
def test_an_input_is_never_replaced(refused, tmp_path, line, name, force):
    (tmp_path / "soft.png").symlink_to("my.mp4")
    os.link(tmp_path / "my.mp4", tmp_path / "hard.png")
    said = refused(line + force)
    assert name in said
    assert "is the input" in said


@pytest.mark.parametrize(
    "line",
    [
        "show my.mp4 --encoder encoder --out theirs.png",
        "show my.mp4 --encoder encoder --video --out theirs-too.png",
        "show my.mp4 --encoder encoder --out dangling.png",
        "embed encoder my.mp4 --output theirs.png",
        "schema --out theirs.png",
    ],
)
def test_a_file_that_is_there_stays_without_force(refused, tmp_path, line):
    for name in ("theirs.png", "theirs-too.mp4"):
        (tmp_path / name).write_text("theirs")
    (tmp_path / "dangling.png").symlink_to("nowhere")
    assert "--force" in refused(line)
    assert os.readlink(tmp_path / "dangling.png") == "nowhere"


@pytest.mark.parametrize("name", ["folder", "my.mp4/x.parquet", "/dev/null", "/proc/x/y", "pipe"])
def test_what_is_no_place_for_a_file_is_said_before_any_work(refused, tmp_path, name):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert name.split("/")[-1] in refused(f"embed encoder my.mp4 --output {name} --force")


def test_with_force_another_file_is_replaced(tmp_path):
    theirs = tmp_path / "theirs.json"
    theirs.write_text("theirs")
    check_output(theirs, [tmp_path / "input"], force=True)
    check_output(tmp_path / "new" / "deep" / "x.json", [theirs])
    with pytest.raises(UserError, match="--force"):
        check_output(theirs, [])


def test_the_schema_may_be_written_again(tmp_path, monkeypatch):
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["xkd", "schema", "--out", str(tmp_path / "schema.json")])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert not stopped.value.code


def test_the_settings_file_is_never_an_output(refused, tmp_path, monkeypatch):
    (tmp_path / "params.json").write_text(MINIATURE)
    line = "evaluate --params params.json --manifest m --run r --task linear --out params.json --force"
    assert "settings file" in refused(line)


def test_results_of_another_run_or_task_stay(tmp_path):
    from xkd.runs.evaluations import check_free

    out, ours = tmp_path / "linear.json", {"dataset": "digits", "ablation": "xkd", "seed": 0, "task": "linear"}
    check_free(out, [], ours, force=False)
    out.write_text(json.dumps(ours))
    (tmp_path / "linear.predictions.csv").write_text("id\n")
    check_free(out, [], ours, force=False)
    for other in (ours | {"seed": 1}, ours | {"task": "knn"}):
        with pytest.raises(UserError, match=r"linear\.json.*--force"):
            check_free(out, [], other, force=False)
        check_free(out, [], other, force=True)
    out.unlink()
    with pytest.raises(UserError, match=r"predictions\.csv"):
        check_free(out, [], ours, force=False)
    with pytest.raises(UserError, match=r"end.*\.json"):
        check_free(tmp_path / "params.yaml", [], ours, force=True)


def test_weights_are_imported_beside_other_files_and_never_over_them(refused, tmp_path):
    for name in ("one.pth.tar", "out/two"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("weights")
    (tmp_path / "out" / "one").mkdir()
    (tmp_path / "out" / "one" / "head.safetensors").write_text("theirs")
    assert "out/one/head.safetensors" in refused("import-weights one.pth.tar --output out")
    assert "out/two" in refused("import-weights out/two --output out")


def test_a_folder_of_files_is_written_whole_and_only_over_its_own(tmp_path):
    def write(text):
        with made.opened(tmp_path, "table") as files, files.writing_folder(tmp_path) as folder:
            (folder / "figures").mkdir()
            (folder / "table.csv").write_text(text)
            (folder / "figures" / "a.png").write_text(text)

    write("1")
    write("2")
    assert (tmp_path / "figures" / "a.png").read_text() == (tmp_path / "table.csv").read_text() == "2"
    (tmp_path / "other").mkdir()
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []
    os.replace(tmp_path / ".xkd-table.jsonl", tmp_path / "journal")
    with pytest.raises(UserError, match=r"table\.csv|a\.png"):
        write("3")
    assert (tmp_path / "figures" / "a.png").read_text() == (tmp_path / "table.csv").read_text() == "2"


@pytest.mark.parametrize("stage", ["table", "inspect"])
def test_pictures_and_tables_of_somebody_else_stay(monkeypatch, tmp_path, stage):
    import importlib

    module = importlib.import_module(f"xkd.stages.{stage}")
    out = tmp_path / "out"
    out.mkdir()
    theirs = out / ("table.md" if stage == "table" else "histograms.png")
    theirs.write_text("theirs")
    if stage == "table":
        monkeypatch.setattr(module, "collect", lambda params: SimpleNamespace(manifest="x"))
        monkeypatch.setattr(module, "with_links", lambda results: results)
        monkeypatch.setattr(module, "data_facts", lambda *_: None)
        with pytest.raises(UserError, match=theirs.name):
            module.run(SimpleNamespace(dataset="x", sweeps={}), out)
    else:
        with made.opened(out, stage) as files, pytest.raises(UserError, match=theirs.name):
            files.check_free(theirs)
    assert theirs.read_text() == "theirs"


MINIATURE = json.dumps(
    yaml.safe_load((Path(__file__).parents[1] / "workflow" / "presets" / "miniature.yaml").read_text())
)

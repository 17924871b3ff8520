"""What a user sees of the command line: help, one-line errors, exit codes."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from xkd import __version__, cli, torch_fit
from xkd.errors import UserError

ROOT = Path(__file__).parents[1]
MINIATURE = str(ROOT / "workflow" / "presets" / "miniature.yaml")
STAGES = ("download", "prepare", "pretrain", "evaluate", "table")


@pytest.fixture
def run(monkeypatch, capsys):
    """Calls the command line; returns its exit code, standard output and standard error."""

    def call(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["xkd", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        shown = capsys.readouterr()
        return SimpleNamespace(code=stopped.value.code or 0, out=shown.out, err=shown.err)

    return call


@pytest.fixture
def stage(monkeypatch):
    """Puts a function in the place of a stage."""

    def replace(name, function):
        monkeypatch.setitem(sys.modules, f"xkd.stages.{name}", SimpleNamespace(run=function))

    return replace


@pytest.mark.parametrize("verb", [*STAGES, "import-weights", "embed", "schema"])
def test_every_verb_explains_itself(run, verb):
    done = run(verb, "--help")
    assert done.code == 0
    assert "--out" in done.out
    assert f"Usage: xkd {verb}" in done.out


def test_help_lists_the_stages_in_their_order(run):
    shown = run("--help").out
    assert sorted(STAGES, key=lambda verb: shown.index(f"  {verb} ")) == list(STAGES)


def test_version(run):
    assert run("--version").out.strip().endswith(__version__)


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv = ['xkd', '--help']\nfrom xkd.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'mlflow', 'pandas', 'pydantic', 'rich') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert shown.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrian"], ["pretrian", "did you mean 'pretrain'"]),
        (["table", "--outt", "x"], ["--outt", "--out", "xkd table --help"]),
        (["table"], ["--out"]),
        (["pretrain", "--seed", "one"], ["--seed", "'one'"]),
        (
            ["evaluate", "--params", MINIATURE, "--manifest", "m", "--run", "r", "--task", "linea", "--out", "o"],
            ["linea", "did you mean 'linear'"],
        ),
        (["table", "--params", "none.yaml", "--out", "x"], ["none.yaml", "--params"]),
        (["download", "--params", MINIATURE, "--dataset", "minature", "--out", "x"], ["minature", "miniature"]),
    ],
)
def test_bad_calls_end_with_one_line_and_code_2(run, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("xkd: error: ")
    assert all(word.lower() in done.err.lower() for word in words), done.err
    assert list(tmp_path.iterdir()) == []


def test_arguments_reach_the_stage(run, stage):
    seen = {}
    stage("pretrain", lambda params, **arguments: seen.update(arguments, dataset=params.dataset))
    call = ["pretrain", "--params", MINIATURE, "--manifest", "m.csv", "--ablation", "ae", "--seed", "3", "--out", "o"]
    assert run(*call).code == 0
    expected = {"manifest": Path("m.csv"), "ablation": "ae", "seed": 3, "out": Path("o"), "dataset": "miniature"}
    assert seen == expected | {"resume": "same"}


def test_settings_file_from_the_environment(run, stage, monkeypatch):
    seen = []
    stage("table", lambda params, out: seen.append(params.dataset))
    monkeypatch.setenv("XKD_PARAMS", MINIATURE)
    assert run("table", "--out", "x").code == 0
    assert seen == ["miniature"]


def _raise(error):
    def stage(*_args, **_kwargs):
        raise error

    return stage


def test_exit_codes_of_what_a_stage_raises(run, stage, monkeypatch):
    stage("table", _raise(UserError("first\n  second")))
    done = run("table", "--params", MINIATURE, "--out", "x")
    assert (done.code, done.err) == (2, "xkd: error: first second\n")
    stage("table", _raise(KeyboardInterrupt()))
    assert run("table", "--params", MINIATURE, "--out", "x").code == 130
    stage("table", _raise(ZeroDivisionError("a defect")))
    monkeypatch.setattr(sys, "argv", ["xkd", "table", "--params", MINIATURE, "--out", "x"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_a_defect_is_not_blamed_on_the_environment(run, stage, monkeypatch):
    stage("table", _raise(RuntimeError("a defect")))
    monkeypatch.setattr(sys, "argv", ["xkd", "table", "--params", MINIATURE, "--out", "x"])
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main()


def test_torch_packages_that_do_not_fit_are_one_line(run, stage, monkeypatch):
    real = torch_fit.importlib.import_module

    def broken(name):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nmore")
        return real(name)

    stage("table", _raise(RuntimeError("operator torchvision::nms does not exist")))
    monkeypatch.setattr(torch_fit, "importlib", SimpleNamespace(import_module=broken))
    done = run("table", "--params", MINIATURE, "--out", "x")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert "torchvision cannot be imported" in done.err
    assert "pip install" in done.err

"""The command line as a user sees it: help, one-line errors, exit codes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from xkd import __version__, cli, progress, torch_fit
from xkd.cli import command, invocation
from xkd.errors import UserError

ROOT = Path(__file__).parents[1]
MINIATURE = str(ROOT / "workflow" / "presets" / "miniature.yaml")
STAGES = ("download", "prepare", "pretrain", "evaluate", "table")
VERBS = sorted(cli.cli.commands)
COMMANDS = (ROOT / "docs" / "commands.md").read_text()


@pytest.fixture
def run(monkeypatch, capsys):
    """Returns a function that calls the command line; it returns exit code, standard output and standard error."""

    def call(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["xkd", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        shown = capsys.readouterr()
        return SimpleNamespace(code=stopped.value.code or 0, out=shown.out, err=shown.err)

    return call


@pytest.fixture
def stage(monkeypatch):
    """Returns a function that replaces a stage."""

    def replace(name, function):
        monkeypatch.setitem(sys.modules, f"xkd.stages.{name}", SimpleNamespace(run=function))

    return replace


@pytest.fixture
def calls(monkeypatch):
    """Collects the calls of stages instead of running them."""
    seen = []
    monkeypatch.setattr(invocation, "call_stage", lambda stage, **arguments: seen.append((stage, arguments)))
    return seen


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(run, verb):
    done = run(verb, "--help")
    assert done.code == 0
    assert f"Usage: xkd {verb}" in done.out
    assert "Examples:\n    " in done.out.split("Options:")[1]
    listed = re.search(rf"^  {verb} +(.*)$", run("--help").out, re.MULTILINE)
    assert listed
    assert not listed[1].endswith("..."), "shorten the first line; move the rest to a second paragraph"


def test_every_verb_stands_in_one_section():
    listed = [verb for verbs in command.SECTIONS.values() for verb in verbs]
    assert len(listed) == len(set(listed))
    assert set(VERBS) <= set(listed)


def _commands(text: str) -> list[list[str]]:
    """Returns the arguments of each call of xkd in a text; a backslash continues a line."""
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    calls = [re.sub(r"^(\w+=\S+ )+", "", line) for line in lines]
    return [shlex.split(line, comments=True)[1:] for line in calls if line.startswith("xkd ")]


def _try(run, arguments: list[str], calls: list) -> None:
    """Checks that a command is accepted as it is, with names that exist in params.yaml."""
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    assert run(*arguments).code == 0, arguments
    for _, values in calls:
        if "params" in values:
            assert (values.get("ablation") or "xkd") in values["params"].ablations
            assert values.get("dataset", "talking_digits") in values["params"].datasets
            assert values.get("task", "linear") in values["params"].tasks


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("schema", "completion")])
def test_examples_work(run, calls, monkeypatch, verb):
    monkeypatch.chdir(ROOT)
    examples = _commands(cli.cli.commands[verb].epilog)
    assert examples
    for arguments in examples:
        assert arguments[0] == verb
        _try(run, arguments, calls)
    assert calls


def test_the_page_of_commands_has_a_section_with_an_example_that_works_for_every_verb(
    run, calls, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    sections = {part.splitlines()[0].strip("` "): part for part in COMMANDS.split("\n## ")[1:]}
    for verb in VERBS:
        blocks = "".join(re.findall(r"```console\n(.*?)```", sections[f"xkd {verb}"], re.DOTALL))
        assert [verb] == sorted({arguments[0] for arguments in _commands(blocks)})
        for arguments in _commands(blocks):
            _try(run, arguments, calls)


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


TABLE = ("table", "--params", MINIATURE, "--out", "x")


def test_exit_codes_of_what_a_stage_raises(run, stage):
    stage("table", _raise(UserError("first\n  second")))
    done = run(*TABLE)
    assert (done.code, done.err) == (2, "xkd: error: first second\n")
    stage("table", _raise(KeyboardInterrupt()))
    assert run(*TABLE).code == 130
    stage("table", _raise(PermissionError(13, "Permission denied", "/x/y")))
    done = run(*TABLE)
    assert (done.code, done.err) == (2, "xkd: error: /x/y: Permission denied\n")
    stage("table", _raise(MemoryError("too much")))
    assert run(*TABLE).code == 2


@pytest.mark.parametrize("error", [ZeroDivisionError("oh no"), RuntimeError("oh no"), FileNotFoundError(2, "oh no")])
def test_a_defect_is_one_line_that_says_how_to_see_more(run, stage, error):
    stage("table", _raise(error))
    done = run(*TABLE)
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert all(words in done.err for words in ("a defect in xkd", type(error).__name__, "oh no", "--debug"))


def test_tracebacks_with_debug_and_of_defects_in_the_logs_of_the_workflow(run, stage, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for error, how in ((ZeroDivisionError("oh no"), "1 or defects"), (UserError("oh no"), "1")):
        stage("table", _raise(error))
        for place in (("--debug", *TABLE), (*TABLE, "--debug")):
            os.environ.pop("XKD_DEBUG", None)
            assert "Traceback" in run(*place).err
        for value in ("0", "1", "defects"):
            os.environ["XKD_DEBUG"] = value
            shown = run(*TABLE).err
            assert ("Traceback" in shown) == (value in how)
            assert shown.splitlines()[-1].startswith("xkd: error: ")


def test_quiet_and_verbose_before_and_after_the_verb(run, stage, tmp_path):
    def work(params, out):
        progress.say("a remark")
        print("a result")
        (out / "table.csv").write_text("1234")

    stage("table", work)
    call = ("table", "--params", MINIATURE, "--out", str(tmp_path))
    assert (run(*call).err, run("--quiet", *call).err, run(*call, "-q").err) == ("a remark\n", "", "")
    assert run("-q", *call).out == "a result\n"
    for place in (("-v", *call), (*call, "--verbose")):
        shown = run(*place).err
        assert re.search(r"table: \d+\.\d s to load, \d+\.\d s to run", shown)
        assert f"wrote {tmp_path / 'table.csv'} (4 bytes)" in shown
    done = run("--quiet", *call, "--verbose")
    assert (done.code, len(done.err.splitlines())) == (2, 1)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_and_how_to_install_it(run, shell):
    shown = run("completion", shell).out.splitlines()
    assert shown[0].startswith("# ")
    assert f"xkd completion {shell}" in shown[0]
    assert any("_XKD_COMPLETE" in line for line in shown)


def test_the_script_for_bash_can_be_read_by_bash(run):
    script = run("completion", "bash").out
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("pre", ["prepare", "pretrain"]),
        ("evaluate --ta", ["--task"]),
        (f"pretrain --params {MINIATURE} --ablation ", ["ae", "xkd"]),
        (f"evaluate --params {MINIATURE} --task f", ["finetune"]),
        ("pretrain --params none.yaml --ablation ", []),
    ],
)
def test_completion_knows_verbs_options_and_names_of_the_settings(run, monkeypatch, words, completed):
    monkeypatch.setenv("_XKD_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"xkd {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(f"xkd {words}".split(" ")) - 1))
    assert [line.split(",")[1] for line in run().out.splitlines() if line] == completed


def test_torch_packages_that_do_not_fit_together_give_one_line(run, stage, monkeypatch):
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
